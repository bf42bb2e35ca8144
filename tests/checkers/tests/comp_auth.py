from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError

class ComponentChecker(FLComponent):

    def handle_event(self, event_type: str, fl_ctx: FLContext):
        prop_keys = fl_ctx.get_prop_keys()
        if event_type == EventType.BEFORE_BUILD_COMPONENT:
            print(f"ComponentChecker: fl_ctx props: {prop_keys}")
            comp_config = fl_ctx.get_prop(FLContextKey.COMPONENT_CONFIG)
            print(f"Comp Config: {comp_config}")
            raise UnsafeComponentError("client encountered bad component")
