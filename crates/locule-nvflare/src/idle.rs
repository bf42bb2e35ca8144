//! Components that have nothing to do here, or nearly so.

use std::path::PathBuf;

use locule_component::{BuildCx, BuildError, Built, Component, Event, EventCx, Kind, ObserveError, Observer};
use serde::Deserialize;

use crate::run_file::{self, RunFile};

/// Sends local events to the other side of the job at nvflare. Nothing here fires events that go there, so it only
/// checks its arguments.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.widgets.convert_to_fed_event`.
#[derive(Debug)]
pub struct ConvertToFedEvent;

/// Arguments of [`ConvertToFedEvent`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConvertToFedEventArgs {
    /// Names of events.
    pub events_to_convert: Vec<String>,
    /// What their names begin with at the other side.
    #[serde(default = "fed")]
    pub fed_event_prefix: String,
}

fn fed() -> String {
    "fed.".to_owned()
}

impl Component for ConvertToFedEvent {
    const KIND: Kind = Kind::Observer;
    const NAME: &'static str = "nvflare.app_common.widgets.convert_to_fed_event.ConvertToFedEvent";
    type Args = ConvertToFedEventArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: ConvertToFedEventArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        tracing::info!(job = cx.job_id, component = cx.id, events = ?args.events_to_convert, "nothing to do here");
        Ok(Built::Observer(Box::new(ConvertToFedEvent)))
    }
}

impl Observer for ConvertToFedEvent {
    fn observe(&self, _: &Event<'_>, _: &EventCx<'_>) -> Result<(), ObserveError> {
        Ok(())
    }
}

/// Writes what sites found of each other's models, as JSON, when the run ends. The file holds what
/// [`CrossSiteModelEval`](crate::CrossSiteModelEval) wrote to `cross_site_val/cross_val_results.json`, and an empty
/// object where there was none, as nvflare's does then.
///
/// # Source
/// nvflare 2.9.0, `nvflare.app_common.widgets.validation_json_generator`.
#[derive(Debug)]
pub struct ValidationJsonGenerator {
    file: RunFile,
    run_dir: PathBuf,
}

/// Arguments of [`ValidationJsonGenerator`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ValidationJsonGeneratorArgs {
    /// Folder of the file, in the run's.
    pub results_dir: String,
    /// Name of the file.
    pub json_file_name: String,
}

impl Default for ValidationJsonGeneratorArgs {
    fn default() -> ValidationJsonGeneratorArgs {
        let (results_dir, json_file_name) =
            ("cross_site_val".to_owned(), "cross_val_results.json".to_owned());
        ValidationJsonGeneratorArgs { results_dir, json_file_name }
    }
}

impl Component for ValidationJsonGenerator {
    const KIND: Kind = Kind::Observer;
    const NAME: &'static str = "nvflare.app_common.widgets.validation_json_generator.ValidationJsonGenerator";
    type Args = ValidationJsonGeneratorArgs;

    fn schema() -> Option<locule_component::Schema> {
        Some(locule_component::args_schema::<Self::Args>())
    }

    fn build(args: ValidationJsonGeneratorArgs, cx: &BuildCx<'_>) -> Result<Built, BuildError> {
        let file = RunFile::new(&args.results_dir, &args.json_file_name, "json_file_name")?;
        Ok(Built::Observer(Box::new(ValidationJsonGenerator { file, run_dir: run_file::run_dir(cx) })))
    }
}

impl Observer for ValidationJsonGenerator {
    fn observe(&self, event: &Event<'_>, _: &EventCx<'_>) -> Result<(), ObserveError> {
        if *event == Event::EndRun {
            let found = std::fs::read(self.run_dir.join("cross_site_val/cross_val_results.json"));
            let found = found.unwrap_or_else(|_| b"{}".to_vec());
            self.file.write(&self.run_dir, &found).map_err(|(path, error)| {
                ObserveError::Failed(format!("cannot write {}: {error}", path.display()))
            })?;
        }
        Ok(())
    }
}
