"""A training script of nvflare's Client API that behaves as its first argument says.

    client_script.py train                     logs metrics and evaluates what it gets; adds 1
    client_script.py fail | exit | hang | linger FILE | flood | bare | masked
"""

import json
import os
import signal
import subprocess
import sys

import nvflare.client as flare
import numpy as np
from nvflare.client.tracking import SummaryWriter

how = sys.argv[1]
if how == "bare":  # what of the machine is in reach
    kit = sys.argv[2]
    seen = {"environment": sorted(os.environ), "cwd": os.getcwd(), "group": os.getpgrp() == os.getpid()}
    seen["files"] = sorted(int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2)[:-1]
    for name in ["startup/client.key", "startup/rootCA.pem", "local/resources.json", "state"]:
        try:
            path = os.path.join(kit, name)
            os.listdir(path) if os.path.isdir(path) else open(path).close()
            seen[name] = "read"
        except OSError as error:
            seen[name] = type(error).__name__
    site = json.load(open(os.environ["NVFLARE_CLIENT_API_BOOTSTRAP"]))["cj_pid"]
    for name in [f"/proc/{site}/environ", f"/proc/{site}/mem", "/etc/shadow"]:
        try:
            open(name).close()
            seen[os.path.basename(name)] = "read"
        except OSError as error:
            seen[os.path.basename(name)] = type(error).__name__
    for path in ["custom/new.py", "config/new.json", "../../new", "new", "/tmp/new"]:
        try:
            open(path, "w").close()
            seen[path] = "written"
        except OSError as error:
            seen[path] = type(error).__name__
    try:
        os.kill(site, signal.SIGUSR1)
        seen["signal"] = "sent"
    except OSError as error:
        seen["signal"] = type(error).__name__
    print("seen:" + json.dumps(seen))
    sys.exit("that was all")
if how == "masked":  # another's token
    told = os.environ["NVFLARE_CLIENT_API_BOOTSTRAP"]
    bootstrap = json.load(open(told))
    bootstrap["launch_token"] = "x" * 64
    os.environ["NVFLARE_CLIENT_API_BOOTSTRAP"] = "bootstrap.json"
    json.dump(bootstrap, open("bootstrap.json", "w"))

flare.init()
writer = SummaryWriter()
while flare.is_running():
    model = flare.receive()
    if how == "fail":
        raise ValueError("no such column: age")
    if how == "exit":
        os._exit(3)
    if how == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "linger":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "3600"])
        with open(sys.argv[2], "w") as told:
            told.write(f"{os.getpid()} {child.pid}\n")
        child.wait()
    if how == "flood":
        block = "x" * 1000 + "\n"
        for _ in range(100_000):
            sys.stdout.write(block)
    if flare.is_evaluate():
        flare.send(flare.FLModel(metrics={"sum": float(np.sum(model.params["numpy_key"]))}))
        continue
    assert flare.is_train() and flare.get_job_id() and flare.get_site_name().startswith("site-")
    params = {name: array + 1 for name, array in model.params.items()}
    writer.add_scalar("loss", 1.0 / (1 + model.current_round), global_step=model.current_round)
    metrics = {"accuracy": float(np.sum(model.params["numpy_key"]))}
    flare.send(flare.FLModel(params=params, metrics=metrics, meta={"NUM_STEPS_CURRENT_ROUND": 2}))
