//! The closed set of classes that payloads may name.

use std::fmt;

/// A known class: one that nvflare receivers accept, by its dotted name.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.utils.fobs.builtin_decomposers`, and the classes that its start-up
/// registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class(&'static Entry);

#[derive(PartialEq, Eq, Hash)]
struct Entry {
    name: &'static str,
    decomposer: &'static str,
    form: Form,
}

/// What the decomposed data of a class looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// A map with `data` (the attributes) and, for subclasses, `dict` or `list`.
    Attributes,
    /// A plain map.
    Items,
    /// The name of a member.
    Member,
    /// The number of a member, or its name from a sender that did not register the class.
    Number,
    /// A list or a tuple of so many parts.
    Parts(usize),
}

impl Class {
    /// Looks a class up by its dotted name.
    pub fn named(name: &str) -> Option<Class> {
        ALL.iter().copied().find(|entry| entry.name == name).map(Class)
    }

    /// The dotted name, such as `nvflare.apis.client.Client`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether its values are members of an enumeration.
    pub fn is_enum(self) -> bool {
        matches!(self.0.form, Form::Member | Form::Number)
    }

    /// The text that a member is to Python, for enumerations whose members are texts.
    pub(crate) fn text_of(self, member: &str) -> Option<&str> {
        if self == Class::JOB_META_KEY {
            return JOB_META_KEYS.iter().find(|(name, _)| *name == member).map(|(_, text)| *text);
        }
        (self == Class::DATA_KIND || self == Class::PARAMS_TYPE).then_some(member)
    }

    pub(crate) fn decomposer(self) -> &'static str {
        self.0.decomposer
    }

    pub(crate) fn form(self) -> Form {
        self.0.form
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Class({})", self.0.name)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

/// Names of the decomposers that write the variants of [`crate::Value`].
pub(crate) mod decomposer {
    pub(crate) const TUPLE: &str = "nvflare.fuel.utils.fobs.decomposers.core_decomposers.TupleDecomposer";
    pub(crate) const SET: &str = "nvflare.fuel.utils.fobs.decomposers.core_decomposers.SetDecomposer";
    pub(crate) const ORDERED_DICT: &str =
        "nvflare.fuel.utils.fobs.decomposers.core_decomposers.OrderedDictDecomposer";
    pub(crate) const DATETIME: &str =
        "nvflare.fuel.utils.fobs.decomposers.core_decomposers.DatetimeDecomposer";
    pub(crate) const DATA_CLASS: &str = "nvflare.fuel.utils.fobs.decomposer.DataClassDecomposer";
    pub(crate) const DICT: &str = "nvflare.fuel.utils.fobs.decomposer.DictDecomposer";
    pub(crate) const ENUM: &str = "nvflare.fuel.utils.fobs.decomposer.EnumTypeDecomposer";
    pub(crate) const NUMPY_ARRAY: &str =
        "nvflare.app_common.decomposers.numpy_decomposers.NumpyArrayDecomposer";
    pub(crate) const FLOAT32: &str =
        "nvflare.app_common.decomposers.numpy_decomposers.Float32ScalarDecomposer";
    pub(crate) const FLOAT64: &str =
        "nvflare.app_common.decomposers.numpy_decomposers.Float64ScalarDecomposer";
    pub(crate) const INT32: &str = "nvflare.app_common.decomposers.numpy_decomposers.Int32ScalarDecomposer";
    pub(crate) const INT64: &str = "nvflare.app_common.decomposers.numpy_decomposers.Int64ScalarDecomposer";
    pub(crate) const TENSOR: &str = "nvflare.app_opt.pt.decomposers.TensorDecomposer";
    pub(crate) const LAZY_DOWNLOAD_REF: &str =
        "nvflare.fuel.utils.fobs.decomposers.via_downloader.LazyDownloadRefDecomposer";
}

/// Names of the classes that have a variant of [`crate::Value`] to themselves.
pub(crate) mod name {
    pub(crate) const TUPLE: &str = "tuple";
    pub(crate) const SET: &str = "set";
    pub(crate) const ORDERED_DICT: &str = "collections.OrderedDict";
    pub(crate) const DATETIME: &str = "datetime.datetime";
    pub(crate) const NUMPY_ARRAY: &str = "numpy.ndarray";
    pub(crate) const FLOAT32: &str = "numpy.float32";
    pub(crate) const FLOAT64: &str = "numpy.float64";
    pub(crate) const INT32: &str = "numpy.int32";
    pub(crate) const INT64: &str = "numpy.int64";
    pub(crate) const DATUM_REF: &str = "nvflare.fuel.utils.fobs.datum.DatumRef";
    pub(crate) const LAZY_DOWNLOAD_REF: &str =
        "nvflare.fuel.utils.fobs.decomposers.via_downloader.LazyDownloadRef";
}

macro_rules! classes {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $decomposer:expr, $form:expr;)+) => {
        impl Class {
            $($(#[$doc])* pub const $constant: Class =
                Class(&Entry { name: $name, decomposer: $decomposer, form: $form });)+
        }
        const ALL: &[&Entry] = &[$(Class::$constant.0),+];
    };
}

classes! {
    /// What tasks and results travel in; see [`crate::Shareable`].
    SHAREABLE = "nvflare.apis.shareable.Shareable", decomposer::DICT, Form::Items;
    /// A data exchange object; see [`crate::Dxo`].
    DXO = "nvflare.apis.dxo.DXO",
        "nvflare.apis.utils.decomposers.flare_decomposers.DXODecomposer", Form::Parts(3);
    /// A context; see [`crate::PeerContext`].
    FL_CONTEXT = "nvflare.apis.fl_context.FLContext",
        "nvflare.apis.utils.decomposers.flare_decomposers.ContextDecomposer", Form::Parts(2);
    /// A message between the parents of server and site: `id`, `topic`, `body`, `headers`.
    ADMIN_MESSAGE = "nvflare.private.admin_defs.Message", decomposer::DATA_CLASS, Form::Attributes;
    /// The kind of a data exchange object.
    DATA_KIND = "nvflare.apis.dxo.DataKind", decomposer::ENUM, Form::Member;
    /// Whether a model's parameters are whole or a difference.
    PARAMS_TYPE = "nvflare.app_common.abstract.fl_model.ParamsType", decomposer::ENUM, Form::Member;
    /// Eight parts: type, parameters, optimizer, metrics, first, current and total rounds, meta.
    FL_MODEL = "nvflare.app_common.abstract.fl_model.FLModel",
        "nvflare.app_common.decomposers.common_decomposers.FLModelDecomposer", Form::Parts(8);
    /// Something that is learned, as a dictionary.
    LEARNABLE = "nvflare.app_common.abstract.learnable.Learnable", decomposer::DICT, Form::Items;
    /// A model that is learned: `weights` and `meta`.
    MODEL_LEARNABLE = "nvflare.app_common.abstract.model.ModelLearnable", decomposer::DICT, Form::Items;
    /// A site as the server lists it.
    CLIENT = "nvflare.apis.client.Client", decomposer::DATA_CLASS, Form::Attributes;
    /// A flag that stops a run.
    SIGNAL = "nvflare.apis.signal.Signal", decomposer::DATA_CLASS, Form::Attributes;
    /// The saved state of a run.
    RUN_SNAPSHOT = "nvflare.apis.fl_snapshot.RunSnapshot", decomposer::DATA_CLASS, Form::Attributes;
    /// Arguments of a command line.
    NAMESPACE = "argparse.Namespace", decomposer::DATA_CLASS, Form::Attributes;
    /// Three parts: root folder, site name, configuration folder.
    WORKSPACE = "nvflare.apis.workspace.Workspace",
        "nvflare.apis.utils.decomposers.flare_decomposers.WorkspaceDecomposer", Form::Parts(3);
    /// A torch tensor with its data: `type` is `native`, `data` a safetensors file with one tensor `t`.
    TENSOR = "torch.Tensor", decomposer::TENSOR, Form::Items;
    /// A datum as an object; see [`crate::Datum`].
    DATUM = "nvflare.fuel.utils.fobs.datum.Datum", decomposer::DATA_CLASS, Form::Attributes;
    /// Facts on a run, as the server keeps them.
    RUN_INFO = "nvflare.private.fed.server.run_info.RunInfo", decomposer::DATA_CLASS, Form::Attributes;
    /// A server's state of service.
    HOT_STATE = "nvflare.private.fed.server.server_state.HotState", decomposer::DATA_CLASS, Form::Attributes;
    /// A recorded property request.
    CTX_PROP_REQ = "nvflare.app_common.widgets.event_recorder._CtxPropReq", decomposer::DATA_CLASS, Form::Attributes;
    /// A recorded event request.
    EVENT_REQ = "nvflare.app_common.widgets.event_recorder._EventReq", decomposer::DATA_CLASS, Form::Attributes;
    /// Recorded event statistics.
    EVENT_STATS = "nvflare.app_common.widgets.event_recorder._EventStats", decomposer::DATA_CLASS, Form::Attributes;
    /// Three parts: low value, high value, count of samples.
    BIN = "nvflare.app_common.abstract.statistics_spec.Bin",
        "nvflare.app_common.statistics.statisitcs_objects_decomposer.BinDecomposer", Form::Parts(3);
    /// Two parts: least and greatest value.
    BIN_RANGE = "nvflare.app_common.abstract.statistics_spec.BinRange",
        "nvflare.app_common.statistics.statisitcs_objects_decomposer.BinRangeDecomposer", Form::Parts(2);
    /// Two parts: name and data type.
    FEATURE = "nvflare.app_common.abstract.statistics_spec.Feature",
        "nvflare.app_common.statistics.statisitcs_objects_decomposer.FeatureDecomposer", Form::Parts(2);
    /// Three parts: type, bins, name.
    HISTOGRAM = "nvflare.app_common.abstract.statistics_spec.Histogram",
        "nvflare.app_common.statistics.statisitcs_objects_decomposer.HistogramDecomposer", Form::Parts(3);
    /// Two parts: name and configuration.
    STATISTIC_CONFIG = "nvflare.app_common.abstract.statistics_spec.StatisticConfig",
        "nvflare.app_common.statistics.statisitcs_objects_decomposer.StatisticConfigDecomposer", Form::Parts(2);
    /// The data type of a feature; an [`crate::Object`] whose data are its number.
    DATA_TYPE = "nvflare.app_common.abstract.statistics_spec.DataType",
        "nvflare.app_common.statistics.statisitcs_objects_decomposer.DataTypeDecomposer", Form::Number;
    /// The type of a histogram; an [`crate::Object`] whose data are its number.
    HISTOGRAM_TYPE = "nvflare.app_common.abstract.statistics_spec.HistogramType",
        "nvflare.app_common.statistics.statisitcs_objects_decomposer.HistogramTypeDecomposer", Form::Number;
    /// The type of a streamed metric.
    ANALYTICS_DATA_TYPE = "nvflare.apis.analytix.AnalyticsDataType", decomposer::ENUM, Form::Member;
    /// The library that a metric was logged through.
    LOG_WRITER_NAME = "nvflare.apis.analytix.LogWriterName", decomposer::ENUM, Form::Member;
    /// A key of a job's meta data.
    JOB_META_KEY = "nvflare.apis.job_def.JobMetaKey", decomposer::ENUM, Form::Member;
    /// How XGBoost splits its data.
    XGBOOST_SPLIT_MODE = "xgboost.core.DataSplitMode", decomposer::ENUM, Form::Member;
    /// An encrypted vector: the vector and its context, both bytes.
    CKKS_VECTOR = "tenseal.CKKSVector", "nvflare.app_opt.he.decomposers.CKKSVectorDecomposer", Form::Parts(2);
    /// Edge devices: what the device is.
    EDGE_DEVICE_INFO = "nvflare.edge.web.models.device_info.DeviceInfo", decomposer::DATA_CLASS, Form::Attributes;
    /// Edge devices: who uses it.
    EDGE_USER_INFO = "nvflare.edge.web.models.user_info.UserInfo", decomposer::DATA_CLASS, Form::Attributes;
    /// Edge devices: what it can do.
    EDGE_CAPABILITIES = "nvflare.edge.web.models.capabilities.Capabilities", decomposer::DATA_CLASS, Form::Attributes;
    /// Edge devices: asks for a job.
    EDGE_JOB_REQUEST = "nvflare.edge.web.models.job_request.JobRequest", decomposer::DATA_CLASS, Form::Attributes;
    /// Edge devices: gives a job.
    EDGE_JOB_RESPONSE = "nvflare.edge.web.models.job_response.JobResponse", decomposer::DATA_CLASS, Form::Attributes;
    /// Edge devices: asks for a task.
    EDGE_TASK_REQUEST = "nvflare.edge.web.models.task_request.TaskRequest", decomposer::DATA_CLASS, Form::Attributes;
    /// Edge devices: gives a task.
    EDGE_TASK_RESPONSE = "nvflare.edge.web.models.task_response.TaskResponse", decomposer::DATA_CLASS, Form::Attributes;
    /// Edge devices: asks which devices are chosen.
    EDGE_SELECTION_REQUEST =
        "nvflare.edge.web.models.selection_request.SelectionRequest", decomposer::DATA_CLASS, Form::Attributes;
    /// Edge devices: tells which devices are chosen.
    EDGE_SELECTION_RESPONSE =
        "nvflare.edge.web.models.selection_response.SelectionResponse", decomposer::DATA_CLASS, Form::Attributes;
    /// Edge devices: reports a result.
    EDGE_RESULT_REPORT = "nvflare.edge.web.models.result_report.ResultReport", decomposer::DATA_CLASS, Form::Attributes;
    /// Edge devices: acknowledges a result.
    EDGE_RESULT_RESPONSE =
        "nvflare.edge.web.models.result_response.ResultResponse", decomposer::DATA_CLASS, Form::Attributes;
    /// Edge devices: an error.
    EDGE_ERROR_RESPONSE =
        "nvflare.edge.web.models.error_response.ErrorResponse", decomposer::DATA_CLASS, Form::Attributes;
}

/// Members of `nvflare.apis.job_def.JobMetaKey`, whose names are not their texts.
const JOB_META_KEYS: &[(&str, &str)] = &[
    ("JOB_ID", "job_id"),
    ("JOB_NAME", "name"),
    ("JOB_FOLDER_NAME", "job_folder_name"),
    ("SUBMITTER_NAME", "submitter_name"),
    ("SUBMITTER_ORG", "submitter_org"),
    ("SUBMITTER_ROLE", "submitter_role"),
    ("STATUS", "status"),
    ("DATA_STORAGE_FORMAT", "data_storage_format"),
    ("DEPLOY_MAP", "deploy_map"),
    ("RESOURCE_SPEC", "resource_spec"),
    ("CONTENT_LOCATION", "content_location"),
    ("RESULT_LOCATION", "result_location"),
    ("APPROVALS", "approvals"),
    ("MIN_CLIENTS", "min_clients"),
    ("MANDATORY_CLIENTS", "mandatory_clients"),
    ("SUBMIT_TIME", "submit_time"),
    ("SUBMIT_TIME_ISO", "submit_time_iso"),
    ("START_TIME", "start_time"),
    ("DURATION", "duration"),
    ("JOB_DEPLOY_DETAIL", "job_deploy_detail"),
    ("SCHEDULE_COUNT", "schedule_count"),
    ("SCOPE", "scope"),
    ("CLONED_FROM", "cloned_from"),
    ("LAST_SCHEDULE_TIME", "last_schedule_time"),
    ("SCHEDULE_HISTORY", "schedule_history"),
    ("STATS_POOL_CONFIG", "stats_pool_config"),
    ("CUSTOM_PROPS", "custom_props"),
    ("EDGE_METHOD", "edge_method"),
    ("JOB_CLIENTS", "job_clients"),
    ("STUDY", "study"),
    ("JOB_LAUNCHER_SPEC", "launcher_spec"),
];
