//! Who stands in front of the server and is believed when it says whose connection it brings.

use super::ConfigError;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Whose word on a client's address is taken, and how it is given: what [`Server::proxies`](crate::Server::proxies) is told.
///
/// ```
/// use throng::Proxies;
///
/// let proxies = Proxies { trusted: vec!["10.0.0.0/8".parse()?, "unix".parse()?], protocol: true, header: None };
/// # Ok::<(), throng::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The proxies. What anybody else says of other addresses is ignored.
    pub trusted: Vec<Network>,
    /// They begin each connection with a PROXY header, version 1 or 2 (haproxy's proxy-protocol.txt): whoever is trusted and
    /// does not is refused (400), as section 2 wants it.
    pub protocol: bool,
    /// They name the client in this header of each request; the other one is ignored. May stand beside `protocol`: then the
    /// address that the PROXY header gave is the one that must be trusted.
    pub header: Option<ForwardedHeader>,
}

/// The header in which proxies name the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: a list to which each proxy appends the address it was connected from.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl ForwardedHeader {
    /// Both, as they are written.
    pub const ALL: [(&str, Self); 2] = [("X-Forwarded-For", Self::XForwardedFor), ("Forwarded", Self::Forwarded)];

    /// The header's name.
    pub const fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

impl FromStr for ForwardedHeader {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|&(_, header)| header).ok_or_else(|| {
            ConfigError::new(
                "proxies.header",
                format!("{text:?} is no header for a client's address: X-Forwarded-For, or Forwarded"),
            )
        })
    }
}

/// Addresses that begin alike (`10.0.0.0/8`, `2001:db8::/32`), one address (`192.0.2.1`), or `unix`: whoever comes through
/// a Unix-domain socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unix,
    /// IPv4 as mapped into IPv6, so that there is one comparison. The bits behind the length are zero.
    Prefix {
        bits: u128,
        length: u8,
    },
}

/// IPv4 begins behind these many bits of IPv6 (RFC 4291, section 2.5.5.2).
const MAPPED: u8 = 96;

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(128 - length)).unwrap_or(0)
}

fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Network {
    /// Whether an address lies in it; `None` is a peer without one.
    pub fn contains(&self, address: Option<IpAddr>) -> bool {
        match (self.0, address) {
            (Kind::Unix, address) => address.is_none(),
            (Kind::Prefix { .. }, None) => false,
            (Kind::Prefix { bits, length }, Some(address)) => bits_of(address) & mask(length) == bits,
        }
    }
}

impl FromStr for Network {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let fail = |what: &str| Err(ConfigError::new("proxies.trusted", format!("{what}, not {text:?}")));
        if text == "unix" {
            return Ok(Self(Kind::Unix));
        }
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let Ok(address) = address.parse::<IpAddr>() else {
            return fail("a network such as 10.0.0.0/8 or 2001:db8::/32, an address, or unix");
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length.map(str::parse::<u8>) {
            None => most,
            Some(Ok(length)) if length <= most => length,
            Some(_) => return fail(&format!("a network whose prefix has from 0 to {most} bits")),
        };
        let length = length + if address.is_ipv4() { MAPPED } else { 0 };
        let bits = bits_of(address);
        let network = Self(Kind::Prefix { bits: bits & mask(length), length });
        if bits & !mask(length) != 0 {
            return fail(&format!("a network without bits behind its prefix, such as {network}"));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kind::Prefix { bits, length } = self.0 else { return f.write_str("unix") };
        let address = Ipv6Addr::from_bits(bits);
        match address.to_ipv4_mapped().filter(|_| length >= MAPPED) {
            Some(v4) if length == 128 => v4.fmt(f),
            Some(v4) => write!(f, "{v4}/{}", length - MAPPED),
            None if length == 128 => address.fmt(f),
            None => write!(f, "{address}/{length}"),
        }
    }
}

impl Proxies {
    /// Whether that peer is one of the proxies; `None` is a peer without an address.
    pub(crate) fn trusts(&self, address: Option<IpAddr>) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// What cannot be.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let speaks = self.protocol || self.header.is_some();
        match (self.trusted.is_empty(), speaks) {
            (true, true) => Err(ConfigError::new(
                if self.protocol { "proxies.protocol" } else { "proxies.header" },
                "clients are to be named, and no proxy is trusted to do that: say which are (10.0.0.0/8, or unix for who \
                 comes through the Unix-domain socket)",
            )),
            (false, false) => Err(ConfigError::new(
                "proxies.trusted",
                "how the proxies name their clients is not said: by the PROXY protocol, or by a header (X-Forwarded-For or \
                 Forwarded)",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_network_holds_what_begins_like_it() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.0"),
            ("192.0.2.128/25", "192.0.2.200", "192.0.2.127"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
        ] {
            assert!(network(text).contains(address(inside)), "{inside} in {text}");
            assert!(!network(text).contains(address(outside)), "{outside} in {text}");
            assert!(!network(text).contains(None));
            assert_eq!(network(text).to_string(), text);
        }
        assert!(network("::/0").contains(address("192.0.2.1")), "all of IPv6 has IPv4 mapped in it");
        assert!(network("unix").contains(None) && !network("unix").contains(address("127.0.0.1")));
        assert_eq!(network("unix").to_string(), "unix");
    }

    /// Bit by bit, against the mask.
    #[test]
    fn a_prefix_is_as_long_as_it_says() {
        let base = u128::from_str_radix("20010db8aaaaaaaa5555555533333333", 16).expect("hex");
        for length in 0..=128_u8 {
            let kept = if length == 0 { 0 } else { base >> (128 - length) << (128 - length) };
            let prefix = network(&format!("{}/{length}", Ipv6Addr::from_bits(kept)));
            for bit in 0..128_u8 {
                let other = Ipv6Addr::from_bits(base ^ 1 << (127 - bit));
                assert_eq!(prefix.contains(Some(other.into())), bit >= length, "bit {bit} of {prefix}");
            }
        }
    }

    #[test]
    fn what_is_no_network_is_told_what_is_one() {
        for (text, hint) in [
            ("", "such as 10.0.0.0/8"),
            ("localhost", "an address, or unix"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("::/129", "from 0 to 128"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.1/8", "such as 10.0.0.0/8, not"),
            ("2001:db8::1/32", "such as 2001:db8::/32, not"),
        ] {
            let error = text.parse::<Network>().expect_err(text).to_string();
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn trust_without_words_and_words_without_trust_are_mistakes() {
        let trusted = vec![network("10.0.0.0/8")];
        let proxies = |trusted: &[Network], protocol, header| Proxies { trusted: trusted.to_vec(), protocol, header };
        assert!(proxies(&trusted, false, None).check().is_err());
        assert!(proxies(&[], true, None).check().is_err());
        assert!(proxies(&[], false, Some(ForwardedHeader::Forwarded)).check().is_err());
        assert!(proxies(&trusted, true, Some(ForwardedHeader::XForwardedFor)).check().is_ok());
        assert!(Proxies::default().check().is_ok());
    }

    #[test]
    fn a_header_is_known_by_its_name() {
        for (name, header) in ForwardedHeader::ALL {
            assert_eq!((name.to_lowercase().parse(), header.name()), (Ok(header), name));
        }
        assert!("X-Real-IP".parse::<ForwardedHeader>().is_err());
    }
}
