//! Whole handshakes in memory, and every mistake a kit's files can hold.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use locule_tls::{
    ClientAuth, HostCheck, TlsError, TlsFiles, anonymous_client_config, client_config, common_name,
    server_config,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, ServerConfig, ServerConnection};

#[test]
fn both_ends_see_each_others_certificate() {
    let server = server_config(&files("server"), ClientAuth::Required).unwrap();
    let client = client_config(&files("client"), HostCheck::San).unwrap();
    let (server_sees, client_sees) = shake(client, server, "localhost").unwrap();
    assert_eq!(server_sees.as_deref(), Some("site-1"));
    assert_eq!(client_sees.as_deref(), Some("server1"));
}

#[test]
fn tls_1_2_is_still_spoken() {
    let server = server_config(&files("server"), ClientAuth::Required).unwrap();
    let client = client_config(&files("client"), HostCheck::San).unwrap();
    let only_12 = ClientConfig::builder_with_provider(client.crypto_provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap();
    let roots = TlsFiles::in_folder(data(""), "client").ca;
    let mut store = rustls::RootCertStore::empty();
    store.add(certificate(&roots)).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(data("client.key")).unwrap();
    let client = only_12
        .with_root_certificates(store)
        .with_client_auth_cert(vec![certificate(&data("client.crt"))], key)
        .unwrap();
    let (mut c, mut s) = connections(client, server, "localhost");
    exchange(&mut c, &mut s).unwrap();
    assert_eq!(s.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(name_of(s.peer_certificates()).as_deref(), Some("site-1"));
}

#[test]
fn an_address_among_the_alternative_names_is_accepted() {
    let server = server_config(&files("server"), ClientAuth::Required).unwrap();
    let client = client_config(&files("client"), HostCheck::San).unwrap();
    assert!(shake(client, server, "127.0.0.1").is_ok());
}

#[test]
fn an_address_may_stand_among_the_host_names() {
    let shake_as = |host| {
        let server = server_config(&files("older"), ClientAuth::None).unwrap();
        let client = anonymous_client_config(&data("olderCA.pem"), HostCheck::San).unwrap();
        shake(client, server, host)
    };
    assert!(shake_as("127.0.0.1").is_ok() && shake_as("localhost").is_ok());
    let error = shake_as("127.0.0.2").unwrap_err();
    assert!(error.starts_with("client: invalid peer certificate: certificate not valid for name"), "{error}");

    let server = server_config(&files("older"), ClientAuth::None).unwrap();
    let client = anonymous_client_config(&data("otherCA.pem"), HostCheck::San).unwrap();
    let error = shake(client, server, "127.0.0.1").unwrap_err();
    assert_eq!(error, "client: invalid peer certificate: UnknownIssuer");
}

#[test]
fn an_administrator_whose_alternative_name_is_an_email_address_is_accepted() {
    let server = server_config(&files("server"), ClientAuth::Required).unwrap();
    let client = client_config(&files("admin"), HostCheck::San).unwrap();
    let (server_sees, _) = shake(client, server, "localhost").unwrap();
    assert_eq!(server_sees.as_deref(), Some("admin@nvidia.com"));
}

#[test]
fn a_host_name_that_the_certificate_does_not_list_is_refused() {
    let server = server_config(&files("server"), ClientAuth::Required).unwrap();
    let client = client_config(&files("client"), HostCheck::San).unwrap();
    let error = shake(client, server, "elsewhere.example").unwrap_err();
    assert!(error.starts_with("client: invalid peer certificate: certificate not valid for name"), "{error}");
}

#[test]
fn without_host_check_any_name_will_do_but_not_any_root() {
    let client = || client_config(&files("client"), HostCheck::None).unwrap();
    let server = server_config(&files("server"), ClientAuth::Required).unwrap();
    assert!(shake(client(), server, "elsewhere.example").is_ok());

    let stranger = server_config(&files("stranger"), ClientAuth::None).unwrap();
    let error = shake(client(), stranger, "localhost").unwrap_err();
    assert_eq!(error, "client: invalid peer certificate: UnknownIssuer");
}

#[test]
fn a_client_of_another_root_is_refused() {
    let server = server_config(&files("server"), ClientAuth::Required).unwrap();
    let client = client_config(&files("stranger"), HostCheck::San).unwrap();
    let error = shake(client, server, "localhost").unwrap_err();
    assert_eq!(error, "server: invalid peer certificate: UnknownIssuer");
}

#[test]
fn a_client_without_certificate_is_refused_where_one_is_required() {
    let client = || anonymous_client_config(&data("rootCA.pem"), HostCheck::San).unwrap();
    let strict = server_config(&files("server"), ClientAuth::Required).unwrap();
    assert_eq!(shake(client(), strict, "localhost").unwrap_err(), "server: peer sent no certificates");

    let open = server_config(&files("server"), ClientAuth::None).unwrap();
    let (server_sees, client_sees) = shake(client(), open, "localhost").unwrap();
    assert_eq!((server_sees, client_sees.as_deref()), (None, Some("server1")));
}

#[test]
fn keys_in_pkcs8_are_read_too() {
    let files = TlsFiles { key: data("client_pkcs8.key"), ..files("client") };
    client_config(&files, HostCheck::San).unwrap();
}

#[test]
fn each_mistake_names_its_file_and_a_remedy() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let empty = write("empty.pem", "");
    let torn = write("torn.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let not_x509 = write("not_x509.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");

    let client = |files: &TlsFiles| client_config(files, HostCheck::San).unwrap_err();
    let check = |error: TlsError, file: &Path, says: &str| {
        let text = error.to_string();
        assert!(text.contains(&file.display().to_string()) && text.contains(says), "{text}");
    };
    let of = |change: fn(&mut TlsFiles, PathBuf), path: &Path| {
        let mut files = files("client");
        change(&mut files, path.to_owned());
        files
    };
    let ca: fn(&mut TlsFiles, PathBuf) = |files, path| files.ca = path;
    let cert: fn(&mut TlsFiles, PathBuf) = |files, path| files.cert = path;
    let key: fn(&mut TlsFiles, PathBuf) = |files, path| files.key = path;

    let missing = data("missing.pem");
    check(client(&of(ca, &missing)), &missing, "check that the kit is complete");
    check(client(&of(cert, &missing)), &missing, "check that the kit is complete");
    check(client(&of(key, &missing)), &missing, "check that the kit is complete");
    check(client(&of(ca, &empty)), &empty, "holds no certificate");
    check(client(&of(key, &empty)), &empty, "holds no private key");
    check(client(&of(key, &data("client.crt"))), &data("client.crt"), "holds no private key");
    check(client(&of(cert, &torn)), &torn, "not valid PEM");
    check(client(&of(ca, &not_x509)), &not_x509, "provision the kit again");
    check(client(&of(cert, &not_x509)), &not_x509, "provision the kit again");
    for encrypted in ["encrypted_pkcs1.key", "encrypted_pkcs8.key"] {
        check(client(&of(key, &data(encrypted))), &data(encrypted), "without a pass phrase");
    }

    let mixed = of(key, &data("server.key"));
    check(client(&mixed), &mixed.key, "take both from the same kit");
    let error = server_config(&mixed, ClientAuth::Required).unwrap_err();
    check(error, &mixed.cert, "take both from the same kit");
}

#[test]
fn a_common_name_is_given_only_if_it_is_the_only_one() {
    let name = |file: &str| common_name(&certificate(&data(file)));
    assert_eq!(name("server.crt").as_deref(), Some("server1"));
    assert_eq!(name("admin.crt").as_deref(), Some("admin@nvidia.com"));
    assert_eq!(name("rootCA.pem").as_deref(), Some("example_project"));
    assert_eq!(name("two_names.crt"), None);
    assert_eq!(common_name(b"no certificate"), None);

    let mut trailing = certificate(&data("server.crt")).to_vec();
    trailing.push(0);
    assert_eq!(common_name(&trailing), None);
}

fn shake(
    client: ClientConfig,
    server: ServerConfig,
    host: &'static str,
) -> Result<(Option<String>, Option<String>), String> {
    let (mut client, mut server) = connections(client, server, host);
    exchange(&mut client, &mut server)?;
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    Ok((name_of(server.peer_certificates()), name_of(client.peer_certificates())))
}

fn connections(
    client: ClientConfig,
    server: ServerConfig,
    host: &'static str,
) -> (ClientConnection, ServerConnection) {
    let host = ServerName::try_from(host).unwrap();
    (ClientConnection::new(Arc::new(client), host).unwrap(), ServerConnection::new(Arc::new(server)).unwrap())
}

/// Moves bytes until neither end wants to send; the first error, with the end that raised it.
fn exchange(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), String> {
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        feed(&mut wire.as_slice(), |wire| server.read_tls(wire));
        server.process_new_packets().map_err(|error| format!("server: {error}"))?;

        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        feed(&mut wire.as_slice(), |wire| client.read_tls(wire));
        client.process_new_packets().map_err(|error| format!("client: {error}"))?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

fn feed(wire: &mut &[u8], mut read: impl FnMut(&mut &[u8]) -> std::io::Result<usize>) {
    while !wire.is_empty() {
        read(wire).unwrap();
    }
}

fn name_of(chain: Option<&[CertificateDer<'_>]>) -> Option<String> {
    common_name(chain?.first()?)
}

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

fn files(stem: &str) -> TlsFiles {
    TlsFiles::in_folder(data(""), stem)
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}
