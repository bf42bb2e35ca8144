//! The address that this machine would use towards others.

use std::net::UdpSocket;

/// The local address as text, for the server's log; `127.0.0.1` if there is no way out.
///
/// Connecting a UDP socket asks the routing table and sends nothing; the address asked for need not
/// exist.
pub(crate) fn local_address() -> String {
    let routed = || {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
        socket.connect(("10.255.255.255", 1)).ok()?;
        socket.local_addr().ok()
    };
    routed().map_or_else(|| "127.0.0.1".to_owned(), |address| address.ip().to_string())
}

#[cfg(test)]
mod tests {
    use super::local_address;

    #[test]
    fn the_local_address_is_an_ip_address() {
        assert!(local_address().parse::<std::net::IpAddr>().is_ok());
    }
}
