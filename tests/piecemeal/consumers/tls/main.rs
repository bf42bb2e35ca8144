//! A TLS set-up check: do these files make a server, and does the client trust its root.

use std::error::Error;
use std::path::Path;

use locule_tls::{ClientAuth, HostCheck, TlsError, TlsFiles, client_config, server_config};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../conformance/data");
    server_config(&TlsFiles::in_folder(&folder, "server"), ClientAuth::Required)?;
    client_config(&TlsFiles::in_folder(&folder, "client"), HostCheck::San)?;

    let mixed = TlsFiles { key: folder.join("client.key"), ..TlsFiles::in_folder(&folder, "server") };
    let error: TlsError =
        server_config(&mixed, ClientAuth::None).err().ok_or("key of another certificate")?;
    assert!(error.to_string().contains("client.key"), "{error}");
    Ok(())
}
