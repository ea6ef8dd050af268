//! What the server API does with a session: it is about the session's user.
//!
//! Whoever is still being connected is disconnected at once, and sees the rest when it is connected: a push must not come
//! before the reply that begins the session.

use super::super::call::{Act, Call, Refresh, Subscription};
use super::super::codec;
use super::super::codes::{DisconnectCode, UnsubscribeCode};
use super::super::protocol::{self, Event, SubscribeRequest, SubscribeResult};
use super::super::push;
use super::identity::ttl;
use super::{Effect, Heart, Output, Rules, Session};
use crate::topic::TopicName;
use std::sync::Arc;

impl Session {
    /// Does what a call says, if the session is meant.
    pub(crate) fn called(&mut self, call: &Arc<Call>, rules: &Rules, output: &mut Output) {
        // Only the transports without a socket of their own name their sessions.
        let is_this = || rules.emulation.is_some_and(|emulation| emulation.ticket.text() == *call.session);
        let is_meant = *call.user == *self.user()
            && (call.session.is_empty() || is_this())
            && (call.client.is_empty() || *call.client == self.client());
        if !is_meant || self.user().is_empty() {
            return;
        }
        match &call.act {
            Act::Disconnect { code, reason, whitelist } => {
                if !whitelist.contains(&self.client()) {
                    output.effects.push(Effect::Close(*code, reason.clone()));
                }
            }
            _ if self.heart == Heart::Connecting => self.call_when_connected(call),
            Act::Unsubscribe(topic) => self.unsubscribe_by_server(topic, output),
            Act::Subscribe(subscription) => self.subscribe_later(subscription, rules, output),
            Act::Refresh(refresh) => self.refresh_by_server(refresh, rules, output),
        }
    }

    pub(super) fn unsubscribe_by_server(&mut self, topic: &TopicName, output: &mut Output) {
        let Some(channel) = self.channels.iter_mut().find(|channel| channel.topic == *topic) else { return };
        match &mut channel.asked {
            // Whoever asked for it gets that answer first.
            Some(asked) => asked.ends = true,
            None => self.end_subscription(topic, UnsubscribeCode::Server, output),
        }
    }

    /// The server subscribes a client that is connected. One that is subscribed already stays as it is.
    fn subscribe_later(&mut self, subscription: &Subscription, rules: &Rules, output: &mut Output) {
        let Subscription { topic, recover_since, overrides, .. } = subscription;
        if let Some(channel) = self.channels.iter_mut().find(|channel| channel.topic == *topic) {
            channel.asked.iter_mut().for_each(|asked| asked.ends = false);
            return;
        }
        if self.channels.len() >= rules.channels_max {
            return output.effects.push(Effect::Disconnect(DisconnectCode::ChannelLimit));
        }
        let (recoverable, positioned) = self.position_by_server(topic.as_str(), *overrides, rules);
        let (epoch, offset) = recover_since.clone().unwrap_or_default();
        let request = SubscribeRequest {
            channel: topic.as_str().to_owned(),
            recover: recover_since.is_some(),
            epoch,
            offset,
            recoverable,
            positioned,
            join_leave: overrides.force_push_join_leave == Some(true),
            ..SubscribeRequest::default()
        };
        self.grant_by_server(subscription);
        self.ask(0, topic.clone(), request, rules, output);
    }

    /// A subscription has begun that the server made of itself.
    pub(super) fn push_subscribed(&self, topic: &TopicName, result: SubscribeResult, output: &mut Output) {
        let SubscribeResult { recoverable, epoch, offset, positioned, data, .. } = result;
        let subscribe = protocol::Subscribe { recoverable, epoch, offset, positioned, data };
        let reply = push::reply(topic.as_str(), Event::Subscribe(subscribe));
        codec::encode(&mut output.replies, self.format, &reply);
    }

    fn refresh_by_server(&mut self, refresh: &Refresh, rules: &Rules, output: &mut Output) {
        let (expire_at, info) = match refresh {
            Refresh::Until(expire_at, info) if expire_at.is_none_or(|at| at > rules.unix_seconds) => (expire_at, info),
            _ => return output.effects.push(Effect::Disconnect(DisconnectCode::Expired)),
        };
        self.refreshed(*expire_at, info);
        let (expires, ttl) = ttl(*expire_at, rules);
        let reply = push::reply("", Event::Refresh(protocol::Refresh { expires, ttl }));
        codec::encode(&mut output.replies, self.format, &reply);
        output.effects.push(self.wake_again(rules));
    }
}
