//! What a session publishes and asks of topics beside subscribing, and the answers.

use super::super::codes::{DisconnectCode, ErrorCode};
use super::super::protocol::{
    Empty, HistoryRequest, HistoryResult, Outcome, PresenceResult, PresenceStatsResult, PublishRequest,
};
use super::super::push::{self, Published};
use super::{Effect, Output, Rules, Session, error, position};
use crate::config::{Denied, Right};
use crate::error::Refused;
use crate::limits::{CENTRIFUGO_HISTORY_BYTES, CENTRIFUGO_HISTORY_MAX};
use crate::topic::{Author, Presence, Publication, Read, Resolved, Since, TopicName, Wanted};

/// In a tag, above the command's id: the members were asked for, not only their number.
const LIST: u64 = 1 << 32;

impl Session {
    pub(super) fn publish(
        &mut self,
        id: u32,
        request: PublishRequest,
        rules: &Rules,
        output: &mut Output,
    ) -> Result<(), DisconnectCode> {
        let PublishRequest { channel, data, r#type } = request;
        let topic = self.channel(&channel)?;
        if data.is_empty() {
            return Err(DisconnectCode::BadRequest);
        }
        match topic {
            None => self.fail(output, id, ErrorCode::BadRequest),
            Some(_) if r#type != 0 => self.fail(output, id, ErrorCode::PermissionDenied),
            Some(topic) => {
                if let Err(code) = self.may(Right::Publish, &topic, rules) {
                    self.fail(output, id, code);
                    return Ok(());
                }
                let Ok(kind) = push::kind_of(self.format, &data) else {
                    self.fail(output, id, ErrorCode::BadRequest);
                    return Ok(());
                };
                let publication = Publication::new(kind, data.into()).by(self.author(&topic));
                output.effects.push(Effect::Publish { topic, publication, tag: id.into() });
            }
        }
        Ok(())
    }

    pub(super) fn history(
        &mut self,
        id: u32,
        request: &HistoryRequest,
        rules: &Rules,
        output: &mut Output,
    ) -> Result<(), DisconnectCode> {
        let topic = self.channel(&request.channel)?.ok_or(ErrorCode::BadRequest);
        let topic = match topic.and_then(|topic| self.may(Right::History, &topic, rules).map(|()| topic)) {
            Ok(topic) => topic,
            Err(code) => {
                self.fail(output, id, code);
                return Ok(());
            }
        };
        let wanted = match &request.since {
            None if request.reverse => Wanted::Since(Since::Latest),
            None => Wanted::Since(Since::Earliest),
            Some(since) if since.epoch.is_empty() => Wanted::Offset(since.offset),
            Some(since) => position(&since.epoch, since.offset),
        };
        let limit = usize::try_from(request.limit).map_or(CENTRIFUGO_HISTORY_MAX, |n| n.min(CENTRIFUGO_HISTORY_MAX));
        let read = Read { limit, reverse: request.reverse, ..Read::all(wanted) };
        output.effects.push(Effect::Read { topic, read, tag: id.into() });
        Ok(())
    }

    pub(super) fn presence(
        &mut self,
        id: u32,
        channel: &str,
        list: bool,
        rules: &Rules,
        output: &mut Output,
    ) -> Result<(), DisconnectCode> {
        let topic = self.channel(channel)?.ok_or(ErrorCode::BadRequest);
        match topic.and_then(|topic| self.may(Right::Presence, &topic, rules).map(|()| topic)) {
            Err(code) => self.fail(output, id, code),
            Ok(topic) => {
                output.effects.push(Effect::Presence { topic, list, tag: u64::from(id) | (LIST * u64::from(list)) });
            }
        }
        Ok(())
    }

    /// Whether the client has this right, and there is what it would be good for.
    fn may(&self, right: Right, topic: &TopicName, rules: &Rules) -> Result<(), ErrorCode> {
        let name = topic.as_str();
        if name.len() > rules.topics.max_length {
            return Err(ErrorCode::BadRequest);
        }
        let ruled = rules.topics.of(name).ok_or(ErrorCode::UnknownChannel)?;
        let is_subscriber = self.channels.iter().any(|channel| channel.topic == *topic && channel.asked.is_none());
        match right {
            Right::History if !ruled.has_history() => Err(ErrorCode::NotAvailable),
            Right::Presence if !ruled.presence => Err(ErrorCode::NotAvailable),
            _ if rules.tokens.insecure => Ok(()),
            Right::History | Right::Presence if !is_subscriber && Self::needs_token(topic, rules) => {
                Err(ErrorCode::PermissionDenied)
            }
            right => match rules.topics.may(right, name, self.user(), is_subscriber) {
                Err(denied) if denied == Denied::Private || !self.is_allowed(right, name) => {
                    Err(ErrorCode::PermissionDenied)
                }
                _ => Ok(()),
            },
        }
    }

    /// Who is there.
    pub(crate) fn present(&mut self, tag: u64, presence: &Presence, output: &mut Output) {
        let outcome = if tag & LIST != 0 {
            let info = |member: &Author| (member.client.to_string(), push::client_info(member));
            Outcome::Presence(PresenceResult { presence: presence.members.iter().map(|member| info(member)).collect() })
        } else {
            let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            let (num_clients, num_users) = (number(presence.clients), number(presence.users));
            Outcome::PresenceStats(PresenceStatsResult { num_clients, num_users })
        };
        self.reply(output, tag as u32, outcome);
    }

    /// The outcome of a publication; a refusal may be that of any command.
    pub(crate) fn published(&mut self, tag: u64, outcome: Result<(), Refused>, output: &mut Output) {
        match outcome {
            Ok(()) => self.reply(output, tag as u32, Outcome::Publish(Empty {})),
            Err(refused) => self.fail(output, tag as u32, error(refused)),
        }
    }

    /// What is kept.
    pub(crate) fn read(&mut self, tag: u64, resolved: Resolved, output: &mut Output) {
        let (id, Resolved { start, messages, head }) = (tag as u32, resolved);
        if start.gap.is_some() {
            return self.fail(output, id, ErrorCode::UnrecoverablePosition);
        }
        // Whoever wants more asks again from where this ends.
        let (mut publications, mut bytes) = (Vec::new(), 0);
        for message in &messages {
            bytes += message.payload.len();
            if bytes > CENTRIFUGO_HISTORY_BYTES && !publications.is_empty() {
                break;
            }
            publications.push(Published::from(&**message).publication(self.format));
        }
        let (epoch, offset) = (head.epoch.as_str().to_owned(), head.offset);
        self.reply(output, id, Outcome::History(HistoryResult { publications, epoch, offset }));
    }
}
