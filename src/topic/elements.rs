//! What a poll found, as it is written: an array of messages that are the topic's.

use super::cursor::Gap;
use super::message::{Encoding, Message};
use crate::mem::Pieces;
use std::borrow::Cow;
use std::sync::Arc;

/// A JSON array of messages, which are referred to.
#[derive(Debug)]
pub(crate) struct Elements {
    /// What stands before the first message, all of it if there is none.
    opening: Cow<'static, [u8]>,
    messages: Box<[Arc<Message>]>,
}

impl Elements {
    pub(crate) fn new(gap: Option<&Gap>, messages: Box<[Arc<Message>]>) -> Self {
        let opening = match (gap, messages.is_empty()) {
            (None, false) => b"[".into(),
            (None, true) => b"[]\n".into(),
            (Some(gap), false) => format!("[{},", gap.json()).into_bytes().into(),
            (Some(gap), true) => format!("[{}]\n", gap.json()).into_bytes().into(),
        };
        Self { opening, messages }
    }

    /// All of it.
    pub(crate) fn json(&self) -> Vec<u8> {
        let pieces = || (0..).map_while(|number| self.piece(number));
        let mut json = Vec::with_capacity(pieces().map(<[u8]>::len).sum());
        pieces().for_each(|piece| json.extend_from_slice(piece));
        json
    }

    /// How many messages there are.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn last(&self) -> Option<&Message> {
        self.messages.last().map(|message| &**message)
    }
}

impl Pieces for Elements {
    /// The opening; then each message, and what stands behind it.
    fn piece(&self, number: usize) -> Option<&[u8]> {
        let Some(nth) = number.checked_sub(1) else { return Some(&self.opening) };
        let message = self.messages.get(nth / 2)?;
        Some(match nth % 2 {
            0 => message.encoded(Encoding::Element, None),
            _ if nth / 2 + 1 == self.messages.len() => b"]\n",
            _ => b",",
        })
    }

    fn list_bytes(&self) -> usize {
        size_of::<Self>() + self.opening.len() + size_of_val(&*self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{Publication, TopicName};

    #[test]
    fn the_pieces_are_an_array() {
        let message = |n: u64| {
            let (topic, cursor) = (TopicName::new("t").unwrap(), format!("abcdefgh-{n}").parse().unwrap());
            Arc::new(Message::new(topic, cursor, true, Publication::from(&*n.to_string()), 0))
        };
        let gap = Gap { since: "x".into(), resumed: "abcdefgh-0".parse().unwrap() };
        let array = |gap, count| {
            let elements = Elements::new(gap, (1..=count).map(message).collect());
            assert!((0..).map_while(|number| elements.piece(number)).all(|piece| !piece.is_empty()));
            String::from_utf8(elements.json()).unwrap()
        };
        let (one, two) = (r#"{"id":"abcdefgh-1","data":"1"}"#, r#"{"id":"abcdefgh-2","data":"2"}"#);
        let said = gap.json();
        assert_eq!(array(None, 0), "[]\n");
        assert_eq!(array(None, 1), format!("[{one}]\n"));
        assert_eq!(array(None, 2), format!("[{one},{two}]\n"));
        assert_eq!(array(Some(&gap), 0), format!("[{said}]\n"));
        assert_eq!(array(Some(&gap), 2), format!("[{said},{one},{two}]\n"));
    }
}
