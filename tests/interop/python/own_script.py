"""A training script of Locule's own package, which adds a number of its site's to the model."""

import mmap
import sys

import locule.client as flare
import numpy as np

DELTAS = {"site-1": 0.1, "site-2": 0.7}

flare.init()
delta = DELTAS[flare.get_site_name()]
log = flare.SummaryWriter()
rounds, mapped = 0, True
while flare.is_running():
    model = flare.receive()
    assert flare.is_train(), flare.get_task_name()
    params = {}
    for name, array in model.params.items():
        mapped = mapped and isinstance(array.base, mmap.mmap)
        array += delta  # in place: the map is the script's own
        params[name] = array
    rounds += 1
    log.add_scalar("mean", np.mean([array.mean() for array in params.values()]), global_step=model.current_round)
    flare.send(flare.FLModel(params=params, meta={"NUM_STEPS_CURRENT_ROUND": 1}))
print(f"{rounds} rounds, mapped: {mapped}, nvflare: {'nvflare' in sys.modules}", flush=True)
