"""A component of nvflare's server that logs, for each registration, what the peer said of itself."""

import json
import logging

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent


class RegisterObserver(FLComponent):
    def handle_event(self, event_type, fl_ctx):
        if event_type != EventType.CLIENT_REGISTER_RECEIVED:
            return
        peer = fl_ctx.get_peer_context()
        name = peer.get_identity_name()
        agent = fl_ctx.get_engine().server.cell.core_cell.agents.get(name)
        if agent is None:
            return  # an administrator, whose cell is called otherwise
        said = {
            "name": name,
            "handshake": agent.endpoint.properties,
            "context": peer.get_all_public_props(),
        }
        logging.getLogger("observer").info("registered: %s", json.dumps(said, default=str))
