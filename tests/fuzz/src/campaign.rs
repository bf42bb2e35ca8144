//! Many inputs for one target.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Mutator, Target, examine, shortened};

/// Inputs between two looks at the time, and at whoever follows the progress.
const BATCH: u64 = 256;
/// Most inputs that are kept to make others of.
const POOL: usize = 4096;
/// Findings after which a target needs no more.
const ENOUGH: usize = 8;

/// A run of one target: inputs made from its seeds and from each other.
#[derive(Debug)]
pub struct Campaign {
    target: &'static Target,
    seed: u64,
    inputs: u64,
    time: Option<Duration>,
}

/// What a campaign came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Inputs read.
    pub inputs: u64,
    /// Outcomes told apart.
    pub outcomes: usize,
    /// Most bytes held at a time.
    pub peak: usize,
    /// Most allocations of one input.
    pub allocations: usize,
    /// What did not hold.
    pub findings: Vec<Finding>,
}

/// An input for which something did not hold.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What.
    pub what: String,
    /// The input.
    pub input: Vec<u8>,
}

impl Campaign {
    /// Inputs for `target`, drawn from `seed`.
    #[must_use]
    pub fn new(target: &'static Target, seed: u64) -> Self {
        Self { target, seed, inputs: u64::MAX, time: None }
    }

    /// So many of them.
    #[must_use]
    pub fn inputs(mut self, inputs: u64) -> Self {
        self.inputs = inputs;
        self
    }

    /// As many as there is time for.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// Reads them. `follow` hears now and then how far it is.
    pub fn run(self, follow: &mut dyn FnMut(&Report)) -> Report {
        let mut mutator = Mutator::new(self.seed);
        let mut pool: Vec<Vec<u8>> = kept(self.target.name).into_iter().map(|(_, input)| input).collect();
        pool.extend((self.target.seeds)());
        let mut report = Report::default();
        let (mut outcomes, mut found) = (HashSet::new(), HashSet::new());
        let begun = Instant::now();
        // fills what is filled once
        for input in &pool {
            self.read(input, &mut report, &mut outcomes, &mut found);
        }
        for number in 0..self.inputs {
            if number % BATCH == 0 {
                follow(&report);
                if self.time.is_some_and(|time| begun.elapsed() >= time) || found.len() >= ENOUGH {
                    break;
                }
            }
            let input = self.make(&mut mutator, &pool);
            let is_new = self.read(&input, &mut report, &mut outcomes, &mut found);
            if is_new && pool.len() < POOL {
                pool.push(input);
            }
        }
        report.outcomes = outcomes.len();
        report
    }

    fn make(&self, mutator: &mut Mutator, pool: &[Vec<u8>]) -> Vec<u8> {
        let empty = Vec::new();
        let first = mutator.one_of(pool).unwrap_or(&empty).clone();
        if mutator.once_in(2)
            && let Some(edited) = (self.target.edit)(mutator, &first)
        {
            return edited;
        }
        let mut input = first;
        let other = mutator.one_of(pool).unwrap_or(&empty);
        mutator.damage(&mut input, other);
        input
    }

    /// Says whether the outcome is a new one.
    fn read(
        &self,
        input: &[u8],
        report: &mut Report,
        outcomes: &mut HashSet<String>,
        found: &mut HashSet<String>,
    ) -> bool {
        report.inputs += 1;
        match examine(self.target, input) {
            Ok((outcome, used)) => {
                report.peak = report.peak.max(used.peak);
                report.allocations = report.allocations.max(used.allocations);
                outcomes.insert(shortened(&outcome))
            }
            Err(what) => {
                if found.insert(shortened(&what)) {
                    report.findings.push(Finding { what, input: input.to_vec() });
                }
                false
            }
        }
    }
}

/// Keeps an input that must be read well from now on; gives its file.
///
/// # Errors
/// When it cannot be written.
pub fn keep(target: &str, input: &[u8]) -> std::io::Result<PathBuf> {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let folder = corpus().join(target);
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{hash:016x}.hex"));
    fs::write(&file, to_hex(input) + "\n")?;
    Ok(file)
}

/// The inputs that were kept for a target, with the names of their files.
#[must_use]
pub fn kept(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(corpus().join(target)).into_iter().flatten().flatten();
    let mut kept: Vec<_> = files
        .filter_map(|file| {
            let path = file.path();
            let text = fs::read_to_string(&path).ok()?;
            Some((path, from_hex(text.trim())))
        })
        .collect();
    kept.sort();
    kept
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).unwrap_or_default() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | pair.get(1).map_or(0, |c| digit(*c))).collect()
}
