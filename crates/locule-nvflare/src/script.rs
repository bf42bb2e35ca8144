//! Executors that run Python scripts, which cannot be had here.

use std::collections::BTreeMap;

use locule_component::{BuildCx, BuildError, Built, Component, Kind};

/// Runs a Python training script at nvflare's sites. It is known here, so that a server of Locule takes such jobs
/// for stock sites; a site of Locule refuses to build it, with the reason.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.executors.client_api_executor`.
#[derive(Debug)]
pub struct ClientAPIExecutor;

impl Component for ClientAPIExecutor {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "nvflare.app_common.executors.client_api_executor.ClientAPIExecutor";
    type Args = BTreeMap<String, serde_json::Value>;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(_: Self::Args, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        Err(BuildError::Unavailable("this site cannot run Python scripts yet".to_owned()))
    }
}
