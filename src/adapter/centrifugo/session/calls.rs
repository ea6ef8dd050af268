//! What the application sees to: calls (`rpc`), which it answers, and messages without an answer (`send`); and what it has
//! to say to a client of itself.

use super::super::codec::{self, Format};
use super::super::codes::{DisconnectCode, ErrorCode};
use super::super::protocol::{Error, Event, Message, Outcome, RpcRequest};
use super::super::push;
use super::{Effect, Heart, Output, Rules, Session};
use crate::topic::Kind;

/// What a client calls or sends.
#[derive(Debug)]
pub(crate) enum ClientCall {
    Rpc {
        /// To answer it by.
        id: u32,
        method: String,
        data: Vec<u8>,
    },
    Message(Vec<u8>),
}

impl Session {
    pub(super) fn rpc(&self, id: u32, request: RpcRequest, rules: &Rules, output: &mut Output) {
        let RpcRequest { method, data } = request;
        match rules.takes_calls {
            true => output.effects.push(Effect::Call(ClientCall::Rpc { id, method, data })),
            false => self.fail(output, id, ErrorCode::NotAvailable),
        }
    }

    /// There is no reply to say in that nobody is there for it.
    pub(super) fn send(&self, message: Message, rules: &Rules, output: &mut Output) -> Result<(), DisconnectCode> {
        if !rules.takes_messages {
            return Err(DisconnectCode::NotAvailable);
        }
        output.effects.push(Effect::Call(ClientCall::Message(message.data)));
        Ok(())
    }

    /// The answer to a call, from whoever sees to it.
    pub(crate) fn call_answered(&self, id: u32, answer: Result<(Kind, &[u8]), Error>, output: &mut Output) {
        let outcome = match answer {
            Ok((kind, data)) => Outcome::Rpc(Message { data: push::payload(self.format, kind, data) }),
            Err(error) => Outcome::Error(error),
        };
        self.reply(output, id, outcome);
    }

    /// The application says something, to this client alone; nothing comes before the reply that begins the session.
    pub(crate) fn message(&self, kind: Kind, data: &[u8], output: &mut Output) {
        if self.heart == Heart::Connecting {
            return;
        }
        let event = Event::Message(Message { data: push::payload(self.format, kind, data) });
        codec::encode(&mut output.replies, self.format, &push::reply("", event));
    }

    /// What its data is, for the application: JSON where the session speaks JSON.
    pub(crate) fn says_json(&self) -> bool {
        self.format == Format::Json
    }
}
