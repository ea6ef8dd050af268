//! Who a session is, until when, and what the server subscribed it to: what tokens say.
//!
//! ```text
//!   connect -- token without `subs` --------------------------------> connected
//!        \---- with them: held -- all of them have begun: released --> connected, with their positions
//!
//!   the token's time:  ... expire_at ............ + 25 s
//!                          the client refreshes   3005, or 2501 for a subscription
//! ```
//!
//! Errors and codes are those of Centrifugo's handlers, with one exception: what is expired when a subscription is
//! refreshed ends that subscription in a way that has the client subscribe again. Clients take an error there for the end.

use super::super::call::{Call, Subscription};
use super::super::codes::{DisconnectCode, ErrorCode, UnsubscribeCode};
use super::super::protocol::{
    Command, Outcome, Refresh, RefreshResult, SubRefreshRequest, SubscribeRequest, SubscribeResult, Subscribed,
};
use super::super::token::{
    self, Allowed, Caps, ConnectionToken, Keys, Overrides, SubscribeOptions, SubscriptionToken, TokenError,
};
use super::super::users::Neighbours;
use super::{Effect, Output, Rules, Session};
use crate::config::{Denied, Right, TopicRules};
use crate::error::Refused;
use crate::limits::CENTRIFUGO_EXPIRED_S;
use crate::time::Tick;
use crate::topic::{Author, Infos, TopicName};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a channel's name starts with that is not for everybody, where no rules say so (`channel.private_prefix`).
const PRIVATE_PREFIX: char = '$';

/// How tokens are looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    /// Without them nobody can show a token, and nobody needs one.
    pub(crate) connection: Option<Keys>,
    /// Without them those of connections count.
    pub(crate) subscription: Option<Keys>,
    /// Whether a client may connect without a token all the same, as the empty user.
    pub(crate) anonymous: bool,
    /// Whether everybody is the empty user, and tokens are not looked at.
    pub(crate) insecure: bool,
}

impl Tokens {
    fn for_subscriptions(&self) -> Option<&Keys> {
        self.subscription.as_ref().or(self.connection.as_ref()).filter(|_| !self.insecure)
    }
}

/// What tokens said.
#[derive(Debug, Default)]
pub(super) struct Identity {
    user: Box<str>,
    info: Box<[u8]>,
    /// When the connection expires, in seconds of Unix time.
    pub(super) expire_at: Option<u64>,
    /// What it may do beyond the rules of channels.
    caps: Caps,
    /// Those that are not like any other.
    grants: Vec<Grant>,
    /// The session is woken next because something expires, and not for its heart.
    wakes_for_expiry: bool,
    admitted: Option<Box<Admitted>>,
    /// Where it stands among the sessions of its user, once it is entered there.
    neighbours: Option<Neighbours>,
}

/// What a token said of a subscription.
#[derive(Debug)]
struct Grant {
    topic: TopicName,
    expire_at: Option<u64>,
    /// What the client gets with it, until it has.
    data: Vec<u8>,
    /// What others see of it.
    info: Box<[u8]>,
    overrides: Overrides,
    /// What the client may do there beyond the channel's rules.
    allow: Allowed,
    is_by_server: bool,
}

/// A connect that is answered once the server's subscriptions have begun.
#[derive(Debug)]
struct Admitted {
    id: u32,
    /// How many they are.
    wanted: usize,
    begun: Vec<Subscribed>,
    behind: Vec<Command>,
    /// What the server API did meanwhile.
    calls: Vec<Arc<Call>>,
}

/// What `expires` and `ttl` of a result are.
pub(super) fn ttl(expire_at: Option<u64>, rules: &Rules) -> (bool, u32) {
    let left = |at: u64| u32::try_from(at.saturating_sub(rules.unix_seconds)).unwrap_or(u32::MAX);
    (expire_at.is_some(), expire_at.map_or(0, left))
}

/// Whether something has expired.
fn is_past(expire_at: Option<u64>, rules: &Rules) -> bool {
    expire_at.is_some_and(|at| at <= rules.unix_seconds)
}

/// When what expired and was not refreshed ends.
fn end(expire_at: Option<u64>) -> Option<u64> {
    expire_at.map(|at| at.saturating_add(CENTRIFUGO_EXPIRED_S))
}

impl Session {
    /// Whether a client with this token may connect, and what the server subscribes it to.
    pub(super) fn admit(
        &mut self,
        token: &str,
        rules: &Rules,
    ) -> Result<Result<BTreeMap<String, SubscribeOptions>, ErrorCode>, DisconnectCode> {
        let tokens = &rules.tokens;
        if tokens.insecure {
            return Ok(Ok(BTreeMap::new()));
        }
        let keys = match (token, &tokens.connection) {
            ("", keys) if tokens.anonymous || keys.is_none() => return Ok(Ok(BTreeMap::new())),
            ("", _) => {
                log::debug!("session {}: no token, and anonymous clients are not allowed", self.client());
                return Err(DisconnectCode::BadRequest);
            }
            (_, None) => {
                log::debug!("session {}: a token, and no secret is configured to check it with", self.client());
                return Err(DisconnectCode::InvalidToken);
            }
            (_, Some(keys)) => keys,
        };
        let ConnectionToken { user, expire_at, info, mut subs, caps, .. } =
            match token::verify_connection(token, keys, rules.unix_seconds) {
                Ok(token) => token,
                Err(TokenError::Expired) => return Ok(Err(ErrorCode::TokenExpired)),
                Err(error) => return Err(self.invalid(&error)),
            };
        if is_past(expire_at, rules) {
            return Ok(Err(ErrorCode::Expired));
        }
        if let Some(namespace) = rules.personal.as_ref().filter(|_| !user.is_empty()) {
            subs.entry(rules.topics.personal(namespace, &user)).or_default();
        }
        if subs.keys().any(|channel| rules.topics.of(channel).is_none()) {
            log::debug!("session {}: it is to be subscribed to a channel of no namespace that is here", self.client());
            return Ok(Err(ErrorCode::UnknownChannel));
        }
        let (user, info) = (user.into(), info.into());
        self.identity = Some(Box::new(Identity { user, info, expire_at, caps, ..Identity::default() }));
        Ok(Ok(subs))
    }

    fn invalid(&self, why: &dyn std::fmt::Display) -> DisconnectCode {
        log::debug!("session {}: {why}", self.client());
        DisconnectCode::InvalidToken
    }

    /// Who publishes or subscribes there.
    pub(super) fn author(&self, topic: &TopicName) -> Author {
        let (user, info) = match &self.identity {
            Some(identity) => {
                let grant = identity.grants.iter().find(|grant| grant.topic == *topic);
                let info = Infos::new(&identity.info, grant.map_or(&[], |grant| &grant.info));
                (identity.user.clone(), info)
            }
            None => Default::default(),
        };
        Author { client: self.client().into(), user, info, is_quiet: false }
    }

    /// What a token, or the server API, says of a subscription instead of its channel's rules.
    pub(super) fn overrides(&self, topic: &TopicName) -> Overrides {
        let grants = self.identity.iter().flat_map(|identity| &identity.grants);
        grants.filter(|grant| grant.topic == *topic).map(|grant| grant.overrides).next().unwrap_or_default()
    }

    /// As whom it subscribes, if others are to know: whoever is not to be seen by a presence is not told of either.
    pub(super) fn member(&self, topic: &TopicName, ruled: &TopicRules, overrides: Overrides) -> Option<Arc<Author>> {
        let presence = overrides.presence.unwrap_or(ruled.presence);
        let join_leave = overrides.join_leave.unwrap_or(ruled.join_leave);
        let is_hidden = ruled.presence && !presence;
        ((presence || join_leave) && !is_hidden)
            .then(|| Arc::new(Author { is_quiet: !join_leave, ..self.author(topic) }))
    }

    /// Whose it is; empty if nobody said.
    pub(crate) fn user(&self) -> &str {
        self.identity.as_ref().map_or("", |identity| &identity.user)
    }

    /// Whether it belongs among the sessions of its user, and is not there yet.
    pub(crate) fn is_to_enter(&self) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.neighbours.is_none() && !identity.user.is_empty())
    }

    /// Where it stands among the sessions of its user.
    pub(crate) fn neighbours(&mut self) -> Option<&mut Neighbours> {
        self.identity.as_mut()?.neighbours.as_mut()
    }

    /// It stands there.
    pub(crate) fn entered(&mut self, neighbours: Neighbours) {
        self.identity.get_or_insert_default().neighbours = Some(neighbours);
    }

    /// What the server API does is done once the connect is answered.
    pub(super) fn call_when_connected(&mut self, call: &Arc<Call>) {
        if let Some(admitted) = self.admitted() {
            admitted.calls.push(Arc::clone(call));
        }
    }

    /// The server subscribes the client, with what it has to say to that.
    pub(super) fn grant_by_server(&mut self, subscription: &Subscription) {
        let Subscription { topic, data, info, expire_at, overrides, .. } = subscription.clone();
        let (info, allow) = (info.into(), Allowed::default());
        let grant = Grant { topic, expire_at, data, info, overrides, allow, is_by_server: true };
        self.identity.get_or_insert_default().grants.push(grant);
    }

    /// Whether a token lets the client do that with a channel, whatever the channel's rules say.
    pub(super) fn is_allowed(&self, right: Right, channel: &str) -> bool {
        self.identity.as_ref().is_some_and(|identity| {
            let is_granted = |grant: &Grant| grant.topic.as_str() == channel && grant.allow.has(right);
            identity.grants.iter().any(is_granted) || identity.caps.allow(right, channel)
        })
    }

    /// The connection goes on until then. Others see this `info` from now on, unless it is empty.
    pub(super) fn refreshed(&mut self, expire_at: Option<u64>, info: &[u8]) {
        let identity = self.identity.get_or_insert_default();
        identity.expire_at = expire_at;
        if !info.is_empty() {
            identity.info = info.into();
        }
    }

    /// Whether a client that the server subscribes can come back to its position, and is told it. It cannot ask: whoever may,
    /// does, unless the server says otherwise.
    pub(super) fn position_by_server(&self, channel: &str, overrides: Overrides, rules: &Rules) -> (bool, bool) {
        let ruled = rules.topics.at(channel);
        let may_recover = ruled.may_recover(self.user()) || self.is_allowed(Right::Recovery, channel);
        let positioned = may_recover || ruled.allow_positioning;
        (overrides.force_recovery.unwrap_or(may_recover), overrides.force_positioning.unwrap_or(positioned))
    }

    /// The server subscribes the client, which is told with the answer to its connect.
    pub(super) fn subscribe_by_server(
        &mut self,
        id: u32,
        subs: BTreeMap<String, SubscribeOptions>,
        mut positions: BTreeMap<String, SubscribeRequest>,
        rules: &Rules,
        output: &mut Output,
    ) -> Result<(), DisconnectCode> {
        if subs.len() > rules.channels_max {
            return Err(DisconnectCode::ChannelLimit);
        }
        let mut asked = Vec::with_capacity(subs.len());
        for (channel, options) in subs {
            let Ok(topic) = TopicName::new(&channel) else {
                return Err(self.invalid(&"the token subscribes to what is no channel"));
            };
            let SubscribeRequest { recover, epoch, offset, .. } = positions.remove(&channel).unwrap_or_default();
            let (recoverable, positioned) = self.position_by_server(&channel, options.overrides, rules);
            let recover = recover && recoverable;
            let request =
                SubscribeRequest { channel, recover, epoch, offset, recoverable, positioned, ..Default::default() };
            let SubscribeOptions { info, data, overrides } = options;
            let (info, allow, is_by_server) = (info.into(), Allowed::default(), true);
            let grant = Grant { topic: topic.clone(), expire_at: None, data, info, overrides, allow, is_by_server };
            asked.push((topic, request, grant));
        }
        // Publications must not arrive before the answer that names their channels.
        output.effects.push(Effect::Hold(true));
        let (behind, calls) = (Vec::new(), Vec::new());
        let admitted = Admitted { id, wanted: asked.len(), begun: Vec::new(), behind, calls };
        self.identity.get_or_insert_default().admitted = Some(Box::new(admitted));
        for (topic, request, grant) in asked {
            self.identity.get_or_insert_default().grants.push(grant);
            self.ask(0, topic, request, rules, output);
        }
        Ok(())
    }

    fn admitted(&mut self) -> Option<&mut Admitted> {
        self.identity.as_mut()?.admitted.as_deref_mut()
    }

    /// Whether the connect waits for its answer.
    pub(super) fn is_admitted(&mut self) -> bool {
        self.admitted().is_some()
    }

    /// A command came before the connect was answered.
    pub(super) fn wait_for_connect(&mut self, command: Command, rules: &Rules) -> Result<(), DisconnectCode> {
        let admitted = self.admitted().ok_or(DisconnectCode::BadRequest)?;
        if admitted.behind.len() >= rules.channels_max {
            return Err(DisconnectCode::TooManyRequests);
        }
        admitted.behind.push(command);
        Ok(())
    }

    /// A subscription has begun. Gives the result back if the client asked for it.
    pub(super) fn subscribed_by_server(
        &mut self,
        topic: &TopicName,
        result: SubscribeResult,
        rules: &Rules,
        output: &mut Output,
    ) -> Option<SubscribeResult> {
        let Some(admitted) = self.admitted() else { return Some(result) };
        admitted.begun.push(Subscribed { channel: topic.as_str().to_owned(), result });
        if admitted.begun.len() < admitted.wanted {
            return None;
        }
        let admitted = self.identity.as_mut().and_then(|identity| identity.admitted.take())?;
        let Admitted { id, begun, behind, calls, .. } = *admitted;
        self.connected(id, begun, rules, output);
        output.effects.push(Effect::Hold(false));
        calls.iter().for_each(|call| self.called(call, rules, output));
        self.go_on(behind, rules, output);
        None
    }

    /// A subscription was refused that the server wanted.
    pub(super) fn refused_by_server(refused: Refused) -> DisconnectCode {
        match refused {
            Refused::TooManySubscriptions => DisconnectCode::ChannelLimit,
            _ => DisconnectCode::Internal,
        }
    }

    fn grant(&mut self, topic: &TopicName) -> Option<&mut Grant> {
        self.identity.as_mut()?.grants.iter_mut().find(|grant| grant.topic == *topic)
    }

    /// The subscription is over, and whatever was said of it.
    pub(super) fn forget_grant(&mut self, topic: &TopicName) {
        if let Some(identity) = &mut self.identity {
            identity.grants.retain(|grant| grant.topic != *topic);
        }
    }

    /// Whether the server subscribed the client.
    pub(super) fn is_by_server(&mut self, topic: &TopicName) -> bool {
        self.grant(topic).is_some_and(|grant| grant.is_by_server)
    }

    /// Whether a client with this token may subscribe.
    pub(super) fn may_subscribe(
        &mut self,
        topic: &TopicName,
        token: &str,
        rules: &Rules,
    ) -> Result<Result<(), ErrorCode>, DisconnectCode> {
        if token.is_empty() {
            let allowed = match rules.topics.may_subscribe(topic.as_str(), self.user()) {
                Ok(()) if Self::needs_token(topic, rules) => Err(Denied::Private),
                Err(Denied::UnknownNamespace) => return Ok(Err(ErrorCode::UnknownChannel)),
                _ if rules.tokens.insecure => Ok(()),
                Err(denied) if denied != Denied::Private && self.is_allowed(Right::Subscribe, topic.as_str()) => Ok(()),
                allowed => allowed,
            };
            return Ok(allowed.map_err(|denied| {
                log::debug!("session {}: may not subscribe to {topic}: {denied}", self.client());
                ErrorCode::PermissionDenied
            }));
        }
        if rules.tokens.insecure {
            return Ok(Ok(()));
        }
        let Some(keys) = rules.tokens.for_subscriptions() else {
            log::debug!("session {}: a token, and no secret is configured to check it with", self.client());
            return Ok(Err(ErrorCode::PermissionDenied));
        };
        let token = match token::verify_subscription(token, keys, rules.unix_seconds) {
            Ok(token) => token,
            Err(TokenError::Expired) => return Ok(Err(ErrorCode::TokenExpired)),
            Err(error) => {
                self.invalid(&error);
                return Ok(Err(ErrorCode::PermissionDenied));
            }
        };
        self.matches(&token, topic)?;
        if is_past(token.expire_at, rules) {
            return Ok(Err(ErrorCode::Expired));
        }
        let SubscriptionToken { expire_at, allow, options: SubscribeOptions { info, data, overrides }, .. } = token;
        let info = info.into();
        let grant = Grant { topic: topic.clone(), expire_at, data, info, overrides, allow, is_by_server: false };
        self.identity.get_or_insert_default().grants.push(grant);
        Ok(Ok(()))
    }

    /// Whether a channel is private though no rules say so.
    pub(super) fn needs_token(topic: &TopicName, rules: &Rules) -> bool {
        let is_open = rules.topics.is_open() && topic.as_str().starts_with(PRIVATE_PREFIX);
        is_open && rules.tokens.for_subscriptions().is_some()
    }

    /// A subscription token is for this client and channel.
    fn matches(&self, token: &SubscriptionToken, topic: &TopicName) -> Result<(), DisconnectCode> {
        if token.channel != topic.as_str() {
            Err(self.invalid(&"the token is for another channel (channel)"))
        } else if token.user != self.user() {
            Err(self.invalid(&"the token is for another user (sub)"))
        } else if !token.client.is_empty() && token.client != self.client() {
            Err(self.invalid(&"the token is for another client (client)"))
        } else {
            Ok(())
        }
    }

    /// Says with a subscription what its token said.
    pub(super) fn say_grant(
        &mut self,
        topic: &TopicName,
        result: &mut SubscribeResult,
        rules: &Rules,
        output: &mut Output,
    ) {
        let Some(grant) = self.grant(topic) else { return };
        (result.expires, result.ttl) = ttl(grant.expire_at, rules);
        result.data = std::mem::take(&mut grant.data);
        if grant.expire_at.is_some() {
            output.effects.push(self.wake_again(rules));
        }
    }

    /// The client has a new token for its connection.
    pub(super) fn refresh(
        &mut self,
        id: u32,
        token: &str,
        rules: &Rules,
        output: &mut Output,
    ) -> Result<(), DisconnectCode> {
        let Some(keys) = rules.tokens.connection.as_ref().filter(|_| !rules.tokens.insecure) else {
            self.fail(output, id, ErrorCode::NotAvailable);
            return Ok(());
        };
        if token.is_empty() {
            return Err(DisconnectCode::BadRequest);
        }
        let token = match token::verify_connection(token, keys, rules.unix_seconds) {
            Ok(token) if is_past(token.expire_at, rules) => return Err(DisconnectCode::Expired),
            Ok(token) if token.user != self.user() => return Err(self.invalid(&"the token is for another user (sub)")),
            Ok(token) => token,
            Err(TokenError::Expired) => return Err(DisconnectCode::Expired),
            Err(error) => return Err(self.invalid(&error)),
        };
        self.refreshed(token.expire_at, &token.info);
        self.replace_caps(token.caps, rules, output);
        let (expires, ttl) = ttl(token.expire_at, rules);
        let result = RefreshResult { client: self.client(), expires, ttl, ..RefreshResult::default() };
        self.reply(output, id, Outcome::Refresh(result));
        output.effects.push(self.wake_again(rules));
        Ok(())
    }

    /// The client may do this beyond the rules from now on. What it subscribes to by what it might do before, and may not
    /// now, ends.
    fn replace_caps(&mut self, caps: Caps, rules: &Rules, output: &mut Output) {
        let before = std::mem::replace(&mut self.identity.get_or_insert_default().caps, caps);
        let is_over = |topic: &TopicName| {
            let (right, name) = (Right::Subscribe, topic.as_str());
            before.allow(right, name)
                && !self.is_allowed(right, name)
                && !self.identity.iter().flat_map(|identity| &identity.grants).any(|grant| grant.topic == *topic)
                && rules.topics.may_subscribe(name, self.user()).is_err()
        };
        let over: Vec<_> =
            self.channels.iter().map(|channel| &channel.topic).filter(|topic| is_over(topic)).cloned().collect();
        over.iter().for_each(|topic| self.unsubscribe_by_server(topic, output));
    }

    /// The client has a new token for a subscription.
    pub(super) fn sub_refresh(
        &mut self,
        id: u32,
        request: &SubRefreshRequest,
        rules: &Rules,
        output: &mut Output,
    ) -> Result<(), DisconnectCode> {
        let topic = self.channel(&request.channel)?;
        let topic = topic.filter(|topic| self.channels.iter().any(|channel| channel.topic == *topic));
        if topic.as_ref().is_some_and(|topic| self.is_by_server(topic)) {
            return Err(DisconnectCode::BadRequest);
        }
        let (topic, keys) = match (topic, rules.tokens.for_subscriptions()) {
            (Some(topic), Some(keys)) if !request.token.is_empty() => (topic, keys),
            (topic, keys) => {
                let code = match (topic, keys) {
                    (None, _) => ErrorCode::PermissionDenied,
                    (Some(_), None) => ErrorCode::NotAvailable,
                    (Some(_), Some(_)) => ErrorCode::BadRequest,
                };
                self.fail(output, id, code);
                return Ok(());
            }
        };
        let renewed = match token::verify_subscription(&request.token, keys, rules.unix_seconds) {
            Ok(token) => {
                self.matches(&token, &topic)?;
                if is_past(token.expire_at, rules) { Err(()) } else { Ok((token.expire_at, token.allow)) }
            }
            Err(TokenError::Expired) => Err(()),
            Err(error) => return Err(self.invalid(&error)),
        };
        let Ok((expire_at, allow)) = renewed else {
            self.end_subscription(&topic, UnsubscribeCode::Expired, output);
            self.fail(output, id, ErrorCode::Expired);
            return Ok(());
        };
        match self.grant(&topic) {
            Some(grant) => (grant.expire_at, grant.allow) = (expire_at, allow),
            None => {
                let (data, info, overrides) = Default::default();
                let grant = Grant { topic, expire_at, data, info, overrides, allow, is_by_server: false };
                self.identity.get_or_insert_default().grants.push(grant);
            }
        }
        let (expires, ttl) = ttl(expire_at, rules);
        self.reply(output, id, Outcome::SubRefresh(Refresh { expires, ttl }));
        output.effects.push(self.wake_again(rules));
        Ok(())
    }

    /// Has the session woken when what expires first ends, unless that is after `heart`.
    pub(super) fn wake_within(&mut self, heart: Duration, rules: &Rules) -> Effect {
        let Some(identity) = &mut self.identity else { return Effect::Wake(heart) };
        let grants = identity.grants.iter().filter_map(|grant| grant.expire_at);
        let first = grants.chain(identity.expire_at).min();
        // Seconds are whole: what is looked at too early would be looked at again and again.
        let left = |end: u64| Duration::from_secs(end.saturating_sub(rules.unix_seconds).max(1));
        let expiry = end(first).map(left).filter(|&expiry| expiry < heart);
        identity.wakes_for_expiry = expiry.is_some();
        Effect::Wake(expiry.unwrap_or(heart))
    }

    /// The same where what expires has changed.
    pub(super) fn wake_again(&mut self, rules: &Rules) -> Effect {
        let ticks = u64::try_from(self.due.minus(rules.now.tick())).unwrap_or(0);
        self.wake_within(Duration::from_millis(ticks * Tick::MS), rules)
    }

    /// Sees to what has expired, if the session was woken for that.
    pub(super) fn woken_for_expiry(&mut self, rules: &Rules, output: &mut Output) -> bool {
        let Some(identity) = self.identity.as_mut().filter(|identity| identity.wakes_for_expiry) else {
            return false;
        };
        let is_over = |at| end(at).is_some_and(|end| end <= rules.unix_seconds);
        let is_asked =
            |topic: &TopicName| self.channels.iter().any(|channel| channel.topic == *topic && channel.asked.is_some());
        if is_over(identity.expire_at) {
            output.effects.push(Effect::Disconnect(DisconnectCode::Expired));
            return true;
        }
        let ended = identity.grants.extract_if(.., |grant| is_over(grant.expire_at) && !is_asked(&grant.topic));
        for grant in ended.collect::<Vec<_>>() {
            if grant.is_by_server {
                output.effects.push(Effect::Disconnect(DisconnectCode::SubscriptionExpired));
                return true;
            }
            self.end_subscription(&grant.topic, UnsubscribeCode::Expired, output);
        }
        output.effects.push(self.wake_again(rules));
        true
    }
}
