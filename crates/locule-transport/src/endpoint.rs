//! Where to dial or listen: a small, strict subset of URLs.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

/// `scheme://host[:port][/path][?query]`, checked; cheap to clone.
///
/// | part | form |
/// |---|---|
/// | scheme | a letter, then letters, digits, `+`, `-`, `.`; at most 32 bytes; kept in lower case |
/// | host | a name or IPv4 address of letters, digits, `.`, `-`, `_`, at most 253 bytes, or an IPv6 address in `[]`; `0` means all interfaces |
/// | port | 0–65535; 0 means any free port, to listen |
/// | path, query | printable ASCII without blanks |
///
/// The whole is at most 2,048 bytes. User names and fragments are refused.
///
/// ```
/// use locule_transport::Endpoint;
/// let endpoint = Endpoint::parse("grpc://fl.example.org:8002")?;
/// assert_eq!((endpoint.scheme(), endpoint.host(), endpoint.port()), ("grpc", "fl.example.org", Some(8002)));
/// assert!(Endpoint::parse("grpc://0:8002")?.is_all_interfaces());
/// assert_eq!(Endpoint::parse("mem://hospital")?.to_string(), "mem://hospital");
/// # Ok::<(), locule_transport::EndpointError>(())
/// ```
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.drivers.driver_params` (there, IPv6 hosts do not work).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(Arc<Parts>);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Parts {
    scheme: String,
    host: String,
    port: Option<u16>,
    path: String,
    query: Option<String>,
}

impl Endpoint {
    /// Longest endpoint, in bytes.
    pub const MAX_LEN: usize = 2048;

    /// Reads an endpoint.
    ///
    /// # Errors
    /// [`EndpointError`] shows the text and says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        read(text).map_err(|fault| EndpointError { text: escaped(text), fault })
    }

    /// The scheme, in lower case: `grpc`.
    pub fn scheme(&self) -> &str {
        &self.0.scheme
    }

    /// The host: a name, an IPv4 address, an IPv6 address without its brackets, or `0`.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The port, when there is one.
    pub fn port(&self) -> Option<u16> {
        self.0.port
    }

    /// The path with its leading `/`, or nothing.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// What follows the `?`.
    pub fn query(&self) -> Option<&str> {
        self.0.query.as_deref()
    }

    /// The value of a query parameter, as written; the last one counts.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query()?
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .rev()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Whether the host is `0`: every interface of this machine.
    pub fn is_all_interfaces(&self) -> bool {
        self.0.host == "0"
    }

    /// The same endpoint at another port.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        Arc::make_mut(&mut self.0).port = Some(port);
        self
    }

    /// Host and port as a URL has them: IPv6 addresses in brackets, no `:` without a port.
    pub fn authority(&self) -> String {
        let host =
            if self.host().contains(':') { format!("[{}]", self.host()) } else { self.host().to_owned() };
        match self.port() {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority(), self.path())?;
        match self.query() {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// A text is not an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not an endpoint: {fault}")]
pub struct EndpointError {
    /// The text, truncated and escaped.
    text: String,
    fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("longer than {} bytes", Endpoint::MAX_LEN)]
    TooLong,
    #[error("white space, a control character or a character outside ASCII")]
    Character,
    #[error("no \"://\"; write scheme://host:port")]
    NoScheme,
    #[error("the scheme is not a letter followed by letters, digits, +, - or . (at most 32)")]
    Scheme,
    #[error("user names do not belong here")]
    User,
    #[error("fragments (#…) do not belong here")]
    Fragment,
    #[error("the host is missing; write 0 to listen on all interfaces")]
    NoHost,
    #[error("the host is not a name, an IPv4 address or an IPv6 address in []")]
    Host,
    #[error("an IPv6 host belongs into [], as in scheme://[::1]:8002")]
    BareIpv6,
    #[error("the port is not a number from 0 to 65535")]
    Port,
}

fn read(text: &str) -> Result<Endpoint, Fault> {
    if text.len() > Endpoint::MAX_LEN {
        return Err(Fault::TooLong);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::Character);
    }
    if text.contains('#') {
        return Err(Fault::Fragment);
    }
    let (scheme, rest) = text.split_once("://").ok_or(Fault::NoScheme)?;
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query.to_owned())),
        None => (rest, None),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = split_authority(authority)?;
    let scheme = read_scheme(scheme)?;
    Ok(Endpoint(Arc::new(Parts { scheme, host, port, path: path.to_owned(), query })))
}

fn read_scheme(scheme: &str) -> Result<String, Fault> {
    let starts_well = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    let goes_on_well = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if starts_well && goes_on_well && scheme.len() <= 32 {
        Ok(scheme.to_ascii_lowercase())
    } else {
        Err(Fault::Scheme)
    }
}

fn split_authority(authority: &str) -> Result<(String, Option<u16>), Fault> {
    if authority.contains('@') {
        return Err(Fault::User);
    }
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']').ok_or(Fault::Host)?;
        let address: Ipv6Addr = address.parse().map_err(|_| Fault::Host)?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(read_port(port)?),
            None if rest.is_empty() => None,
            None => return Err(Fault::Host),
        };
        return Ok((address.to_string(), port));
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(Fault::BareIpv6);
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(read_port(port)?)),
        None => (authority, None),
    };
    if host.is_empty() {
        return Err(Fault::NoHost);
    }
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !is_name || host.len() > 253 {
        return Err(Fault::Host);
    }
    Ok((host.to_owned(), port))
}

fn read_port(digits: &str) -> Result<u16, Fault> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::Port);
    }
    digits.parse().map_err(|_| Fault::Port)
}

fn escaped(text: &str) -> String {
    let shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
    if text.chars().nth(80).is_some() { shown + "…" } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Result<&str, Fault>) {
        let read = Endpoint::parse(text);
        match expected {
            Ok(shown) => {
                assert_eq!(read.map(|endpoint| endpoint.to_string()), Ok(shown.to_owned()), "{text}")
            }
            Err(fault) => assert_eq!(read.map_err(|error| error.fault), Err(fault), "{text}"),
        }
    }

    #[test]
    fn endpoints_are_read_and_shown_as_they_were_written() {
        check("grpc://fl.example.org:8002", Ok("grpc://fl.example.org:8002"));
        check("GRPCS://Site_1:0", Ok("grpcs://Site_1:0"));
        check("mem://hospital", Ok("mem://hospital"));
        check("tcp://[::1]:8002/x?a=1", Ok("tcp://[::1]:8002/x?a=1"));
        check("tcp://[0:0::1]", Ok("tcp://[::1]"));
        check("shared-file://0/abs/dir", Ok("shared-file://0/abs/dir"));
        check("grpc://0:8003?admin_listener=true", Ok("grpc://0:8003?admin_listener=true"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("localhost:8002", Err(Fault::NoScheme));
        check("://x", Err(Fault::Scheme));
        check("9p://x", Err(Fault::Scheme));
        check("grpc://", Err(Fault::NoHost));
        check("grpc://:8002", Err(Fault::NoHost));
        check("grpc://host:", Err(Fault::Port));
        check("grpc://host:65536", Err(Fault::Port));
        check("grpc://host:+80", Err(Fault::Port));
        check("grpc://::1", Err(Fault::BareIpv6));
        check("grpc://[::1", Err(Fault::Host));
        check("grpc://[::1]8002", Err(Fault::Host));
        check("grpc://[site]:1", Err(Fault::Host));
        check("grpc://a,b:1", Err(Fault::Host));
        check("grpc://me@host:1", Err(Fault::User));
        check("grpc://host:1#top", Err(Fault::Fragment));
        check("grpc://ho st:1", Err(Fault::Character));
        check("grpc://höst:1", Err(Fault::Character));
        check(&format!("grpc://{}", "a".repeat(254)), Err(Fault::Host));
        check(&format!("grpc://a/{}", "a".repeat(2048)), Err(Fault::TooLong));
    }

    #[test]
    fn an_error_shows_the_text_escaped_and_cut() {
        let error = Endpoint::parse(&format!("x\n{}", "y".repeat(5000))).unwrap_err().to_string();
        assert!(error.starts_with("\"x\\nyyy"), "{error}");
        assert!(error.len() < 200, "{error}");
    }

    #[test]
    fn the_last_of_equal_parameters_counts() {
        let endpoint = Endpoint::parse("grpc://0:1?a=1&b&a=2").unwrap();
        assert_eq!((endpoint.parameter("a"), endpoint.parameter("b")), (Some("2"), None));
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_showing_reads_back(text in "[a-z]{0,3}(://)?[\\[\\]a-f0-9:.@?#/ é-]{0,40}") {
            if let Ok(endpoint) = Endpoint::parse(&text) {
                prop_assert_eq!(Endpoint::parse(&endpoint.to_string()), Ok(endpoint));
            }
        }
    }
}
