//! A job author's desk: read a job folder, sign it, and see that a change afterwards is noticed.

use std::error::Error;
use std::fs;
use std::time::{Duration, SystemTime};

use locule_identity::Usage;
use locule_identity_openssl::{CertificateAuthority, OpensslSigner, OpensslVerifier, Subject};
use locule_job::{JobFolder, is_signed, sign_folder, verify_folder};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("piecemeal-job-{}", std::process::id()));
    let config = folder.join("app/config");
    fs::create_dir_all(&config)?;
    fs::write(config.join("config_fed_server.json"), "{}")?;
    fs::write(config.join("config_fed_client.json"), "{}")?;
    fs::write(folder.join("meta.json"), r#"{"name": "hello", "deploy_map": {"app": ["@ALL"]}}"#)?;

    let job = JobFolder::read(&folder)?;
    assert_eq!(job.meta.app_of("site-1"), Some("app"));

    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let root = CertificateAuthority::create(&Subject::new("my-project"), day, now)?;
    let issued = root.issue(&Subject::new("lead@example.org").role("lead"), &[], Usage::Client, day, now)?;
    sign_folder(&folder, &OpensslSigner::from_pem(&issued.certificate_pem, &issued.key_pem)?)?;
    assert!(is_signed(&folder));

    let verifier = OpensslVerifier::new(&root.certificate_pem()?)?;
    verify_folder(&folder, &verifier, now)?;
    fs::write(config.join("config_fed_client.json"), "{ }")?;
    assert!(verify_folder(&folder, &verifier, now).is_err());
    fs::remove_dir_all(&folder)?;
    Ok(())
}
