import sys

import nvflare.client as flare


def main():
    diff = "--diff" in sys.argv
    flare.init()
    first = flare.get_site_name() == "site-1"
    factor, offset, steps = (0.9, 0.1, 7) if first else (1.1, -0.2, 3)
    while flare.is_running():
        model = flare.receive()
        w = model.params["numpy_key"]
        new = w * factor + offset
        accuracy = [0.5, 0.6, 0.55, 0.9, 0.95][model.current_round] + (0.0 if first else 0.05)
        metrics = {"accuracy": accuracy, "epochs": 2, "converged": not first, "note": "good"}
        flare.send(
            flare.FLModel(
                params={"numpy_key": new - w if diff else new},
                params_type="DIFF" if diff else "FULL",
                metrics=metrics,
                meta={"NUM_STEPS_CURRENT_ROUND": steps},
            )
        )


main()
