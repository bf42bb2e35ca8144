//! From HTTP to WebSocket: one request, one response.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http::header::USER_AGENT;
use http::{HeaderMap, StatusCode};
use locule_socket::{Connection, dial_error};
use locule_transport::{DialError, Endpoint};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tungstenite::handshake::client::{Response, generate_key};
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};

/// The one path; stock peers dial no other.
const PATH: &str = "/f3";
/// How a dialer of ours calls itself.
const USER: &str = concat!("locule/", env!("CARGO_PKG_VERSION"));
const OURS: &[u8] = b"locule/";
/// How long a listener may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// The longest request or response, in bytes.
const MAX_LEN: usize = 8 << 10;

/// What a dialer's request says of it.
pub(crate) struct Dialer {
    /// It is not a stock dialer and takes messages of any length.
    pub(crate) is_ours: bool,
}

/// Upgrades a dialled connection.
pub(crate) async fn ask(to: &Endpoint, mut connection: Connection) -> Result<Connection, DialError> {
    let key = generate_key();
    let request = format!(
        "GET {PATH} HTTP/1.1\r\n\
         Host: {}\r\n\
         User-Agent: {USER}\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n",
        to.authority()
    );
    let asked = async {
        connection.write_all(request.as_bytes()).await?;
        connection.flush().await?;
        head::<Response>(&mut connection).await
    };
    let response = match timeout(ANSWER_TIME, asked).await {
        Ok(Ok(response)) => response,
        Ok(Err(HeadError::NotHttp(reason))) => return Err(not_ours(to, reason)),
        Ok(Err(HeadError::Io(error))) => return Err(dial_error(to, error)),
        Err(_) => return Err(DialError::TimedOut { endpoint: to.clone(), after: ANSWER_TIME }),
    };
    check(to, &response, &derive_accept_key(key.as_bytes()))?;
    Ok(connection)
}

/// Upgrades an accepted connection.
///
/// # Errors
/// If the request is for anything else. It has been answered then.
pub(crate) async fn answer(mut connection: Connection) -> io::Result<(Connection, Dialer)> {
    let refusal = match head::<Request>(&mut connection).await {
        Err(HeadError::Io(error)) => return Err(error),
        Ok(request) if request.uri().path() != PATH => StatusCode::NOT_FOUND,
        Ok(request) => {
            let mut head = Vec::new();
            if create_response(&request).and_then(|response| write_response(&mut head, &response)).is_ok() {
                connection.write_all(&head).await?;
                connection.flush().await?;
                return Ok((connection, Dialer { is_ours: is_ours(request.headers()) }));
            }
            StatusCode::BAD_REQUEST
        }
        Err(HeadError::NotHttp(_)) => StatusCode::BAD_REQUEST,
    };
    let head = format!("HTTP/1.1 {refusal}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    connection.write_all(head.as_bytes()).await?;
    connection.flush().await?;
    connection.leave().await;
    Err(io::Error::other(format!("no upgrade to a link, answered with {refusal}")))
}

fn is_ours(headers: &HeaderMap) -> bool {
    headers.get(USER_AGENT).is_some_and(|user| user.as_bytes().starts_with(OURS))
}

#[derive(Debug, thiserror::Error)]
enum HeadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    NotHttp(String),
}

/// Reads a request or response; what follows it is left to be read.
async fn head<T: TryParse>(connection: &mut Connection) -> Result<T, HeadError> {
    let mut arrived = BytesMut::with_capacity(MAX_LEN);
    while arrived.len() < MAX_LEN {
        let room = MAX_LEN - arrived.len();
        if connection.take(room as u64).read_buf(&mut arrived).await? == 0 {
            return Err(HeadError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        match T::try_parse(&arrived) {
            Ok(None) => {}
            Ok(Some((len, head))) => {
                arrived.advance(len);
                connection.unread(arrived);
                return Ok(head);
            }
            Err(error) => return Err(HeadError::NotHttp(error.to_string())),
        }
    }
    Err(HeadError::NotHttp(format!("a head of more than {MAX_LEN} bytes")))
}

/// Whether a response opens the link.
fn check(to: &Endpoint, response: &Response, accept_key: &str) -> Result<(), DialError> {
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        let source = format!("http status {}", status.as_u16()).into();
        return Err(DialError::Unreachable { endpoint: to.clone(), source });
    }
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(not_ours(to, format!("http status {}", status.as_u16())));
    }
    let has = |name: &str, value: &[u8]| {
        let found = response.headers().get(name).map_or(&[][..], |found| found.as_bytes());
        found.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(value))
    };
    let accepted = response.headers().get("sec-websocket-accept").is_some_and(|found| found == accept_key);
    if !has("upgrade", b"websocket") || !has("connection", b"upgrade") || !accepted {
        return Err(not_ours(to, "an upgrade that was not asked for".to_owned()));
    }
    if response.headers().contains_key("sec-websocket-extensions")
        || response.headers().contains_key("sec-websocket-protocol")
    {
        return Err(not_ours(to, "an extension or protocol that was not asked for".to_owned()));
    }
    Ok(())
}

fn not_ours(to: &Endpoint, reason: String) -> DialError {
    DialError::NotOurProtocol { endpoint: to.clone(), reason }
}
