
import numpy as np
import nvflare.client as flare
def main():
    flare.init()
    name = flare.get_site_name()
    while flare.is_running():
        m = flare.receive()
        w = m.params["numpy_key"] if "numpy_key" in m.params else m.params
        add = 1.0 if name.endswith("1") else 10.0
        n = 7 if name.endswith("1") else 3
        flare.send(flare.FLModel(params={"numpy_key": w + add}, params_type="FULL", metrics={"weight_mean": float(np.mean(w))}, meta={"NUM_STEPS_CURRENT_ROUND": n}))
main()
