"""Writes nvflare.json: what the filters of nvflare 2.9.0 make of models.

Run it where nvflare 2.9.0 is installed: python make_nvflare.py > nvflare.json
"""

import contextlib
import copy
import json
import sys

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.filters import ExcludeVars, PercentilePrivacy, SVTPrivacy

FILTERS = {"ExcludeVars": ExcludeVars, "PercentilePrivacy": PercentilePrivacy, "SVTPrivacy": SVTPrivacy}


def shown(value):
    if isinstance(value, DXO):
        return shown_dxo(value)
    array = np.asarray(value)
    # As texts: these digits name a float64, and so a float32, exactly, but not every reader of JSON takes them so.
    elements = [repr(float(x)) for x in array.ravel()]
    # Arithmetic of numpy makes a scalar of an array without dimensions; here both are shown alike.
    return {"dtype": str(array.dtype), "shape": list(array.shape), "elements": elements}


def shown_dxo(dxo):
    meta = {key: copy.deepcopy(dxo.meta[key]) for key in sorted(dxo.meta)}
    return {"kind": dxo.data_kind, "data": {key: shown(value) for key, value in dxo.data.items()}, "meta": meta}


def case(name, args, dxo, rc=None):
    before = shown_dxo(dxo)
    shareable = dxo.to_shareable()
    if rc:
        shareable.set_return_code(rc)
    result = FILTERS[name](**args).process(shareable, FLContext())
    return {"filter": name, "args": args, "rc": rc or "OK", "before": before, "after": shown_dxo(from_shareable(result))}


def model(dtype, seed, scale=0.02):
    random = np.random.default_rng(seed)
    shapes = {"layer.w": (3, 4), "layer.b": (4,), "head.w": (2, 2, 2)}
    return {key: (random.standard_normal(shape) * scale).astype(dtype) for key, shape in shapes.items()}


def cases():
    for dtype in ("float32", "float64"):
        for seed, (percentile, gamma, steps) in enumerate(
            [(10, 0.01, None), (50, 0.02, 7), (0, 0.05, 3), (100, 0.01, 1), (33.3, 0.001, 1000), (99.9, 1.0, 11)]
        ):
            meta = {} if steps is None else {"NUM_STEPS_CURRENT_ROUND": steps}
            args = {"percentile": percentile, "gamma": gamma}
            yield case("PercentilePrivacy", args, DXO(DataKind.WEIGHT_DIFF, model(dtype, seed), meta))
    mixed = model("float32", 20) | {"wide": model("float64", 21)["layer.w"]}
    yield case("PercentilePrivacy", {}, DXO(DataKind.WEIGHTS, mixed, {"NUM_STEPS_CURRENT_ROUND": 3}))
    single = model("float32", 22) | {"zero_d": np.array(0.7, dtype="float32")}
    yield case("PercentilePrivacy", {"percentile": 40}, DXO(DataKind.WEIGHTS, single, {"NUM_STEPS_CURRENT_ROUND": 3}))
    whole = {"count": np.arange(-3, 4, dtype="int64"), "w": model("float64", 23)["layer.b"]}
    yield case("PercentilePrivacy", {"gamma": 2.5, "percentile": 60}, DXO(DataKind.WEIGHTS, whole))
    empty = {"none": np.zeros((0, 3), dtype="float32"), "w": model("float32", 24)["layer.b"]}
    yield case("PercentilePrivacy", {"percentile": 50}, DXO(DataKind.WEIGHTS, empty))
    huge = {"w": np.array([3e38, -3e38, 1e-38, 0.0, -0.0], dtype="float32")}
    yield case("PercentilePrivacy", {"percentile": 20, "gamma": 0.5}, DXO(DataKind.WEIGHTS, huge))
    one = {"w": np.array([[0.25]], dtype="float64")}
    yield case("PercentilePrivacy", {"percentile": 75}, DXO(DataKind.WEIGHTS, one))

    for args in ({"exclude_vars": ["layer.b", "absent"]}, {"exclude_vars": "^layer"}, {"exclude_vars": "w"}):
        yield case("ExcludeVars", args, DXO(DataKind.WEIGHTS, model("float32", 30)))
    history = {"filter_history": ["Earlier"], "NUM_STEPS_CURRENT_ROUND": 5}
    yield case("ExcludeVars", {"exclude_vars": ["head.w"]}, DXO(DataKind.WEIGHT_DIFF, model("float64", 31), history))
    kinds = {"exclude_vars": ["head.w"], "data_kinds": ["WEIGHT_DIFF"]}
    yield case("ExcludeVars", kinds, DXO(DataKind.WEIGHTS, model("float32", 32)))
    yield case("ExcludeVars", {"exclude_vars": ["head.w"]}, DXO(DataKind.WEIGHTS, model("float32", 33)), ReturnCode.EXECUTION_EXCEPTION)
    yield case("ExcludeVars", {"exclude_vars": ["head.w"]}, DXO(DataKind.METRICS, {"head.w": np.array([1.0])}))
    collection = {
        "a": DXO(DataKind.WEIGHTS, model("float32", 34)),
        "b": DXO(DataKind.METRICS, {"head.w": np.array([0.5])}),
        "c": DXO(DataKind.COLLECTION, {"d": DXO(DataKind.WEIGHT_DIFF, model("float64", 35))}),
    }
    yield case("ExcludeVars", {"exclude_vars": "head"}, DXO(DataKind.COLLECTION, collection))

    for args in ({}, {"fraction": 0.5, "epsilon_threshold": 0.03}, {"epsilon_release": 2.0, "replace": False}):
        yield case("SVTPrivacy", args, DXO(DataKind.WEIGHT_DIFF, model("float32", 40)))


with contextlib.redirect_stdout(sys.stderr):
    made = list(cases())
print("[\n" + ",\n".join(json.dumps(one) for one in made) + "\n]")
