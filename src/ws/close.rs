//! Close frames (RFC 6455, sections 5.5.1 and 7.4).

use super::frame::{Opcode, encode};
use crate::error::Violation;
use crate::limits::CLOSE_REASON_BYTES_MAX;

/// What a close frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// The code; `None` when the frame was empty, which is reported as 1005 (section 7.1.5).
    pub code: Option<u16>,
    /// The reason, UTF-8, possibly empty.
    pub reason: &'a str,
}

impl<'a> CloseFrame<'a> {
    /// Reads the payload of a close frame, unmasked.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Violation> {
        match payload {
            [] => Ok(Self { code: None, reason: "" }),
            [_] => Err(Violation::CloseTooShort),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !close_code_may_be_sent(code) {
                    return Err(Violation::CloseCodeInvalid);
                }
                let reason = std::str::from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
                Ok(Self { code: Some(code), reason })
            }
        }
    }
}

/// Whether a code may stand in a close frame: the registered ones (section 7.4.1 and the IANA registry, which
/// adds 1012 to 1014) and the ranges for libraries (3000) and applications (4000). 1005, 1006 and 1015 only
/// ever describe what happened; 1004 is reserved.
pub const fn close_code_may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends a close frame: empty for `None`. A reason that is too long is cut at a character.
pub fn encode_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    let Some(code) = code else {
        return encode(out, Opcode::Close, &[]);
    };
    debug_assert!(close_code_may_be_sent(code), "{code}");
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    let mut payload = [0_u8; 2 + CLOSE_REASON_BYTES_MAX];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    encode(out, Opcode::Close, &payload[..2 + reason.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        encode_close(&mut out, Some(1000), &"€".repeat(100));
        assert_eq!(out.len(), 2 + 2 + 41 * 3);
        assert_eq!(CloseFrame::parse(&out[2..]).map(|close| close.reason.chars().count()), Ok(41));
    }

    #[test]
    fn codes_that_only_describe_are_never_taken_from_the_wire() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535] {
            assert_eq!(CloseFrame::parse(&u16::to_be_bytes(code)), Err(Violation::CloseCodeInvalid), "{code}");
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert!(CloseFrame::parse(&u16::to_be_bytes(code)).is_ok(), "{code}");
        }
        assert_eq!(CloseFrame::parse(&[3]), Err(Violation::CloseTooShort));
        assert_eq!(CloseFrame::parse(&[3, 0xE8, 0xFF]), Err(Violation::InvalidUtf8));
    }
}
