"""Commands and answers as JSON lines on standard input and output.

A command is {"id": n, "do": name, ...}; its answer is {"id": n, "ok": result} or {"id": n, "error": text}.
Commands run side by side. The process ends with its standard input, whatever else runs in it.
"""

import json
import os
import sys
import threading
import traceback


def serve(commands):
    """Answers commands, given as a map from name to function, until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    one_at_a_time = threading.Lock()

    def answer(**fields):
        with one_at_a_time:
            answers.write(json.dumps(fields) + "\n")
            answers.flush()

    def run(command):
        number, name = command.pop("id"), command.pop("do")
        try:
            answer(id=number, ok=commands[name](**command))
        except BaseException as error:
            traceback.print_exc()
            answer(id=number, error=f"{type(error).__name__}: {error}")

    for line in sys.stdin:
        threading.Thread(target=run, args=(json.loads(line),), daemon=True).start()
    os._exit(0)
