//! What lies in the file system: permissions, sockets left behind, names in use.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use locule_transport::{Endpoint, ListenError, Listener, Transport as _};
use locule_transport_uds::UdsTransport;

/// A folder that only its owner can enter; a temporary one is open to others.
fn private(dir: &tempfile::TempDir) -> PathBuf {
    let folder = dir.path().join("private");
    DirBuilder::new().mode(0o700).create(&folder).unwrap();
    folder
}

async fn listen(path: &Path) -> Result<Box<dyn Listener>, ListenError> {
    UdsTransport::new().listen(&UdsTransport::endpoint(path).unwrap()).await
}

#[tokio::test]
async fn a_socket_and_its_folder_are_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/private/a.sock");
    let listener = listen(&path).await.unwrap();
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    drop(listener);
    assert!(!dir.path().join("deep").exists(), "what was made for the socket goes with it");
}

#[tokio::test]
async fn a_folder_that_others_can_enter_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let error = listen(&dir.path().join("a.sock")).await.unwrap_err();
    assert!(error.to_string().contains("open to others (mode 755)"), "{error}");
}

#[tokio::test]
async fn a_socket_left_behind_is_taken_over_and_another_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = private(&dir).join("a.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a listener of std leaves its socket behind");
    let listener = listen(&path).await.unwrap();
    assert!(matches!(listen(&path).await, Err(ListenError::AddressInUse { .. })));
    drop(listener);

    fs::write(&path, "precious").unwrap();
    let error = listen(&path).await.unwrap_err();
    assert!(error.to_string().contains("no socket"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_listener_leaves_the_socket_of_its_successor_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = private(&dir).join("a.sock");
    let first = listen(&path).await.unwrap();
    fs::remove_file(&path).unwrap();
    let _second = listen(&path).await.unwrap();
    drop(first);
    assert!(path.exists());
    UdsTransport::new().dial(&UdsTransport::endpoint(&path).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_path_that_is_too_long_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = private(&dir).join("x".repeat(110));
    let error = listen(&path).await.unwrap_err().to_string();
    assert!(error.contains("the operating system takes 107"), "{error}");
    let error = UdsTransport::new().dial(&UdsTransport::endpoint(&path).unwrap()).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
}

#[tokio::test]
async fn names_without_a_path_lie_in_the_folder_of_the_carrier() {
    let dir = tempfile::tempdir().unwrap();
    let carrier = UdsTransport::new().within(private(&dir));
    let at = Endpoint::parse("uds://localhost:8002").unwrap();
    let _listener = carrier.listen(&at).await.unwrap();
    assert!(dir.path().join("private/localhost-8002.sock").exists());
    carrier.dial(&at).await.unwrap();
    assert!(UdsTransport::new().dial(&at).await.is_err());
}
