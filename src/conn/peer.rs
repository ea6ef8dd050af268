//! Who is on the other side.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Who is on the other side of a connection: an address, or nobody in particular, for who comes through a Unix-domain socket.
/// Behind a proxy that is trusted to say so ([`Server::proxies`](crate::Server::proxies)) it is the client's address.
///
/// Shown it is `192.0.2.1:49152`, `192.0.2.1` where a proxy named no port, or `unix:`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    /// IPv4 as an IPv4-mapped IPv6 address; all zeros, which nobody can have, without an address. 18 bytes in all.
    ip: [u8; 16],
    port: u16,
}

impl Peer {
    pub(crate) const UNIX: Self = Self { ip: [0; 16], port: 0 };

    /// Its address; port 0 where a proxy named none.
    pub fn address(self) -> Option<SocketAddr> {
        (self.ip != [0; 16]).then(|| SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port))
    }

    /// The address without the port.
    pub fn ip(self) -> Option<IpAddr> {
        self.address().map(|address| address.ip())
    }
}

/// The unspecified address is nobody's: it stands for a socket without one.
impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            ip if ip.is_unspecified() => return Self::UNIX,
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self { ip: ip.octets(), port: address.port() }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            None => f.write_str("unix:"),
            Some(address) if address.port() == 0 => address.ip().fmt(f),
            Some(address) => address.fmt(f),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_shown_as_what_it_is() {
        for (given, shown) in [
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("192.0.2.1:0", "192.0.2.1"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("[2001:db8::1]:0", "2001:db8::1"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
            ("0.0.0.0:0", "unix:"),
            ("[::]:0", "unix:"),
        ] {
            let peer = Peer::from(given.parse::<SocketAddr>().expect("an address"));
            assert_eq!((peer.to_string(), peer.address().is_none()), (shown.to_owned(), shown == "unix:"));
        }
        assert!(size_of::<Peer>() <= 18);
    }
}
