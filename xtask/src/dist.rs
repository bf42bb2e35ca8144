//! A binary with the transports that a deployment chose.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::shell;

/// Builds `locule` with these transports only and copies it to `out`; the path of the copy.
pub(crate) fn run(
    transports: &[String],
    without_demo: bool,
    profile: &str,
    out: &Path,
) -> anyhow::Result<PathBuf> {
    let known = known_transports()?;
    if let Some(unknown) = transports.iter().find(|name| !known.contains(name)) {
        bail!("no transport `{unknown}`; there are: {}", known.join(", "));
    }
    let mut features = transports.to_vec();
    if transports.iter().any(|name| name == "mem") {
        features.push(if without_demo { "simulate" } else { "demo" }.into());
    }
    let features = features.join(",");
    shell::cargo(&[
        "build",
        "--package",
        "locule",
        "--profile",
        profile,
        "--no-default-features",
        "--features",
        &features,
    ])?;
    let folder = if profile == "dev" { "debug" } else { profile };
    let built = target_dir()?.join(folder).join(format!("locule{}", std::env::consts::EXE_SUFFIX));
    let out = shell::root().join(out);
    std::fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    let copy = out.join(built.file_name().context("the binary has a name")?);
    std::fs::copy(&built, &copy).with_context(|| format!("copy {}", built.display()))?;
    report(&copy)?;
    Ok(copy)
}

/// The transports of the workspace, by the crates that it has.
fn known_transports() -> anyhow::Result<Vec<String>> {
    let mut known = Vec::new();
    for entry in std::fs::read_dir(shell::root().join("crates"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        known.extend(name.strip_prefix("locule-transport-").map(str::to_owned));
    }
    known.sort();
    Ok(known)
}

fn target_dir() -> anyhow::Result<PathBuf> {
    let text = shell::cargo_output(&["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    Ok(metadata["target_directory"].as_str().context("target_directory")?.into())
}

#[expect(clippy::print_stdout, reason = "the habit's result")]
fn report(binary: &Path) -> anyhow::Result<()> {
    let mib = std::fs::metadata(binary)?.len() as f64 / f64::from(1 << 20);
    println!("{} ({mib:.1} MiB)", binary.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dist_lists_the_transports_it_knows_when_asked_for_another() {
        let error = run(&["carrier-pigeon".into()], true, "dev", Path::new("target/dist")).unwrap_err();
        assert!(error.to_string().contains("no transport `carrier-pigeon`; there are: grpc, mem"), "{error}");
    }
}
