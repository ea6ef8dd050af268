//! A worker's topics: the logs that have their home here, and the copies and subscribers of those it listens to.

use super::{
    Author, Copy, Cursor, Encoding, Epoch, Kept, Keys, Limits, Log, Members, Message, Publication, Since, Start,
    TopicName,
};
use crate::config::RuleSet;
use crate::limits::{EXPIRY_LOOKS_MAX, ROOM_LOOKS_MAX};
use crate::planted::{Bug, planted};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

mod passing;
mod refit;
mod survey;

pub(crate) use passing::Passed;
use passing::Passing;
pub(crate) use survey::{AtHome, Census};

/// What is kept of topics, on one worker.
#[derive(Clone, Debug)]
pub(crate) struct Retention {
    pub(crate) rules: Arc<RuleSet>,
    /// Topics that may have their home here.
    pub(crate) homes_max: usize,
}

impl Retention {
    /// A worker's share of so many topics.
    pub(crate) fn of_worker(rules: &Arc<RuleSet>, topics_max: usize, workers: usize) -> Self {
        Self { rules: Arc::clone(rules), homes_max: topics_max.div_ceil(workers) }
    }

    /// The same for every topic.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn uniform(log: Limits, meta_ttl_ms: u64, homes_max: usize) -> Self {
        use std::time::Duration;
        let mut rules = RuleSet::open();
        let topics = &mut rules.without_namespace;
        (topics.history_size, topics.history_bytes) = (log.messages, log.bytes);
        topics.history_ttl = Duration::from_millis(log.age_ms);
        rules.history_meta_ttl = Duration::from_millis(meta_ttl_ms);
        Self { rules: Arc::new(rules), homes_max }
    }

    /// What stands beside a topic is not kept.
    fn of(&self, name: &TopicName) -> Limits {
        let rules = self.rules.at(name.as_str());
        let is_kept = rules.has_history() && name.beside().is_none();
        let age_ms = u64::try_from(rules.history_ttl.as_millis()).unwrap_or(u64::MAX);
        Limits { messages: if is_kept { rules.history_size } else { 0 }, bytes: rules.history_bytes, age_ms }
    }

    /// How long a quiet topic's epoch and offset outlive its messages.
    fn meta_ttl_ms(&self, name: &TopicName) -> u64 {
        let ttl = self.rules.at(name.as_str()).history_meta_ttl.unwrap_or(self.rules.history_meta_ttl);
        u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
    }
}

/// From where a request wants to read.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Since(Since),
    /// Behind the message with this offset, of whichever epoch is the topic's.
    Offset(u64),
    /// An EventSource came back with something that is no cursor: a gap, since a refusal would end it for ever.
    Malformed(Box<str>),
}

/// What a reader asks of a topic's home.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) wanted: Wanted,
    /// So many messages of what lies behind that.
    pub(crate) limit: usize,
    /// Those before it instead, the newest first.
    pub(crate) reverse: bool,
    /// Where something is missing it goes on from the newest message, not from the oldest kept.
    pub(crate) skips: bool,
    /// Who subscribes, if others are to know.
    pub(crate) member: Option<Arc<Author>>,
}

impl Read {
    /// All that lies behind a position.
    pub(crate) fn all(wanted: Wanted) -> Self {
        Self { wanted, limit: usize::MAX, reverse: false, skips: false, member: None }
    }
}

/// The home's answer to who wants to read.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) start: Start,
    /// What was asked for; all that lies behind the start if the worker was attached.
    pub(crate) messages: Vec<Arc<Message>>,
    /// The position behind the newest message.
    pub(crate) head: Cursor,
}

/// Who subscribes to a topic.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    pub(crate) clients: usize,
    /// How many different users.
    pub(crate) users: usize,
    /// Themselves, if that was asked for.
    pub(crate) members: Vec<Arc<Author>>,
}

/// A topic at its home.
#[derive(Debug)]
struct Home {
    log: Log,
    /// Workers that get every message.
    attached: Vec<u16>,
    keys: Keys,
    /// Who subscribes, of those that are to be known.
    members: Members,
    /// When somebody last read or wrote.
    touched_ms: u64,
    /// Which rules it keeps to.
    ruled: u32,
}

impl Home {
    /// Whether it is an epoch and an offset, and nobody would miss more than those.
    fn is_idle(&mut self, now_ms: u64) -> bool {
        self.log.trim(now_ms);
        self.keys.expire(now_ms);
        self.attached.is_empty() && self.log.is_empty() && self.keys.is_empty()
    }
}

/// There are as many topics as there may be, and all of them are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// A subscriber: a cursor, and how its messages are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscriber {
    pub(crate) cursor: u64,
    pub(crate) slot: u32,
    /// Which of its connection's subscriptions this is, from 0.
    pub(crate) nth: u16,
    pub(crate) encoding: Encoding,
}

// A subscription costs this much beside the connection, in a vector of them.
const _: () = assert!(size_of::<Subscriber>() == 16);

/// Where a connection's subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) topic: u32,
    pub(crate) index: u32,
}

/// A topic that this worker listens to.
#[derive(Debug)]
pub(crate) struct Local {
    name: TopicName,
    /// What the home has sent; there from the first answer on.
    pub(crate) copy: Option<Copy>,
    pub(crate) subscribers: Vec<Subscriber>,
    /// Questions to the home that will make a subscriber.
    asked: u32,
    /// The sweep: the next to be visited, and how many are left; a ring.
    position: usize,
    left: usize,
    /// When the sweep under way began.
    since_ms: u64,
    /// What goes past the log.
    passing: Option<Box<Passing>>,
    /// Which rules its copy keeps to.
    ruled: u32,
}

/// All topics of a worker.
#[derive(Debug)]
pub(crate) struct Topics {
    retention: Retention,
    /// Counts them.
    ruling: u32,
    homes: HashMap<TopicName, Home>,
    /// All homes in turn: each is looked at now and then, so that what has expired leaves.
    round: VecDeque<TopicName>,
    /// How often the first of them was taken out.
    turned: u64,
    pub(crate) locals: Slab<Local>,
    names: HashMap<TopicName, u32>,
    /// Locals whose subscribers are being sent to.
    sweeping: VecDeque<u32>,
    /// When those sweeps began that are over since somebody looked.
    pub(crate) swept: Vec<u64>,
    /// Those whose subscribers are being passed something beside the log.
    passing: VecDeque<u32>,
    /// The local that is looked at next for what has expired.
    look: usize,
    counts: Census,
    /// What the homes' logs keep, and the copies.
    kept: Rc<Kept>,
    copied: Rc<Kept>,
}

impl Topics {
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            retention,
            ruling: 0,
            homes: HashMap::new(),
            round: VecDeque::new(),
            turned: 0,
            locals: Slab::new(),
            names: HashMap::new(),
            sweeping: VecDeque::new(),
            swept: Vec::new(),
            passing: VecDeque::new(),
            look: 0,
            counts: Census::default(),
            kept: Rc::default(),
            copied: Rc::default(),
        }
    }

    /// Whether there is anything that can expire.
    pub(crate) fn is_empty(&self) -> bool {
        self.homes.is_empty() && self.locals.is_empty()
    }

    /// Looks at some of the topics for what has expired; at all of them in 64 calls, if there are not too many.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        for _ in 0..(self.homes.len() / 64 + 1).min(EXPIRY_LOOKS_MAX) {
            let Some(name) = self.round.pop_front() else { break };
            self.turned += 1;
            let Some(home) = self.homes.get_mut(&name) else { continue };
            home.follow(self.ruling, &self.retention, &name);
            let quiet_ms = now_ms.saturating_sub(home.touched_ms);
            if home.is_idle(now_ms) && quiet_ms >= self.retention.meta_ttl_ms(&name) {
                self.homes.remove(&name);
            } else {
                self.round.push_back(name);
            }
        }
        for _ in 0..(self.locals.len() / 64 + 1).min(EXPIRY_LOOKS_MAX) {
            if let Some(local) = self.locals.get_mut(self.look) {
                local.follow(self.ruling, &self.retention);
                local.copy.iter_mut().for_each(|copy| copy.trim(now_ms));
            }
            self.look = if self.look < self.locals.capacity() { self.look + 1 } else { 0 };
        }
    }

    /// Drops the older halves of what is kept of all topics: how many bytes, here and in the copies.
    pub(crate) fn shrink(&mut self) -> usize {
        let homes: usize = self.homes.values_mut().map(|home| home.log.shrink()).sum();
        let copies = self.locals.iter_mut().filter_map(|(_, local)| local.copy.as_mut());
        homes + copies.map(Copy::shrink).sum::<usize>()
    }

    // --- At the home. ---

    fn home(&mut self, name: &TopicName, now_ms: u64, random: impl FnOnce() -> u64) -> Result<&mut Home, Full> {
        if !self.homes.contains_key(name) {
            if self.homes.len() >= self.retention.homes_max {
                self.make_room(now_ms)?;
            }
            let log = Log::new(Epoch::from_random(random()), self.retention.of(name)).counted(&self.kept);
            let home = Home {
                log,
                attached: Vec::new(),
                keys: Keys::default(),
                members: Members::default(),
                touched_ms: now_ms,
                ruled: self.ruling,
            };
            self.homes.insert(name.clone(), home);
            self.round.push_back(name.clone());
        }
        let home = self.homes.get_mut(name).ok_or(Full)?;
        home.follow(self.ruling, &self.retention, name);
        home.touched_ms = now_ms;
        Ok(home)
    }

    /// Forgets the topic that has been idle for longest, of those that a bounded search finds.
    fn make_room(&mut self, now_ms: u64) -> Result<(), Full> {
        let mut longest: Option<(u64, TopicName)> = None;
        for _ in 0..self.round.len().min(ROOM_LOOKS_MAX) {
            let Some(name) = self.round.pop_front() else { break };
            self.turned += 1;
            let Some(home) = self.homes.get_mut(&name) else { continue };
            let touched_ms = home.touched_ms;
            if home.is_idle(now_ms) && longest.as_ref().is_none_or(|(other_ms, _)| touched_ms < *other_ms) {
                let shorter = longest.replace((touched_ms, name));
                self.round.extend(shorter.map(|(_, name)| name));
            } else {
                self.round.push_back(name);
            }
        }
        longest.map(|(_, name)| drop(self.homes.remove(&name))).ok_or(Full)
    }

    /// Appends; the message is `None` when the key says that this was published before.
    pub(crate) fn publish(
        &mut self,
        name: &TopicName,
        mut publication: Publication,
        now_ms: u64,
        random: impl FnOnce() -> u64,
    ) -> Result<(Cursor, Option<Arc<Message>>), Full> {
        let key = publication.key.clone();
        let home = self.home(name, now_ms, random)?;
        if let Some(cursor) = key.as_ref().and_then(|key| home.keys.get(key, now_ms)) {
            return Ok((cursor, None));
        }
        home.log.trim(now_ms);
        publication.skips_history &= home.log.has_history();
        let message = if publication.skips_history {
            Arc::new(Message::new(name.clone(), home.log.head(), false, publication, now_ms))
        } else {
            home.log.append(name, publication, now_ms)
        };
        if let Some(key) = key.filter(|_| !planted(Bug::KeyForgotten)) {
            home.keys.insert(&key, message.cursor, now_ms);
        }
        Ok((message.cursor, Some(message)))
    }

    /// The workers that get every message of a topic at home here.
    pub(crate) fn attached(&self, name: &TopicName) -> &[u16] {
        self.homes.get(name).map_or(&[], |home| &home.attached)
    }

    /// Where a reader starts, and what it finds there. With `attach`, that worker gets what comes from here on.
    pub(crate) fn resolve(
        &mut self,
        name: &TopicName,
        read: Read,
        attach: Option<u16>,
        now_ms: u64,
        random: impl FnOnce() -> u64,
    ) -> Result<Resolved, Full> {
        let Read { wanted, limit, reverse, skips, member } = read;
        let before_all = matches!(wanted, Wanted::Since(Since::Latest));
        let home = self.home(name, now_ms, random)?;
        home.log.trim(now_ms);
        let head = home.log.head();
        let mut start = match wanted {
            Wanted::Since(since) => home.log.resolve(since),
            Wanted::Offset(offset) => home.log.resolve(Since::At(Cursor { offset, ..head })),
            Wanted::Malformed(text) => home.log.gap(text),
        };
        if let Some(gap) = start.gap.as_mut().filter(|_| skips) {
            (start.from, gap.resumed) = (head, head);
        }
        let mut was_alone = false;
        if let Some(worker) = attach.filter(|worker| !home.attached.contains(worker)) {
            was_alone = home.attached.is_empty();
            if !planted(Bug::AttachForgotten) {
                home.attached.push(worker);
            }
        }
        if let Some(member) = member {
            home.members.enter(member);
        }
        let from = start.from.offset;
        let messages = if reverse {
            let is_behind = |message: &&Arc<Message>| !before_all && message.cursor.offset >= from;
            home.log.after(0).rev().skip_while(is_behind).take(limit).cloned().collect()
        } else {
            home.log.after(from).take(limit).cloned().collect()
        };
        self.counts.topics += u64::from(was_alone && name.beside().is_none());
        Ok(Resolved { start, messages, head })
    }

    /// A subscriber that others know of is gone.
    pub(crate) fn left(&mut self, name: &TopicName, client: &str) -> Option<Arc<Author>> {
        self.homes.get_mut(name)?.members.leave(client)
    }

    /// Who is there; nobody, for a topic that is not.
    pub(crate) fn presence(&self, name: &TopicName, list: bool) -> Presence {
        let Some(members) = self.homes.get(name).map(|home| &home.members) else { return Presence::default() };
        let (clients, users) = members.counts();
        Presence { clients, users, members: members.clients().filter(|_| list).cloned().collect() }
    }

    /// A worker has no more subscribers.
    pub(crate) fn detach(&mut self, name: &TopicName, worker: u16) {
        if let Some(home) = self.homes.get_mut(name) {
            let before = home.attached.len();
            home.attached.retain(|&attached| attached != worker);
            let is_over = before > 0 && home.attached.is_empty();
            self.counts.topics -= u64::from(is_over && name.beside().is_none());
        }
    }

    // --- Where the subscribers are. ---

    /// The topic, if a reader may start here without asking its home.
    pub(crate) fn covering(&self, name: &TopicName, cursor: Cursor) -> Option<u32> {
        let topic = *self.names.get(name)?;
        let copy = self.locals[topic as usize].copy.as_ref();
        copy.is_some_and(|copy| copy.contains(cursor)).then_some(topic)
    }

    /// The number of a topic that somebody here subscribes to, or asks to.
    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// The home is being asked on behalf of one who will subscribe. The topic keeps its number until the answer is there.
    pub(crate) fn asking(&mut self, name: &TopicName) -> u32 {
        let topic = *self.names.entry(name.clone()).or_insert_with(|| {
            self.locals.insert(Local {
                name: name.clone(),
                copy: None,
                subscribers: Vec::new(),
                asked: 0,
                position: 0,
                left: 0,
                since_ms: 0,
                passing: None,
                ruled: self.ruling,
            }) as u32
        });
        self.locals[topic as usize].asked += 1;
        topic
    }

    /// The home has answered one who was [`asking`](Self::asking): the copy reaches back to the answer's start now.
    /// Messages came in order, so where the answer ends, the copy does.
    pub(crate) fn answered(&mut self, name: &TopicName, resolved: &Resolved) -> u32 {
        let topic = *self.names.get(name).expect("nobody leaves while a question is under way");
        let local = &mut self.locals[topic as usize];
        local.asked -= 1;
        let from = resolved.start.from;
        let reaches_back = |copy: &Copy| copy.head().epoch == from.epoch && copy.slice_after(from.offset).is_some();
        if !local.copy.as_ref().is_some_and(reaches_back) {
            let mut limits = self.retention.of(name);
            if limits.has_history() {
                // The home may keep more, where this worker has yet to hear of other rules: nothing of the answer is lost
                // before whoever asked has had it. The rules of this worker are followed from the next message on.
                limits.messages = limits.messages.max(resolved.messages.len());
                limits.bytes = limits.bytes.max(resolved.messages.iter().map(|message| message.size()).sum());
                local.ruled = self.ruling.wrapping_sub(1);
            }
            let mut copy = Copy::new(from.epoch, from.offset, limits).counted(&self.copied);
            resolved.messages.iter().for_each(|message| copy.push(Arc::clone(message)));
            local.copy = Some(copy);
        }
        topic
    }

    /// The home has refused one who was [`asking`](Self::asking).
    pub(crate) fn refused(&mut self, name: &TopicName) -> Option<u32> {
        let topic = *self.names.get(name)?;
        self.locals[topic as usize].asked -= 1;
        Some(topic)
    }

    /// A message from the home, for a topic that may have been left meanwhile.
    pub(crate) fn append(&mut self, name: &TopicName, message: &Arc<Message>, now_ms: u64) {
        let Some(&topic) = self.names.get(name) else { return };
        let local = &mut self.locals[topic as usize];
        let Some(copy) = &mut local.copy else { return };
        if message.skips_history {
            return self.pass(topic, message);
        }
        let head = copy.head();
        if (message.cursor.epoch, message.cursor.offset) != (head.epoch, head.offset + 1) {
            return; // from before the copy began
        }
        local.follow(self.ruling, &self.retention);
        let Some(copy) = &mut local.copy else { return };
        copy.trim(now_ms);
        copy.push(Arc::clone(message));
        if local.left == 0 && !local.subscribers.is_empty() {
            self.sweeping.push_back(topic);
            local.since_ms = now_ms;
        }
        local.left = local.subscribers.len();
    }

    pub(crate) fn name(&self, topic: u32) -> &TopicName {
        &self.locals[topic as usize].name
    }

    pub(crate) fn subscribe(&mut self, topic: u32, subscriber: Subscriber) -> Place {
        let local = &mut self.locals[topic as usize];
        local.subscribers.push(subscriber);
        self.counts.subscriptions += u64::from(local.name.beside().is_none());
        // The ring is longer by one: without this the newcomer would be visited in place of the last in turn.
        local.left += usize::from(local.left > 0);
        Place { topic, index: (local.subscribers.len() - 1) as u32 }
    }

    /// Where a subscriber stands.
    pub(crate) fn cursor(&self, place: Place) -> Option<Cursor> {
        let local = &self.locals[place.topic as usize];
        let offset = local.subscribers[place.index as usize].cursor;
        Some(Cursor { epoch: local.copy.as_ref()?.head().epoch, offset })
    }

    /// A subscriber has seen all up to this offset.
    pub(crate) fn saw(&mut self, place: Place, offset: u64) {
        self.locals[place.topic as usize].subscribers[place.index as usize].cursor = offset;
    }

    /// Lets a subscriber go on behind the newest message, wherever it stood.
    pub(crate) fn skip(&mut self, place: Place) -> Option<Cursor> {
        let local = &mut self.locals[place.topic as usize];
        let head = local.copy.as_ref()?.head();
        local.subscribers[place.index as usize].cursor = head.offset;
        Some(head)
    }

    /// Takes a subscriber out. Whoever stood last stands in its place now, and is to be told.
    pub(crate) fn unsubscribe(&mut self, place: Place) -> Option<Subscriber> {
        let local = &mut self.locals[place.topic as usize];
        let index = place.index as usize;
        local.subscribers.swap_remove(index);
        self.counts.subscriptions -= u64::from(local.name.beside().is_none());
        let moved = local.subscribers.get(index).copied();
        if let Some(passing) = &mut local.passing {
            let from = local.subscribers.len();
            match moved {
                Some(moved) => passing.moved(moved, index, from),
                None => passing.ended(from),
            }
        }
        // The one that moved may have jumped over the sweep's position: it goes round once more, which costs a look
        // at a cursor for those that are served already.
        if !planted(Bug::JumpedOver) {
            local.left = if local.left == 0 { 0 } else { local.subscribers.len() };
        }
        moved
    }

    /// Forgets a topic that nobody here listens to any more: its name, if the home is to be told.
    pub(crate) fn retire(&mut self, topic: u32) -> Option<TopicName> {
        let local = self.locals.get(topic as usize)?;
        if !local.subscribers.is_empty() || local.asked > 0 {
            return None;
        }
        let local = self.locals.remove(topic as usize);
        self.sweeping.retain(|&other| other != topic);
        self.passing.retain(|&other| other != topic);
        self.names.remove(&local.name);
        Some(local.name)
    }

    /// Whether somebody is to be sent to.
    pub(crate) fn is_sweeping(&self) -> bool {
        !self.sweeping.is_empty() || !self.passing.is_empty()
    }

    /// The next subscriber to be sent to. Topics take turns at the end of a slice ([`Self::yield_turn`]).
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Place> {
        while let Some(&topic) = self.sweeping.front() {
            let local = &mut self.locals[topic as usize];
            if local.left > 0 && !local.subscribers.is_empty() {
                local.left -= 1;
                local.position = if local.position + 1 < local.subscribers.len() { local.position + 1 } else { 0 };
                return Some(Place { topic, index: local.position as u32 });
            }
            self.end_sweep(topic);
        }
        None
    }

    /// All of the front topic's subscribers were visited.
    #[cold]
    fn end_sweep(&mut self, topic: u32) {
        let local = &mut self.locals[topic as usize];
        local.left = 0;
        self.swept.push(local.since_ms);
        self.sweeping.pop_front();
    }

    /// Lets the next topic go on in the next slice.
    pub(crate) fn yield_turn(&mut self) {
        if self.sweeping.len() > 1 {
            self.sweeping.rotate_left(1);
        }
    }
}

#[cfg(test)]
mod tests;
