"""A component of a server's half that writes down the metrics that sites send."""

import os

from nvflare.apis.analytix import AnalyticsData
from nvflare.apis.dxo import from_shareable
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReservedKey


class MetricsRecorder(FLComponent):
    def handle_event(self, event_type, fl_ctx):
        if event_type != "fed.analytix_log_stats":
            return
        data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        metric = AnalyticsData.from_dxo(from_shareable(data))
        site = data.get_peer_prop(ReservedKey.IDENTITY_NAME, None)
        workspace = fl_ctx.get_engine().get_workspace()
        run_dir = workspace.get_run_dir(fl_ctx.get_job_id())
        with open(os.path.join(run_dir, "recorded.jsonl"), "a") as file:
            file.write(f"{site} {metric.tag} {metric.data_type} {metric.sender} {metric.step} {metric.value}\n")
