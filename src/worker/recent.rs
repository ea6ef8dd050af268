//! Who was disconnected or refused lately, and why: two rings of bounded memory, for those who ask afterwards.
//!
//! Refusals have a ring of their own, so that a flood of them does not wash away the ends of connections that were there.

use super::table::Entry;
use super::{Kernel, Worker};
use crate::conn::{Ended, Peer, Phase};
use crate::error::{End, Refused};
use crate::limits::{RECENT_CLOSES_MAX, RECENT_CLOSES_TOTAL, RECENT_REFUSALS_PART, RECENT_TEXT_BYTES_MAX};
use crate::service::{ConnId, Service};
use crate::topic::TopicName;
use std::collections::VecDeque;

/// By what a client listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    /// A session in the body of a response.
    Emulated,
    EventStream,
    LongPoll,
    /// Requests and their answers.
    Http,
}

impl Transport {
    pub(crate) const ALL: [Self; 5] = [Self::WebSocket, Self::Emulated, Self::EventStream, Self::LongPoll, Self::Http];

    /// The word for labels and parameters.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Emulated => "emulated",
            Self::EventStream => "event_stream",
            Self::LongPoll => "long_poll",
            Self::Http => "http",
        }
    }

    /// Of a connection in that phase, with or without a service's state, which may be a session in a response's body.
    pub(super) fn of(phase: Phase, has_state: bool, is_emulated: bool) -> Self {
        match phase {
            Phase::Streaming => Self::EventStream,
            Phase::Waiting => Self::LongPoll,
            Phase::Emulated => Self::Emulated,
            _ if has_state && is_emulated => Self::Emulated,
            _ if has_state => Self::WebSocket,
            _ => Self::Http,
        }
    }
}

/// Why somebody is gone, or did not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Ended(End),
    Refused(Refused),
}

/// One end, or one refusal.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    /// In milliseconds of Unix time.
    pub(crate) unix_ms: u64,
    /// `None`: it was turned away before it had a number.
    pub(crate) serial: Option<u64>,
    pub(crate) peer: Peer,
    pub(crate) user: Option<Box<str>>,
    pub(crate) transport: Transport,
    pub(crate) why: Why,
    /// The close code, or the status.
    pub(crate) code: u16,
    /// Both sides sent their Close.
    pub(crate) clean: bool,
    /// What was said, if it is not the registry's own text for that reason.
    pub(crate) text: Option<Box<str>>,
    pub(crate) age_s: u32,
    /// Bytes that waited for it.
    pub(crate) queued: u32,
    /// Messages behind the head of the topic where it was farthest behind.
    pub(crate) lag: u32,
    /// The first topic it listened to.
    pub(crate) topic: Option<TopicName>,
}

/// What is known of a connection that leaves its topics, until it is gone.
#[derive(Debug, Default)]
pub(super) struct Parting {
    topic: Option<TopicName>,
    lag: u64,
    /// As whom it subscribed.
    user: Option<Box<str>>,
}

/// The rings.
#[derive(Debug)]
pub(crate) struct Recent {
    closes: VecDeque<Gone>,
    refusals: VecDeque<Gone>,
    closes_max: usize,
    /// Bytes of texts and names.
    text_bytes: usize,
}

impl Recent {
    pub(super) fn new(workers: usize) -> Self {
        let closes_max = (RECENT_CLOSES_TOTAL / workers.max(1)).clamp(1, RECENT_CLOSES_MAX);
        Self { closes: VecDeque::new(), refusals: VecDeque::new(), closes_max, text_bytes: 0 }
    }

    fn push(&mut self, gone: Gone) {
        let (ring, most) = match gone.why {
            Why::Ended(_) => (&mut self.closes, self.closes_max),
            Why::Refused(_) => (&mut self.refusals, self.closes_max.div_ceil(RECENT_REFUSALS_PART)),
        };
        self.text_bytes += texts(&gone);
        if ring.len() >= most
            && let Some(oldest) = ring.pop_front()
        {
            self.text_bytes -= texts(&oldest);
        }
        ring.push_back(gone);
    }

    /// A request was refused.
    pub(super) fn refused(
        &mut self,
        unix_ms: u64,
        serial: Option<u64>,
        peer: Peer,
        (refused, status, detail): (Refused, u16, Option<&str>),
    ) {
        let text = detail.filter(|detail| *detail != refused.text() && detail.len() <= RECENT_TEXT_BYTES_MAX);
        self.push(Gone {
            unix_ms,
            serial,
            peer,
            user: None,
            transport: Transport::Http,
            why: Why::Refused(refused),
            code: status,
            clean: false,
            text: text.map(Into::into),
            age_s: 0,
            queued: 0,
            lag: 0,
            topic: None,
        });
    }

    /// Both rings as one, the newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Gone> {
        let (mut closes, mut refusals) = (self.closes.iter().rev().peekable(), self.refusals.iter().rev().peekable());
        std::iter::from_fn(move || match (closes.peek(), refusals.peek()) {
            (Some(close), Some(refusal)) if refusal.unix_ms > close.unix_ms => refusals.next(),
            (None, _) => refusals.next(),
            _ => closes.next(),
        })
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        (self.closes.capacity() + self.refusals.capacity()) * size_of::<Gone>() + self.text_bytes
    }
}

fn texts(gone: &Gone) -> usize {
    gone.user.as_ref().map_or(0, |user| user.len()) + gone.text.as_ref().map_or(0, |text| text.len())
}

/// As much of a text as is kept.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(RECENT_TEXT_BYTES_MAX)]
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// For the simulation, which looks for what is left behind.
    #[cfg(any(test, fuzzing))]
    pub(super) fn forget_recent(&mut self) {
        self.recent = Recent::new(self.shared.ports.len());
    }

    /// A connection that is about to end leaves its topics: what will be asked about it is put aside.
    pub(super) fn note_parting(&mut self, slot: u32) {
        let Some(parting) = self.parting(slot) else { return };
        self.partings.entry(slot).or_insert(parting);
    }

    /// What is known of it from its topics; `None`: it has none.
    pub(super) fn parting(&mut self, slot: u32) -> Option<Parting> {
        if let Some(parting) = self.partings.remove(&slot) {
            return Some(parting);
        }
        self.table.get(slot)?.subscription()?;
        let (topic, lag) = self.standing(slot);
        let user = self.members.get(&(slot, 0)).filter(|member| !member.user.is_empty());
        Some(Parting { topic, lag, user: user.map(|member| cut(&member.user).into()) })
    }

    /// The first topic that a connection listens to, and how many messages it is behind where it is farthest behind.
    pub(super) fn standing(&self, slot: u32) -> (Option<TopicName>, u64) {
        let mut standing = (None, 0);
        for (_, subscription) in self.table.subscriptions(slot) {
            let name = self.topics.name(subscription.topic());
            if standing.0.is_none() && name.beside().is_none() {
                standing.0 = Some(name.clone());
            }
            standing.1 = standing.1.max(subscription.place().map_or(0, |place| self.topics.lag(place)));
        }
        standing
    }

    /// A connection is over. Thousands may be at once: what is kept is copied, and nothing is written or sent.
    pub(super) fn note_removal(
        &mut self,
        slot: u32,
        entry: &Entry<S::State, K::Socket>,
        ended: Option<&Ended>,
        parting: Option<Parting>,
    ) {
        let (phase, has_state) = (entry.conn.phase(), entry.conn.state.is_some());
        let end = ended.map_or(End::PeerGone, |ended| ended.end);
        if !has_state && !is_worth_noting(phase, end) {
            return;
        }
        let id = ConnId { worker: self.index, slot, serial: entry.serial };
        let told = entry.conn.state.as_ref().map(|state| self.service.told(id, state)).unwrap_or_default();
        let transport = match Transport::of(phase, has_state, told.is_emulated) {
            Transport::Http if parting.is_some() => Transport::EventStream,
            transport => transport,
        };
        let user = Some(told.user).filter(|user| !user.is_empty()).map(|user| cut(user).into());
        let Parting { topic, lag, user: member } = parting.unwrap_or_default();
        let reason = ended.map_or("", |ended| &*ended.reason);
        let text = Some(reason).filter(|text| *text != end.text() && !text.is_empty());
        let age = self.now.since(self.ages.since(entry.serial, self.now));
        let user: Option<Box<str>> = user.or(member);
        if !self.taps.is_empty() {
            self.tap_end(id, user.as_deref(), ended.map_or(end.code(), |ended| ended.code), end.word());
        }
        self.recent.push(Gone {
            unix_ms: self.unix_ms(),
            serial: Some(entry.serial),
            peer: entry.conn.peer(),
            user,
            transport,
            why: Why::Ended(end),
            code: ended.map_or(end.code(), |ended| ended.code),
            clean: ended.is_some_and(|ended| ended.clean),
            text: text.map(|text| cut(text).into()),
            age_s: u32::try_from(age.as_secs()).unwrap_or(u32::MAX),
            queued: u32::try_from(entry.conn.queued()).unwrap_or(u32::MAX),
            lag: u32::try_from(lag).unwrap_or(u32::MAX),
            topic,
        });
    }
}

/// Whether the end of a connection without a service's state is worth a word: requests come and go.
pub(super) fn is_worth_noting(phase: Phase, end: End) -> bool {
    matches!(phase, Phase::Streaming | Phase::Waiting)
        || !matches!(end, End::PeerClosed | End::PeerGone | End::PeerReset | End::PingTimeout | End::Aborted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(recent: &mut Recent, serial: u64, detail: &str) {
        recent.refused(serial, Some(serial), peer(), (Refused::Service, 403, Some(detail)));
    }

    #[test]
    fn a_ring_keeps_the_newest_in_bounded_memory() {
        let mut recent = Recent::new(1);
        let most = recent.closes_max.div_ceil(RECENT_REFUSALS_PART) as u64;
        for serial in 1..=10 * most {
            refuse(&mut recent, serial, &format!("no {serial}"));
        }
        let kept: Vec<_> = recent.iter().filter_map(|gone| gone.serial).collect();
        assert_eq!(kept, (9 * most + 1..=10 * most).rev().collect::<Vec<_>>());
        let bytes = recent.bytes();
        let texts: usize = recent.iter().map(texts).sum();
        assert_eq!(recent.text_bytes, texts);
        for serial in 1..=100 * most {
            refuse(&mut recent, serial, "no 10");
        }
        assert!(recent.bytes() <= bytes, "{} {bytes}", recent.bytes());
    }

    #[test]
    fn the_newest_of_both_rings_come_first() {
        let mut recent = Recent::new(1);
        for unix_ms in [10, 20, 30, 40] {
            recent.push(Gone { unix_ms, ..gone() });
        }
        for unix_ms in [5, 15, 25, 45] {
            refuse(&mut recent, unix_ms, "no");
        }
        let times: Vec<_> = recent.iter().map(|gone| gone.unix_ms).collect();
        assert_eq!(times, [45, 40, 30, 25, 20, 15, 10, 5]);
    }

    #[test]
    fn refusals_do_not_wash_ends_away() {
        let mut recent = Recent::new(1);
        recent.push(Gone { why: Why::Ended(End::SlowReader), ..gone() });
        (0..10_000).for_each(|serial| refuse(&mut recent, serial, "no"));
        assert!(recent.iter().any(|gone| gone.why == Why::Ended(End::SlowReader)));
    }

    #[test]
    fn with_many_workers_each_keeps_less_and_a_text_is_cut_at_a_character() {
        assert!(Recent::new(1000).closes_max <= Recent::new(1).closes_max);
        assert_eq!(cut("ä"), "ä");
        let long = "ä".repeat(RECENT_TEXT_BYTES_MAX);
        assert!(cut(&long).len() <= RECENT_TEXT_BYTES_MAX && cut(&long).len() + 2 > RECENT_TEXT_BYTES_MAX);
    }

    fn peer() -> Peer {
        std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into()
    }

    fn gone() -> Gone {
        Gone {
            unix_ms: 0,
            serial: Some(1),
            peer: peer(),
            user: None,
            transport: Transport::WebSocket,
            why: Why::Ended(End::PeerGone),
            code: 1006,
            clean: false,
            text: None,
            age_s: 0,
            queued: 0,
            lag: 0,
            topic: None,
        }
    }
}
