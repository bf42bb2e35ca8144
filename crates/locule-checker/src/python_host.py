"""Runs a checker written for nvflare, a component with `handle_event`, over framed JSON on standard input and output.

The first message opens one class of one file, each further one is a whole plan, answered with a verdict on every
component or with `failed`. What the class imports of `nvflare` are the names made below, always: a real nvflare is
never looked at, so that a checker does the same at every site. Needs Python 3.8 and nothing else.
"""

import base64
import importlib
import inspect
import json
import logging
import os
import struct
import sys
import traceback
import types
import uuid

MAX_REQUEST = 64 << 20
MAX_ANSWER = 1 << 20
MAX_TEXT = 4000
BEFORE_BUILD_COMPONENT = "_before_build_component"
REVIEW_KEY = "__locule_review__"


def main():
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What the checker prints goes to the site's log, and it reads nothing.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.dont_write_bytecode = True
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    install_modules()

    checker = None
    while True:
        request = read_frame(requests)
        if request is None:
            break
        try:
            message = json.loads(request)
            if "open" in message and checker is None:
                checker = OpenedChecker(message["open"])
                answer = {"ready": {"about": checker.about}}
            elif "review" in message and checker is not None:
                answer = {"verdicts": checker.review(message["review"])}
            else:
                answer = {"failed": "expected `open` once and then `review`"}
        except BaseException as error:  # a checker's SystemExit is no judgement either
            if not isinstance(error, OpenError):
                traceback.print_exc()
            answer = {"failed": failure_text(error)}
        write_frame(answers, answer)
    sys.stdout.flush()
    os._exit(0)  # whatever threads a checker has left behind


def read_frame(stream):
    head = stream.read(4)
    if not head:
        return None
    length = struct.unpack(">I", head)[0] if len(head) == 4 else MAX_REQUEST + 1
    body = stream.read(length) if length <= MAX_REQUEST else b""
    if len(body) != length:
        sys.exit("a request is cut short or too long")
    return body


def write_frame(stream, answer):
    body = json.dumps(answer).encode("ascii")
    if len(body) > MAX_ANSWER:
        body = json.dumps({"failed": "the verdicts are longer than %d bytes" % MAX_ANSWER}).encode("ascii")
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


class OpenedChecker:
    """One class of one file. Each review gets an instance of its own, so that no job's state reaches another's."""

    def __init__(self, request):
        self.file = request["file"]
        self.args = request.get("args") or {}
        module = load_module(self.file, request.get("source_base64"))
        name = request["class"]
        self.made_by = getattr(module, name, None)
        if not isinstance(self.made_by, type):
            raise OpenError("%s has no class `%s`" % (os.path.basename(self.file), name))
        if not issubclass(self.made_by, FLComponent):
            raise OpenError("the class `%s` does not extend FLComponent" % name)
        self.instance = self.make()
        self.about = "Python %s, %s.%s" % (sys.version.split()[0], module.__name__, name)

    def make(self):
        instance = self.made_by(**self.args)
        method = type(instance).handle_event
        if method is FLComponent.handle_event and not instance.get_event_handlers().get(BEFORE_BUILD_COMPONENT):
            raise OpenError("`%s` does not handle %s" % (type(instance).__name__, BEFORE_BUILD_COMPONENT))
        return instance

    def review(self, review):
        instance, self.instance = self.instance or self.make(), None
        job, site = review.get("job") or {}, review.get("site") or {}
        nodes = document_nodes(review.get("config") or {})
        workspace = Workspace(self.workspace_root(site), site.get("name") or "")
        context = job_context(review, job, site, workspace)
        meta = json.dumps(job_meta(job))

        # In the order of nvflare: as the document has them, a component before those among its arguments.
        order = {steps: place for place, steps in enumerate(nodes)}
        components = sorted(review["components"], key=lambda one: order.get(tuple(one["steps"]), len(order)))
        config = ConfigContext(review.get("config"), context.get_prop(FLContextKey.APP_ROOT))
        verdicts = []
        for component in components:
            node = nodes[tuple(component["steps"])]
            context.put(FLContextKey.JOB_META, json.loads(meta), True, False)
            context.put(FLContextKey.COMPONENT_CONFIG, node.element, True, False)
            context.put(FLContextKey.COMPONENT_NODE, node, True, False)
            context.put(FLContextKey.CONFIG_CTX, config, True, False)
            verdicts.append(judge(instance, component["path"], context))
        return verdicts

    def workspace_root(self, site):
        folder = custom_folder(self.file)
        in_site = os.path.basename(folder) == "custom"
        return site.get("workspace") or (os.path.dirname(os.path.dirname(folder)) if in_site else folder)


class OpenError(Exception):
    """The file or the class cannot be a checker."""


def load_module(file, source):
    folder = custom_folder(file)
    name = os.path.splitext(os.path.relpath(file, folder))[0].replace(os.sep, ".")
    package, _, leaf = name.rpartition(".")
    first = name.partition(".")[0]
    if first in sys.modules or first in getattr(sys, "stdlib_module_names", ()):
        raise OpenError("a checker's file must not be called like a module of Python: `%s`" % first)
    if source is None:
        with open(file, "rb") as stream:
            source = stream.read()
    else:
        source = base64.b64decode(source)
    sys.path.append(folder)
    module = types.ModuleType(name)
    module.__file__, module.__package__ = file, package
    if package:
        setattr(importlib.import_module(package), leaf, module)
    sys.modules[name] = module
    exec(compile(source, file, "exec"), module.__dict__)
    return module


def custom_folder(file):
    """The site's `local/custom`; of a file elsewhere, the folder that it is in."""
    folder = beside = os.path.dirname(os.path.abspath(file))
    while os.path.dirname(folder) != folder:
        if os.path.basename(folder) == "custom" and os.path.basename(os.path.dirname(folder)) == "local":
            return folder
        folder = os.path.dirname(folder)
    return beside


def job_context(review, job, site, workspace):
    """What a job process of nvflare gives its checkers, less what holds credentials."""
    context = FLContext()
    job_id, at_server = job.get("job_id") or "", site.get("side") == "server"
    context.put(FLContextKey.WORKSPACE_OBJECT, workspace, True, True)
    context.put(FLContextKey.CURRENT_JOB_ID, job_id, False, not at_server)
    context.put(FLContextKey.CURRENT_RUN, job_id, False, not at_server)
    context.put(FLContextKey.APP_ROOT, workspace.get_app_dir(job_id), True, True)
    context.put(FLContextKey.WORKSPACE_ROOT, workspace.get_root_dir(), True, True)
    if not at_server:
        context.put(FLContextKey.CLIENT_NAME, workspace.site_name, False, True)
    context.put(REVIEW_KEY, review, True, False)
    return context


def job_meta(job):
    meta = dict(job.get("meta") or {})
    for key in ("job_id", "name", "submitter_name", "submitter_org", "submitter_role", "byoc"):
        if key in job:
            meta.setdefault(key, job[key])
    return meta


def judge(checker, path, context):
    for key, value in (
        (FLContextKey.EVENT_ID, str(uuid.uuid4())),
        (FLContextKey.EVENT_DATA, None),
        (FLContextKey.EVENT_ORIGIN, None),
        (FLContextKey.EVENT_SCOPE, "local"),
    ):
        context.put(key, value, True, False)
    context.remove_prop(FLContextKey.COMPONENT_BUILD_ERROR, force_removal=True)

    refusal = None
    try:
        callbacks = checker.get_event_handlers().get(BEFORE_BUILD_COMPONENT)
        for callback, args in callbacks or [(checker.handle_event, {})]:
            answer = callback(BEFORE_BUILD_COMPONENT, context, **args)
            if inspect.isawaitable(answer) or inspect.isgenerator(answer) or inspect.isasyncgen(answer):
                raise TypeError("an event handler must not be a coroutine or a generator: it would never run")
    except UnsafeComponentError as error:
        refusal = error
    text = context.get_prop(FLContextKey.COMPONENT_BUILD_ERROR)
    if refusal is None and not text:
        return {"component": path, "decision": "allow", "findings": []}
    text = text or str(refusal) or "Unsafe component detected by %s" % checker.name
    code = getattr(refusal, "code", None) or getattr(checker, "code", None)
    public = getattr(refusal, "public", None)
    finding = {
        "code": shortened(code, 64) if isinstance(code, str) else "unsafe-component",
        "message": shortened(text, MAX_TEXT),
        "path": path,
        "public": (getattr(checker, "public", None) if public is None else public) is True,
    }
    return {"component": path, "decision": "deny", "findings": [finding]}


def failure_text(error):
    text = "%s: %s" % (type(error).__name__, error) if not isinstance(error, OpenError) else str(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != main.__code__.co_filename]
    for frame in frames[-4:]:
        text += " < %s:%s in %s" % (os.path.basename(frame.filename), frame.lineno, frame.name)
    return shortened(text, MAX_TEXT)


def shortened(text, limit):
    text = str(text).encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[:limit] + "..."


def document_nodes(document):
    """The elements of a document that hold others, by the steps to them, in the order of nvflare's scan."""
    nodes, todo = {}, [Node(document)]
    while todo:
        node = todo.pop()
        nodes[tuple(node.paths)] = node
        if isinstance(node.element, dict):
            children = [(str(key), 0, value) for key, value in node.element.items()]
        else:
            children = [("#%d" % place, place, value) for place, value in enumerate(node.element, 1)]
        for key, position, value in reversed(children):
            if isinstance(value, (dict, list)):
                todo.append(child_node(node, key, position, value))
    return nodes


def child_node(parent, key, position, element):
    node = Node(element)
    node.parent, node.level, node.key, node.position = parent, parent.level + 1, key, position
    node.paths = parent.paths + [key]
    return node


if __name__ == "__main__":
    main()
