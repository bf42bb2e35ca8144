"""A job of nvflare's recipe for linear models of scikit-learn, with TensorBoard, and what comes of it.

    sklearn_recipe.py export FOLDER         writes data and the job; prints where the job is
    sklearn_recipe.py compare FOLDER OURS   runs it in nvflare's simulator; OURS, the run folder of the same job at
                                            our server, must hold the same model, metrics and curves
"""

import glob
import json
import os
import subprocess
import sys

import joblib
import numpy
from nvflare.app_opt.sklearn import SklearnFedAvgRecipe
from nvflare.recipe import add_experiment_tracking, set_per_site_config
from sklearn.datasets import load_breast_cancer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

NAME = "sklearn_linear"
SITES = {"site-1": (100, 250), "site-2": (250, 569)}


def export(folder):
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    order = numpy.random.RandomState(0).permutation(len(labels))
    data = os.path.join(folder, "data.csv")
    numpy.savetxt(data, numpy.c_[labels, features][order], delimiter=",")
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    recipe = SklearnFedAvgRecipe(
        name=NAME,
        min_clients=2,
        num_rounds=4,
        model_params={"classes": 2, "loss": "log_loss", "penalty": "l2", "learning_rate": "constant", "eta0": 1e-3},
        train_script="sklearn_script.py",
        key_metric="AUC",
    )
    rows = {site: f"--data {data} --first {first} --last {last}" for site, (first, last) in SITES.items()}
    set_per_site_config(recipe, {site: {"train_args": words} for site, words in rows.items()})
    add_experiment_tracking(recipe, tracking_type="tensorboard")
    recipe.export(os.path.join(folder, "jobs"))
    told.write(os.path.join(folder, "jobs", NAME) + "\n")
    told.flush()


def simulate(folder):
    words = ["-m", "nvflare.cli", "simulator", os.path.join(folder, "jobs", NAME), "-c", ",".join(SITES), "-t", "2"]
    for attempt in ["first", "second"]:  # nvflare's simulator may wait for ever at its end
        workspace = os.path.join(folder, attempt)
        try:
            subprocess.run([sys.executable, *words, "-w", workspace], timeout=150, check=True, stdout=sys.stderr)
            return os.path.join(workspace, "server", "simulate_job")
        except subprocess.TimeoutExpired:
            pass
    raise SystemExit("nvflare's simulator did not end")


def curves(run):
    found = {}
    for folder in glob.glob(os.path.join(run, "tb_events", "*")):
        events = EventAccumulator(folder)
        events.Reload()
        tags = events.Tags()["scalars"]
        found[os.path.basename(folder)] = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}
    return found


def same(what, theirs, ours):
    if not theirs or theirs != ours:
        raise SystemExit(f"{what}: nvflare has {theirs}, and we have {ours}")


def summary(run):
    with open(os.path.join(run, "metrics", "metrics_summary.json")) as file:
        return json.load(file)


def compare(folder, ours):
    theirs = simulate(folder)
    bits = lambda model: {name: (model[name].dtype.str, model[name].shape, model[name].tobytes()) for name in model}
    model = joblib.load(os.path.join(theirs, "app_server", "model_param.joblib"))
    same("model", bits(model), bits(dict(numpy.load(os.path.join(ours, "model_param.npz")))))
    same("metrics", summary(theirs), summary(ours))
    same("curves", curves(theirs), curves(ours))


{"export": export, "compare": compare}[sys.argv[1]](*sys.argv[2:])
