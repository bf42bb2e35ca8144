//! Executors that run Python scripts, which cannot be had here.

use locule_component::{BuildCx, BuildError, Built, Component, Kind};
use serde::{Deserialize, Deserializer, de};

/// Runs a Python training script at nvflare's sites. Here it is a refusal that says so, whatever its arguments.
///
/// A server of Locule runs such jobs with stock sites: only the site's half of a job names this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAPIExecutor {}

impl<'de> Deserialize<'de> for ClientAPIExecutor {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<ClientAPIExecutor, D::Error> {
        Err(de::Error::custom("this site cannot run Python scripts yet"))
    }
}

impl Component for ClientAPIExecutor {
    const KIND: Kind = Kind::Executor;
    const NAME: &'static str = "nvflare.app_common.executors.client_api_executor.ClientAPIExecutor";
    type Args = ClientAPIExecutor;

    fn build(args: ClientAPIExecutor, _: &BuildCx<'_>) -> Result<Built, BuildError> {
        match args {}
    }
}
