//! What was published, and where it must be found: every client reports what it sees, and a contradiction fails.

use super::wire::{At, Payload, Shape};
use crate::mem::Rng;
use std::collections::{BTreeMap, HashMap};

/// How long an idempotency key is good for.
const KEY_MS: u64 = 300_000;

/// What became of a publication, as far as its publisher knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Sent, or to be sent: it may be there or not.
    Open,
    /// The server gave it a place.
    Acknowledged,
    /// The server said that it did not take it.
    Refused,
}

#[derive(Debug)]
pub(super) struct Publication {
    pub(super) topic: usize,
    pub(super) shape: Shape,
    pub(super) body: Vec<u8>,
    fate: Fate,
    born_ms: u64,
    /// Where it was found.
    places: Vec<At>,
}

/// What is known of a topic.
#[derive(Debug, Default)]
struct Topic {
    /// By epoch: the publication at each offset.
    epochs: HashMap<[u8; 8], BTreeMap<u64, usize>>,
    /// The last cursor that a publisher was given.
    acknowledged: Option<At>,
    /// Publications that may still come to have a place.
    open: u64,
}

macro_rules! tally {
    ($($what:ident)*) => {
        /// What happened, so that it can be seen that it does.
        #[derive(Clone, Copy, Debug, Default)]
        pub(super) struct Tally {
            $(pub(super) $what: u64,)*
        }

        impl Tally {
            pub(super) fn add(&mut self, other: &Self) {
                $(self.$what += other.$what;)*
            }

            /// Fails for what never happened.
            pub(super) fn check(&self) {
                $(assert!(self.$what > 0, "{} never happened", stringify!($what));)*
            }
        }
    };
}

tally! {
    turns published repeated refused epochs streams resumed recovered changes seen polls gaps lagged aged caught_up
    // The machine.
    interrupted would_block short_reads short_writes bytewise delayed truncated repeated_events stale_events
    late_wakeups false_wakeups accept_errors shortages spells table_full reused unwatched
    jumps stalls standstills reloads
    // The peers.
    fins resets cut zero_windows posts emulated compressed takeover inflated
    hostile silent trickled_heads random_heads lying_bodies unread_pipelines unread_streams forged_tickets random_frames
    violations fragments unread_pings ignored_closes behind_closes bad_deflate bad_commands parting timed_out
    closed_right
}

/// What a server promises in the seed under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    /// Messages that a topic keeps, whatever their size and age; `None` where those count too.
    pub(super) kept: Option<u64>,
    /// No topic is forgotten.
    pub(super) one_epoch: bool,
    /// Who reads too slowly is told of the gap.
    pub(super) skips: bool,
    /// The clock may leap over the time that idempotency keys are remembered for.
    pub(super) leaps: bool,
}

#[derive(Debug)]
pub(super) struct Truth {
    promise: Promise,
    topics: Vec<Topic>,
    publications: Vec<Publication>,
    publication_bytes: usize,
    pub(super) tally: Tally,
}

impl Truth {
    pub(super) fn new(topics: usize, promise: Promise) -> Self {
        let topics = (0..topics).map(|_| Topic::default()).collect();
        Self { promise, topics, publications: Vec::new(), publication_bytes: 0, tally: Tally::default() }
    }

    /// A publication that no other is like.
    pub(super) fn publish(&mut self, topic: usize, now: u64, rng: &mut Rng) -> usize {
        let id = self.publications.len();
        let pad = "x".repeat(if rng.below(10) == 0 { rng.below(9000) } else { rng.below(90) } as usize);
        let (shape, body) = match rng.below(3) {
            0 => (Shape::Text, format!("{id}#\"\\\n\n{pad}\u{e4}").into_bytes()),
            1 => (Shape::Json, format!("{{\"id\":\"{id}#\",\"pad\":[\"{pad}\",{{}}]}}").into_bytes()),
            _ => (Shape::Bytes, [&[0xff, 0, b'\n'], format!("{id}#{pad}").as_bytes()].concat()),
        };
        self.topics[topic].open += 1;
        self.publication_bytes += body.len();
        self.publications.push(Publication { topic, shape, body, fate: Fate::Open, born_ms: now, places: Vec::new() });
        id
    }

    /// As what comes over a WebSocket: a text frame is text, whatever it holds.
    pub(super) fn publication_over_websocket(&mut self, id: usize) -> &Publication {
        let publication = &mut self.publications[id];
        if publication.shape == Shape::Json {
            publication.shape = Shape::Text;
        }
        publication
    }

    /// It is sent a second time: where the first is forgotten by then, it is taken twice.
    pub(super) fn sent_again(&mut self, id: usize) {
        if self.promise.leaps {
            self.topics[self.publications[id].topic].open += 1;
        }
    }

    /// Bytes and messages that were published.
    pub(super) fn published(&self) -> (usize, usize) {
        (self.publication_bytes, self.publications.len())
    }

    pub(super) fn publication(&self, id: usize) -> &Publication {
        &self.publications[id]
    }

    pub(super) fn refused(&mut self, id: usize) {
        let publication = &mut self.publications[id];
        assert!(publication.places.is_empty(), "publication {id} was refused, and is there");
        self.topics[publication.topic].open -= u64::from(publication.fate == Fate::Open);
        publication.fate = Fate::Refused;
        self.tally.refused += 1;
    }

    pub(super) fn acknowledged(&mut self, id: usize, at: At, now: u64) {
        let topic = self.publications[id].topic;
        self.place(topic, at, id, now);
        self.publications[id].fate = Fate::Acknowledged;
        self.tally.published += 1;
        let last = &mut self.topics[topic].acknowledged;
        if last.is_none_or(|last| last.epoch != at.epoch || last.offset < at.offset) {
            *last = Some(at);
        }
    }

    fn place(&mut self, topic: usize, at: At, id: usize, now: u64) {
        let publication = &mut self.publications[id];
        assert_eq!(publication.topic, topic, "publication {id} is in the wrong topic");
        assert_ne!(publication.fate, Fate::Refused, "publication {id} was refused, and is at {at}");
        if !publication.places.contains(&at) {
            let again = !publication.places.is_empty();
            let forgotten = now - publication.born_ms >= KEY_MS; // the key's time may be over
            assert!(!again || forgotten, "publication {id} is twice there: {:?} and {at}", publication.places);
            self.topics[topic].open -= u64::from(!again);
            publication.places.push(at);
        }
        let epochs = &mut self.topics[topic].epochs;
        let new = !epochs.contains_key(&at.epoch);
        let other = epochs.entry(at.epoch).or_default().insert(at.offset, id);
        assert!(other.is_none_or(|other| other == id), "{at} is publication {id}, and {other:?}");
        assert!(epochs.len() == 1 || !self.promise.one_epoch, "the topic was forgotten: {at} is another epoch");
        self.tally.epochs += u64::from(new);
    }

    /// A reader got a message.
    pub(super) fn saw(&mut self, topic: usize, at: At, (shape, body): &Payload, now: u64) {
        let digits = body.split(|&byte| byte == b'#').next().unwrap_or_default();
        let digits = digits.rsplit(|byte| !byte.is_ascii_digit()).next().unwrap_or_default();
        let id: Option<usize> = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let id = id.filter(|&id| id < self.publications.len());
        let id = id.unwrap_or_else(|| panic!("nobody published what is at {at}: {}", String::from_utf8_lossy(body)));
        let publication = &self.publications[id];
        assert!(publication.body == *body, "{at} is publication {id}, but not what was published");
        let fits = publication.shape == *shape || *shape == Shape::Words && publication.shape != Shape::Bytes;
        assert!(fits, "{at} was published as {:?}, and came as {shape:?}", publication.shape);
        self.place(topic, at, id, now);
        self.tally.seen += 1;
    }

    /// The last cursor that was acknowledged: whoever asks from now on sees at least this.
    pub(super) fn head(&self, topic: usize) -> Option<At> {
        self.topics[topic].acknowledged
    }

    /// Whoever asked when `head` was acknowledged is shown a log that reaches to `at`.
    pub(super) fn reaches(&self, at: At, head: Option<At>, who: &str) {
        let Some(head) = head else { return };
        let same = head.epoch == at.epoch;
        assert!(same || !self.promise.one_epoch, "{who}: {at} is another epoch than {head}");
        assert!(!same || at.offset >= head.offset, "{who}: shown {at}, when {head} was acknowledged before");
    }

    /// Most that the topic's head can be.
    fn head_max(&self, topic: usize, epoch: [u8; 8]) -> u64 {
        let topic = &self.topics[topic];
        let known = topic.epochs.get(&epoch).and_then(|log| log.last_key_value()).map_or(0, |(&offset, _)| offset);
        known + topic.open
    }

    /// A reader whom the server had given `position` was told that it has missed something: has it?
    pub(super) fn missed(&self, topic: usize, position: At, who: &str) {
        let Some(kept) = self.promise.kept else { return };
        let head_max = self.head_max(topic, position.epoch);
        assert!(
            position.offset + kept < head_max,
            "{who}: at {position} it missed nothing: the head is {head_max} at most, and {kept} messages are kept"
        );
    }

    /// Whether a gap may be said amid a stream.
    pub(super) fn may_skip(&self) -> bool {
        self.promise.skips
    }

    /// Whether a gap may lead to another epoch.
    pub(super) fn may_change_epoch(&self) -> bool {
        !self.promise.one_epoch
    }

    /// Whether `at` is a place that the topic's log can have.
    pub(super) fn exists(&self, topic: usize, at: At, who: &str) {
        let head_max = self.head_max(topic, at.epoch);
        let exists = at.offset <= head_max || !self.promise.one_epoch;
        assert!(exists, "{who}: {at} lies ahead of all that was published ({head_max} at most)");
    }

    /// Every offset was somebody's: what nobody saw can only be what nobody knows the fate of. (A topic that is forgotten
    /// forgets its keys: what is published again may have been there in two epochs.)
    pub(super) fn check_holes(&self) {
        if !self.promise.one_epoch {
            return;
        }
        for (number, topic) in self.topics.iter().enumerate() {
            let holes: u64 = topic.epochs.values().map(|log| log.keys().last().unwrap_or(&0) - log.len() as u64).sum();
            assert!(holes <= topic.open, "topic {number}: {holes} offsets are nobody's, of {} open ones", topic.open);
        }
    }
}
