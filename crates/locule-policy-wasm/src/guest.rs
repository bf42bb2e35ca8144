use std::fmt;
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use locule_component::{ConfigPath, Decision, Finding, Verdict};
use wasmtime::component::{Component, ComponentType, InstancePre, Lift, Linker, TypedFunc};
use wasmtime::{Config, Engine, Store, StoreLimits, StoreLimitsBuilder};

/// A checker, compiled and ready to judge.
pub struct Guest {
    engine: Engine,
    instance: InstancePre<StoreLimits>,
    limits: GuestLimits,
    len: usize,
}

/// What one review may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestLimits {
    /// From the call to the answer.
    pub time: Duration,
    /// Linear memory, in bytes.
    pub memory: usize,
    /// Roughly one for each instruction; unlike time, it runs out at the same place on every machine.
    pub fuel: u64,
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(2), memory: 64 << 20, fuel: 1_000_000_000 }
    }
}

/// Why a file is no checker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is longer than [`Guest::MAX_LEN`].
    #[error("it has {0} bytes, more than {most}", most = Guest::MAX_LEN)]
    TooLong(usize),
    /// It is not a component in WebAssembly's binary form.
    #[error("it is not a WebAssembly component: {0}")]
    NotAComponent(String),
    /// It imports something.
    #[error("it imports `{0}`, and a checker may import nothing")]
    Imports(String),
    /// It does not export `review` as [`WORLD`](crate::WORLD) has it, or does not even start.
    #[error("it does not export the world `locule:checker/checker`: {0}")]
    Unfit(String),
    /// The engine cannot be set up here.
    #[error("WebAssembly cannot run here: {0}")]
    Engine(String),
}

/// Why there is no judgement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// It used up its fuel or its time.
    #[error("it used up its {0}")]
    UsedUp(&'static str),
    /// It trapped, or its answer cannot be read.
    #[error("it failed: {0}")]
    Failed(String),
    /// It says itself that it cannot judge.
    #[error("it cannot judge: {0}")]
    Refused(String),
    /// Its answer names more than [`Guest::MAX_VERDICTS`] verdicts or findings.
    #[error("its answer has more than {most} verdicts or findings", most = Guest::MAX_VERDICTS)]
    TooMany,
}

/// The function that a component exports.
type Review<'a> = TypedFunc<(&'a str,), (Result<Vec<WireVerdict>, String>,)>;

impl Guest {
    /// Longest component, in bytes.
    pub const MAX_LEN: usize = 32 << 20;
    /// Most verdicts, and most findings in all.
    pub const MAX_VERDICTS: usize = 10_000;
    /// Longest text of the component that is passed on, in characters.
    const MAX_TEXT: usize = 4000;

    /// Compiles a component and makes sure that it starts and exports what a checker must.
    ///
    /// # Errors
    /// [`OpenError`]; each means that this file cannot be a checker.
    pub fn open(wasm: &[u8], limits: GuestLimits) -> Result<Self, OpenError> {
        if wasm.len() > Self::MAX_LEN {
            return Err(OpenError::TooLong(wasm.len()));
        }
        let engine = Engine::new(&config(limits)).map_err(|error| OpenError::Engine(shown(&error)))?;
        let component =
            Component::from_binary(&engine, wasm).map_err(|error| OpenError::NotAComponent(shown(&error)))?;
        let world = component.component_type();
        if let Some((name, _)) = world.imports(&engine).find(|(_, item)| !is_type(item)) {
            return Err(OpenError::Imports(bounded(name)));
        }
        let instance = Linker::new(&engine)
            .instantiate_pre(&component)
            .map_err(|error| OpenError::Unfit(shown(&error)))?;
        let guest = Self { engine, instance, limits, len: wasm.len() };
        guest.start().map_err(|error| OpenError::Unfit(shown(&error)))?;
        Ok(guest)
    }

    /// Length of the component's binary form, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Judges a plan: `document` is the review document as JSON. A fresh instance does it.
    ///
    /// # Errors
    /// [`ReviewError`]; none of them is a permission.
    pub fn review(&mut self, document: &str) -> Result<Vec<Verdict>, ReviewError> {
        let (done, ended) = mpsc::channel::<()>();
        let (engine, time) = (self.engine.clone(), self.limits.time);
        let clock = move || {
            if ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                engine.increment_epoch();
            }
        };
        let clock = thread::Builder::new().name("checker-deadline".to_owned()).spawn(clock);
        let clock = clock.map_err(|error| ReviewError::Failed(format!("no clock: {error}")))?;
        let answer = self.start().and_then(|(mut store, review)| review.call(&mut store, (document,)));
        drop(done);
        drop(clock.join());
        let (answer,) = answer.map_err(|error| match error.downcast_ref::<wasmtime::Trap>() {
            Some(&wasmtime::Trap::OutOfFuel) => ReviewError::UsedUp("fuel"),
            Some(&wasmtime::Trap::Interrupt) => ReviewError::UsedUp("time"),
            Some(trap) => ReviewError::Failed(bounded(&format!("{trap}; {error}"))),
            None => ReviewError::Failed(shown(&error)),
        })?;
        let verdicts = answer.map_err(|text| ReviewError::Refused(bounded(&text)))?;
        let findings: usize = verdicts.iter().map(|verdict| verdict.findings.len()).sum();
        if verdicts.len().max(findings) > Self::MAX_VERDICTS {
            return Err(ReviewError::TooMany);
        }
        Ok(verdicts.into_iter().map(Verdict::from).collect())
    }

    /// A fresh instance, with its own fuel and limits.
    fn start(&self) -> wasmtime::Result<(Store<StoreLimits>, Review<'_>)> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(self.limits.memory)
            .memories(1)
            .tables(8)
            .table_elements(100_000)
            .instances(16)
            .trap_on_grow_failure(true)
            .build();
        let mut store = Store::new(&self.engine, limits);
        store.limiter(|limits| limits);
        store.set_fuel(self.limits.fuel)?;
        store.set_epoch_deadline(1);
        let instance = self.instance.instantiate(&mut store)?;
        let review = instance.get_typed_func(&mut store, "review")?;
        Ok((store, review))
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("limits", &self.limits).finish_non_exhaustive()
    }
}

fn config(limits: GuestLimits) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .epoch_interruption(true)
        .concurrency_support(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(8))
        // The process has little address space and may write no file, not even one in memory.
        .memory_reservation(limits.memory as u64)
        .memory_reservation_for_growth(0)
        .memory_guard_size(0)
        .memory_init_cow(false);
    config
}

fn is_type(item: &wasmtime::component::types::ComponentExtern) -> bool {
    matches!(item.ty, wasmtime::component::types::ComponentItem::Type(_))
}

/// An error with its causes, in one line.
fn shown(error: &wasmtime::Error) -> String {
    bounded(&format!("{error:#}"))
}

fn bounded(text: &str) -> String {
    let mut text: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    text.truncate(20);
    text.join("; ").chars().filter(|c| !c.is_control()).take(Guest::MAX_TEXT).collect()
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct WireVerdict {
    component: String,
    decision: WireDecision,
    findings: Vec<WireFinding>,
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[expect(dead_code, reason = "lifted from the byte that it is")]
#[component(enum)]
#[repr(u8)]
enum WireDecision {
    #[component(name = "allow")]
    Allow,
    #[component(name = "warn")]
    Warn,
    #[component(name = "deny")]
    Deny,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct WireFinding {
    code: String,
    message: String,
    path: String,
    public: bool,
}

impl From<WireVerdict> for Verdict {
    fn from(verdict: WireVerdict) -> Self {
        Verdict {
            component: ConfigPath::from(verdict.component),
            decision: match verdict.decision {
                WireDecision::Allow => Decision::Allow,
                WireDecision::Warn => Decision::Warn,
                WireDecision::Deny => Decision::Deny,
            },
            findings: verdict.findings.into_iter().map(Finding::from).collect(),
        }
    }
}

impl From<WireFinding> for Finding {
    fn from(finding: WireFinding) -> Self {
        Finding {
            code: bounded(&finding.code),
            message: bounded(&finding.message),
            path: ConfigPath::from(finding.path),
            public: finding.public,
        }
    }
}
