"""nvflare's own processing of a site's configuration: read it, ask checkers about each component, build it.

`review_peer.py CONFIG CHECKERS`: for each line of standard input it does so once and prints the seconds that it took.
The classes that the configuration names are in this file.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from argparse import Namespace

from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.workspace import Workspace
from nvflare.fuel.utils.config_service import ConfigService
from nvflare.private.fed.client.client_json_config import ClientJsonConfigurator
from nvflare.private.fed.utils.fed_utils import authorize_build_component


class Part(FLComponent):
    def __init__(self, rate, source, layers):
        super().__init__()
        self.rate, self.source, self.layers = rate, source, layers


class Work(Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        return shareable


def strings(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from strings(one)
    elif isinstance(value, str):
        yield value


RULES = [
    lambda config: config["path"].startswith(("evil.", "pickle.", "os.")),
    lambda config: any(text.startswith("ftp://") for text in strings(config.get("args", {}))),
    lambda config: "filter" in config["path"] and not config["path"].startswith("speed."),
    lambda config: config.get("args", {}).get("rate", 0) > 10,
    lambda config: config.get("byoc", False),
]


class Checker(FLComponent):
    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def handle_event(self, event_type, fl_ctx):
        if event_type == EventType.BEFORE_BUILD_COMPONENT:
            config = fl_ctx.get_prop(FLContextKey.COMPONENT_CONFIG)
            if self.rule(config):
                raise UnsafeComponentError("no")


def process(folder, config, checkers):
    workspace = Workspace(folder, site_name="site-1")
    fl_ctx = FLContext()
    fl_ctx.set_prop(FLContextKey.WORKSPACE_OBJECT, workspace, private=True)
    fl_ctx.set_prop(FLContextKey.CURRENT_JOB_ID, "job", private=False, sticky=False)
    fl_ctx.set_prop(FLContextKey.CURRENT_RUN, "job", private=False, sticky=False)
    args = Namespace(
        sp_scheme="grpc", sp_target="localhost:8002", client_name="site-1", job_id="job", workspace=folder
    )
    conf = ClientJsonConfigurator(workspace, config, args, app_root=folder)
    conf.set_component_build_authorizer(authorize_build_component, fl_ctx=fl_ctx, event_handlers=checkers)
    conf.configure()
    return conf


def main():
    config, checkers = os.path.abspath(sys.argv[1]), [Checker(rule) for rule in RULES[: int(sys.argv[2])]]
    sys.modules["speed"] = sys.modules["__main__"]
    with open(config) as file:
        expected = len(json.load(file)["components"])
    with tempfile.TemporaryDirectory() as folder:
        for name in ("local", "startup", "job"):
            os.makedirs(os.path.join(folder, name))
        with open(os.path.join(folder, "local", "resources.json"), "w") as file:
            json.dump({"format_version": 2, "class_allow_list": ["*"]}, file)
        with open(os.path.join(folder, "job", "meta.json"), "w") as file:
            json.dump({"name": "speed"}, file)
        ConfigService.initialize(section_files={}, config_path=[folder])
        for _ in sys.stdin:
            with contextlib.redirect_stdout(io.StringIO()):
                begin = time.perf_counter()
                conf = process(folder, config, checkers)
                took = time.perf_counter() - begin
            if len(conf.components) != expected:
                sys.exit("%d components were built, not %d" % (len(conf.components), expected))
            print(took, flush=True)


if __name__ == "__main__":
    main()
