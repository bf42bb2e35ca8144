"""Real cells of nvflare, driven by JSON lines.

A payload in a command is null, {"size": n} for n bytes of a pattern, {"bytes": base64}, {"fobs": base64} for the
value that these bytes of FOBS hold, or {"arrays": {name: [dtype, shape]}} for a map of counting arrays. A payload
in an answer is null, {"bytes": digest} or {"fobs": digest} with the bytes that FOBS makes of the value outside of
any cell; a digest is {"size", "sha256", "pattern", "base64"}: whether it is the pattern, and small
contents; that of a map of arrays also has {name: sha256 of the data} as "sums".

Each cell answers these topics on the channels CHANNELS:

    echo     the payload, with the header `mark` of the request
    dumps    the payload in FOBS, made outside of any cell, as bytes
    size     as many bytes as the header `size` says
    arrays   counting arrays as the header `arrays` (JSON) says
    refuse   code invalid_request, error "not today"
    fail     raises
    silent   never
    note     nothing; the payload is kept for the command `noted`
"""

import base64
import collections
import hashlib
import json
import threading
import time

import numpy

from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.decomposers import common_decomposers
from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.f3.message import Message
from nvflare.fuel.utils import fobs

import lines

CHANNELS = ["task", "aux_communication"]
BLOBS = ("interop_blobs", "note")
PATTERN = bytes(range(251))
SHOWN = 1 << 20

cells = {}
notes = collections.deque()
noted = threading.Condition()


def pattern(size):
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


def counting(arrays):
    def array(dtype, shape):
        return numpy.arange(int(numpy.prod(shape)), dtype=dtype).reshape(shape)

    return {name: array(*what) for name, what in arrays.items()}


def payload_in(said):
    if said is None:
        return None
    (kind, what), = said.items()
    make = {
        "size": pattern,
        "bytes": base64.b64decode,
        "fobs": lambda text: fobs.loads(base64.b64decode(text)),
        "arrays": counting,
    }
    return make[kind](what)


def payload_out(payload):
    if payload is None:
        return None
    if isinstance(payload, list) and all(isinstance(part, memoryview) for part in payload):
        payload = b"".join(payload)
    if isinstance(payload, (bytes, bytearray, memoryview)):
        kind, content = "bytes", bytes(payload)
    else:
        kind, content = "fobs", fobs.dumps(payload)
    digest = {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "pattern": content == pattern(len(content)),
    }
    if isinstance(payload, dict):
        arrays = {name: array for name, array in payload.items() if isinstance(array, numpy.ndarray)}
        digest["sums"] = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    if len(content) <= SHOWN:
        digest["base64"] = base64.b64encode(content).decode()
    return {kind: digest}


def reply_out(reply):
    return {
        "code": reply.get_header(MessageHeaderKey.RETURN_CODE),
        "error": reply.get_header(MessageHeaderKey.ERROR),
        "mark": reply.get_header("mark"),
        "payload": payload_out(reply.payload),
    }


def message(said, headers):
    return Message(dict(headers), payload_in(said))


# What the cells answer.


def echo(request):
    return Message({"mark": request.get_header("mark")}, request.payload)


def dumps(request):
    return Message({}, fobs.dumps(request.payload))


def size(request):
    return Message({}, pattern(request.get_header("size")))


def arrays(request):
    return Message({}, counting(json.loads(request.get_header("arrays"))))


def refuse(_request):
    return make_reply(ReturnCode.INVALID_REQUEST, "not today")


def fail(_request):
    raise RuntimeError("boom")


def silent(_request):
    return None


def note(request):
    keep(request.get_header(MessageHeaderKey.ORIGIN), request.payload)
    return Message({})


def note_blob(future):
    keep(future.headers[MessageHeaderKey.ORIGIN], future.result())


def keep(origin, payload):
    with noted:
        notes.append({"origin": origin, "payload": payload_out(payload)})
        noted.notify_all()


# Commands.


def start_cell(name, url, secure=False, credentials=None, identity=None, identities=None):
    """Starts a cell; older versions of nvflare take no identities."""
    binding = {"auth_identity": identity, "auth_identity_map": identities} if identity else {}
    cell = Cell(fqcn=name, root_url=url, secure=secure, credentials=credentials or {}, **binding)
    for channel in CHANNELS:
        for handler in [echo, dumps, size, arrays, refuse, fail, silent, note]:
            cell.register_request_cb(channel=channel, topic=handler.__name__, cb=handler)
    cell.register_blob_cb(*BLOBS, note_blob)
    cell.start()
    cells[name] = cell


def stop_cell(name):
    cells.pop(name).stop()


def wait_linked(name, peer, linked=True, timeout=20):
    """Waits until `peer` is a neighbour of the cell, or no longer one."""
    deadline = time.monotonic() + timeout
    while (peer in cells[name].core_cell.agents) != linked:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{peer} is {'not ' if linked else 'still '}a neighbour of {name}")
        time.sleep(0.01)


def handshake(name, peer):
    """What `peer` said of itself when it linked."""
    return cells[name].core_cell.agents[peer].endpoint.properties


def request(name, channel, topic, target, payload=None, headers={}, timeout=20, times=1, secure=False):
    """Sends one request, or several at the same time; the replies."""
    replies = [None] * times

    def ask(index):
        replies[index] = reply_out(
            cells[name].send_request(
                channel=channel,
                topic=topic,
                target=target,
                request=message(payload, headers),
                timeout=timeout,
                secure=secure,
            )
        )

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


def broadcast(name, channel, topic, targets, payload=None, headers={}, timeout=20):
    replies = cells[name].broadcast_request(
        channel=channel, topic=topic, targets=targets, request=message(payload, headers), timeout=timeout
    )
    return {target: reply_out(reply) for target, reply in replies.items()}


def notify(name, channel, topic, targets, payload=None, headers={}, secure=False):
    return cells[name].fire_and_forget(
        channel=channel, topic=topic, targets=targets, message=message(payload, headers), secure=secure
    )


def queue(name, channel, topic, target, payloads):
    """Sends messages in bulk."""
    for payload in payloads:
        cells[name].core_cell.queue_message(channel, topic, target, message(payload, {}))


def send_blob(name, target, payload, timeout=20):
    """Sends a blob that is no request; how many bytes went."""
    future = cells[name].send_blob(*BLOBS, target, message(payload, {}))
    return future.result(timeout)


def wait_noted(count, timeout=20):
    """Waits for notes and forgets them."""
    with noted:
        if not noted.wait_for(lambda: len(notes) >= count, timeout):
            raise TimeoutError(f"{len(notes)} of {count} notes came")
        return [notes.popleft() for _ in range(count)]


flare_decomposers.register()
common_decomposers.register()
lines.serve(
    {
        "start": start_cell,
        "stop": stop_cell,
        "wait_linked": wait_linked,
        "handshake": handshake,
        "request": request,
        "broadcast": broadcast,
        "notify": notify,
        "queue": queue,
        "send_blob": send_blob,
        "noted": wait_noted,
    }
)
