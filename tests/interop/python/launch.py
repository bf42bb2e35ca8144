"""Runs a stock program that must not outlive whoever started this.

    launch.py PROGRAM ARGUMENT...

When standard input ends, or the program does, everything that the program started is killed: a job's process
too, though it has a session of its own.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def prctl(option, value):
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def kill_descendants():
    while children := psutil.Process().children(recursive=True):
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                pass
        psutil.wait_procs(children, timeout=5)


def end_with_standard_input(program):
    while os.read(0, 4096):
        pass
    program.kill()


prctl(PR_SET_CHILD_SUBREAPER, 1)  # what the program leaves behind becomes ours
program = subprocess.Popen(
    sys.argv[1:],
    stdin=subprocess.DEVNULL,
    start_new_session=True,
    preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
)
threading.Thread(target=end_with_standard_input, args=(program,), daemon=True).start()
code = program.wait()
kill_descendants()
os._exit(code if code >= 0 else 128 - code)  # whatever the other thread waits for
