//! A certificate check: does it end at this root, for whom, is it still valid, and is this signed by it.

use std::error::Error;
use std::time::{Duration, SystemTime};

use locule_identity::{Signer as _, Usage, Verifier as _};
use locule_identity_openssl::{CertificateAuthority, OpensslSigner, OpensslVerifier, Subject};

fn main() -> Result<(), Box<dyn Error>> {
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let root = CertificateAuthority::create(&Subject::new("my-project"), 30 * day, now)?;
    let stranger = CertificateAuthority::create(&Subject::new("my-project"), 30 * day, now)?;
    let subject = Subject::new("site-1").organization("example hospital");
    let issued = root.issue(&subject, &[], Usage::Client, day, now)?;

    let verifier = OpensslVerifier::new(&root.certificate_pem()?)?;
    let site = verifier.identify(&issued.certificate_pem, Usage::Client, now)?;
    assert_eq!(
        (site.common_name.as_str(), site.organization.as_deref()),
        ("site-1", Some("example hospital"))
    );
    assert!(verifier.identify(&issued.certificate_pem, Usage::Client, now + 2 * day).is_err()); // expired
    let other = OpensslVerifier::new(&stranger.certificate_pem()?)?;
    assert!(other.identify(&issued.certificate_pem, Usage::Client, now).is_err());

    let signer = OpensslSigner::from_pem(&issued.certificate_pem, &issued.key_pem)?;
    let signature = signer.sign(b"the model of round 7")?;
    assert!(verifier.verify(&site, b"the model of round 7", &signature).is_ok());
    assert!(verifier.verify(&site, b"the model of round 8", &signature).is_err());
    Ok(())
}
