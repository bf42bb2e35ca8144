use locule_fobs::{Map, PeerContext};

/// Names of the properties that peers tell each other.
///
/// # Source
/// nvflare 2.9.0, `nvflare.apis.fl_constant` (`ReservedKey`).
pub mod prop {
    /// Identifier of the job; empty between the parents of server and site.
    pub const RUN_NUM: &str = "__run_num__";
    /// Who speaks: the site's name, `server`, or for the server's side of a job the project's name.
    pub const IDENTITY: &str = "__identity_name__";
    /// Fully qualified site name: the site's parents and the site.
    pub const FQSN: &str = "__fqsn__";
    /// Whether no site has this one as its parent.
    pub const IS_LEAF: &str = "__is_leaf__";
    /// The site's name, within a job.
    pub const CLIENT_NAME: &str = "__client_name__";
    /// Identifier of the job, within a job.
    pub const CURRENT_JOB_ID: &str = "__current_job_id__";
    /// Ours: which start of the job's half at the server this is; what the one before was asked is lost. A half that says
    /// so counts a result once, however often it is handed in, and gives the same task to who asks again. nvflare's
    /// sites keep it and do nothing with it.
    pub const INSTANCE: &str = "locule_instance";
}

/// What a site without parent sites says of itself: `job_id` within a job, else `None`.
#[must_use]
pub fn site_context(site: &str, job_id: Option<&str>) -> PeerContext {
    let mut context = server_context(site, job_id);
    context.set_public(prop::FQSN, site);
    context.set_public(prop::IS_LEAF, true);
    if let Some(job_id) = job_id {
        context.set_public(prop::CLIENT_NAME, site);
        context.set_public(prop::CURRENT_JOB_ID, job_id);
    }
    context
}

/// What the server says of itself: as `server`, or within a job under the project's name.
#[must_use]
pub fn server_context(identity: &str, job_id: Option<&str>) -> PeerContext {
    let mut context = PeerContext::new();
    context.set_public(prop::RUN_NUM, job_id.unwrap_or_default());
    context.set_public(prop::IDENTITY, identity);
    context
}

/// The public properties of a context as a plain map, the form that auxiliary messages use.
#[must_use]
pub fn to_props(context: &PeerContext) -> Map {
    let public = context.props.iter().filter(|(_, prop)| !prop.private);
    public.map(|(name, prop)| (name.as_str(), prop.value.clone())).collect()
}
