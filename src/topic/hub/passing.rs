//! What goes past the log: publications that are not kept, for the subscribers that are there and keep up.
//!
//! A ring of its own, since a log's subscribers are cursors and these messages have no offset. Each subscriber is visited
//! once for what was there when the ring began; what comes meanwhile has the next one.

use super::{Local, Message, Place, Subscriber, Topics};
use crate::limits::LINGER;
use std::sync::Arc;

/// Messages that pass a topic's subscribers.
#[derive(Debug, Default)]
pub(super) struct Passing {
    /// Those of the ring under way.
    messages: Arc<[Arc<Message>]>,
    /// Those that came since.
    next: Vec<Arc<Message>>,
    /// Who is visited next.
    index: usize,
    /// Subscribers that were moved from where the ring is still to come to where it has been: connections, and which of
    /// their subscriptions.
    moved: Vec<(u32, u16)>,
}

impl Passing {
    /// A subscriber has moved from the end into this place.
    pub(super) fn moved(&mut self, subscriber: Subscriber, to: usize, from: usize) {
        if to < self.index && from >= self.index {
            self.moved.push((subscriber.slot, subscriber.nth));
        }
        self.ended(from);
    }

    /// The last subscriber has gone; there are so many left.
    pub(super) fn ended(&mut self, left: usize) {
        self.index = self.index.min(left);
    }
}

/// Whom messages pass next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    At(Place),
    /// One of a connection's subscriptions, if it is still one to this topic.
    Moved {
        topic: u32,
        slot: u32,
        nth: u16,
    },
}

impl Local {
    fn passing(&mut self) -> &mut Passing {
        self.passing.get_or_insert_default()
    }
}

impl Topics {
    /// A message that is not kept, for a topic that may have been left meanwhile. Too many at a time are lost.
    pub(crate) fn pass(&mut self, topic: u32, message: &Arc<Message>) {
        let local = &mut self.locals[topic as usize];
        if local.subscribers.is_empty() {
            return;
        }
        let is_new = local.passing.is_none();
        let passing = local.passing();
        if passing.next.len() < LINGER.0 {
            passing.next.push(Arc::clone(message));
        }
        if is_new {
            self.passing.push_back(topic);
        }
    }

    /// Whom what is to be sent next. Topics take turns, ring by ring.
    pub(crate) fn next_passed(&mut self) -> Option<(Passed, Arc<[Arc<Message>]>)> {
        while let Some(&topic) = self.passing.front() {
            let local = &mut self.locals[topic as usize];
            let count = local.subscribers.len();
            let passing = local.passing();
            if let Some((slot, nth)) = passing.moved.pop() {
                return Some((Passed::Moved { topic, slot, nth }, Arc::clone(&passing.messages)));
            }
            if !passing.messages.is_empty() && passing.index < count {
                passing.index += 1;
                let place = Place { topic, index: (passing.index - 1) as u32 };
                return Some((Passed::At(place), Arc::clone(&passing.messages)));
            }
            if passing.next.is_empty() || count == 0 {
                local.passing = None;
                self.passing.pop_front();
                continue;
            }
            passing.messages = std::mem::take(&mut passing.next).into();
            passing.index = 0;
            self.passing.rotate_left(1);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Rng;
    use crate::topic::{Encoding, Limits, Publication, Read, Retention, Since, TopicName, Wanted};
    use std::collections::HashMap;

    /// Subscribers of one topic that come and go while messages pass them.
    struct Scene {
        topics: Topics,
        topic: u32,
        name: TopicName,
        /// By slot: where it stands, and what passed it.
        there: HashMap<u32, (Place, Vec<u64>)>,
        slots: u32,
        messages: u64,
    }

    impl Scene {
        fn new() -> Self {
            let log = Limits { messages: 10, bytes: 1 << 20, age_ms: u64::MAX };
            let mut topics = Topics::new(Retention::uniform(log, 1000, 100));
            let name = TopicName::new("t").unwrap();
            topics.asking(&name);
            let resolved = topics.resolve(&name, Read::all(Wanted::Since(Since::Latest)), Some(0), 0, || 1).unwrap();
            let topic = topics.answered(&name, &resolved);
            Self { topics, topic, name, there: HashMap::new(), slots: 0, messages: 0 }
        }

        fn come(&mut self) {
            let subscriber = Subscriber { cursor: 0, slot: self.slots, nth: 0, encoding: Encoding::Frame };
            self.there.insert(self.slots, (self.topics.subscribe(self.topic, subscriber), Vec::new()));
            self.slots += 1;
        }

        fn go(&mut self, slot: u32) {
            let Some((place, _)) = self.there.remove(&slot) else { return };
            if let Some(moved) = self.topics.unsubscribe(place) {
                self.there.get_mut(&moved.slot).expect("it is there").0 = place;
            }
        }

        fn publish(&mut self) {
            self.messages += 1;
            let mut publication = Publication::from(self.messages.to_string());
            publication.skips_history = true;
            let (_, message) = self.topics.publish(&self.name, publication, 0, || 1).unwrap();
            self.topics.append(&self.name, &message.expect("it is new"), 0);
        }

        /// Visits the next; `false` when nothing is left.
        fn visit(&mut self) -> bool {
            let Some((passed, messages)) = self.topics.next_passed() else { return false };
            let slot = match passed {
                Passed::At(place) => self.topics.locals[place.topic as usize].subscribers[place.index as usize].slot,
                Passed::Moved { slot, .. } => slot,
            };
            if let Some((_, seen)) = self.there.get_mut(&slot) {
                seen.extend(messages.iter().map(|m| std::str::from_utf8(&m.payload).unwrap().parse::<u64>().unwrap()));
            }
            true
        }
    }

    #[test]
    fn whoever_stays_sees_each_message_once_in_order() {
        for seed in 0..300 {
            let (mut scene, mut rng) = (Scene::new(), Rng::new(seed));
            let first = 1 + rng.below(20) as u32;
            (0..first).for_each(|_| scene.come());
            for _ in 0..300 {
                match rng.below(10) {
                    0 => scene.come(),
                    // The first of all stays.
                    1 | 2 => scene.go(1 + rng.below(u64::from(scene.slots)) as u32),
                    3 => scene.publish(),
                    _ => drop(scene.visit()),
                }
            }
            while scene.visit() {}
            for (slot, (_, seen)) in &scene.there {
                assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}, {slot}: {seen:?}");
                let is_from_the_start = *slot < first;
                assert!(!is_from_the_start || seen.len() as u64 == scene.messages, "seed {seed}, {slot}: {seen:?}");
            }
            assert!(!scene.topics.is_sweeping() && scene.topics.homes[&scene.name].log.is_empty());
        }
    }

    #[test]
    fn what_is_too_much_is_lost_and_who_is_gone_is_not_waited_for() {
        let mut scene = Scene::new();
        scene.publish();
        assert!(!scene.visit(), "nobody is there");
        scene.come();
        (0..LINGER.0 + 5).for_each(|_| scene.publish());
        while scene.visit() {}
        assert_eq!(scene.there[&0].1.len(), LINGER.0);
        scene.publish();
        scene.go(0);
        assert!(!scene.visit());
    }
}
