//! The WebSocket upgrade, the server's side (RFC 6455, section 4.2.1), by the letter.

use super::body::Framing;
use super::head::Head;
use super::response::token_is_valid;
use crate::error::Refused;
use crate::ws;

/// Whether a request asks for a WebSocket. Any other upgrade (`h2c`, say) may be ignored, and is (RFC 9110,
/// section 7.8).
pub(crate) fn wants_websocket(head: &Head<'_>) -> bool {
    head.header_has_token("Upgrade", "websocket")
}

/// An upgrade request that was found correct.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upgrade {
    /// The value of Sec-WebSocket-Accept that answers it.
    pub(crate) accept: [u8; 28],
}

impl Upgrade {
    /// Checks a request for which [`wants_websocket`] holds.
    pub(crate) fn check(head: &Head<'_>) -> Result<Self, Refused> {
        if head.method() != "GET" {
            return Err(Refused::UpgradeMethod);
        }
        if !head.is_http11() {
            return Err(Refused::UpgradeHttp10);
        }
        if !head.header_has_token("Connection", "Upgrade") {
            return Err(Refused::UpgradeConnection);
        }
        if !matches!(head.framing()?, Framing::None | Framing::Length(0)) {
            return Err(Refused::UpgradeBody);
        }
        let version = head.only("Sec-WebSocket-Version", Refused::VersionMissing, Refused::VersionUnsupported)?;
        if version != b"13" {
            return Err(Refused::VersionUnsupported);
        }
        let key = head.only("Sec-WebSocket-Key", Refused::KeyMissing, Refused::KeyRepeated)?;
        if !ws::key_is_valid(key) {
            return Err(Refused::KeyInvalid);
        }
        check_subprotocols(head)?;
        Ok(Self { accept: ws::accept_value(key) })
    }
}

/// Subprotocols are tokens and unique (RFC 6455, section 4.1, item 10). A list may not be empty, but some clients
/// that offer nothing send one (`centrifuge-python` before 0.7 with JSON).
fn check_subprotocols(head: &Head<'_>) -> Result<(), Refused> {
    let mut offered: Vec<_> = head.header_list("Sec-WebSocket-Protocol").collect();
    offered.sort_unstable(); // a head has room for thousands
    let unique = offered.windows(2).all(|pair| pair[0] != pair[1]);
    if unique && offered.into_iter().all(token_is_valid) { Ok(()) } else { Err(Refused::ProtocolInvalid) }
}
