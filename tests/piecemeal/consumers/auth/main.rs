//! A relay's door: whether a neighbour's certificate allows the name that it claims.

use std::error::Error;

use locule_auth::CertificateLinkPolicy;
use locule_switch::{LinkFacts, LinkId, LinkPolicy as _, LinkSecurity};

fn main() -> Result<(), Box<dyn Error>> {
    let policy = CertificateLinkPolicy::new("server".parse()?);
    let neighbour = |claimed: &str, certificate: Option<&str>| {
        Ok::<_, Box<dyn Error>>(LinkFacts {
            link: LinkId(1),
            peer: claimed.parse()?,
            common_name: certificate.map(Into::into),
            security: LinkSecurity::Mutual,
            accepted: true,
            ours: true,
        })
    };
    assert!(policy.admit(&neighbour("site-1", Some("site-1"))?).is_ok());
    assert!(policy.admit(&neighbour("site-2", Some("site-1"))?).is_err());
    assert!(policy.admit(&neighbour("site-1", None)?).is_err());
    Ok(())
}
