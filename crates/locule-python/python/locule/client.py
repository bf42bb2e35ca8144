"""What a training script says to its Locule site, with the verbs of nvflare's Client API.

    import locule.client as flare

    flare.init()
    while flare.is_running():
        model = flare.receive()
        ...
        flare.send(flare.FLModel(params=params, metrics={"loss": loss}))

The site that starts the script brings this package along and says where it listens. Words are lines of JSON over the
loopback interface; arrays are in files that are mapped and not copied. numpy is needed as soon as there are arrays.
"""

import json
import math
import mmap
import os
import socket
import threading
import time
from enum import Enum

__all__ = [
    "FLModel", "ParamsType", "SummaryWriter", "clear", "get_config", "get_job_id", "get_site_name", "get_task_name",
    "init", "is_evaluate", "is_running", "is_submit_model", "is_train", "log", "receive", "send", "shutdown",
    "system_info",
]

_ALIGNMENT = 64


class ParamsType(str, Enum):
    """Whether parameters are whole, or what they differ by."""

    FULL = "FULL"
    DIFF = "DIFF"


class FLModel:
    """A model, or what is measured of one, on its way between script and site."""

    def __init__(self, params_type=None, params=None, optimizer_params=None, metrics=None, start_round=0,
                 current_round=None, total_rounds=None, meta=None):
        if params_type is None and params is not None:
            params_type = ParamsType.FULL
        if params_type is not None:
            params_type = ParamsType(params_type)
            if params is None:
                raise ValueError(f"params_type is {params_type.value}, and there are no params")
        for name, value in (("metrics", metrics), ("meta", meta)):
            if value is not None and not isinstance(value, dict):
                raise TypeError(f"{name} must be a dict, not {type(value).__name__}")
        self.params_type = params_type
        self.params = params
        self.optimizer_params = optimizer_params
        self.metrics = metrics
        self.start_round = start_round
        self.current_round = current_round
        self.total_rounds = total_rounds
        self.meta = {} if meta is None else meta

    def __repr__(self):
        params = sorted(self.params) if isinstance(self.params, dict) else type(self.params).__name__
        return (f"FLModel(params={params}, params_type={self.params_type}, metrics={self.metrics}, "
                f"current_round={self.current_round}, total_rounds={self.total_rounds}, meta={self.meta})")


class SummaryWriter:
    """Logs numbers, as TensorBoard's writer of this name does; the site keeps them and tells the server."""

    def add_scalar(self, tag, scalar, global_step=None, **kwargs):
        log(tag, scalar, "SCALAR", global_step=global_step, **kwargs)

    def add_scalars(self, tag, scalars, global_step=None, **kwargs):
        log(tag, scalars, "SCALARS", global_step=global_step, **kwargs)

    def flush(self):
        """Nothing waits here."""


_session = None


def init(rank=None, config_file=None):
    """Greets the site. Must come first; only rank 0 of several processes may call it."""
    global _session
    rank = str(os.environ.get("RANK", "0") if rank is None else rank)
    if rank != "0":
        raise RuntimeError(f"only rank 0 speaks with the site, and this is rank {rank}")
    if _session is None:
        _session = _Session()


def receive(timeout=None):
    """Waits for the next task's model; None when there is none: the run is over, or `timeout` seconds are."""
    return _get().receive(timeout)


def send(model, clear_cache=True):
    """Sends the result of the task that was received last."""
    if not isinstance(model, FLModel):
        raise TypeError(f"expected an FLModel, not {type(model).__name__}")
    _get().send(model)


def is_running():
    """Waits for the next task; False when the run is over."""
    return _get().is_running()


def is_train():
    """Whether the task is to train."""
    return _get().is_task("train")


def is_evaluate():
    """Whether the task is to evaluate."""
    return _get().is_task("evaluate")


def is_submit_model():
    """Whether the task is to hand in a model of the site's own."""
    return _get().is_task("submit_model")


def get_task_name():
    """The name of the task that was received last."""
    return _get().task()["name"]


def get_job_id():
    return _get().told["job_id"]


def get_site_name():
    return _get().told["site_name"]


def get_config():
    """What the job says of the exchange with its scripts."""
    return dict(_get().told)


def system_info():
    told = _get().told
    return {"job_id": told["job_id"], "site_name": told["site_name"]}


def log(key, value, data_type="SCALAR", global_step=None, writer="TORCH_TB", **kwargs):
    """Logs a number, a text, or either by name."""
    name = lambda given: given.name if isinstance(given, Enum) else str(given)  # noqa: E731
    _get().log(str(key), value, name(data_type), global_step, name(writer))
    return True


def clear():
    """Forgets the task that was received last."""
    _get().forget()


def shutdown():
    """Says good-bye to the site."""
    global _session
    if _session is not None:
        _session.close()
        _session = None


def _get():
    if _session is None:
        raise RuntimeError("flare.init() was not called")
    return _session


class _Session:
    def __init__(self):
        where = os.environ.get("LOCULE_SCRIPT")
        if not where:
            raise RuntimeError("LOCULE_SCRIPT is not set: a Locule site starts this script")
        with open(where, encoding="utf-8") as file:
            said = json.load(file)
        self._folder = said["folder"]
        self._stream = socket.create_connection(("127.0.0.1", said["port"]))
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = bytearray()
        self._lock = threading.Lock()
        self._next = None
        self._task = None
        self._base = None
        self._over = False
        self._say({"hello": {"version": 1, "token": said["token"]}})
        answer = self._hear(None) or {}
        if "welcome" not in answer:
            raise RuntimeError(f"the site refuses this script: {answer.get('refused', 'it hung up')}")
        self.told = answer["welcome"]
        threading.Thread(target=self._beat, daemon=True).start()

    def is_running(self):
        self._await(None)
        return self._next is not None

    def receive(self, timeout):
        self._await(timeout)
        if self._next is None:
            return None
        self._task, self._next = self._next, None
        said, file = self._task["model"], self._task["arrays"]
        arrays = self._map(file)
        model = _unpack(said, arrays)
        if self.told["transfer_type"] == "DIFF":  # a map of its own, since scripts may train in place
            self._base = _unpack(said["params"], self._map(file))
        if file:
            os.unlink(os.path.join(self._folder, file))  # what is mapped stays
        return FLModel(**model)

    def send(self, model):
        task = self.task()
        if model.params is None and model.metrics is None:
            raise ValueError("a result needs params or metrics")
        if self.told["train_with_eval"] and self.is_task("train") and model.metrics is None:
            raise RuntimeError("this job wants metrics of the received model with each training result")
        params, params_type = model.params, model.params_type
        if self._base is not None and params is not None and params_type == ParamsType.FULL:
            params, params_type = {name: params[name] - self._base[name] for name in params}, ParamsType.DIFF
        said = {
            "params": params, "params_type": params_type, "metrics": model.metrics, "meta": model.meta,
            "start_round": model.start_round, "current_round": model.current_round,
            "total_rounds": model.total_rounds,
        }
        with _Arrays(os.path.join(self._folder, f"result-{task['id']}.bin")) as arrays:
            said = _pack(said, arrays)
        self._say({"result": {"id": task["id"], "model": said, "arrays": arrays.any}})
        self.forget()

    def task(self):
        if self._task is None:
            raise RuntimeError("there is no task: call flare.receive() first")
        return self._task

    def is_task(self, which):
        return self.task()["name"] == self.told[which + "_task_name"]

    def forget(self):
        self._task = self._base = None

    def log(self, key, value, kind, step, writer):
        step = None if step is None else int(step)
        self._say({"log": {"key": key, "value": _pack(value, None), "type": kind, "step": step, "writer": writer}})

    def close(self):
        self._over = True
        self._stream.close()

    def _await(self, timeout):
        """Reads until there is a task, or the end."""
        until = None if timeout is None else time.monotonic() + timeout
        while self._next is None and not self._over:
            left = None if until is None else max(until - time.monotonic(), 0)
            try:
                said = self._hear(left)
            except socket.timeout:
                return
            if said is None or "end" in said:
                self._over = True
            elif "task" in said:
                self._next = said["task"]

    def _hear(self, timeout):
        """One line; None when the site has hung up."""
        while b"\n" not in self._read:
            self._stream.settimeout(timeout if timeout is None or timeout > 0 else 1e-3)
            try:
                some = self._stream.recv(1 << 16)
            except ConnectionError:
                some = b""
            finally:
                self._stream.settimeout(None)
            if not some:
                return None
            self._read += some
        line, _, rest = bytes(self._read).partition(b"\n")
        self._read = bytearray(rest)
        return json.loads(line)

    def _say(self, what):
        line = json.dumps(what, allow_nan=False, separators=(",", ":")) + "\n"
        with self._lock:
            self._stream.sendall(line.encode())

    def _beat(self):
        while not self._over:
            time.sleep(self.told["heartbeat"])
            try:
                self._say({"beat": None})
            except OSError:
                return

    def _map(self, name):
        if not name:
            return b""
        with open(os.path.join(self._folder, name), "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


class _Arrays:
    """A file of arrays, one NPY after the other, that is made when the first one comes."""

    def __init__(self, path):
        self._path = path
        self._file = None
        self.any = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._file:
            self._file.close()

    def add(self, write):
        if self._file is None:
            self._file = open(self._path, "xb")
            self.any = True
        self._file.write(b"\0" * (-self._file.tell() % _ALIGNMENT))
        start = self._file.tell()
        write(self._file)
        return [start, self._file.tell() - start]


def _pack(value, arrays):
    """A value as JSON: what JSON has no word for is an object with one key that begins with `$`."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise ValueError(f"the number {value} is too large")
        return value
    if isinstance(value, float):
        value = float(value)
        return value if math.isfinite(value) else {"$float": repr(value)}
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu().numpy()
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _pack(item, arrays) for key, item in value.items()}
        return {"$map": [[_pack(key, arrays), _pack(item, arrays)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"$tuple": [_pack(item, arrays) for item in value]}
    if isinstance(value, list):
        return [_pack(item, arrays) for item in value]
    if isinstance(value, (bytes, bytearray)) and arrays is not None:
        return {"$bytes": arrays.add(lambda file: file.write(value))}
    shape = getattr(value, "shape", None)
    if shape == () and (arrays is None or not hasattr(value, "__setitem__")):  # a number of numpy's
        return _pack(value.item(), arrays)
    if shape is not None and hasattr(value, "dtype") and arrays is not None:
        import numpy

        array = numpy.asarray(value)
        return {"$array": arrays.add(lambda file: numpy.lib.format.write_array(file, array, allow_pickle=False))}
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _unpack(value, arrays):
    if isinstance(value, list):
        return [_unpack(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (kind, item), = value.items()
        if kind == "$float":
            return float(item)
        if kind == "$tuple":
            return tuple(_unpack(part, arrays) for part in item)
        if kind == "$map":
            return {_unpack(key, arrays): _unpack(part, arrays) for key, part in item}
        if kind == "$bytes":
            return arrays[item[0]:item[0] + item[1]]
        if kind == "$array":
            return _array(arrays, item[0])
    return {key: _unpack(item, arrays) for key, item in value.items()}


def _array(arrays, start):
    """The array whose NPY begins at `start`: a view of the map."""
    import numpy

    arrays.seek(start)
    version = numpy.lib.format.read_magic(arrays)
    read = numpy.lib.format.read_array_header_1_0 if version == (1, 0) else numpy.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(arrays)
    return numpy.ndarray(shape, dtype, arrays, arrays.tell(), order="F" if fortran else "C")
