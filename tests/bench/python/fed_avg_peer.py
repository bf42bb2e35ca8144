"""The same job of federated averaging under nvflare: arrays of float32 to which every site adds 1.

`fed_avg_peer.py ENV SITES BYTES ROUNDS FOLDER`, where ENV is `sim` for nvflare's simulator and `poc` for processes of
its own for server and sites. Prints seconds from the call to the result, and those between the rounds, as JSON.
"""

import contextlib
import glob
import json
import os
import sys
import time

SITE = """
import os
import time

import nvflare.client as flare

flare.init()
while flare.is_running():
    model = flare.receive()
    if model is None:
        break
    with open(os.path.join({folder!r}, f"{{os.getpid()}}.begun"), "a") as trace:
        trace.write(f"{{model.current_round}} {{time.time()}}\\n")
    params = {{name: array + 1 for name, array in model.params.items()}}
    flare.send(flare.FLModel(params=params, params_type=flare.ParamsType.FULL, current_round=model.current_round))
"""


def main(env, sites, size, rounds, folder):
    import numpy as np

    from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
    from nvflare.recipe import PocEnv, SimEnv

    model = os.path.join(folder, "model.npy")
    np.save(model, np.zeros(size // 4, dtype=np.float32))
    script = os.path.join(folder, "site.py")
    with open(script, "w") as file:
        file.write(SITE.format(folder=folder))
    begin = time.time()
    recipe = NumpyFedAvgRecipe(
        name="bench",
        min_clients=sites,
        num_rounds=rounds,
        initial_ckpt=model,
        train_script=script,
        train_args="",
    )
    where = SimEnv(num_clients=sites, workspace_root=os.path.join(folder, "sim"))
    if env == "poc":
        where = PocEnv(num_clients=sites)
    run = recipe.execute(where)
    run.get_result(timeout=900) if env == "poc" else run.get_result()
    seconds = time.time() - begin
    status = str(run.get_status())
    if env == "poc":
        with contextlib.suppress(Exception):
            where.stop()
    begun = {}
    for path in glob.glob(os.path.join(folder, "*.begun")):
        with open(path) as trace:
            for line in trace:
                number, at = line.split()
                begun[int(number)] = min(float(at), begun.get(int(number), float("inf")))
    starts = [begun[number] for number in sorted(begun)]
    between = [later - earlier for earlier, later in zip(starts, starts[1:])]
    return {"seconds": seconds, "rounds": between, "status": status}


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w")
    with open(os.path.join(sys.argv[5], "said.log"), "w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        told = main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    answer.write(json.dumps(told) + "\n")
    answer.flush()
    os._exit(0)
