//! Runs training scripts that were written for nvflare's Client API, each in an interpreter of its own.
//!
//! A script that calls `flare.init()`, `flare.receive()` and `flare.send()` runs unchanged: the site starts its
//! interpreter, which has nvflare, and speaks with it through nvflare's external-process protocol, over a cell that
//! listens on the loopback interface and is linked to nothing else. One that imports `locule.client` instead needs
//! no nvflare: that package, in the folder `python` of this crate, is carried along, and speaks in lines of JSON.
//! This crate embeds no Python, brings none, and trains nothing. Nothing of the site's own is handed to a script: no token, no key, no environment but what its
//! operator lists; and where the kernel has Landlock, it reaches no files but those that it needs.
//!
//! [`ClientAPIExecutor`] is the component, under nvflare's name. It is built where the program has provided a
//! [`ScriptHost`], which says how the program starts itself again to call [`serve`](serve()):
//!
//! ```
//! use locule_component::{Kind, Registry};
//! use locule_python::{ClientAPIExecutor, ScriptHost};
//!
//! let mut registry = Registry::new();
//! locule_python::register(&mut registry);
//! registry.provide("scripts", ScriptHost {
//!     program: std::env::current_exe()?,
//!     args: vec!["script".into()], // upon which it calls `locule_python::serve`
//!     search_path: "/usr/bin".into(),
//!     variable: |_| None,
//!     given: Vec::new(),
//! });
//! let name = "nvflare.app_common.executors.client_api_executor.ClientAPIExecutor";
//! assert_eq!(registry.describe(name).map(|about| about.kind), Some(Kind::Executor));
//! let args = serde_json::json!({ "execution_mode": "in_process", "task_script_pth": "train.py" });
//! assert_eq!(registry.check_args(name, args).len(), 1, "the misspelt argument");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Start with [`ClientAPIExecutorArgs`], [`PythonSettings`] and [`ScriptHost`].

mod args;
mod child;
mod executor;
mod interpreter;
mod metrics;
mod native;
mod parcel;
mod serve;
mod session;
mod settings;

pub use args::{ClientAPIExecutorArgs, CommandWords, ExchangeFormat, ExecutionMode, TransferType};
pub use executor::ClientAPIExecutor;
pub use serve::{NOT_STARTED, ServeError, serve};
pub use settings::{PythonSettings, ScriptHost, SettingsError};

/// Makes the component of this crate known to a registry.
pub fn register(registry: &mut locule_component::Registry) {
    registry.register::<ClientAPIExecutor>();
}
