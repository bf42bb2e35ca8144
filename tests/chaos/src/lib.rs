//! Kills processes of a federation by `kill -9` at random moments of one job, and compares the model that it comes to
//! with that of the same job left in peace.
//!
//! The federation is real: a server, a relay, two sites at the server and one behind the relay, a process for each and
//! one for each half of the job; a process of its own that is killed is started again, those of the job are for the
//! daemons to start again.

mod federation;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};

use federation::{Federation, LOOK, Target};

/// The longest time from one kill to the next.
const LULL: Duration = Duration::from_secs(3);

/// How long a job may make no progress, once it is left in peace.
const PATIENCE: Duration = Duration::from_secs(120);

/// Rounds of the job for each kill: when they are done before its moment has come, it comes.
const ROUNDS_PER_KILL: u64 = 12;

/// What is done to a job.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many processes are killed.
    pub kills: u64,
    /// Decides which, and when.
    pub seed: u64,
}

/// A job that was left in peace.
#[derive(Debug)]
pub struct Quiet {
    /// Digest of its model.
    pub model: String,
    /// How many rounds it had.
    pub rounds: u64,
    /// How long it took, with the start of its federation.
    pub took: Duration,
}

/// What came of the same job in a storm.
#[derive(Debug)]
pub struct Outcome {
    /// How often each sort of process was killed.
    pub killed: Vec<(&'static str, u64)>,
    /// Digest of its model.
    pub model: String,
    /// How long it took, with the start of its federation.
    pub took: Duration,
}

/// Runs a job that is long enough for so many kills, and leaves it in peace.
///
/// # Errors
/// A job that does not complete, and what else goes wrong on the way; with the last lines of the logs.
pub fn leave_in_peace(kills: u64, folder: &Path) -> anyhow::Result<Quiet> {
    let (began, rounds) = (Instant::now(), (kills * ROUNDS_PER_KILL).max(20));
    let federation = Federation::start(folder, rounds)?;
    federation.wait_for_end(PATIENCE).with_context(|| federation.last_words())?;
    Ok(Quiet { model: digest(&federation.model())?, rounds, took: began.elapsed() })
}

/// Runs the same job and kills. `tell` hears what happens, a line each.
///
/// # Errors
/// As [`leave_in_peace`].
pub fn storm(plan: Plan, quiet: &Quiet, folder: &Path, tell: impl Fn(String)) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let mut federation = Federation::start(folder, quiet.rounds)?;
    let killed = kill(&mut federation, plan, &tell).with_context(|| federation.last_words())?;
    federation.wait_for_end(PATIENCE).with_context(|| federation.last_words())?;
    Ok(Outcome { killed, model: digest(&federation.model())?, took: began.elapsed() })
}

fn kill(
    federation: &mut Federation,
    plan: Plan,
    tell: &impl Fn(String),
) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let mut random = ChaCha8Rng::seed_from_u64(plan.seed);
    let mut killed = Target::SORTS.map(|sort| (sort, 0));
    let (mut kills, mut rounds, mut looked) = (0, 0, Instant::now());
    while kills < plan.kills {
        // A random moment, but one at which there is still a job to be disturbed.
        let round = kills * ROUNDS_PER_KILL + random.random_range(0..ROUNDS_PER_KILL);
        federation.wait_for_round(round, LULL.mul_f64(random.random()));
        let target = federation.targets()[random.random_range(0..federation.targets().len())];
        if !federation.kill(target)? {
            continue; // it is on its way up again
        }
        kills += 1;
        killed.iter_mut().filter(|(sort, _)| *sort == target.sort()).for_each(|(_, count)| *count += 1);
        if looked.elapsed() > LOOK {
            looked = Instant::now();
            if let Some(progress) = federation.look()? {
                rounds = progress.rounds;
                ensure!(!progress.is_over, "the job was over after {kills} of {} kills", plan.kills);
            }
        }
        tell(format!(
            "{kills:>4} of {} killed, {rounds} rounds done: {}",
            plan.kills,
            federation.name(target)
        ));
    }
    Ok(killed.into())
}

fn digest(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
