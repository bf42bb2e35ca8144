//! Generates Rust from `proto/`, without `protoc`.
//!
//! The carrier ships the message and cuts the stream of them itself. The service as tonic generates it is
//! the stock peer that the carrier's tests talk to.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

/// Proto file and the modules made of it, relative to the workspace, with or without the service.
const PROTO: &str = "proto/streamer.proto";
const MODULES: [(&str, bool); 2] = [
    ("crates/locule-transport-grpc/src/streamer.rs", false),
    ("crates/locule-transport-grpc/tests/stock_peer/streamer.rs", true),
];

const HEADER: &str = "// Made from proto/streamer.proto by `cargo xtask codegen`; not edited by hand.\n\n";

/// Writes the generated code, or with `check` compares it with what is there.
///
/// # Errors
/// A proto file that does not compile, a missing `rustfmt`, and with `check` code that is stale.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    for (path, with_service) in MODULES {
        let fresh = generate(root, with_service)?;
        let module = root.join(path);
        if check {
            let committed = fs::read_to_string(&module).with_context(|| format!("{path} cannot be read"))?;
            ensure!(committed == fresh, "{path} is stale; run `cargo xtask codegen` and commit the change");
            continue;
        }
        if let Some(folder) = module.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&module, fresh).with_context(|| format!("{path} cannot be written"))?;
    }
    Ok(())
}

fn generate(root: &Path, with_service: bool) -> anyhow::Result<String> {
    let files =
        protox::compile([root.join(PROTO)], [root.join("proto")]).context("proto does not compile")?;
    let out = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(with_service)
        .build_server(with_service)
        .emit_rerun_if_changed(false)
        .out_dir(out.path())
        .compile_fds(files)?;
    let generated = only_file(out.path())?;
    formatted(root, &(HEADER.to_owned() + &fs::read_to_string(generated)?))
}

fn only_file(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut files = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file?),
        _ => bail!("{PROTO} does not make exactly one module"),
    }
}

/// The code as `cargo fmt` would leave it.
fn formatted(root: &Path, code: &str) -> anyhow::Result<String> {
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout", "--config-path"])
        .arg(root.join("rustfmt.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("rustfmt cannot be started; install it with `rustup component add rustfmt`")?;
    rustfmt.stdin.take().context("rustfmt has an input")?.write_all(code.as_bytes())?;
    let output = rustfmt.wait_with_output()?;
    ensure!(output.status.success(), "rustfmt: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn committed_code_is_what_the_proto_files_give() {
        super::run(true).unwrap();
    }
}
