//! What is kept of a topic: the log at its home, and copies of its end on the other workers.
//!
//! ```text
//!   offset      base   base+1   ...   head
//!                 |   [ oldest ] ... [ newest ]
//!                 `- the position just before the oldest kept
//! ```
//!
//! Both are a [`Run`] of messages without holes: the place of an offset is a subtraction, and a reader is a number.

use super::cursor::{Cursor, Epoch, Gap, Since};
use super::message::Message;
use super::name::TopicName;
use super::publication::Publication;
use crate::limits::{LINGER, SHED_BYTES_MIN};
use crate::planted::{Bug, planted};
use std::cell::Cell;
use std::collections::{VecDeque, vec_deque};
use std::rc::Rc;
use std::sync::Arc;

/// What is kept; the first bound reached counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How many messages. 0: a topic without history, see [`Limits::LINGER`].
    pub(crate) messages: usize,
    /// The sum of their [`Message::size`]. The newest message is kept even if it alone is larger.
    pub(crate) bytes: usize,
    /// How long; `u64::MAX` is for ever.
    pub(crate) age_ms: u64,
}

impl Limits {
    /// What a topic without history keeps for those who are still being sent to.
    pub(crate) const LINGER: Self = Self { messages: LINGER.0, bytes: LINGER.1, age_ms: LINGER.2 };

    /// Whether readers can come back to a position.
    pub(crate) fn has_history(&self) -> bool {
        self.messages > 0
    }

    /// The bounds to trim by.
    fn kept(&self) -> Self {
        if self.has_history() { *self } else { Self::LINGER }
    }
}

/// What lies behind a position, oldest first; O(1) to make.
pub(crate) type Suffix<'a> = vec_deque::Iter<'a, Arc<Message>>;

/// Where a reader starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The last message it has seen, or is taken to have.
    pub(crate) from: Cursor,
    /// What it must be told first.
    pub(crate) gap: Option<Gap>,
}

/// Messages without holes.
///
/// Invariants: `entries[i]` has offset `base + 1 + i`; `bytes` is the sum of their sizes; `removed <= head`.
#[derive(Debug)]
struct Run {
    epoch: Epoch,
    /// The offset just before the oldest kept: the head, if none is.
    base: u64,
    /// Up to here history was removed: what is kept of that is for those who are still being sent to.
    removed: u64,
    entries: VecDeque<Arc<Message>>,
    bytes: usize,
    limits: Limits,
    /// Where what is kept is added up.
    kept: Option<Rc<Kept>>,
}

/// What several runs keep together, of one worker.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    messages: Cell<u64>,
    bytes: Cell<u64>,
}

impl Kept {
    pub(crate) fn messages(&self) -> u64 {
        self.messages.get()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    fn add(&self, messages: usize, bytes: usize) {
        self.messages.set(self.messages.get() + messages as u64);
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    fn sub(&self, messages: usize, bytes: usize) {
        self.messages.set(self.messages.get() - messages as u64);
        self.bytes.set(self.bytes.get() - bytes as u64);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(kept) = &self.kept {
            kept.sub(self.entries.len(), self.bytes);
        }
    }
}

impl Run {
    fn new(epoch: Epoch, base: u64, limits: Limits) -> Self {
        Self { epoch, base, removed: 0, entries: VecDeque::new(), bytes: 0, limits, kept: None }
    }

    /// The offset of the newest message, kept or not.
    fn head(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    fn cursor(&self, offset: u64) -> Cursor {
        Cursor { epoch: self.epoch, offset }
    }

    /// Appends, and trims by count and bytes.
    fn push(&mut self, message: Arc<Message>) {
        assert_eq!(message.cursor, self.cursor(self.head() + 1), "a run has no holes");
        let size = message.size();
        self.bytes += size;
        self.entries.push_back(message);
        if let Some(kept) = &self.kept {
            kept.add(1, size);
        }
        self.fit();
    }

    /// Drops what is too much.
    fn fit(&mut self) {
        let Limits { messages, bytes, .. } = self.limits.kept();
        let messages = if planted(Bug::KeptTooFew) { messages.div_ceil(2) } else { messages };
        while self.entries.len() > messages || (self.bytes > bytes && self.entries.len() > 1) {
            self.pop();
        }
    }

    /// Other bounds from here on. What was published while there was no history does not become history.
    fn limit(&mut self, limits: Limits) {
        if limits.has_history() && !self.limits.has_history() {
            self.removed = self.head();
        }
        self.limits = limits;
        self.fit();
    }

    /// Trims by age. Oldest first: after a clock was set back, a message waits for those before it.
    fn trim(&mut self, now_ms: u64) {
        while self.next_expiry().is_some_and(|expiry_ms| expiry_ms <= now_ms) {
            self.pop();
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new(); // a quiet topic is its epoch and offset
        }
    }

    /// Drops the older half, unless it is small: how many bytes that were.
    fn shrink(&mut self) -> usize {
        let before = self.bytes;
        while self.bytes > (before / 2).max(SHED_BYTES_MIN) && self.entries.len() > 1 {
            self.pop();
        }
        before - self.bytes
    }

    fn next_expiry(&self) -> Option<u64> {
        let age_ms = self.limits.kept().age_ms;
        let age_ms = if self.base < self.removed { age_ms.min(Limits::LINGER.age_ms) } else { age_ms };
        self.entries.front()?.time_ms.checked_add(age_ms)
    }

    fn pop(&mut self) {
        let oldest = self.entries.pop_front().expect("only called when there is one");
        self.bytes -= oldest.size();
        self.base += 1;
        if let Some(kept) = &self.kept {
            kept.sub(1, oldest.size());
        }
    }

    /// From the oldest kept, for an offset before it; nothing, for one at the head or ahead of it.
    fn after(&self, offset: u64) -> Suffix<'_> {
        let skipped = offset.saturating_sub(self.base).min(self.entries.len() as u64);
        self.entries.range(skipped as usize..)
    }

    fn slice_after(&self, offset: u64) -> Option<Suffix<'_>> {
        (offset >= self.base).then(|| self.after(offset))
    }

    /// The oldest position at which a reader may start.
    fn oldest(&self) -> u64 {
        if self.limits.has_history() { self.base.max(self.removed) } else { self.head() }
    }

    fn contains(&self, cursor: Cursor) -> bool {
        let is_ours = cursor.epoch == self.epoch || planted(Bug::EpochIgnored);
        is_ours && (self.oldest()..=self.head()).contains(&cursor.offset)
    }
}

/// A topic's log, at its home: the only place where offsets are given and gaps are found.
///
/// Age is looked at when time is given ([`append`](Self::append), [`trim`](Self::trim)); what has expired since is
/// still there.
#[derive(Debug)]
pub(crate) struct Log {
    run: Run,
}

impl Log {
    /// An empty log. The epoch is new and random.
    pub(crate) fn new(epoch: Epoch, limits: Limits) -> Self {
        Self { run: Run::new(epoch, 0, limits) }
    }

    /// Has what is kept counted there.
    pub(crate) fn counted(mut self, kept: &Rc<Kept>) -> Self {
        self.run.kept = Some(Rc::clone(kept));
        self
    }

    /// Messages that are kept, and their bytes.
    pub(crate) fn kept(&self) -> (usize, usize) {
        (self.run.entries.len(), self.run.bytes)
    }

    /// Whether readers can come back to a position.
    pub(crate) fn has_history(&self) -> bool {
        self.run.limits.has_history()
    }

    /// Appends a message at the next offset, and trims.
    pub(crate) fn append(&mut self, topic: &TopicName, publication: Publication, now_ms: u64) -> Arc<Message> {
        let cursor = self.run.cursor(self.run.head() + 1);
        let is_kept = self.run.limits.has_history();
        let message = Arc::new(Message::new(topic.clone(), cursor, is_kept, publication, now_ms));
        self.run.push(message.clone());
        self.run.trim(now_ms);
        message
    }

    /// Drops what is too old.
    pub(crate) fn trim(&mut self, now_ms: u64) {
        self.run.trim(now_ms);
    }

    /// Other bounds from here on. What was published while there was no history does not become history.
    pub(crate) fn limit(&mut self, limits: Limits) {
        self.run.limit(limits);
    }

    /// Drops the older half of what is kept, unless that is little: how many bytes.
    pub(crate) fn shrink(&mut self) -> usize {
        self.run.shrink()
    }

    /// Drops everything; the position stays.
    pub(crate) fn clear(&mut self) {
        while !self.run.entries.is_empty() {
            self.run.pop();
        }
        self.run.entries = VecDeque::new();
    }

    /// The position behind the newest message.
    pub(crate) fn head(&self) -> Cursor {
        self.run.cursor(self.run.head())
    }

    /// The position just before the oldest message kept; without history, the head.
    pub(crate) fn oldest(&self) -> Cursor {
        self.run.cursor(self.run.oldest())
    }

    /// Whether nothing is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.run.entries.is_empty()
    }

    /// Where a reader starts who asks for `since`, and what it has missed: a gap is another epoch, a position
    /// older than the oldest kept, or one ahead of the head. Without history every cursor but the head is one.
    pub(crate) fn resolve(&self, since: Since) -> Start {
        match since {
            Since::Earliest => Start { from: self.oldest(), gap: None },
            Since::Latest => Start { from: self.head(), gap: None },
            Since::At(cursor) if self.run.contains(cursor) => Start { from: cursor, gap: None },
            Since::At(cursor) => self.gap(cursor.to_string()),
        }
    }

    /// The start of one who asks for what is no position at all (a `Last-Event-ID` may be anything).
    pub(crate) fn gap(&self, asked: impl Into<Box<str>>) -> Start {
        let resumed = self.oldest();
        Start { from: resumed, gap: Some(Gap { since: asked.into(), resumed }) }
    }

    /// What is kept behind `offset`.
    pub(crate) fn after(&self, offset: u64) -> Suffix<'_> {
        self.run.after(offset)
    }
}

/// A worker's own copy of the end of a log whose home is another worker. It may be behind its home: from a copy
/// a stream can be started and fed, but no gap inferred.
#[derive(Debug)]
pub(crate) struct Copy {
    run: Run,
}

impl Copy {
    /// An empty copy, of what is appended behind `from`; with the limits of the log.
    pub(crate) fn new(epoch: Epoch, from: u64, limits: Limits) -> Self {
        Self { run: Run::new(epoch, from, limits) }
    }

    /// Has what is kept counted there.
    pub(crate) fn counted(mut self, kept: &Rc<Kept>) -> Self {
        self.run.kept = Some(Rc::clone(kept));
        self
    }

    /// Takes the next message, and trims by count and bytes.
    ///
    /// # Panics
    ///
    /// If it is not the next one of the same epoch: the home sends them all, in order.
    pub(crate) fn push(&mut self, message: Arc<Message>) {
        self.run.push(message);
    }

    /// Drops what is too old.
    pub(crate) fn trim(&mut self, now_ms: u64) {
        self.run.trim(now_ms);
    }

    /// As [`Log::limit`].
    pub(crate) fn limit(&mut self, limits: Limits) {
        self.run.limit(limits);
    }

    /// As [`Log::shrink`].
    pub(crate) fn shrink(&mut self) -> usize {
        self.run.shrink()
    }

    /// The home has dropped everything up to this position: nobody starts before it any more. Those who are on their way
    /// get there.
    pub(crate) fn remove(&mut self, through: Cursor) {
        if through.epoch == self.run.epoch {
            self.run.removed = self.run.removed.max(through.offset.min(self.run.head()));
        }
    }

    /// The position behind the newest message that has come.
    pub(crate) fn head(&self) -> Cursor {
        self.run.cursor(self.run.head())
    }

    /// Whether a stream may start at `cursor` without asking the home. Without history only the head will do.
    pub(crate) fn contains(&self, cursor: Cursor) -> bool {
        self.run.contains(cursor)
    }

    /// As [`Log::after`].
    pub(crate) fn after(&self, offset: u64) -> Suffix<'_> {
        self.run.after(offset)
    }

    /// What comes next for a reader at `offset`, lingering messages included; `None` if it lags: its next message
    /// is no longer kept. A reader may be ahead of the copy, if the home placed it: it waits.
    pub(crate) fn slice_after(&self, offset: u64) -> Option<Suffix<'_>> {
        self.run.slice_after(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Kind;

    const EVERYTHING: Limits = Limits { messages: usize::MAX, bytes: usize::MAX, age_ms: u64::MAX };

    fn topic() -> TopicName {
        TopicName::new("t").expect("a name")
    }

    fn epoch() -> Epoch {
        Epoch::from_random(1)
    }

    fn at(offset: u64) -> Cursor {
        Cursor { epoch: epoch(), offset }
    }

    fn log(limits: Limits, messages: u64) -> Log {
        let mut log = Log::new(epoch(), limits);
        for number in 0..messages {
            log.append(&topic(), Publication::new(Kind::Text, b"x"[..].into()), number);
        }
        log
    }

    fn offsets(suffix: Suffix<'_>) -> Vec<u64> {
        suffix.map(|message| message.cursor.offset).collect()
    }

    fn started(from: Cursor) -> Start {
        Start { from, gap: None }
    }

    fn gapped(since: Cursor, resumed: Cursor) -> Start {
        Start { from: resumed, gap: Some(Gap { since: since.to_string().into(), resumed }) }
    }

    #[test]
    fn offsets_start_at_1() {
        let mut log = log(EVERYTHING, 0);
        assert_eq!((log.head(), log.oldest()), (at(0), at(0)));
        let message = log.append(&topic(), Publication::new(Kind::Json, b"{}"[..].into()), 5);
        assert_eq!((message.cursor, message.kind, message.time_ms), (at(1), Kind::Json, 5));
        assert_eq!((log.head(), log.oldest(), log.run.entries.len()), (at(1), at(0), 1));
        assert_eq!(log.run.next_expiry(), None, "age does not count");
    }

    #[test]
    fn a_gap_is_another_epoch_or_a_position_outside() {
        let log = log(Limits { messages: 3, ..EVERYTHING }, 10);
        assert_eq!((log.oldest(), log.head()), (at(7), at(10)));
        assert_eq!(log.resolve(Since::Earliest), started(at(7)));
        assert_eq!(log.resolve(Since::Latest), started(at(10)));
        for offset in 7..=10 {
            assert_eq!(log.resolve(Since::At(at(offset))), started(at(offset)));
        }
        for cursor in [at(0), at(6), at(11), at(u64::MAX), Cursor { epoch: Epoch::from_random(2), offset: 8 }] {
            assert_eq!(log.resolve(Since::At(cursor)), gapped(cursor, at(7)));
        }
        assert_eq!(
            log.gap("nonsense").gap.unwrap().json(),
            format!(r#"{{"gap":{{"since":"nonsense","resumed":"{}"}}}}"#, at(7))
        );
    }

    #[test]
    fn a_reader_lags_when_its_next_message_is_gone() {
        let log = log(Limits { messages: 3, ..EVERYTHING }, 10);
        assert!(log.run.slice_after(6).is_none());
        assert_eq!(log.run.slice_after(7).map(offsets), Some(vec![8, 9, 10]));
        assert_eq!(log.run.slice_after(9).map(offsets), Some(vec![10]));
        assert_eq!(log.run.slice_after(10).map(offsets), Some(vec![]));
        assert_eq!(log.run.slice_after(u64::MAX).map(offsets), Some(vec![]));
        assert_eq!(offsets(log.after(0)), [8, 9, 10]);
    }

    #[test]
    fn the_newest_is_kept_whatever_its_size_but_not_whatever_its_age() {
        let mut log = log(Limits { messages: 10, bytes: 1000, age_ms: 50 }, 0);
        log.append(&topic(), Publication::new(Kind::Bytes, vec![0; 10].into()), 0);
        log.append(&topic(), Publication::new(Kind::Bytes, vec![0; 2000].into()), 10);
        assert_eq!((log.run.entries.len(), log.oldest()), (1, at(1)));
        assert_eq!(log.run.next_expiry(), Some(60));
        log.trim(59);
        assert_eq!(log.run.entries.len(), 1);
        log.trim(60);
        assert_eq!((log.run.entries.len(), log.run.bytes, log.run.next_expiry()), (0, 0, None));
        assert_eq!((log.head(), log.oldest()), (at(2), at(2)));
        assert_eq!(log.resolve(Since::At(at(2))), started(at(2)), "no gap: nothing was missed");
        assert_eq!(log.resolve(Since::At(at(1))), gapped(at(1), at(2)));
    }

    #[test]
    fn without_history_messages_linger_but_nobody_comes_back_to_them() {
        let mut log = log(Limits { messages: 0, bytes: 0, age_ms: 0 }, 300);
        assert_eq!(log.run.slice_after(44).map(Iterator::count), Some(256));
        assert!(log.run.slice_after(43).is_none());
        assert_eq!(log.resolve(Since::Earliest), started(at(300)));
        assert_eq!(log.resolve(Since::Latest), started(at(300)));
        assert_eq!(log.resolve(Since::At(at(300))), started(at(300)));
        for offset in [0, 44, 299, 301] {
            assert_eq!(log.resolve(Since::At(at(offset))), gapped(at(offset), at(300)));
        }
        log.append(&topic(), Publication::new(Kind::Bytes, vec![0; 200 << 10].into()), 300);
        log.append(&topic(), Publication::new(Kind::Bytes, vec![0; 100 << 10].into()), 300);
        assert_eq!(offsets(log.after(0)), [302]);
        log.append(&topic(), Publication::new(Kind::Bytes, vec![0; 300 << 10].into()), 300);
        assert_eq!(offsets(log.after(0)), [303], "the newest is always there to be sent");
    }

    #[test]
    fn a_copy_shares_the_messages_behind_its_start() {
        let limits = Limits { messages: 3, bytes: usize::MAX, age_ms: 100 };
        let mut log = log(limits, 2);
        let mut copy = Copy::new(epoch(), 2, limits);
        assert!(copy.contains(at(2)) && !copy.contains(at(1)) && !copy.contains(at(3)));
        let message = log.append(&topic(), Publication::new(Kind::Text, b"y"[..].into()), 2);
        copy.push(message.clone());
        assert!(Arc::ptr_eq(copy.slice_after(2).unwrap().next().unwrap(), &message));
        assert!(copy.slice_after(1).is_none());
        assert_eq!(copy.slice_after(9).map(offsets), Some(vec![]));
        for now_ms in 3..6 {
            copy.push(log.append(&topic(), Publication::new(Kind::Text, b"z"[..].into()), now_ms));
        }
        assert_eq!((copy.head(), offsets(copy.after(0))), (at(6), vec![4, 5, 6]));
        assert!(copy.contains(at(3)) && !copy.contains(at(2)));
        assert!(!copy.contains(Cursor { epoch: Epoch::from_random(2), offset: 4 }));
        assert_eq!(copy.run.next_expiry(), Some(103));
        copy.trim(104);
        assert_eq!(offsets(copy.after(0)), [6]);
        copy.trim(105);
        assert!(copy.contains(at(6)) && !copy.contains(at(5)));
    }

    #[test]
    fn where_history_was_removed_nobody_starts_and_everybody_arrives() {
        let mut log = log(EVERYTHING, 0);
        let mut copy = Copy::new(epoch(), 0, EVERYTHING);
        for now_ms in 0..3 {
            copy.push(log.append(&topic(), Publication::new(Kind::Text, b"x"[..].into()), now_ms));
        }
        log.clear();
        assert_eq!((log.head(), log.oldest(), log.is_empty(), log.run.bytes), (at(3), at(3), true, 0));
        assert_eq!(log.resolve(Since::At(at(2))), gapped(at(2), at(3)));
        assert_eq!(log.resolve(Since::At(at(3))), started(at(3)));
        copy.remove(Cursor { epoch: Epoch::from_random(2), offset: 3 });
        assert!(copy.contains(at(0)), "of another epoch");
        copy.remove(at(3));
        assert!(copy.contains(at(3)) && !copy.contains(at(2)));
        assert_eq!(copy.slice_after(1).map(offsets), Some(vec![2, 3]));
        copy.push(log.append(&topic(), Publication::new(Kind::Text, b"y"[..].into()), 10));
        assert_eq!((copy.head(), offsets(log.after(0))), (at(4), vec![4]));
        copy.trim(Limits::LINGER.age_ms + 2);
        assert_eq!(offsets(copy.after(0)), [4], "what lingers does not for ever");
        assert!(copy.contains(at(3)) && copy.slice_after(2).is_none());
    }

    #[test]
    fn a_copy_without_history_contains_its_head_only() {
        let mut copy = Copy::new(epoch(), 0, Limits { messages: 0, ..EVERYTHING });
        copy.push(log(EVERYTHING, 0).append(&topic(), Publication::new(Kind::Text, [].into()), 0));
        assert!(copy.contains(at(1)) && !copy.contains(at(0)));
        assert_eq!(copy.slice_after(0).map(offsets), Some(vec![1]));
    }

    #[test]
    #[should_panic(expected = "a run has no holes")]
    fn a_copy_takes_no_message_out_of_turn() {
        let mut log = log(EVERYTHING, 1);
        Copy::new(epoch(), 0, EVERYTHING).push(log.append(&topic(), Publication::new(Kind::Text, [].into()), 0));
    }

    /// Marsaglia's xorshift64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % bound
        }
    }

    /// The oracle: every message ever, as (size, time), and how many of the first are gone. What is kept is worked
    /// out from the newest backwards.
    struct Oracle {
        all: Vec<(usize, u64)>,
        gone: usize,
        limits: Limits,
    }

    impl Oracle {
        fn trim(&mut self, now_ms: u64) {
            let Limits { messages, bytes, age_ms } =
                if self.limits.messages == 0 { Limits::LINGER } else { self.limits };
            let fits = |from: usize| {
                let kept = &self.all[from..];
                let size: usize = kept.iter().map(|&(size, _)| size).sum();
                kept.len() <= messages
                    && (size <= bytes || kept.len() == 1)
                    && kept.first().is_none_or(|&(_, time_ms)| now_ms < time_ms + age_ms)
            };
            self.gone = (self.gone..=self.all.len()).find(|&from| fits(from)).expect("nothing always fits");
        }

        fn resolve(&self, cursor: Cursor) -> (u64, bool) {
            let head = self.all.len() as u64;
            let oldest = if self.limits.messages == 0 { head } else { self.gone as u64 };
            let is_inside = cursor.epoch == epoch() && cursor.offset >= oldest && cursor.offset <= head;
            if is_inside { (cursor.offset, false) } else { (oldest, true) }
        }
    }

    /// One log, its oracle, and a copy that follows it from somewhere.
    fn run_against_the_oracle(seed: u64) {
        let mut random = Random(seed);
        let limits = Limits {
            messages: random.below(12) as usize,
            bytes: random.below(8) as usize * Message::OVERHEAD_BYTES,
            age_ms: 1 + random.below(60),
        };
        let mut log = Log::new(epoch(), limits);
        let mut copy: Option<Copy> = None;
        let mut oracle = Oracle { all: Vec::new(), gone: 0, limits };
        let mut now_ms = 0;
        for step in 0..300 {
            now_ms += random.below(10) * random.below(10) * u64::from(random.below(4) == 0);
            let said = format!("seed {seed}, step {step}, {limits:?}");
            if random.below(3) > 0 {
                let payload: Box<[u8]> = vec![b'x'; random.below(300) as usize].into();
                oracle.all.push((payload.len() + Message::OVERHEAD_BYTES, now_ms));
                let message = log.append(&topic(), Publication::new(Kind::Bytes, payload), now_ms);
                assert_eq!(message.cursor, at(oracle.all.len() as u64), "{said}");
                if let Some(copy) = &mut copy {
                    copy.push(message);
                }
            }
            log.trim(now_ms);
            oracle.trim(now_ms);
            let copy = copy.get_or_insert_with(|| Copy::new(epoch(), log.head().offset, limits));
            copy.trim(now_ms);

            let (head, gone) = (oracle.all.len() as u64, oracle.gone as u64);
            let kept = &oracle.all[oracle.gone..];
            assert_eq!((log.head(), log.run.entries.len()), (at(head), kept.len()), "{said}");
            assert_eq!(log.run.bytes, kept.iter().map(|&(size, _)| size).sum::<usize>(), "{said}");
            let age_ms = limits.kept().age_ms;
            assert_eq!(log.run.next_expiry(), kept.first().map(|&(_, time_ms)| time_ms + age_ms), "{said}");
            for offset in gone.saturating_sub(2)..=head + 2 {
                let expected = (offset >= gone).then(|| (offset + 1..=head).collect::<Vec<_>>());
                assert_eq!(log.run.slice_after(offset).map(offsets), expected, "{said}");
                assert_eq!(offsets(log.after(offset)), (offset.max(gone) + 1..=head).collect::<Vec<_>>(), "{said}");
                let other = Cursor { epoch: Epoch::from_random(2), offset };
                for cursor in [at(offset), other] {
                    let (from, is_gap) = oracle.resolve(cursor);
                    let expected = if is_gap { gapped(cursor, at(from)) } else { started(cursor) };
                    assert_eq!(log.resolve(Since::At(cursor)), expected, "{said}");
                }
                if let Some(suffix) = copy.slice_after(offset) {
                    assert_eq!(Some(offsets(suffix)), log.run.slice_after(offset).map(offsets), "{said}");
                }
                assert!(!copy.contains(at(offset)) || log.resolve(Since::At(at(offset))).gap.is_none(), "{said}");
            }
        }
    }

    #[test]
    fn the_log_keeps_what_a_naive_one_would() {
        for seed in 1..=60u64 {
            run_against_the_oracle(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
    }
}
