//! Taps: somebody watches the frames of one connection, user or topic.
//!
//! Unused it is one look at an empty vector for each read, write and publication. In use it is bounded: a tap has so many
//! frames a second and so many that wait to be fetched, and what is left out is counted and said. It follows the bytes, not the
//! handlers: what is read is taken apart before it is unmasked in place, and what is written when it is handed to the socket or
//! its queue.

use super::recent::Transport;
use super::table::Entry;
use super::{Kernel, Worker};
use crate::conn::Phase;
use crate::limits::{
    FRAME_HEADER_BYTES_MAX, TAP_CONNECTIONS_MAX, TAP_PAYLOAD_BYTES_MAX, TAP_PER_SECOND_MAX, TAP_QUEUE_MAX, TAPS_MAX,
};
use crate::service::{ConnId, Service};
use crate::time::Millis;
use crate::topic::{Message, Place, Subscriber, TopicName};
use crate::ws::{Header, Opcode, unmask};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Connection(ConnId),
    User(Box<str>),
    Topic(TopicName),
}

/// Which way something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From a client.
    In,
    /// To a client.
    Out,
    /// Nowhere: something happened.
    Event,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) unix_ms: u64,
    /// Of a publication it is not known.
    pub(crate) id: Option<ConnId>,
    pub(crate) way: Way,
    pub(crate) what: &'static str,
    /// Of a frame, its payload's.
    pub(crate) bytes: u64,
    /// It is not the last frame of its message.
    pub(crate) goes_on: bool,
    pub(crate) compressed: bool,
    pub(crate) topic: Option<TopicName>,
    /// The beginning of the payload, if that was asked for.
    pub(crate) payload: Box<[u8]>,
}

/// A tap, between the workers and whoever watches.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) target: Target,
    /// Whether payloads are shown.
    payload: bool,
    lasts: Duration,
    seen: Mutex<VecDeque<Seen>>,
    left_out: AtomicU64,
    /// Nobody watches any more.
    is_over: AtomicBool,
    /// It made room for another one.
    is_displaced: AtomicBool,
}

impl Tap {
    pub(crate) fn new(target: Target, payload: bool, lasts: Duration) -> Self {
        Self {
            target,
            payload,
            lasts,
            seen: Mutex::default(),
            left_out: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            is_displaced: AtomicBool::new(false),
        }
    }

    /// Takes out what was seen, and how much was left out.
    pub(crate) fn fetch(&self) -> (VecDeque<Seen>, u64) {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        (seen, self.left_out.swap(0, Ordering::Relaxed))
    }

    /// Nobody watches any more: workers forget it when they come across it, or its time is up.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// It makes room for another one, on every worker: half of what there is would look like all of it.
    fn displace(&self) {
        self.is_displaced.store(true, Ordering::Relaxed);
        self.end();
    }

    pub(crate) fn is_displaced(&self) -> bool {
        self.is_displaced.load(Ordering::Relaxed)
    }

    fn put(&self, seen: Seen) {
        let mut queue = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() < TAP_QUEUE_MAX {
            queue.push_back(seen);
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A tap on one worker.
#[derive(Debug)]
struct Follow {
    tap: Arc<Tap>,
    ends: Millis,
    /// Where in its frames each connection is, that was read from.
    walks: HashMap<(u32, u64), Walk>,
    second: u64,
    in_second: u32,
}

/// The taps of a worker.
#[derive(Debug, Default)]
pub(super) struct Taps(Vec<Follow>);

/// Where in a client's frames the bytes are that come next.
#[derive(Debug, Default)]
struct Walk {
    /// A header that is not whole.
    header: Vec<u8>,
    /// Of the payload under way, so many bytes are still to come.
    left: u64,
    /// It began in the middle of something.
    is_lost: bool,
}

/// A frame that was found.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    header: Header,
    /// The beginning of its payload, unmasked.
    payload: Vec<u8>,
}

impl Walk {
    /// Takes the next bytes. A frame is told when its header is whole, with what there is of its payload.
    fn step(&mut self, mut bytes: &[u8], tell: &mut dyn FnMut(Frame)) {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= skipped as u64;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let kept = self.header.len();
            self.header.extend_from_slice(&bytes[..bytes.len().min(FRAME_HEADER_BYTES_MAX - kept)]);
            match Header::parse(&self.header, true) {
                Ok(Some((header, length))) => {
                    bytes = &bytes[length - kept..];
                    self.header.clear();
                    self.left = header.length;
                    let shown = usize::try_from(header.length).unwrap_or(usize::MAX).min(TAP_PAYLOAD_BYTES_MAX);
                    let mut payload = bytes[..shown.min(bytes.len())].to_vec();
                    if let Some(key) = header.mask {
                        unmask(&mut payload, key, 0);
                    }
                    tell(Frame { header, payload });
                }
                Ok(None) => return,
                // The decoder ends such a connection.
                Err(_) => {
                    (self.is_lost, self.left) = (true, u64::MAX);
                    return;
                }
            }
        }
    }
}

fn name(opcode: Opcode) -> &'static str {
    match opcode {
        Opcode::Continuation => "continuation",
        Opcode::Text => "text",
        Opcode::Binary => "binary",
        Opcode::Close => "close",
        Opcode::Ping => "ping",
        Opcode::Pong => "pong",
    }
}

impl Taps {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them may be about that connection, as far as that can be told without looking at it.
    fn may_be_about(&self, slot: u32) -> bool {
        self.0.iter().any(|follow| match &follow.tap.target {
            Target::Connection(id) => id.slot == slot,
            Target::User(_) => true,
            Target::Topic(_) => false,
        })
    }

    /// Somebody watches from now on. The oldest makes room.
    pub(super) fn begin(&mut self, tap: Arc<Tap>, now: Millis) {
        self.tidy(now);
        if self.0.len() >= TAPS_MAX {
            self.0.remove(0).tap.displace();
        }
        let ends = now + tap.lasts;
        self.0.push(Follow { tap, ends, walks: HashMap::new(), second: 0, in_second: 0 });
    }

    /// Forgets those that are over.
    pub(super) fn tidy(&mut self, now: Millis) {
        self.0.retain(|follow| !follow.tap.is_over.load(Ordering::Relaxed) && now < follow.ends);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }
}

impl Follow {
    fn is_about(&self, id: ConnId, user: Option<&str>) -> bool {
        match &self.tap.target {
            Target::Connection(wanted) => *wanted == id,
            Target::User(wanted) => user == Some(wanted),
            Target::Topic(_) => false,
        }
    }

    fn is_about_topic(&self, topic: &TopicName) -> bool {
        matches!(&self.tap.target, Target::Topic(wanted) if wanted == topic)
    }

    /// Whether too much was shown this second.
    fn is_spent(&self, now: Millis) -> bool {
        now.0 / 1000 == self.second && self.in_second >= TAP_PER_SECOND_MAX
    }

    /// Shows something, unless there was too much of it this second.
    fn show(&mut self, now: Millis, mut seen: Seen) {
        let second = now.0 / 1000;
        if second != self.second {
            (self.second, self.in_second) = (second, 0);
        }
        self.in_second += 1;
        if self.in_second > TAP_PER_SECOND_MAX {
            self.tap.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if !self.tap.payload || seen.compressed {
            seen.payload = Box::default();
        }
        self.tap.put(seen);
    }
}

/// The beginning of a payload.
fn beginning(bytes: &[u8]) -> Box<[u8]> {
    bytes[..bytes.len().min(TAP_PAYLOAD_BYTES_MAX)].into()
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// A look at who is watched: for how the taps are used, see [`Taps`].
    fn each_tap(
        &mut self,
        slot: u32,
        mut act: impl FnMut(&mut Follow, ConnId, &Entry<S::State, K::Socket>, Millis, u64),
    ) {
        if !self.taps.may_be_about(slot) {
            return;
        }
        let mut taps = std::mem::take(&mut self.taps);
        if let Some(entry) = self.table.get(slot) {
            let id = ConnId { worker: self.index, slot, serial: entry.serial };
            let by_user = taps.0.iter().any(|follow| matches!(follow.tap.target, Target::User(_)));
            let user = by_user.then(|| self.user_of(slot)).flatten();
            for follow in taps.0.iter_mut().filter(|follow| follow.is_about(id, user)) {
                act(follow, id, entry, self.now, self.unix_ms());
            }
        }
        self.taps = taps;
    }

    /// Bytes have come and lie in the scratch, masked.
    #[cold]
    pub(super) fn tap_input(&mut self, slot: u32, count: usize) {
        let scratch = std::mem::take(&mut self.scratch);
        let bytes = &scratch[..count];
        self.each_tap(slot, |follow, id, entry, now, unix_ms| {
            let seen = |what, length| Seen {
                unix_ms,
                id: Some(id),
                way: Way::In,
                what,
                bytes: length,
                goes_on: false,
                compressed: false,
                topic: None,
                payload: Box::default(),
            };
            let phase = entry.conn.phase();
            if !matches!(phase, Phase::Open | Phase::Pinged | Phase::Paced | Phase::Closing) {
                // A request may hold what is secret: it is never shown.
                return follow.show(now, seen("http", count as u64));
            }
            if follow.walks.len() >= TAP_CONNECTIONS_MAX && !follow.walks.contains_key(&(slot, id.serial)) {
                follow.walks.clear();
            }
            let is_mid_message = entry.conn.is_mid_message();
            let fresh = || Walk { is_lost: is_mid_message, ..Walk::default() };
            let mut walk = follow.walks.remove(&(slot, id.serial)).unwrap_or_else(fresh);
            if walk.is_lost && !is_mid_message && walk.left == 0 {
                walk.is_lost = false;
            }
            if walk.is_lost {
                follow.show(now, seen("part", count as u64));
            } else {
                walk.step(bytes, &mut |Frame { header, payload }| {
                    let Header { opcode, fin, compressed, length, .. } = header;
                    let frame = seen(name(opcode), length);
                    follow.show(now, Seen { goes_on: !fin, compressed, payload: payload.into(), ..frame });
                });
            }
            follow.walks.insert((slot, id.serial), walk);
        });
        self.scratch = scratch;
    }

    /// Bytes go out that were made for one connection: whole frames, a response, or a part of one.
    #[cold]
    pub(super) fn tap_output(&mut self, slot: u32, serial: u64) {
        if self.table.find(slot, serial).is_some() {
            let output = std::mem::take(&mut self.output);
            self.tap_bytes(slot, &output, None);
            self.output = output;
        }
    }

    /// The same of a topic's message, in the bytes that are everybody's.
    fn tap_delivery(&mut self, slot: u32, topic: &TopicName, bytes: &[u8]) {
        self.tap_bytes(slot, bytes, Some(topic));
        let (now, unix_ms) = (self.now, self.unix_ms());
        let Some(serial) = self.table.get(slot).map(|entry| entry.serial) else { return };
        let id = ConnId { worker: self.index, slot, serial };
        for follow in self.taps.0.iter_mut().filter(|follow| follow.is_about_topic(topic)) {
            follow.show(
                now,
                Seen {
                    unix_ms,
                    id: Some(id),
                    way: Way::Out,
                    what: "delivery",
                    bytes: bytes.len() as u64,
                    goes_on: false,
                    compressed: false,
                    topic: Some(topic.clone()),
                    payload: Box::default(), // it is the publication's
                },
            );
        }
    }

    /// Whether somebody is to be shown what a subscriber is sent of a topic, so many messages: one that has been shown too much
    /// this second already is told their number instead.
    fn is_watched(&self, slot: u32, topic: &TopicName, count: u64) -> bool {
        let Some(entry) = self.table.get(slot) else { return false };
        let id = ConnId { worker: self.index, slot, serial: entry.serial };
        let is_about = |follow: &&Follow| match &follow.tap.target {
            Target::User(wanted) => self.user_of(slot) == Some(wanted),
            _ => follow.is_about(id, None) || follow.is_about_topic(topic),
        };
        let mut about = self.taps.0.iter().filter(is_about).peekable();
        if about.peek().is_none() || about.clone().any(|follow| !follow.is_spent(self.now)) {
            return about.peek().is_some();
        }
        for follow in about {
            follow.tap.left_out.fetch_add(count, Ordering::Relaxed);
        }
        false
    }

    /// A subscriber was sent what lay behind its cursor, or a part of it.
    #[cold]
    pub(super) fn tap_suffix(&mut self, place: Place, before: Subscriber) {
        let Some(local) = self.topics.locals.get(place.topic as usize) else { return };
        // Whoever was lost by it has given its place to another.
        let now = local.subscribers.get(place.index as usize).filter(|now| now.slot == before.slot);
        let (Some(now), Some(copy)) = (now, &local.copy) else { return };
        let count = now.cursor.saturating_sub(before.cursor);
        if count == 0 || !self.is_watched(before.slot, self.topics.name(place.topic), count) {
            return;
        }
        let sent = copy.after(before.cursor).take_while(|message| message.cursor.offset <= now.cursor);
        let sent: Vec<Arc<Message>> = sent.cloned().collect();
        self.tap_deliveries(before, &sent);
    }

    /// A subscriber was sent these.
    #[cold]
    pub(super) fn tap_deliveries(&mut self, Subscriber { slot, encoding, .. }: Subscriber, sent: &[Arc<Message>]) {
        let Some(first) = sent.first() else { return };
        if !self.is_watched(slot, &first.topic, sent.len() as u64) {
            return;
        }
        let compression = self.rules.compression;
        for message in sent {
            self.tap_delivery(slot, &message.topic, message.encoded(encoding, compression.as_ref()));
        }
    }

    fn tap_bytes(&mut self, slot: u32, bytes: &[u8], topic: Option<&TopicName>) {
        if !self.taps.may_be_about(slot) {
            return;
        }
        let is_websocket = self.transport_of(slot) == Some(Transport::WebSocket);
        self.each_tap(slot, |follow, id, _, now, unix_ms| {
            let seen = |what, length, payload| Seen {
                unix_ms,
                id: Some(id),
                way: Way::Out,
                what,
                bytes: length,
                goes_on: false,
                compressed: false,
                topic: topic.cloned(),
                payload,
            };
            let mut rest = bytes;
            if rest.starts_with(b"HTTP/1.") {
                let end = rest.windows(4).position(|window| window == b"\r\n\r\n").map_or(rest.len(), |at| at + 4);
                let is_switch = rest.starts_with(b"HTTP/1.1 101");
                let (response, behind) = rest.split_at(if is_switch { end } else { rest.len() });
                follow.show(now, seen("http", response.len() as u64, Box::default()));
                rest = behind;
            }
            if !is_websocket {
                if !rest.is_empty() {
                    follow.show(now, seen("stream", rest.len() as u64, beginning(rest)));
                }
                return;
            }
            Walk::default().step(rest, &mut |Frame { header, payload }| {
                let Header { opcode, fin, compressed, length, .. } = header;
                let frame = seen(name(opcode), length, payload.into());
                follow.show(now, Seen { goes_on: !fin, compressed, ..frame });
            });
        });
    }

    /// Commands for a session came by a request of their own.
    #[cold]
    pub(super) fn tap_parcel(&mut self, to: ConnId, data: &[u8]) {
        if self.table.find(to.slot, to.serial).is_none() {
            return;
        }
        self.each_tap(to.slot, |follow, id, _, now, unix_ms| {
            follow.show(
                now,
                Seen {
                    unix_ms,
                    id: Some(id),
                    way: Way::In,
                    what: "commands",
                    bytes: data.len() as u64,
                    goes_on: false,
                    compressed: false,
                    topic: None,
                    payload: beginning(data),
                },
            );
        });
    }

    /// A message is published to a topic at home here.
    #[cold]
    pub(super) fn tap_publication(&mut self, message: &Message) {
        let (now, unix_ms) = (self.now, self.unix_ms());
        for follow in self.taps.0.iter_mut().filter(|follow| follow.is_about_topic(&message.topic)) {
            follow.show(
                now,
                Seen {
                    unix_ms,
                    id: None,
                    way: Way::In,
                    what: "publication",
                    bytes: message.payload.len() as u64,
                    goes_on: false,
                    compressed: false,
                    topic: Some(message.topic.clone()),
                    payload: beginning(&message.payload),
                },
            );
        }
    }

    /// A connection is over.
    #[cold]
    pub(super) fn tap_end(&mut self, id: ConnId, user: Option<&str>, code: u16, word: &str) {
        let unix_ms = self.unix_ms();
        for follow in self.taps.0.iter_mut().filter(|follow| follow.is_about(id, user)) {
            follow.walks.remove(&(id.slot, id.serial));
            // What is said here is the server's own, and no payload.
            let said = Seen {
                unix_ms,
                id: Some(id),
                way: Way::Event,
                what: "ended",
                bytes: 0,
                goes_on: false,
                compressed: false,
                topic: None,
                payload: format!("{code} {word}").into_bytes().into(),
            };
            follow.tap.put(said);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Rng;
    use crate::ws::{encode, encode_masked};

    fn seen(bytes: u64) -> Seen {
        Seen {
            unix_ms: 0,
            id: None,
            way: Way::In,
            what: "text",
            bytes,
            goes_on: false,
            compressed: false,
            topic: None,
            payload: b"secret"[..].into(),
        }
    }

    fn topic() -> Target {
        Target::Topic(TopicName::new("t").unwrap())
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        let payloads = [vec![], b"hello".to_vec(), vec![b'x'; 300], vec![b'y'; 70_000], b"end".to_vec()];
        for payload in &payloads {
            encode_masked(&mut bytes, Opcode::Text, payload, [1, 2, 3, 4]);
        }
        encode(&mut bytes, Opcode::Ping, b"p");
        let mut rng = Rng::new(3);
        for most in [1, 2, 7, 100, 100_000] {
            let (mut walk, mut found, mut at) = (Walk::default(), Vec::new(), 0);
            while at < bytes.len() {
                let end = (at + 1 + rng.below(most) as usize).min(bytes.len());
                walk.step(&bytes[at..end], &mut |frame| found.push(frame));
                at = end;
            }
            let lengths: Vec<_> = found.iter().map(|frame| frame.header.length).collect();
            assert_eq!(lengths, [0, 5, 300, 70_000, 3, 1], "cut after at most {most}");
            assert!(found.iter().zip(&payloads).all(|(frame, payload)| payload.starts_with(&frame.payload)));
            assert!(!walk.is_lost && walk.left == 0 && walk.header.is_empty());
        }
    }

    #[test]
    fn what_is_no_frame_ends_the_walk() {
        let (mut walk, mut found) = (Walk::default(), 0);
        walk.step(&[0xff; 100], &mut |_| found += 1);
        walk.step(&[0x81, 0x00], &mut |_| found += 1);
        assert_eq!((found, walk.is_lost), (0, true));
    }

    #[test]
    fn what_is_too_much_is_left_out_and_counted_and_payloads_are_hidden() {
        let tap = Arc::new(Tap::new(topic(), false, Duration::from_secs(60)));
        let mut taps = Taps::default();
        taps.begin(Arc::clone(&tap), Millis(0));
        let follow = &mut taps.0[0];
        for second in 0..3 {
            for number in 0..TAP_PER_SECOND_MAX + 5 {
                follow.show(Millis(second * 1000 + u64::from(number % 1000)), seen(1));
            }
        }
        let (got, left_out) = tap.fetch();
        assert_eq!(got.len(), TAP_QUEUE_MAX);
        let all = 3 * (u64::from(TAP_PER_SECOND_MAX) + 5);
        assert_eq!(left_out, all - TAP_QUEUE_MAX as u64);
        assert!(got.iter().all(|seen| seen.payload.is_empty()));
        assert_eq!(tap.fetch(), (VecDeque::new(), 0));
    }

    #[test]
    fn a_tap_ends_with_whoever_watches_or_when_its_time_is_up() {
        let mut taps = Taps::default();
        let tap = |seconds| Arc::new(Tap::new(topic(), true, Duration::from_secs(seconds)));
        let (short, long) = (tap(10), tap(100));
        taps.begin(Arc::clone(&short), Millis(0));
        taps.begin(Arc::clone(&long), Millis(0));
        taps.tidy(Millis(9_999));
        assert_eq!(taps.0.len(), 2);
        taps.tidy(Millis(10_000));
        assert_eq!(taps.0.len(), 1);
        long.end();
        taps.tidy(Millis(10_001));
        assert!(taps.is_empty());
        for _ in 0..2 * TAPS_MAX {
            taps.begin(tap(100), Millis(0));
        }
        assert_eq!(taps.0.len(), TAPS_MAX);
        let (first, next) = (Arc::clone(&taps.0[0].tap), Arc::clone(&taps.0[1].tap));
        taps.begin(tap(100), Millis(0));
        assert!(first.is_displaced() && !next.is_displaced(), "the oldest is told");
    }
}
