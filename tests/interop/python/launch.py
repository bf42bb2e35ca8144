"""Runs a stock program that must not outlive whoever started this.

    launch.py [--stay] PROGRAM ARGUMENT...

When standard input ends, or the program does, everything that the program started is killed: a job's process
too, though it has a session of its own. With --stay, what the program left behind may end by itself first.
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


def wait_for_descendants(ended):
    while not ended.wait(0.1) and (children := psutil.Process().children()):
        psutil.wait_procs(children, timeout=0)


def end_with_standard_input(program, ended):
    while os.read(0, 4096):
        pass
    ended.set()
    program.kill()


prctl(PR_SET_CHILD_SUBREAPER, 1)  # what the program leaves behind becomes ours
stays = sys.argv[1] == "--stay"
program = subprocess.Popen(
    sys.argv[1 + stays :],
    stdin=subprocess.DEVNULL,
    start_new_session=True,
    preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
)
ended = threading.Event()
threading.Thread(target=end_with_standard_input, args=(program, ended), daemon=True).start()
code = program.wait()
if stays:
    wait_for_descendants(ended)
kill_descendants()
os._exit(code if code >= 0 else 128 - code)  # whatever the other thread waits for
