//! The PROXY protocol, versions 1 and 2: what a proxy says of its client before anything else (haproxy's
//! proxy-protocol.txt; sections are of that). Sans-IO; whether there must be such a header is the configuration's to say,
//! never guessed from the bytes (section 2).

use crate::error::Refused;
use crate::limits::PROXY_HEADER_BYTES_MAX;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// On whose behalf a proxy connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preamble {
    /// On its own (a health check), or it does not know: the connection's own address counts (sections 2.1 and 2.2).
    Connection,
    Client(SocketAddr),
    /// A client that came to the proxy through a Unix-domain socket.
    Unix,
}

/// Longest line of version 1, with its CR LF (section 2.1).
const LINE_BYTES_MAX: usize = 107;
const LINE: &[u8] = b"PROXY ";
/// How version 2 begins (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and transport, and the length of what follows.
const FIXED_BYTES: usize = SIGNATURE.len() + 4;
/// PP2_TYPE_CRC32C (section 2.2).
const CHECKSUM: u8 = 0x03;

impl Preamble {
    /// Reads the header in front of `bytes`, which have come so far: how long it is, and what it says. `None`: it is not
    /// whole.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<(usize, Self)>, Refused> {
        if agrees(bytes, SIGNATURE) {
            header(bytes)
        } else if agrees(bytes, LINE) {
            line(bytes)
        } else {
            Err(Refused::ProxyExpected)
        }
    }
}

/// Whether the one begins with the other, as far as it is there.
fn agrees(bytes: &[u8], start: &[u8]) -> bool {
    let length = bytes.len().min(start.len());
    bytes[..length] == start[..length]
}

/// Version 1 (section 2.1): a line of text.
fn line(bytes: &[u8]) -> Result<Option<(usize, Preamble)>, Refused> {
    let bounded = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(lf) = bounded.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Refused::ProxyLine) };
    };
    let text = bounded[..lf].strip_suffix(b"\r").and_then(|text| std::str::from_utf8(text).ok());
    let said = text.and_then(said).ok_or(Refused::ProxyLine)?;
    Ok(Some((lf + 1, said)))
}

/// What a line says, without its end.
fn said(text: &str) -> Option<Preamble> {
    let mut words = text.split(' ');
    let (_, protocol) = (words.next()?, words.next()?);
    if protocol == "UNKNOWN" {
        return Some(Preamble::Connection); // "anything presented before the CRLF" is ignored
    }
    let [source, destination, source_port, destination_port] =
        [words.next()?, words.next()?, words.next()?, words.next()?];
    // Only what could be a proxy's: one space between words, and nothing behind.
    if words.next().is_some() {
        return None;
    }
    let address = |text: &str| match protocol {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => None,
    };
    let client = SocketAddr::new(address(source)?, port(source_port)?);
    address(destination)?;
    port(destination_port)?;
    Some(Preamble::Client(client))
}

/// A port in decimal, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// Version 2 (section 2.2): binary.
fn header(bytes: &[u8]) -> Result<Option<(usize, Preamble)>, Refused> {
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [version_and_command, kind, high, low] = fixed[SIGNATURE.len()..] else { return Err(Refused::ProxyHeader) };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    // Before anything is waited for.
    let addresses = match (version_and_command, kind) {
        // LOCAL: the block is skipped, "including the family which is ignored".
        (0x20, _) => None,
        // UNSPEC.
        (0x21, 0x00) => Some(0),
        // A stream over IPv4, IPv6, a Unix-domain socket: two addresses and, but for the last, two ports.
        (0x21, 0x11) => Some(2 * 4 + 2 * 2),
        (0x21, 0x21) => Some(2 * 16 + 2 * 2),
        (0x21, 0x31) => Some(2 * 108),
        _ => return Err(Refused::ProxyHeader),
    };
    if length > PROXY_HEADER_BYTES_MAX {
        return Err(Refused::ProxyTooLong);
    }
    let Some(whole) = bytes.get(..length) else { return Ok(None) };
    let Some(addresses) = addresses else { return Ok(Some((length, Preamble::Connection))) };
    let block = &whole[FIXED_BYTES..];
    let (block, extras) = block.split_at_checked(addresses).ok_or(Refused::ProxyHeader)?;
    check_extras(whole, extras)?;
    Ok(Some((length, client(block))))
}

/// The client that an address block of one of the known lengths names.
fn client(block: &[u8]) -> Preamble {
    let address = |ip: IpAddr, port: &[u8]| Preamble::Client((ip, u16::from_be_bytes([port[0], port[1]])).into());
    match block.len() {
        0 => Preamble::Connection,
        12 => address(Ipv4Addr::from(*block.first_chunk().expect("12 bytes")).into(), &block[8..10]),
        36 => address(Ipv6Addr::from(*block.first_chunk::<16>().expect("36 bytes")).into(), &block[32..34]),
        _ => Preamble::Unix,
    }
}

/// Goes over what else a header carries, in TLVs, for its checksum: "if validation fails", the header is refused.
fn check_extras(whole: &[u8], mut extras: &[u8]) -> Result<(), Refused> {
    while let [kind, high, low, rest @ ..] = extras {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, behind) = rest.split_at_checked(length).ok_or(Refused::ProxyHeader)?;
        if *kind == CHECKSUM {
            let sum = u32::from_be_bytes(value.try_into().map_err(|_| Refused::ProxyHeader)?);
            // Counted with the field itself as zeros.
            let at = whole.len() - behind.len() - value.len();
            if crc32c(whole[..at].iter().chain(&[0; 4]).chain(behind)) != sum {
                return Err(Refused::ProxyChecksum);
            }
        }
        extras = behind;
    }
    if extras.is_empty() { Ok(()) } else { Err(Refused::ProxyHeader) }
}

/// The checksum of Castagnoli's polynomial, bit-reversed 0x82F63B78 (RFC 9260, appendix A), a byte at a time.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    const TABLE: [u32; 256] = {
        let (mut table, mut index) = ([0; 256], 0);
        while index < 256 {
            let (mut sum, mut bit) = (index as u32, 0);
            while bit < 8 {
                sum = sum >> 1 ^ if sum & 1 == 1 { 0x82F6_3B78 } else { 0 };
                bit += 1;
            }
            table[index] = sum;
            index += 1;
        }
        table
    };
    !bytes.fold(u32::MAX, |sum, &byte| sum >> 8 ^ TABLE[(sum as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Result<Option<(usize, Preamble)>, Refused> {
        Preamble::read(bytes)
    }

    /// Version 2 with that version and command, family and transport, and block.
    fn binary(command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("short").to_be_bytes();
        [SIGNATURE, &[command, kind][..], &length, block].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x1F, 0x90, 0, 80];

    #[test]
    fn a_line_names_the_client() {
        for (text, client) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 8080 80\r\n", "192.0.2.1:8080"),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n", "255.255.255.255:65535"),
            ("PROXY TCP6 2001:db8::1 2001:DB8::2 1 2\r\n", "[2001:db8::1]:1"),
        ] {
            let client = Preamble::Client(client.parse().expect("an address"));
            assert_eq!(whole(format!("{text}GET").as_bytes()), Ok(Some((text.len(), client))), "{text}");
        }
        for text in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 whatever \t\r\n"] {
            assert_eq!(whole(text.as_bytes()), Ok(Some((text.len(), Preamble::Connection))));
        }
    }

    #[test]
    fn a_line_that_is_not_as_it_should_be_is_refused() {
        for text in [
            "PROXY TCP4 192.0.2.1 198.51.100.2 8080 80\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 8080\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 8080 80 \r\n",
            "PROXY TCP4 192.0.2.1  198.51.100.2 8080 80\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.2 8080 80\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 08080 80\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +8080 80\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 65536 80\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 80 x\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY  UNKNOWN\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(whole(text.as_bytes()), Err(Refused::ProxyLine), "{text:?}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(whole(&long.as_bytes()[..LINE_BYTES_MAX - 1]), Ok(None));
        assert_eq!(whole(long.as_bytes()), Err(Refused::ProxyLine), "it has no end within its limit");
    }

    #[test]
    fn a_binary_header_names_the_client() {
        let v6 = [&[0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 16], &[1, 2, 3, 4]].concat();
        for (kind, block, client) in [
            (0x11, &V4[..], Preamble::Client(([192, 0, 2, 1], 8080).into())),
            (0x21, &v6, Preamble::Client("[2001:db8::1]:258".parse().expect("an address"))),
            (0x31, &[b'a'; 216], Preamble::Unix),
            (0x00, &[], Preamble::Connection),
        ] {
            let bytes = binary(0x21, kind, block);
            assert_eq!(whole(&[&bytes[..], b"GET"].concat()), Ok(Some((bytes.len(), client))), "{kind:#x}");
            // With a TLV that says nothing (PP2_TYPE_NOOP), and one of a kind that is not known.
            let more = binary(0x21, kind, &[block, &[4, 0, 2, 1, 2, 0xE5, 0, 0]].concat());
            assert_eq!(whole(&more), Ok(Some((more.len(), client))), "{kind:#x}");
            let cut = binary(0x21, kind, &[block, &[4, 0, 2, 1]].concat());
            assert_eq!(whole(&cut), Err(Refused::ProxyHeader), "a TLV that ends early");
        }
    }

    #[test]
    fn a_local_connection_is_the_proxys_own_whatever_it_says() {
        for block in [&V4[..], &[], b"\x03\0\x04none, and no TLV either"] {
            let bytes = binary(0x20, 0xFF, block);
            assert_eq!(whole(&bytes), Ok(Some((bytes.len(), Preamble::Connection))));
        }
    }

    #[test]
    fn other_versions_commands_families_and_lengths_are_refused() {
        for (command, kind, block) in [
            (0x11, 0x11, &V4[..]), // version 1 in binary
            (0x31, 0x11, &V4),
            (0x22, 0x11, &V4),
            (0x21, 0x12, &V4), // a datagram
            (0x21, 0x10, &V4),
            (0x21, 0x41, &V4),
            (0x21, 0x01, &V4),
            (0x21, 0x11, &V4[..11]),
            (0x21, 0x21, &V4),
            (0x21, 0x31, &V4),
        ] {
            assert_eq!(whole(&binary(command, kind, block)), Err(Refused::ProxyHeader), "{command:#x} {kind:#x}");
        }
    }

    #[test]
    fn what_announces_too_much_is_refused_before_it_comes() {
        let most = PROXY_HEADER_BYTES_MAX - FIXED_BYTES;
        let mut bytes = binary(0x20, 0, &vec![0; most]);
        assert_eq!(whole(&bytes), Ok(Some((PROXY_HEADER_BYTES_MAX, Preamble::Connection))));
        bytes[14..16].copy_from_slice(&(most as u16 + 1).to_be_bytes());
        assert_eq!(whole(&bytes[..FIXED_BYTES]), Err(Refused::ProxyTooLong));
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        let with_sum = |sum: u32| {
            let noop = [4, 0, 1, 7];
            binary(0x21, 0x11, &[&V4[..], &[CHECKSUM, 0, 4], &sum.to_be_bytes(), &noop].concat())
        };
        let right = crc32c(with_sum(0).iter());
        assert!(matches!(whole(&with_sum(right)), Ok(Some((_, Preamble::Client(_))))));
        assert_eq!(whole(&with_sum(right ^ 1)), Err(Refused::ProxyChecksum));
        assert_eq!(whole(&binary(0x21, 0, &[CHECKSUM, 0, 3, 0, 0, 0])), Err(Refused::ProxyHeader));
    }

    /// RFC 9260's polynomial, bit by bit; and the check value that everybody gives for it.
    #[test]
    fn the_checksum_is_castagnolis() {
        let naive = |bytes: &[u8]| {
            let mut sum = u32::MAX;
            for byte in bytes {
                sum ^= u32::from(*byte);
                for _ in 0..8 {
                    sum = if sum & 1 == 1 { sum >> 1 ^ 0x82F6_3B78 } else { sum >> 1 };
                }
            }
            !sum
        };
        assert_eq!(crc32c(b"123456789".iter()), 0xE306_9283);
        let bytes: Vec<u8> = (0..=255).map(|n: u8| n.wrapping_mul(167)).collect();
        for length in 0..bytes.len() {
            assert_eq!(crc32c(bytes[..length].iter()), naive(&bytes[..length]));
        }
    }

    #[test]
    fn other_bytes_are_no_header() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"proxy TCP4", b"PROXX", b"\r\n\r\nX", b"\x16\x03\x01"] {
            assert_eq!(whole(bytes), Err(Refused::ProxyExpected), "{bytes:?}");
        }
        assert_eq!(whole(b""), Ok(None));
        assert_eq!(whole(b"\r\n"), Ok(None));
    }
}
