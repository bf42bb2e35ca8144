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

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// How often each sort of process was killed.
    pub killed: Vec<(&'static str, u64)>,
    /// Rounds of the job.
    pub rounds: u64,
    /// Digests of the two models: in peace, and with kills.
    pub models: [String; 2],
    /// How long the two jobs took.
    pub took: [Duration; 2],
}

impl Outcome {
    /// Whether both jobs came to the same model.
    pub fn is_identical(&self) -> bool {
        self.models[0] == self.models[1]
    }
}

/// Runs the job twice. `tell` hears what happens, a line each.
///
/// # Errors
/// A job that does not complete, and what else goes wrong on the way; with the last lines of the logs.
pub fn run(plan: Plan, folder: &Path, tell: impl Fn(String)) -> anyhow::Result<Outcome> {
    let rounds = (plan.kills * ROUNDS_PER_KILL).max(20);
    let began = Instant::now();
    let quiet = Federation::start(&folder.join("quiet"), rounds)?;
    quiet.wait_for_end(PATIENCE).with_context(|| quiet.last_words())?;
    let (quiet_model, quiet_took) = (digest(&quiet.model())?, began.elapsed());
    tell(format!("left in peace: {rounds} rounds in {:.1} s", quiet_took.as_secs_f64()));
    drop(quiet);

    let began = Instant::now();
    let mut stormy = Federation::start(&folder.join("stormy"), rounds)?;
    let killed = kill(&mut stormy, plan, &tell).with_context(|| stormy.last_words())?;
    stormy.wait_for_end(PATIENCE).with_context(|| stormy.last_words())?;
    let models = [quiet_model, digest(&stormy.model())?];
    Ok(Outcome { killed, rounds, models, took: [quiet_took, began.elapsed()] })
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
