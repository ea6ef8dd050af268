//! The judgement of a 101 (RFC 6455, section 4.1: what a client has to check, and fail the connection otherwise).

use std::fmt;

/// What a client's request offered, and so what the answer may hold.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// The value that belongs to the request's key.
    pub accept: &'a [u8; 28],
    /// The subprotocols, comma-separated; `None`: none.
    pub protocols: Option<&'a str>,
    /// The server has to take one of them.
    pub protocol_needed: bool,
    /// Whether permessage-deflate was offered. What is answered to that is the caller's to read.
    pub deflate: bool,
}

/// What the server chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switched<'a> {
    /// One of the subprotocols.
    pub protocol: Option<&'a [u8]>,
    /// The value of Sec-WebSocket-Extensions.
    pub extensions: Option<&'a [u8]>,
}

/// What is wrong with a 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchFault {
    /// No Sec-WebSocket-Accept.
    AcceptMissing,
    /// One that belongs to another key, or more than one.
    AcceptWrong,
    /// No `Upgrade: websocket`.
    Upgrade,
    /// No `Connection: Upgrade`.
    Connection,
    /// An extension that was not offered, or several lines of them.
    Extension,
    /// A subprotocol that was not offered.
    Protocol,
    /// None, where one was needed.
    ProtocolMissing,
}

impl fmt::Display for SwitchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AcceptMissing => "the 101 has no Sec-WebSocket-Accept (RFC 6455, section 4.1)",
            Self::AcceptWrong => "the 101's Sec-WebSocket-Accept does not belong to the key (RFC 6455, section 4.1)",
            Self::Upgrade => "the 101 lacks `Upgrade: websocket` (RFC 6455, section 4.1)",
            Self::Connection => "the 101 lacks `Connection: Upgrade` (RFC 6455, section 4.1)",
            Self::Extension => "the 101 has an extension that was not offered (RFC 6455, section 4.1)",
            Self::Protocol => "the 101 has a subprotocol that was not offered (RFC 6455, section 4.1)",
            Self::ProtocolMissing => "the 101 has none of the subprotocols that were offered",
        })
    }
}

impl std::error::Error for SwitchFault {}

/// Checks the header fields of a 101, names as sent and values as sent.
///
/// # Errors
///
/// [`SwitchFault`]: the connection is to be failed. A wrong accept value counts before everything else, since it says
/// that no WebSocket server answered.
pub fn check_switch<'a>(
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    offered: &Offered<'_>,
) -> Result<Switched<'a>, SwitchFault> {
    let (mut upgrade, mut connection, mut accepted) = (false, false, false);
    let (mut switched, mut fault) = (Switched::default(), None);
    for (name, value) in fields {
        let value = value.trim_ascii();
        // Told apart by length first: names are compared for the few that matter.
        match name.len() {
            7 if name.eq_ignore_ascii_case("upgrade") => upgrade |= value.eq_ignore_ascii_case(b"websocket"),
            10 if name.eq_ignore_ascii_case("connection") => {
                connection |=
                    value.split(|&byte| byte == b',').any(|v| v.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
            }
            20 if name.eq_ignore_ascii_case("sec-websocket-accept") => {
                if accepted || value != offered.accept {
                    return Err(SwitchFault::AcceptWrong);
                }
                accepted = true;
            }
            24 if name.eq_ignore_ascii_case("sec-websocket-extensions") && !value.is_empty() => {
                let is_first = switched.extensions.replace(value).is_none();
                if !(offered.deflate && is_first) {
                    fault = Some(SwitchFault::Extension);
                }
            }
            22 if name.eq_ignore_ascii_case("sec-websocket-protocol") => {
                let was_offered =
                    offered.protocols.is_some_and(|list| list.split(',').any(|one| one.trim().as_bytes() == value));
                if !was_offered || switched.protocol.replace(value).is_some() {
                    fault = Some(SwitchFault::Protocol);
                }
            }
            _ => {}
        }
    }
    match fault {
        _ if !accepted => Err(SwitchFault::AcceptMissing),
        _ if !upgrade => Err(SwitchFault::Upgrade),
        _ if !connection => Err(SwitchFault::Connection),
        Some(fault) => Err(fault),
        None if offered.protocol_needed && switched.protocol.is_none() => Err(SwitchFault::ProtocolMissing),
        None => Ok(switched),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: Offered<'_> =
        Offered { accept: b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", protocols: None, protocol_needed: false, deflate: false };
    const GOOD: [(&str, &str); 3] = [
        ("upgrade", "WebSocket"),
        ("CONNECTION", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Accept", " s3pPLMBiTxaQ9kYGzzhZRbK+xOo= "),
    ];

    fn check<'a>(fields: &[(&'a str, &'a str)], offered: &Offered<'_>) -> Result<Switched<'a>, SwitchFault> {
        check_switch(fields.iter().map(|&(name, value)| (name, value.as_bytes())), offered)
    }

    #[test]
    fn each_field_is_needed() {
        assert_eq!(check(&GOOD, &OFFERED), Ok(Switched::default()));
        let missing = [SwitchFault::Upgrade, SwitchFault::Connection, SwitchFault::AcceptMissing];
        for (at, fault) in missing.into_iter().enumerate() {
            let mut fields = GOOD.to_vec();
            fields.remove(at);
            assert_eq!(check(&fields, &OFFERED), Err(fault));
        }
    }

    #[test]
    fn a_wrong_accept_value_counts_first() {
        let mut fields = GOOD.to_vec();
        fields[2].1 = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo0";
        fields.push(("Sec-WebSocket-Protocol", "chat"));
        assert_eq!(check(&fields, &OFFERED), Err(SwitchFault::AcceptWrong));
        assert_eq!(check(&[&GOOD[..], &GOOD[2..]].concat(), &OFFERED), Err(SwitchFault::AcceptWrong), "twice");
    }

    #[test]
    fn only_what_was_offered_may_be_chosen() {
        let with = |name, value| [&GOOD[..], &[(name, value)]].concat();
        let deflate = with("Sec-WebSocket-Extensions", "permessage-deflate");
        assert_eq!(check(&deflate, &OFFERED), Err(SwitchFault::Extension));
        let chosen = check(&deflate, &Offered { deflate: true, ..OFFERED }).unwrap();
        assert_eq!(chosen.extensions, Some(&b"permessage-deflate"[..]));
        let chat = with("Sec-WebSocket-Protocol", "chat");
        assert_eq!(check(&chat, &OFFERED), Err(SwitchFault::Protocol));
        let needed = Offered { protocols: Some("soap, chat"), protocol_needed: true, ..OFFERED };
        assert_eq!(check(&chat, &needed).unwrap().protocol, Some(&b"chat"[..]));
        assert_eq!(check(&GOOD, &needed), Err(SwitchFault::ProtocolMissing));
        assert_eq!(check(&GOOD, &Offered { protocol_needed: false, ..needed }), Ok(Switched::default()));
    }
}
