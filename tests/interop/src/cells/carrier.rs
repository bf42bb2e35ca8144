//! What cells reach each other over.

use std::fmt;
use std::sync::Arc;

use locule_tls::{ClientAuth, HostCheck, TlsFiles, client_config, server_config};
use locule_transport::Transport;
use locule_transport_grpc::GrpcTransport;
use locule_transport_tcp::TcpTransport;
use locule_transport_ws::WsTransport;
use rustls::{ClientConfig, ServerConfig};

/// The carriers that the cases run over.
pub(super) static CARRIERS: &[Carrier] = &[
    GRPC,
    Carrier { scheme: "agrpc", slow: true, ..GRPC },
    TCP,
    Carrier { scheme: "atcp", slow: true, ..TCP },
    Carrier {
        scheme: "http",
        host_check: HostCheck::None,
        dialer_takes: WsTransport::STOCK_DIALER_MAX_FRAME_LEN,
        slow: false,
        clear: || Arc::new(WsTransport::clear()),
        tls: |client, server| Arc::new(WsTransport::tls(client, server)),
    },
];

const GRPC: Carrier = Carrier {
    scheme: "grpc",
    host_check: HostCheck::San,
    dialer_takes: GrpcTransport::MAX_FRAME_LEN,
    slow: false,
    clear: || Arc::new(GrpcTransport::clear()),
    tls: |client, server| Arc::new(GrpcTransport::tls(client, server)),
};

const TCP: Carrier = Carrier {
    scheme: "tcp",
    host_check: HostCheck::None,
    dialer_takes: TcpTransport::MAX_FRAME_LEN,
    slow: false,
    clear: || Arc::new(TcpTransport::clear()),
    tls: |client, server| Arc::new(TcpTransport::tls(client, server)),
};

/// One carrier, and what is particular about the peer's side of it.
pub(super) struct Carrier {
    /// Scheme of its URLs, which also names the peer's driver.
    pub(super) scheme: &'static str,
    /// What a dialer checks of the server's certificate.
    pub(super) host_check: HostCheck,
    /// The largest frame that a dialing peer takes, in bytes.
    pub(super) dialer_takes: usize,
    /// Whether it is not for every day.
    pub(super) slow: bool,
    /// Makes it without encryption.
    pub(super) clear: fn() -> Arc<dyn Transport>,
    /// Makes it with TLS.
    pub(super) tls: MakeTls,
}

/// Makes a carrier from the TLS of a dialer and that of a listener.
pub(super) type MakeTls = fn(Option<Arc<ClientConfig>>, Option<Arc<ServerConfig>>) -> Arc<dyn Transport>;

impl Carrier {
    /// For a cell with this certificate, or for one without.
    pub(super) fn transport(&self, files: Option<&TlsFiles>) -> anyhow::Result<Arc<dyn Transport>> {
        let Some(files) = files else { return Ok((self.clear)()) };
        let client = client_config(files, self.host_check)?;
        let server = server_config(files, ClientAuth::Required)?;
        Ok((self.tls)(Some(Arc::new(client)), Some(Arc::new(server))))
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme)
    }
}
