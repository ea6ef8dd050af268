//! What goes to every subscriber of a channel: pure functions of a message, so that their bytes are made once for each
//! format and shared.

use super::codec::{Format, encode};
use super::field::binary;
use super::protocol::{ClientInfo, Event, Member, Outcome, Publication, Push, Reply};
use crate::json::{self, JsonError};
use crate::topic::{Author, Change, Kind, Message};
use crate::ws::{self, Opcode};
use std::collections::BTreeMap;

/// A publication, as the log has it or as it goes past the log.
#[derive(Clone, Debug)]
pub(crate) struct Published<'a> {
    pub(crate) kind: Kind,
    pub(crate) payload: &'a [u8],
    /// 0 for what is not in the log, and for topics without history.
    pub(crate) offset: u64,
    /// Unix time in milliseconds; 0 is not sent.
    pub(crate) time_ms: i64,
    /// The client that published it.
    pub(crate) info: Option<ClientInfo>,
    pub(crate) tags: Option<&'a BTreeMap<String, String>>,
}

impl<'a> From<&'a Message> for Published<'a> {
    fn from(message: &'a Message) -> Self {
        let Message { kind, ref payload, cursor, is_kept, .. } = *message;
        let (info, tags) = (message.author.as_deref().map(client_info), message.tags.as_deref());
        let time_ms = i64::try_from(message.unix_ms).unwrap_or(i64::MAX);
        Self { kind, payload, offset: if is_kept { cursor.offset } else { 0 }, time_ms, info, tags }
    }
}

impl Published<'_> {
    /// As it stands in a push, in history, and among what is recovered.
    pub(crate) fn publication(&self, format: Format) -> Publication {
        Publication {
            data: payload(format, self.kind, self.payload),
            info: self.info.clone(),
            offset: self.offset,
            tags: self.tags.cloned().unwrap_or_default(),
            time: self.time_ms,
        }
    }
}

/// A client as others see it.
pub(crate) fn client_info(author: &Author) -> ClientInfo {
    ClientInfo {
        user: author.user.to_string(),
        client: author.client.to_string(),
        conn_info: author.info.connection().to_vec(),
        chan_info: author.info.subscription().to_vec(),
    }
}

/// The push of a publication, alone in its frame.
pub(crate) fn publication(format: Format, channel: &str, published: &Published<'_>) -> Vec<u8> {
    push(format, channel, Event::Pub(published.publication(format)))
}

/// A push, alone in its frame.
pub(crate) fn push(format: Format, channel: &str, event: Event) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, format, &reply(channel, event));
    out
}

/// A push among replies.
pub(crate) fn reply(channel: &str, event: Event) -> Reply {
    Reply { id: 0, outcome: Some(Outcome::Push(Push { channel: channel.to_owned(), event: Some(event) })) }
}

/// A message's push in the WebSocket frame around it.
pub(crate) fn frame(format: Format, message: &Message) -> Vec<u8> {
    websocket_frame(format, &of_message(format, message))
}

/// A message's push, alone in its frame.
pub(crate) fn of_message(format: Format, message: &Message) -> Vec<u8> {
    let channel = message.topic.beside().unwrap_or(message.topic.as_str());
    let info = message.author.as_deref().map(client_info);
    match message.change {
        None => publication(format, channel, &Published::from(message)),
        Some(Change::Came) => push(format, channel, Event::Join(Member { info })),
        Some(Change::Left) => push(format, channel, Event::Leave(Member { info })),
    }
}

/// A frame of replies as the WebSocket frame around it: text or binary, unmasked.
pub(crate) fn websocket_frame(format: Format, replies: &[u8]) -> Vec<u8> {
    let opcode = match format {
        Format::Json => Opcode::Text,
        Format::Protobuf => Opcode::Binary,
    };
    let mut out = Vec::with_capacity(crate::limits::FRAME_HEADER_BYTES_MAX + replies.len());
    ws::encode(&mut out, opcode, replies);
    out
}

/// The `data` that a session sees. With Protobuf the bytes as they are; with JSON always JSON: text is a string, bytes
/// are `{"base64":"..."}`. Line ends between the tokens of JSON go when it is written.
pub(crate) fn payload(format: Format, kind: Kind, payload: &[u8]) -> Vec<u8> {
    match (format, kind) {
        (Format::Protobuf, _) | (Format::Json, Kind::Json) => payload.to_vec(),
        (Format::Json, Kind::Text) => {
            let mut out = Vec::new();
            json::push_string(&mut out, payload);
            out
        }
        (Format::Json, Kind::Bytes) => binary(payload).into_bytes(),
    }
}

/// What the `data` of a client's publication is. With Protobuf whatever is no JSON is bytes; with JSON there must be
/// some, and reading has checked all of it but the depth (error 107).
pub(crate) fn kind_of(format: Format, data: &[u8]) -> Result<Kind, JsonError> {
    match (format, json::validate(data)) {
        (_, Ok(())) => Ok(Kind::Json),
        (Format::Json, Err(error)) => Err(error),
        (Format::Protobuf, Err(_)) => Ok(Kind::Bytes),
    }
}
