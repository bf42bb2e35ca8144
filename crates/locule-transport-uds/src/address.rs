//! Where a socket lies, and the endpoint that says so.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use locule_transport::{Endpoint, EndpointError};

use crate::UdsTransport;

pub(crate) fn to_endpoint(path: &Path) -> Result<Endpoint, EndpointError> {
    let mut text = "uds://jobs".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-+=@,:~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            write!(text, "%{byte:02X}").expect("a string takes all");
        }
    }
    Endpoint::parse(&text)
}

/// The path that an endpoint means, or what is wrong with it.
pub(crate) fn to_path(endpoint: &Endpoint, folder: Option<&Path>) -> Result<PathBuf, String> {
    let path = match (endpoint.path(), folder) {
        ("" | "/", None) => return Err("it has no path, as in uds://jobs/run/parent.sock".to_owned()),
        ("" | "/", Some(folder)) => {
            let port = endpoint.port().map(|port| format!("-{port}")).unwrap_or_default();
            folder.join(format!("{}{port}.sock", endpoint.host()))
        }
        (path, _) => PathBuf::from(OsString::from_vec(decoded(path)?)),
    };
    let len = path.as_os_str().len();
    if len > UdsTransport::MAX_PATH {
        let most = UdsTransport::MAX_PATH;
        return Err(format!("the path of its socket has {len} bytes, and the operating system takes {most}"));
    }
    Ok(path)
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = text.bytes();
    let mut path = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            path.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let byte = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match byte {
            Some(0) | None => return Err("a % in its path is not followed by two digits".to_owned()),
            Some(byte) => path.push(byte),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_makes_an_endpoint_that_means_it() {
        for path in ["/kit/state/parent.sock", "/mein kit/über?/100%/#1.sock"] {
            let endpoint = to_endpoint(Path::new(path)).unwrap();
            assert_eq!(to_path(&endpoint, None), Ok(PathBuf::from(path)), "{endpoint}");
        }
    }

    #[test]
    fn an_endpoint_without_a_path_lies_in_the_folder() {
        let endpoint = Endpoint::parse("uds://localhost:8002").unwrap();
        let folder = Path::new("/run/locule");
        assert_eq!(to_path(&endpoint, Some(folder)), Ok(folder.join("localhost-8002.sock")));
        assert!(to_path(&endpoint, None).unwrap_err().contains("no path"));
    }

    #[test]
    fn what_cannot_be_a_path_is_said() {
        let long = Endpoint::parse(&format!("uds://jobs/{}", "x".repeat(120))).unwrap();
        assert!(to_path(&long, None).unwrap_err().contains("has 121 bytes"));
        for text in ["uds://jobs/a%2", "uds://jobs/a%zz", "uds://jobs/a%00b"] {
            assert!(to_path(&Endpoint::parse(text).unwrap(), None).is_err(), "{text}");
        }
    }
}
