//! Homes, copies and subscribers, with mail in flight between them.

use super::*;

const LIMITS: Limits = Limits { messages: 100_000, bytes: 1 << 30, age_ms: u64::MAX };

fn name(text: &str) -> TopicName {
    TopicName::new(text).expect("a name")
}

fn topics(log: Limits, homes_max: usize) -> Topics {
    Topics::new(Retention::uniform(log, 86_400_000, homes_max))
}

fn text(number: u64) -> Publication {
    number.to_string().into()
}

enum Mail {
    Append(Arc<Message>),
    Answer(usize, Resolved),
}

enum Question {
    Attach(usize, Cursor),
    Detach,
}

/// A home and another worker, with mail in flight between them.
struct Scene {
    topic: TopicName,
    epoch: Epoch,
    home: Topics,
    worker: Topics,
    to_home: VecDeque<Question>,
    to_worker: VecDeque<Mail>,
    published: u64,
    /// By slot: the last offset that a reader saw, its place while it is subscribed, whether it waits for the home.
    seen: [u64; 8],
    places: [Option<Place>; 8],
    waiting: [bool; 8],
}

impl Scene {
    fn new() -> Self {
        let (mut home, topic) = (topics(LIMITS, 10), name("a"));
        let (first, _) = home.publish(&topic, text(1), 0, || 1).expect("room");
        Self {
            topic,
            epoch: first.epoch,
            home,
            worker: topics(LIMITS, 10),
            to_home: VecDeque::new(),
            to_worker: VecDeque::new(),
            published: 1,
            seen: [1; 8],
            places: [None; 8],
            waiting: [false; 8],
        }
    }

    fn publish(&mut self) {
        self.published += 1;
        let (_, message) = self.home.publish(&self.topic, text(self.published), 0, || 1).expect("room");
        if self.home.attached(&self.topic).contains(&1) {
            self.to_worker.push_back(Mail::Append(message.expect("no key")));
        }
    }

    fn enter(&mut self, slot: usize) {
        if self.places[slot].is_some() || self.waiting[slot] {
            return;
        }
        let cursor = Cursor { epoch: self.epoch, offset: self.seen[slot] };
        if let Some(topic) = self.worker.covering(&self.topic, cursor) {
            return self.join(slot, topic);
        }
        self.waiting[slot] = true;
        self.worker.asking(&self.topic);
        self.to_home.push_back(Question::Attach(slot, cursor));
    }

    fn join(&mut self, slot: usize, topic: u32) {
        let subscriber = Subscriber { cursor: self.seen[slot], slot: slot as u32, nth: 0, encoding: Encoding::Frame };
        self.places[slot] = Some(self.worker.subscribe(topic, subscriber));
        self.look(slot);
    }

    fn exit(&mut self, slot: usize) {
        let Some(place) = self.places[slot].take() else { return };
        if let Some(moved) = self.worker.unsubscribe(place) {
            self.places[moved.slot as usize] = Some(place);
        }
        if self.worker.retire(place.topic).is_some() {
            self.to_home.push_back(Question::Detach);
        }
    }

    fn home_reads(&mut self) {
        match self.to_home.pop_front() {
            Some(Question::Attach(slot, cursor)) => {
                let read = Read::all(Wanted::Since(Since::At(cursor)));
                let resolved = self.home.resolve(&self.topic, read, Some(1), 0, || 1).expect("room");
                self.to_worker.push_back(Mail::Answer(slot, resolved));
            }
            Some(Question::Detach) => self.home.detach(&self.topic, 1),
            None => {}
        }
    }

    fn worker_reads(&mut self) {
        match self.to_worker.pop_front() {
            Some(Mail::Append(message)) => self.worker.append(&self.topic, &message, 0),
            Some(Mail::Answer(slot, resolved)) => {
                let topic = self.worker.answered(&self.topic, &resolved);
                assert_eq!((resolved.start.gap, resolved.start.from.offset), (None, self.seen[slot]));
                self.waiting[slot] = false;
                self.join(slot, topic);
            }
            None => {}
        }
    }

    /// Sends a subscriber what it has not seen.
    fn look(&mut self, slot: usize) {
        let place = self.places[slot].expect("whoever is looked at is subscribed");
        let local = &mut self.worker.locals[place.topic as usize];
        let subscriber = &mut local.subscribers[place.index as usize];
        assert_eq!(subscriber.slot as usize, slot);
        let copy = local.copy.as_ref().expect("subscribed, so answered");
        for message in copy.slice_after(subscriber.cursor).expect("there is room for all of them") {
            self.seen[slot] += 1;
            assert_eq!(message.cursor.offset, self.seen[slot], "in order, none twice");
            assert_eq!(*message.payload, *self.seen[slot].to_string().as_bytes());
        }
        subscriber.cursor = self.seen[slot];
    }

    fn sweep(&mut self) -> bool {
        let next = self.worker.next();
        if let Some(Place { topic, index }) = next {
            self.look(self.worker.locals[topic as usize].subscribers[index as usize].slot as usize);
        }
        next.is_some()
    }
}

/// Subscribers come, go and come back with cursors: every one of them sees every message once, in order.
#[test]
fn nobody_misses_anything_whatever_is_in_flight() {
    let (mut scene, mut rng) = (Scene::new(), crate::mem::Rng::new(7));
    for _ in 0..200_000 {
        let slot = rng.below(8) as usize;
        match rng.below(9) {
            0 => scene.publish(),
            1 => scene.enter(slot),
            2 => scene.exit(slot),
            3 | 4 => scene.home_reads(),
            5 | 6 => scene.worker_reads(),
            _ => _ = scene.sweep(),
        }
    }
    assert!(scene.published > 10_000 && scene.seen.iter().all(|&seen| seen > 10_000));
    while !scene.to_home.is_empty() || !scene.to_worker.is_empty() {
        scene.home_reads();
        scene.worker_reads();
    }
    while scene.sweep() {}
    for (slot, _) in scene.places.iter().enumerate().filter(|(_, place)| place.is_some()) {
        assert_eq!(scene.seen[slot], scene.published, "slot {slot} was left behind");
    }
}

#[test]
fn whoever_joins_amid_a_sweep_takes_nobodys_turn() {
    for joiners in 1..4 {
        let mut scene = Scene::new();
        scene.enter(0);
        scene.home_reads();
        scene.worker_reads();
        scene.publish();
        scene.worker_reads();
        // From the copy that is here, between the message and the sweep.
        (1..=joiners).for_each(|slot| scene.enter(slot));
        while scene.sweep() {}
        assert_eq!(scene.seen[0], scene.published, "with {joiners} more");
    }
}

#[test]
fn a_key_answers_with_the_first_cursor() {
    let mut topics = topics(LIMITS, 10);
    let (first, message) = topics.publish(&name("a"), text(1).idempotency_key("k"), 0, || 1).expect("room");
    assert!(message.is_some());
    let (again, message) = topics.publish(&name("a"), text(2).idempotency_key("k"), 0, || 1).expect("room");
    assert_eq!((again, message.is_none()), (first, true));
    assert_ne!(topics.publish(&name("b"), text(2).idempotency_key("k"), 0, || 2).expect("room").0, first);
}

#[test]
fn idle_topics_make_room_and_others_do_not() {
    let limits = Limits { messages: 10, bytes: 1 << 20, age_ms: 1000 };
    let mut topics = topics(limits, 3);
    for (at, topic) in ["a", "b", "c"].into_iter().enumerate() {
        topics.publish(&name(topic), text(1), at as u64, || 1).expect("room");
    }
    let read = |topics: &mut Topics, topic: &str, now_ms| {
        topics
            .resolve(&name(topic), Read::all(Wanted::Since(Since::Latest)), None, now_ms, || 2)
            .map(|found| found.start.from)
    };
    assert_eq!(read(&mut topics, "d", 500), Err(Full), "all of them have messages");
    topics.resolve(&name("a"), Read::all(Wanted::Since(Since::Latest)), Some(1), 1500, || 2).expect("it is there");
    let b = read(&mut topics, "b", 1600).expect("it is there");
    assert!(read(&mut topics, "d", 1700).is_ok(), "c, idle for longest, has left");
    assert_eq!(read(&mut topics, "b", 1800), Ok(b), "the same epoch and offset");
    assert_eq!(topics.homes.len(), 3);
    // A day later whoever is idle has left by the time that its turn has come.
    for _ in 0..5 {
        topics.expire(1800 + 86_400_000);
    }
    assert_eq!(topics.homes.len(), 1, "somebody is attached to a");
}

#[test]
fn what_has_expired_leaves_though_nobody_touches_it() {
    let mut topics = topics(Limits { messages: 10, bytes: 1 << 20, age_ms: 1000 }, 1000);
    for number in 0..300 {
        let topic = name(&format!("t{number}"));
        let local = topics.asking(&topic);
        let read = Read::all(Wanted::Since(Since::Latest));
        let resolved = topics.resolve(&topic, read, Some(1), 0, || 1).expect("room");
        assert_eq!(topics.answered(&topic, &resolved), local);
        let (_, message) = topics.publish(&topic, text(number), 0, || 1).expect("room");
        topics.append(&topic, &message.expect("no key"), 0);
    }
    let kept = |topics: &Topics| {
        let copies = topics.locals.iter().filter_map(|(_, local)| local.copy.as_ref());
        topics.homes.values().filter(|home| !home.log.is_empty()).count()
            + copies.filter(|copy| copy.after(0).len() > 0).count()
    };
    assert_eq!(kept(&topics), 600);
    (0..200).for_each(|_| topics.expire(1001));
    assert_eq!(kept(&topics), 0);
}
