"""Writes the numpy job of nvflare's recipe API, with `numpy_script.py` as its training script.

    export_recipe.py FOLDER MODEL

MODEL is the array to begin with, as JSON. Prints where the job is.
"""

import json
import os
import sys

from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe

folder = os.path.abspath(sys.argv[1])
told = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print
os.chdir(os.path.dirname(__file__))
recipe = NumpyFedAvgRecipe(
    name="recipe", min_clients=2, num_rounds=3, train_script="numpy_script.py", model=json.loads(sys.argv[2])
)
recipe.export(folder)
told.write(os.path.join(folder, "recipe") + "\n")
told.flush()
