//! What a child may use up: limits that it sets on itself before it looks at anything, and never lifts again.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limits of one child, as its command line says them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// Address space that the checker may take, in bytes, beside what the program itself has taken.
    pub(crate) memory: u64,
    /// Processor time for one review, in seconds.
    pub(crate) cpu: u64,
    /// The interpreter that takes the child's place.
    pub(crate) python: Option<PathBuf>,
}

/// Address space of an interpreter that has run nothing yet, in bytes.
const PYTHON: u64 = 128 << 20;
/// Open files of a child.
const FILES: u64 = 64;
/// Processor time of an interpreter over its whole life, in reviews: nobody resets it there.
const PYTHON_REVIEWS: u64 = 1000;

impl Confinement {
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![
            "--memory".into(),
            self.memory.to_string().into(),
            "--cpu".into(),
            self.cpu.to_string().into(),
        ];
        if let Some(python) = &self.python {
            arguments.extend(["--python".into(), python.into()]);
        }
        arguments
    }

    /// What [`Confinement::arguments`] said; nothing if it is something else.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut arguments = arguments.into_iter();
        let (mut memory, mut cpu, mut python) = (None, None, None);
        while let Some(key) = arguments.next() {
            let value = arguments.next()?;
            match key.to_str()? {
                "--memory" => memory = Some(value.to_str()?.parse().ok()?),
                "--cpu" => cpu = Some(value.to_str()?.parse().ok()?),
                "--python" => python = Some(PathBuf::from(value)),
                _ => return None,
            }
        }
        Some(Self { memory: memory?, cpu: cpu?, python })
    }

    /// Confines this process.
    pub(crate) fn take_effect(&self) -> io::Result<()> {
        lower(Resource::Core, 0)?;
        lower(Resource::Fsize, 0)?;
        lower(Resource::Nofile, FILES)?;
        match &self.python {
            Some(_) => {
                lower(Resource::As, self.memory.saturating_add(PYTHON))?;
                lower(Resource::Nproc, 0)?;
                lower(Resource::Cpu, self.cpu.saturating_mul(PYTHON_REVIEWS))
            }
            None => lower(Resource::As, self.memory.saturating_add(address_space())),
        }
    }

    /// Gives this process processor time for one more review.
    pub(crate) fn next_review(&self) -> io::Result<()> {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_sec;
        let until = u64::try_from(used).unwrap_or_default().saturating_add(self.cpu).saturating_add(1);
        let hard = getrlimit(Resource::Cpu).maximum;
        Ok(setrlimit(Resource::Cpu, Rlimit { current: Some(until), maximum: hard })?)
    }
}

/// Limits what this process may still take: address space in bytes, beside what it has, and processor time in seconds.
/// The system ends a process that takes more. For policies that are tried out where no child judges.
///
/// # Errors
/// The system's.
pub fn limit_this_process(memory: u64, cpu: u64) -> io::Result<()> {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_sec;
    lower(Resource::Cpu, u64::try_from(used).unwrap_or_default().saturating_add(cpu).saturating_add(1))?;
    lower(Resource::Core, 0)?;
    lower(Resource::As, memory.saturating_add(address_space()))
}

fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// What this process has taken so far, in bytes; more than it can be where nobody says.
fn address_space() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    pages.map_or(256 << 20, |pages| pages.saturating_mul(rustix::param::page_size() as u64))
}

/// The first `python3` of a search path.
pub(crate) fn find_python(search_path: &std::ffi::OsStr) -> Option<PathBuf> {
    std::env::split_paths(search_path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("python3"))
        .find(|file| is_program(file))
}

pub(crate) fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_says_the_limits() {
        for python in [None, Some(PathBuf::from("/usr/bin/python3"))] {
            let confinement = Confinement { memory: 7, cpu: 3, python };
            assert_eq!(Confinement::parse(confinement.arguments()), Some(confinement));
        }
        assert_eq!(Confinement::parse(["--memory".into()]), None);
        assert_eq!(Confinement::parse(["--memory".into(), "1".into()]), None);
        assert_eq!(Confinement::parse(["--color".into(), "1".into()]), None);
    }
}
