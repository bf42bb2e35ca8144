"""What checkers import of nvflare 2.9.0, made here: names, values and behaviour are its, the text is not.

Stands before `python_host.py`, in one program with it.
"""

import importlib.abc
import logging
import os
import sys
import traceback
import types
from enum import Enum


class Node:
    """Where an element stands in the document."""

    def __init__(self, element):
        self.element = element
        self.parent = None
        self.level = 0
        self.key = ""
        self.position = 0
        self.paths = []
        self.props = {}
        self.processor = None
        self.exit_cb = None

    def path(self):
        return ".".join(self.paths)

    def parent_element(self):
        return self.parent.element if self.parent else None


class ConfigContext:
    """The whole document."""

    def __init__(self, config_json=None, app_root=""):
        self.config_json = config_json
        self.app_root = app_root
        self.vars = None
        self.pass_num = 1


class FLContext:
    """Properties by name, each private or public, sticky or not."""

    def __init__(self):
        self.model = None
        self.props = {}
        self.logger = get_obj_logger(self)

    def get_prop_keys(self):
        return list(self.props)

    def get_prop(self, key, default=None):
        return self.props[key]["value"] if key in self.props else default

    def get_prop_detail(self, key):
        return dict(self.props[key]) if key in self.props else None

    def set_prop(self, key, value, private=True, sticky=True):
        if not isinstance(key, str):
            raise ValueError("prop key must be str, but got %s" % type(key))
        known = self.props.get(key)
        if known and (known["private"], known["sticky"]) != (private, sticky):
            self.logger.warning("the property '%s' has other attributes and keeps its value", key)
            return False
        self.put(key, value, private, sticky)
        return True

    def put(self, key, value, private, sticky):
        self.props[key] = {"value": value, "private": private, "sticky": sticky}

    def remove_prop(self, key, force_removal=False):
        if isinstance(key, str) and (force_removal or not key.startswith("__")):
            self.props.pop(key, None)

    def public_key_exists(self, key):
        return key in self.props and not self.props[key]["private"]

    def get_all_public_props(self):
        return {key: prop["value"] for key, prop in self.props.items() if not prop["private"]}

    def set_public_props(self, metadata):
        self.props = {key: prop for key, prop in self.props.items() if prop["private"]}
        for key, value in metadata.items():
            self.set_prop(key, value, private=False, sticky=False)

    def get_custom_prop(self, key, default=None):
        return (self.get_prop(ReservedKey.CUSTOM_PROPS) or {}).get(key, default)

    def set_custom_prop(self, key, value):
        if not self.get_prop(ReservedKey.CUSTOM_PROPS):
            self.set_prop(ReservedKey.CUSTOM_PROPS, {}, private=True, sticky=False)
        self.get_prop(ReservedKey.CUSTOM_PROPS)[key] = value

    def get_engine(self, default=None):
        return self.get_prop(ReservedKey.ENGINE, default)

    def get_workspace(self):
        return self.get_prop(ReservedKey.WORKSPACE_OBJECT)

    def get_process_type(self, default=None):
        return self.get_prop(ReservedKey.PROCESS_TYPE, default)

    def get_job_id(self, default=None):
        return self.get_prop(ReservedKey.RUN_NUM, default)

    def get_identity_name(self, default=""):
        return self.get_prop(ReservedKey.IDENTITY_NAME, default)

    def get_run_abort_signal(self):
        return self.get_prop(ReservedKey.RUN_ABORT_SIGNAL)

    def get_peer_context(self):
        return self.get_prop(ReservedKey.PEER_CTX)

    def set_peer_context(self, ctx):
        self.put(ReservedKey.PEER_CTX, ctx, True, False)

    def set_job_is_unsafe(self, value=True):
        self.set_prop(ReservedKey.JOB_IS_UNSAFE, value)

    def is_job_unsafe(self):
        return self.get_prop(ReservedKey.JOB_IS_UNSAFE, False)

    def sync_sticky(self):
        pass

    def clone(self):
        other = FLContext()
        other.model, other.props = self.model, dict(self.props)
        return other

    def __str__(self):
        return " ".join("%s: %s" % (key, type(prop["value"])) for key, prop in self.props.items())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class FLComponent:
    """The base of all components. There is no engine here, so that fired events reach nobody."""

    def __init__(self):
        self._self_check()

    def _self_check(self):
        # Not all subclasses call the constructor.
        if "_name" not in self.__dict__:
            self._name = type(self).__name__
        if "logger" not in self.__dict__:
            self.logger = get_obj_logger(self)
        if "_event_handlers" not in self.__dict__:
            self._event_handlers = {}

    @property
    def name(self):
        self._self_check()
        return self._name

    def handle_event(self, event_type, fl_ctx):
        pass

    def register_event_handler(self, event_types, handler, **kwargs):
        self._self_check()
        if isinstance(event_types, str):
            event_types = [event_types]
        if not isinstance(event_types, list):
            raise ValueError("event_types must be string or list of strings but got %s" % type(event_types))
        if not callable(handler):
            raise ValueError("the handler is not callable")
        for event_type in event_types:
            callbacks = self._event_handlers.setdefault(event_type, [])
            if all(known != handler for known, _ in callbacks):
                callbacks.append((handler, kwargs))

    def get_event_handlers(self):
        self._self_check()
        return self._event_handlers

    def fire_event(self, event_type, fl_ctx):
        pass

    def fire_event_with_data(self, event_type, fl_ctx, key, data):
        pass

    def fire_fed_event(self, event_type, event_data, fl_ctx, targets=None):
        pass

    def system_panic(self, reason, fl_ctx):
        # Nobody is there to hear it: a refusal is what comes closest.
        fl_ctx.put(FLContextKey.COMPONENT_BUILD_ERROR, str(reason), True, True)

    def log_debug(self, fl_ctx, msg, fire_event=False):
        self._log(logging.DEBUG, fl_ctx, msg)

    def log_info(self, fl_ctx, msg, fire_event=False):
        self._log(logging.INFO, fl_ctx, msg)

    def log_warning(self, fl_ctx, msg, fire_event=True):
        self._log(logging.WARNING, fl_ctx, msg)

    def log_error(self, fl_ctx, msg, fire_event=True):
        self._log(logging.ERROR, fl_ctx, msg)

    def log_critical(self, fl_ctx, msg, fire_event=True):
        self._log(logging.CRITICAL, fl_ctx, msg)

    def log_exception(self, fl_ctx, msg, fire_event=False):
        self._log(logging.ERROR, fl_ctx, msg + "\n" + traceback.format_exc())

    def _log(self, level, fl_ctx, msg):
        self._self_check()
        if fl_ctx is not None:
            known = (fl_ctx.get_identity_name(), fl_ctx.get_job_id() or "?")
            msg = "[identity=%s, run=%s]: %s" % (known + (msg,))
        self.logger.log(level, "%s", msg)


class Widget(FLComponent):
    """A component that is no executor, controller or filter."""


class Workspace:
    """Where a site keeps its files. Nothing is opened or made."""

    def __init__(self, root_dir, site_name="", config_folder="config"):
        self.root_dir, self.site_name, self.config_folder = root_dir, site_name, config_folder

    def get_root_dir(self):
        return self.root_dir

    def get_startup_kit_dir(self):
        return os.path.join(self.root_dir, "startup")

    def get_site_config_dir(self):
        return os.path.join(self.root_dir, "local")

    def get_site_custom_dir(self):
        return os.path.join(self.get_site_config_dir(), "custom")

    get_client_custom_dir = get_site_custom_dir

    def get_file_path_in_root(self, file_basename):
        return os.path.join(self.root_dir, file_basename)

    def get_file_path_in_startup(self, file_basename):
        return os.path.join(self.get_startup_kit_dir(), file_basename)

    def get_file_path_in_site_config(self, file_basename):
        if isinstance(file_basename, str):
            return os.path.join(self.get_site_config_dir(), file_basename)
        paths = (os.path.join(self.get_site_config_dir(), name) for name in file_basename)
        return next((path for path in paths if os.path.exists(path)), None)

    def get_authorization_file_path(self):
        return self.get_file_path_in_site_config(["authorization.json", "authorization.json.default"])

    def get_resources_file_path(self):
        return self.get_file_path_in_site_config(["resources.json", "resources.json.default"])

    def get_log_config_file_path(self):
        return self.get_file_path_in_site_config(["log_config.json", "log_config.json.default"])

    def get_job_resources_file_path(self):
        return self.get_file_path_in_site_config("job_resources.json")

    def get_site_privacy_file_path(self):
        return self.get_file_path_in_site_config("privacy.json")

    def get_server_startup_file_path(self):
        return self.get_file_path_in_startup("fed_server.json")

    def get_client_startup_file_path(self):
        return self.get_file_path_in_startup("fed_client.json")

    def get_run_dir(self, job_id):
        root = os.path.realpath(self.root_dir)
        path = os.path.realpath(os.path.join(root, str(job_id)))
        if job_id is None or os.path.commonpath([root, path]) != root:
            raise ValueError("there is no run folder of job %r" % (job_id,))
        return path

    def get_app_dir(self, job_id):
        return os.path.join(self.get_run_dir(job_id), "app_" + self.site_name)

    def get_app_config_dir(self, job_id):
        return os.path.join(self.get_app_dir(job_id), self.config_folder)

    def get_app_custom_dir(self, job_id):
        return os.path.join(self.get_app_dir(job_id), "custom")

    def get_server_app_config_file_path(self, job_id):
        return os.path.join(self.get_app_config_dir(job_id), "config_fed_server.json")

    def get_client_app_config_file_path(self, job_id):
        return os.path.join(self.get_app_config_dir(job_id), "config_fed_client.json")

    def get_job_meta_path(self, job_id):
        return os.path.join(self.get_run_dir(job_id), "meta.json")

    def get_log_root(self, job_id=None):
        return self.get_run_dir(job_id) if job_id else self.root_dir

    get_audit_root = get_log_root
    get_result_root = get_run_dir


class UnsafeComponentError(Exception):
    """Raised to refuse a component. `error.public = True` lets the submitter read the text."""


def get_obj_logger(obj):
    made_by = obj if isinstance(obj, type) else type(obj)
    return logging.getLogger("%s.%s" % (made_by.__module__, made_by.__qualname__))


def get_module_logger(module=None, name=None):
    return logging.getLogger(name or module or "checker")


def constants(name, rule, regular, **others):
    """A class of constants: most values follow from their names by a rule."""
    members = {key: rule(key) for key in regular.split()}
    members.update(others)
    return type(name, (), members)


EventType = constants(
    "EventType",
    lambda key: "_" + key.lower(),
    """SYSTEM_START SYSTEM_END ABOUT_TO_START_RUN START_RUN ABOUT_TO_END_RUN END_RUN CHECK_END_RUN_READINESS SWAP_IN
    SWAP_OUT START_WORKFLOW END_WORKFLOW ABORT_TASK FATAL_SYSTEM_ERROR JOB_DEPLOYED JOB_STARTED JOB_COMPLETED
    JOB_ABORTED JOB_CANCELLED CLIENT_DISCONNECTED CLIENT_RECONNECTED BEFORE_PULL_TASK AFTER_PULL_TASK
    BEFORE_PROCESS_TASK_REQUEST AFTER_PROCESS_TASK_REQUEST BEFORE_PROCESS_SUBMISSION AFTER_PROCESS_SUBMISSION
    BEFORE_TASK_DATA_FILTER AFTER_TASK_DATA_FILTER BEFORE_TASK_RESULT_FILTER AFTER_TASK_RESULT_FILTER
    BEFORE_TASK_EXECUTION AFTER_TASK_EXECUTION BEFORE_SEND_TASK_RESULT AFTER_SEND_TASK_RESULT
    BEFORE_PROCESS_RESULT_OF_UNKNOWN_TASK AFTER_PROCESS_RESULT_OF_UNKNOWN_TASK CRITICAL_LOG_AVAILABLE
    ERROR_LOG_AVAILABLE EXCEPTION_LOG_AVAILABLE WARNING_LOG_AVAILABLE INFO_LOG_AVAILABLE DEBUG_LOG_AVAILABLE
    PRE_RUN_RESULT_AVAILABLE BEFORE_CHECK_CLIENT_RESOURCES AFTER_CHECK_CLIENT_RESOURCES SUBMIT_JOB
    DEPLOY_JOB_TO_SERVER DEPLOY_JOB_TO_CLIENT BEFORE_CHECK_RESOURCE_MANAGER BEFORE_SEND_ADMIN_COMMAND
    BEFORE_CLIENT_REGISTER AFTER_CLIENT_REGISTER CLIENT_REGISTER_RECEIVED CLIENT_REGISTER_PROCESSED CLIENT_QUIT
    SYSTEM_BOOTSTRAP BEFORE_CLIENT_HEARTBEAT AFTER_CLIENT_HEARTBEAT CLIENT_HEARTBEAT_RECEIVED
    CLIENT_HEARTBEAT_PROCESSED AUTHORIZE_COMMAND_CHECK BEFORE_BUILD_COMPONENT BEFORE_JOB_LAUNCH AFTER_JOB_LAUNCH
    TASK_RESULT_RECEIVED TASK_ASSIGNMENT_SENT POST_TASK_ASSIGNMENT_SENT POST_TASK_RESULT_RECEIVED""",
)

ReservedKey = constants(
    "ReservedKey",
    lambda key: "__%s__" % key.lower(),
    """MANAGER ENGINE AUX_RUNNER RUN_NUM IDENTITY_NAME FQSN IS_LEAF PEER_CTX RC COOKIE_JAR WORKSPACE_ROOT APP_ROOT
    CLIENT_NAME CLIENT_TYPE TASK_NAME TASK_DATA TASK_RESULT TASK_ID EVENT_ID AUDIT_EVENT_ID IS_RESEND RUNNER
    WORKFLOW REPLY EVENT_ORIGIN EVENT_ORIGIN_SITE EVENT_DATA EVENT_SCOPE RUN_ABORT_SIGNAL RUN_ABORT_REQUESTED
    SHAREABLE SHARED_FL_CONTEXT ARGS WORKSPACE_OBJECT RANK_NUMBER NUM_OF_PROCESSES FROM_RANK_NUMBER SECURE_MODE
    SIMULATE_MODE JOB_INFO JOB_META CURRENT_JOB_ID JOB_RUN_NUMBER JOB_DEPLOY_DETAIL FATAL_SYSTEM_ERROR JOB_IS_UNSAFE
    CUSTOM_PROPS EXCEPTIONS PROCESS_TYPE JOB_PROCESS_ARGS TASK_IS_READY""",
)

FLContextKey = constants(
    "FLContextKey",
    lambda key: "__%s__" % key.lower(),
    """TASK_NAME TASK_DATA TASK_RESULT TASK_ID EVENT_ID EVENT_ORIGIN EVENT_ORIGIN_SITE EVENT_DATA EVENT_SCOPE
    EXCEPTIONS CLIENT_NAME CLIENT_TYPE WORKSPACE_ROOT APP_ROOT RUNNER WORKFLOW SHAREABLE RUN_ABORT_SIGNAL
    RUN_ABORT_REQUESTED ARGS REPLY WORKSPACE_OBJECT RANK_NUMBER NUM_OF_PROCESSES FROM_RANK_NUMBER SECURE_MODE
    SIMULATE_MODE JOB_INFO JOB_META CURRENT_JOB_ID JOB_RUN_NUMBER JOB_DEPLOY_DETAIL CUSTOM_PROPS JOB_SCOPE_NAME
    EFFECTIVE_JOB_SCOPE_NAME SCOPE_OBJECT FATAL_SYSTEM_ERROR SSID COMPONENT_BUILD_ERROR COMPONENT_CONFIG
    COMPONENT_NODE CONFIG_CTX ROOT_URL CLIENT_CONFIG SERVER_CONFIG CLIENT_SITE_CONFIG SERVER_HOST_NAME PROCESS_TYPE
    JOB_PROCESS_ARGS EVENT_PROCESSED CELL_MESSAGE CLIENT_HIERARCHY MIN_GET_TASK_TIMEOUT""",
    CURRENT_RUN="__run_num__",
    PEER_CONTEXT="__peer_ctx__",
    IS_CLIENT_TASK_RESEND="__is_resend__",
    SCOPE_PROPERTIES="__scope_props__",
    COMMUNICATION_ERROR="Flare_communication_error__",
    UNAUTHENTICATED="Flare_unauthenticated__",
    CLIENT_RESOURCE_SPECS="__client_resource_specs",
    RESOURCE_CHECK_RESULT="__resource_check_result",
    JOB_PARTICIPANTS="__job_participants",
    JOB_BLOCK_REASON="__job_block_reason",
    CLIENT_TOKEN="__client_token",
    AUTHORIZATION_RESULT="_authorization_result",
    AUTHORIZATION_REASON="_authorization_reason",
    DISCONNECTED_CLIENT_NAME="_disconnected_client_name",
    RECONNECTED_CLIENT_NAME="_reconnected_client_name",
    SITE_OBJ="_site_obj_",
    JOB_LAUNCHER="_job_launcher",
    SNAPSHOT="job_snapshot",
    CLIENT_REGISTER_DATA="_client_register_data",
    SECURITY_ITEMS="_security_items",
    COMMAND_NAME="_command_name",
    SITE_NAME="__site_name",
    USER_NAME="__user_name",
    USER_ORG="__user_org",
    USER_ROLE="__user_role",
    SUBMITTER_NAME="_submitterName",
    SUBMITTER_ORG="_submitterOrg",
    SUBMITTER_ROLE="_submitterRole",
    FILTER_DIRECTION="__filter_dir__",
    NOT_READY_TO_END_RUN="not_ready_to_end_run__",
)

ReturnCode = constants(
    "ReturnCode",
    str,
    """OK BAD_PEER_CONTEXT BAD_REQUEST_DATA BAD_TASK_DATA COMMUNICATION_ERROR TIMEOUT ERROR EXECUTION_EXCEPTION
    EXECUTION_RESULT_ERROR HANDLER_EXCEPTION MISSING_PEER_CONTEXT RUN_MISMATCH TASK_ABORTED TASK_DATA_FILTER_ERROR
    TASK_RESULT_FILTER_ERROR TASK_UNKNOWN TASK_UNSUPPORTED TOPIC_UNKNOWN MODEL_UNRECOGNIZED VALIDATE_TYPE_UNKNOWN
    EMPTY_RESULT UNSAFE_JOB EARLY_TERMINATION SERVER_NOT_READY SERVICE_UNAVAILABLE""",
)

SystemVarName = constants(
    "SystemVarName",
    str,
    """SITE_NAME WORKSPACE JOB_ID ROOT_URL CP_URL RELAY_URL SECURE_MODE JOB_CUSTOM_DIR JOB_CONFIG_DIR PYTHONPATH""",
)

WorkspaceConstants = constants(
    "WorkspaceConstants",
    str,
    "",
    STARTUP_FOLDER_NAME="startup",
    SITE_FOLDER_NAME="local",
    CUSTOM_FOLDER_NAME="custom",
    LOGGING_CONFIG="log_config.json",
    DEFAULT_LOGGING_CONFIG="log_config.json.default",
    AUDIT_LOG="audit.log",
    LOG_FILE_NAME="log.txt",
    ERROR_LOG_FILE_NAME="error_log.txt",
    STATS_POOL_SUMMARY_FILE_NAME="stats_pool_summary.json",
    STATS_POOL_RECORDS_FILE_NAME="stats_pool_records.csv",
    RESTART_FILE="restart.fl",
    SHUTDOWN_FILE="shutdown.fl",
    WORKSPACE_PREFIX="",
    APP_PREFIX="app_",
    SERVER_STARTUP_CONFIG="fed_server.json",
    CLIENT_STARTUP_CONFIG="fed_client.json",
    ADMIN_STARTUP_CONFIG="fed_admin.json",
    SERVER_APP_CONFIG="config_fed_server.json",
    CLIENT_APP_CONFIG="config_fed_client.json",
    JOB_META_FILE="meta.json",
    AUTHORIZATION_CONFIG="authorization.json",
    DEFAULT_AUTHORIZATION_CONFIG="authorization.json.default",
    RESOURCES_CONFIG="resources.json",
    DEFAULT_RESOURCES_CONFIG="resources.json.default",
    PRIVACY_CONFIG="privacy.json",
    SAMPLE_PRIVACY_CONFIG="privacy.json.sample",
    JOB_RESOURCES_CONFIG="job_resources.json",
    STUDY_REGISTRY_CONFIG="study_registry.json",
    RESOURCE_FILE_NAME_PATTERN="*__resources.json",
    JOB_RESOURCE_FILE_NAME_PATTERN="*__j_resources.json",
    PARENT_RESOURCE_FILE_NAME_PATTERN="*__p_resources.json",
    ENV_VAR_RESULT_ROOT="NVFL_RESULT_ROOT",
    ENV_VAR_LOG_ROOT="NVFL_LOG_ROOT",
    ENV_VAR_AUDIT_ROOT="NVFL_AUDIT_ROOT",
)

JobConstants = constants(
    "JobConstants",
    str,
    "",
    SERVER_JOB_CONFIG="config_fed_server.json",
    CLIENT_JOB_CONFIG="config_fed_client.json",
    META_FILE="meta.json",
    META="meta",
    SITES="sites",
    JOB_IMAGE="image",
    JOB_ID="job_id",
    JOB_LAUNCHER="job_launcher",
)

ProcessType = constants("ProcessType", str, "", SERVER_PARENT="SP", SERVER_JOB="SJ", CLIENT_PARENT="CP", CLIENT_JOB="CJ")
SiteType = constants("SiteType", str.lower, "SERVER SERVER_PARENT CLIENT", ALL="@ALL")
EventScope = constants("EventScope", str.lower, "FEDERATION LOCAL")
SystemConfigs = constants(
    "SystemConfigs",
    str,
    "",
    STARTUP_CONF="start_config",
    RESOURCES_CONF="resources_config",
    APPLICATION_CONF="application_config",
)
LogMessageTag = constants(
    "LogMessageTag",
    lambda key: "log/" + key.lower(),
    "DEBUG ERROR EXCEPTION INFO WARNING CRITICAL",
    LOG_RECORD="log_record",
)

JobMetaKey = Enum(
    "JobMetaKey",
    dict(
        [
            (key, key.lower())
            for key in """JOB_ID JOB_FOLDER_NAME SUBMITTER_NAME SUBMITTER_ORG SUBMITTER_ROLE STATUS DATA_STORAGE_FORMAT DEPLOY_MAP
    RESOURCE_SPEC CONTENT_LOCATION RESULT_LOCATION APPROVALS MIN_CLIENTS MANDATORY_CLIENTS SUBMIT_TIME
    SUBMIT_TIME_ISO START_TIME DURATION JOB_DEPLOY_DETAIL SCHEDULE_COUNT SCOPE CLONED_FROM LAST_SCHEDULE_TIME
    SCHEDULE_HISTORY STATS_POOL_CONFIG CUSTOM_PROPS EDGE_METHOD JOB_CLIENTS STUDY""".split()
        ],
        JOB_NAME="name",
        JOB_LAUNCHER_SPEC="launcher_spec",
    ),
    type=str,
    module="nvflare.apis.job_def",
)


def install_modules():
    """Puts the names above where checkers import them from."""

    def error(name):
        return type(name, (Exception,), {})

    constant_classes = (
        ReservedKey, FLContextKey, ReturnCode, SystemVarName, WorkspaceConstants, JobConstants, ProcessType, SiteType,
        EventScope, SystemConfigs, LogMessageTag,
    )  # fmt: skip
    errors = "UnsafeJobError NotAuthenticated NotAuthorized TaskExecutionError NotReadyToEndRun FLCommunicationError"
    contents = {
        "nvflare.apis.event_type": [EventType],
        "nvflare.apis.fl_component": [FLComponent, EventType, FLContext, FLContextKey, EventScope, LogMessageTag],
        "nvflare.apis.fl_constant": constant_classes,
        "nvflare.apis.fl_context": [FLContext, ReservedKey],
        "nvflare.apis.fl_exception": [UnsafeComponentError] + [error(name) for name in errors.split()],
        "nvflare.apis.job_def": [JobMetaKey],
        "nvflare.apis.workspace": [Workspace],
        "nvflare.fuel.common.excepts": [error("ConfigError"), error("ComponentNotAuthorized")],
        "nvflare.fuel.utils.json_scanner": [Node],
        "nvflare.fuel.utils.log_utils": [get_obj_logger, get_module_logger],
        "nvflare.fuel.utils.wfconf": [ConfigContext],
        "nvflare.security.logging": [secure_format_exception, secure_format_traceback],
        "nvflare.widgets.widget": [Widget],
    }
    for path in sorted(contents):
        module = made_module(path)
        for member in contents[path]:
            setattr(module, member.__name__, member)
            if isinstance(member, type) and member.__module__ in ("__main__", __name__):
                member.__module__ = path
    sys.meta_path.insert(0, OtherModules())


def secure_format_exception(error, fmt=None):
    return "%s: %s" % (type(error).__name__, error)


def secure_format_traceback(fmt=None):
    return traceback.format_exc()


def made_module(path):
    """The module and the packages around it."""
    parent, _, name = path.rpartition(".")
    module = sys.modules.get(path)
    if module is None:
        module = sys.modules[path] = types.ModuleType(path)
        module.__path__ = []
        if parent:
            setattr(made_module(parent), name, module)
    return module


class OtherModules(importlib.abc.MetaPathFinder):
    """Says what is missing, whether or not a real nvflare is installed."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] == "nvflare":
            raise ModuleNotFoundError("a checker at this site cannot import `%s`" % fullname, name=fullname)
