"""A training script of nvflare's Client API, which adds a number of its site's to the model."""

import nvflare.client as flare

DELTAS = {"site-1": 0.1, "site-2": 0.7}

flare.init()
delta = DELTAS[flare.get_site_name()]
while flare.is_running():
    model = flare.receive()
    if model is None:
        break
    params = {name: array + delta for name, array in model.params.items()}
    flare.send(flare.FLModel(params=params, params_type="FULL", meta={"NUM_STEPS_CURRENT_ROUND": 1}))
