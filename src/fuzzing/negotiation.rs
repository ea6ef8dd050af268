//! `Sec-WebSocket-Extensions`: nothing is agreed on that was not offered, and what is, is the first offer that is in order.

use super::settings;
use crate::config::Compression;
use crate::ws::deflate::{Agreed, Context};
use std::ops::RangeInclusive;

/// Windows that can be had; 8 bits can be asked for, and are in no library.
const BITS: RangeInclusive<u8> = 9..=15;

/// A parameter, and its value if it has one.
type Parameter = (Vec<u8>, Option<Vec<u8>>);

/// What `permessage-deflate` offers or answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Terms {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<u8>,
    client_bits: Option<Option<u8>>,
}

/// A byte for whether there are contexts and of which window, then the header's values, a line each.
pub fn deflate(data: &[u8]) {
    let ([context], header) = settings::<1>(data);
    let context = (context & 1 == 1).then_some(BITS.start() + (context >> 1) % 7);
    let compression = Compression { level: 1, message_bytes_min: 0, context };
    let values = || header.split(|&byte| byte == b'\n');
    let offers = values().flat_map(|value| list(value).into_iter());
    let first = offers.filter_map(|offer| terms(&offer)).find(|terms| terms.server_bits != Some(8));
    let Some(agreed) = Agreed::negotiate(values(), &compression) else {
        return assert_eq!(first, None, "an offer in order is declined");
    };
    let offer = first.expect("it was offered");
    let answer = agreed.answer();
    let answered = list(answer.as_bytes());
    let [answered] = &answered[..] else { panic!("{answer}: one extension") };
    let answered = terms(answered).unwrap_or_else(|| panic!("{answer}: in order"));
    check(&offer, &answered, &agreed, context);
    assert_eq!(Context::new(agreed, &compression).is_none(), !agreed.server_takeover && !agreed.client_takeover);
}

/// RFC 7692, section 7.1, by the parameter; and what is done is what is answered.
fn check(offer: &Terms, answer: &Terms, agreed: &Agreed, context: Option<u8>) {
    let said = format!("{offer:?}, {answer:?}, {agreed:?}");
    assert!(BITS.contains(&agreed.server_bits) && (8..=15).contains(&agreed.client_bits), "{said}");
    // 7.1.1: what a client forbids the server is forbidden, and said.
    assert!(answer.server_no_takeover || !offer.server_no_takeover, "{said}");
    assert_eq!(
        (answer.server_no_takeover, answer.client_no_takeover),
        (!agreed.server_takeover, !agreed.client_takeover)
    );
    // 7.1.2.1: as large as was asked for at most, and said where it was asked for.
    assert!(offer.server_bits.is_none() || answer.server_bits.is_some(), "{said}");
    assert!(answer.server_bits.unwrap_or(15) <= offer.server_bits.unwrap_or(15), "{said}");
    assert_eq!(agreed.server_bits, answer.server_bits.unwrap_or(15), "{said}");
    // 7.1.2.2: only where it was offered; it has a value then, no larger than the offer's.
    if let Some(bits) = answer.client_bits {
        let offered = offer.client_bits.unwrap_or_else(|| panic!("it was not offered: {said}")).unwrap_or(15);
        assert!(bits.is_some_and(|bits| bits <= offered && bits == agreed.client_bits), "{said}");
    }
    // What the client may refer to is within the window that is kept for it.
    let client_bits = answer.client_bits.flatten().or(offer.client_bits.flatten()).unwrap_or(15);
    assert!(!agreed.client_takeover || client_bits <= agreed.client_bits, "{said}");
    assert!(context.is_some() || !agreed.server_takeover && !agreed.client_takeover, "{said}");
}

/// What is offered or answered, if it is in order.
fn terms(offer: &[Parameter]) -> Option<Terms> {
    let ((name, None), parameters) = offer.split_first()? else { return None };
    if !name.eq_ignore_ascii_case(b"permessage-deflate") {
        return None;
    }
    let mut terms = Terms::default();
    for (at, (name, value)) in parameters.iter().enumerate() {
        if parameters[..at].iter().any(|(other, _)| other == name) {
            return None;
        }
        match (&name[..], value) {
            (b"server_no_context_takeover", None) => terms.server_no_takeover = true,
            (b"client_no_context_takeover", None) => terms.client_no_takeover = true,
            (b"server_max_window_bits", Some(value)) => terms.server_bits = Some(bits(value)?),
            (b"client_max_window_bits", None) => terms.client_bits = Some(None),
            (b"client_max_window_bits", Some(value)) => terms.client_bits = Some(Some(bits(value)?)),
            _ => return None,
        }
    }
    Some(terms)
}

fn bits(value: &[u8]) -> Option<u8> {
    (8..=15_u8).find(|bits| bits.to_string().as_bytes() == value)
}

/// The extensions of a list, each as its parts, a byte at a time. What stands in quotes has no separators.
fn list(value: &[u8]) -> Vec<Vec<Parameter>> {
    let (mut texts, mut quoted, mut escaped) = (vec![vec![Vec::new()]], false, false);
    for &byte in value {
        match byte {
            b',' if !quoted => texts.push(vec![Vec::new()]),
            b';' if !quoted => texts.last_mut().expect("one").push(Vec::new()),
            _ => texts.last_mut().and_then(|parts| parts.last_mut()).expect("one").push(byte),
        }
        quoted ^= byte == b'"' && !escaped;
        escaped = quoted && byte == b'\\' && !escaped;
    }
    texts.into_iter().map(|parts| parts.iter().map(|part| parameter(part)).collect()).collect()
}

fn parameter(text: &[u8]) -> Parameter {
    let Some(equals) = text.iter().position(|&byte| byte == b'=') else { return (text.trim_ascii().to_vec(), None) };
    let (name, value) = (text[..equals].trim_ascii(), text[equals + 1..].trim_ascii());
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    (name.to_vec(), Some(unquoted.unwrap_or(value).to_vec()))
}
