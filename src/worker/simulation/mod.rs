//! The real workers in a simulated world: machine, network, clients and clock, all from one seed.
//!
//! Several workers take turns on one thread, in an order that the seed draws, each over a [`Simulated`] kernel on one
//! [`Net`]; mailboxes and what workers share are the real ones. Clients ([`Reader`], [`Publisher`]) speak the wire by an
//! implementation of their own and report to the [`Truth`] what they were told, which fails on the first contradiction.
//! After the storm everything calms down: whoever is still connected must come to its topic's head without any timer's
//! help, then all leave, and nothing may be left of them.
//!
//! `THRONG_SEEDS=1000..2000 cargo test --lib simulation -- --nocapture` runs other seeds than the test's own.

mod invariants;
mod line;
mod net;
mod planted;
mod publisher;
mod reader;
mod session;
mod truth;
mod wire;

use super::*;
use crate::config::{Config, RuleSet, SlowReaders};
use crate::mem::{Mailbox, Permits};
use crate::metrics::Metrics;
use crate::service::{Accept, Answer, Centrifugo, Close, Connection, Decision, Message, Mounted, Request, TopicUrl};
use crate::sys::Wake;
use crate::topic::{Limits, TopicName};
use line::Scene;
use net::{Faults, Listener, Net, Simulated};
use publisher::Publisher;
use reader::{Reader, Transport};
use session::Session;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::OnceLock;
use truth::{Promise, Tally, Truth};
use wire::At;

/// What `throng serve` does with topics.
#[derive(Debug)]
struct Push {
    client_publish: bool,
    net: Rc<RefCell<Net>>,
}

impl Service for Push {
    type State = ();

    fn open(&mut self, request: &Request<'_>) -> Decision<()> {
        match TopicUrl::of(request) {
            Some(Ok(topic)) => topic.open(request, Accept::new(())),
            _ => unreachable!("every client asks for a topic"),
        }
    }

    fn message(&mut self, connection: &mut Connection<'_, ()>, message: Message<'_>) {
        match connection.topic().cloned() {
            Some(topic) if self.client_publish => connection.publish(&topic, message),
            _ => connection.close(1008, "POST instead"),
        }
    }

    fn close(&mut self, _: ConnId, (): (), close: &Close<'_>) {
        invariants::check_close(&self.net.borrow(), close);
    }

    fn request(&mut self, request: &Request<'_>) -> Answer {
        match TopicUrl::of(request) {
            Some(Ok(topic)) => topic.answer(request),
            _ => unreachable!("every client asks for a topic"),
        }
    }
}

/// What a seed's world is like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    workers: usize,
    slots: usize,
    connections_max: usize,
    topics: usize,
    topics_max: usize,
    history: Limits,
    /// Workers that may sweep at a time.
    sweeps_max: usize,
    /// Who reads too slowly is told of the gap, not disconnected.
    skips: bool,
    /// Topics know who is there.
    presence: bool,
    /// Sessions are told of others' coming and going.
    join_leave: bool,
    readers: usize,
    /// Of Centrifugo's protocol; none where there is no history, without which there are no positions to compare.
    sessions: usize,
    publishers: usize,
    client_publish: bool,
    /// The workers are drained at the end, rather than left by their clients.
    drains: bool,
    ticks: bool,
    /// Deadlines are short: answers come too late, heartbeats often.
    hasty: bool,
    steps: u32,
    faults: Faults,
}

impl Shape {
    fn draw(rng: &mut Rng) -> Self {
        let one_of = |rng: &mut Rng, values: &[u64]| values[rng.below(values.len() as u64) as usize];
        let full = rng.below(8) == 0;
        let crowded = rng.below(4) == 0;
        let wild = one_of(rng, &[0, 1, 5]);
        let faults = Faults {
            interrupted: wild * 6,
            accept: wild * 10,
            short: wild * 20,
            delay: one_of(rng, &[0, 100, 500]),
            spurious: wild * 10,
            reset: one_of(rng, &[0, 1, 3]),
        };
        let (bytes, age_ms) = match rng.below(4) {
            0 => (one_of(rng, &[1000, 20_000]) as usize, u64::MAX),
            1 => (1 << 20, one_of(rng, &[100, 5000])),
            _ => (1 << 30, u64::MAX),
        };
        let age_ms = if crowded { 50 } else { age_ms };
        let history = Limits { messages: one_of(rng, &[0, 2, 8, 8, 8, 40]) as usize, bytes, age_ms };
        Self {
            workers: one_of(rng, &[2, 2, 3, 4]) as usize,
            slots: if full { 5 } else { 64 },
            connections_max: if full { 12 } else { 200 },
            topics: if crowded { 8 } else { one_of(rng, &[1, 1, 2, 4]) as usize },
            topics_max: if crowded { 2 } else { 100 },
            sweeps_max: one_of(rng, &[1, 1, 2, 9]) as usize,
            skips: rng.below(3) == 0,
            presence: rng.below(2) == 0,
            join_leave: rng.below(3) == 0,
            history,
            sessions: if history.messages > 0 { one_of(rng, &[0, 3, 8]) as usize } else { 0 },
            readers: one_of(rng, &[4, 10, 25]) as usize,
            publishers: one_of(rng, &[1, 2, 4]) as usize,
            client_publish: rng.below(2) == 0,
            drains: rng.below(4) == 0,
            ticks: rng.below(4) == 0,
            hasty: rng.below(3) == 0,
            steps: one_of(rng, &[1000, 3000, 6000, 10_000]) as u32,
            faults,
        }
    }

    fn rules(&self) -> Rules {
        let ms = Duration::from_millis;
        let hasty = Config {
            ping_interval: ms(300),
            pong_timeout: ms(300),
            head_timeout: ms(1000),
            idle_timeout: ms(1000),
            decision_timeout: ms(100),
            close_timeout: ms(300),
            write_timeout: ms(2000),
            ..Config::default()
        };
        let config = if self.hasty { hasty } else { Config::default() };
        let slow_readers = if self.skips { SlowReaders::Skip } else { SlowReaders::Disconnect };
        // The clock may leap in the middle of a message.
        let config = Config { message_timeout: ms(3_600_000), ..config };
        let mut topics = RuleSet::open();
        let rules = &mut topics.without_namespace;
        (rules.presence, rules.join_leave) = (self.presence, self.join_leave);
        (rules.history_size, rules.history_bytes) = (self.history.messages, self.history.bytes);
        rules.history_ttl = Duration::from_millis(self.history.age_ms);
        Config { slow_readers, topics, ..config }.rules().expect("these are right")
    }

    fn promise(&self) -> Promise {
        let Limits { messages, bytes, age_ms } = self.history;
        let by_count = bytes == 1 << 30 && age_ms == u64::MAX && messages > 0;
        Promise {
            kept: by_count.then_some(messages as u64),
            one_epoch: self.topics_max > self.topics,
            skips: self.skips,
        }
    }
}

struct World {
    shape: Shape,
    net: Rc<RefCell<Net>>,
    rng: Rng,
    truth: Truth,
    shared: Arc<Shared<Mounted<()>>>,
    workers: Vec<Worker<Centrifugo<Push>, Simulated>>,
    /// Whether each mailbox's bell was rung when it was last looked at.
    rung: Vec<bool>,
    running: Vec<bool>,
    readers: Vec<Reader>,
    sessions: Vec<Session>,
    publishers: Vec<Publisher>,
}

impl World {
    fn new(seed: u64) -> Self {
        // Nothing reads it: who rings is looked up in the mailbox.
        static WAKE: OnceLock<Wake> = OnceLock::new();
        let mut rng = Rng::new(seed);
        let shape = Shape::draw(&mut rng);
        let net = Rc::new(RefCell::new(Net::new(rng.next(), shape.workers, shape.faults)));
        let port = |_| Port {
            mailbox: Mailbox::default(),
            wake: *WAKE.get_or_init(|| Wake::new().expect("an eventfd")),
            live: Arc::new(Live::new(shape.slots)),
            metrics: Metrics::default(),
        };
        let shared = Arc::new(Shared::new(
            (0..shape.workers).map(port).collect(),
            shape.connections_max,
            shape.sweeps_max,
            None,
        ));
        let worker = |index| {
            let kernel = Simulated { net: Rc::clone(&net), worker: index };
            let setup = Setup {
                index: index as u16,
                slots: shape.slots,
                rules: shape.rules(),
                tick_interval: shape.ticks.then_some(Duration::from_secs(1)),
                seed: rng.next(),
                origins: Arc::default(),
                retention: Retention::uniform(shape.history, 24 * 60 * 60 * 1000, shape.topics_max),
                shared: Arc::clone(&shared),
            };
            let listeners: Vec<Listener> = vec![kernel.listener()];
            let push = Push { client_publish: shape.client_publish, net: Rc::clone(&net) };
            let service = Centrifugo::seeded(push, rng.next());
            Worker::new(kernel, service, setup, listeners).expect("it starts")
        };
        let workers: Vec<_> = (0..shape.workers).map(worker).collect();
        let reader = |name| {
            let transport = Transport::ALL[rng.below(5) as usize];
            Reader::new(name, transport, rng.below(shape.topics as u64) as usize, shape.client_publish)
        };
        let readers = (0..shape.readers).map(reader).collect();
        let session = |name| {
            let first = rng.below(shape.topics as u64) as usize;
            Session::new(name, (first..shape.topics).take(3))
        };
        let sessions = (0..shape.sessions).map(session).collect();
        let publishers = (0..shape.publishers).map(|_| Publisher::default()).collect();
        let (rung, running) = (vec![false; shape.workers], vec![true; shape.workers]);
        let truth = Truth::new(shape.topics, shape.promise());
        Self { shape, net, rng, truth, shared, workers, rung, running, readers, sessions, publishers }
    }

    /// When the worker wakes without an event.
    fn deadline(&self, worker: usize) -> Option<u64> {
        let worker = &self.workers[worker];
        worker.timeout().map(|timeout| worker.now.0 + timeout.as_millis() as u64)
    }

    fn is_runnable(&self, worker: usize) -> bool {
        let net = self.net.borrow();
        self.running[worker] && (net.rouses(worker) || self.deadline(worker).is_some_and(|at| at <= net.now))
    }

    fn turn(&mut self, worker: usize) {
        self.truth.tally.turns += 1;
        self.running[worker] = self.workers[worker].turn().expect("the machine does not fail");
        // Of those posted to in this turn, the first envelope rang the bell.
        for other in 0..self.shape.workers {
            let is_granted = |permits: &Permits| permits.is_granted(other as u16);
            let granted = self.shared.sweeps.as_ref().is_some_and(is_granted);
            let ringing = self.shared.ports[other].mailbox.is_ringing() || granted;
            if other != worker && ringing && !self.rung[other] {
                let delay_ms = self.rng.below(4);
                self.net.borrow_mut().ring(other, delay_ms);
            }
            self.rung[other] = ringing;
        }
        assert_eq!(self.shared.ports[worker].metrics.panics.read(), 0, "a handler panicked");
        self.check_remembered(worker);
    }

    fn post(&mut self, worker: usize, envelope: Envelope<Mounted<()>>) {
        self.shared.ports[worker].post(envelope);
        if !std::mem::replace(&mut self.rung[worker], true) {
            self.net.borrow_mut().ring(worker, 0);
        }
    }

    /// Steps a client: whether something happened.
    fn client(&mut self, index: usize, calm: bool) -> bool {
        let mut scene = Scene { net: &self.net, truth: &mut self.truth, rng: &mut self.rng, calm };
        let publisher = index.wrapping_sub(self.readers.len() + self.sessions.len());
        if let Some(reader) = self.readers.get_mut(index) {
            reader.step(&mut scene)
        } else if let Some(session) = self.sessions.get_mut(index - self.readers.len()) {
            session.step(&mut scene)
        } else {
            self.publishers[publisher].step(self.shape.topics, &mut scene)
        }
    }

    fn clients(&self) -> usize {
        self.readers.len() + self.sessions.len() + self.publishers.len()
    }

    /// Everything at once, in no order.
    fn storm(&mut self) {
        for _ in 0..self.shape.steps {
            match self.rng.below(10) {
                0..=3 => {
                    let worker = self.rng.below(self.shape.workers as u64) as usize;
                    if self.is_runnable(worker) {
                        self.turn(worker);
                    }
                }
                4 => _ = self.net.borrow_mut().deliver(false),
                _ => {
                    let client = self.rng.below(self.clients() as u64) as usize;
                    self.client(client, false);
                }
            }
            let passed = match self.rng.below(2000) {
                0 => self.rng.below(40_000),
                1..20 => self.rng.below(1500),
                20..400 => 1,
                _ => 0,
            };
            self.net.borrow_mut().now += passed;
        }
    }

    /// Runs until nothing moves any more; timers count only if they are due within `patience_ms`.
    fn calm(&mut self, patience_ms: u64) {
        self.net.borrow_mut().faults = Faults::default();
        let until = self.net.borrow().now + patience_ms;
        for round in 0.. {
            assert!(round < 20_000, "it does not come to rest: {:?}", self.spinning());
            if self.round() {
                continue;
            }
            let running = (0..self.shape.workers).filter(|&worker| self.running[worker]);
            let next = running.flat_map(|worker| [self.deadline(worker), self.net.borrow().wake_at(worker)]);
            match next.flatten().min().filter(|&next| next <= until) {
                Some(next) => self.net.borrow_mut().now = next,
                None => return,
            }
        }
    }

    /// Everything moves on by one step: whether something did.
    fn round(&mut self) -> bool {
        let mut moved = self.net.borrow_mut().deliver(true);
        for client in 0..self.clients() {
            moved |= self.client(client, true);
        }
        for worker in 0..self.shape.workers {
            if self.is_runnable(worker) {
                self.turn(worker);
                moved = true;
            }
        }
        moved
    }

    /// The workers that have no rest.
    fn spinning(&self) -> Vec<usize> {
        (0..self.shape.workers).filter(|&worker| self.is_runnable(worker)).collect()
    }

    /// Messages for every topic, a burst and then one, amid which somebody leaves: everybody who is still there gets them.
    fn last_words(&mut self) {
        for messages in [4, 1] {
            let before = self.heads();
            for topic in (0..self.shape.topics).flat_map(|topic| std::iter::repeat_n(topic, messages)) {
                let mut scene = Scene { net: &self.net, truth: &mut self.truth, rng: &mut self.rng, calm: true };
                self.publishers[0].publish(topic, &mut scene);
            }
            let (rounds, leaver) = (self.rng.below(20), self.rng.below(self.readers.len() as u64));
            (0..rounds).for_each(|_| _ = self.round());
            let mut scene = Scene { net: &self.net, truth: &mut self.truth, rng: &mut self.rng, calm: true };
            self.readers[leaver as usize].leave(&mut scene);
            self.calm(500);
            assert!(self.publishers.iter().all(Publisher::is_idle), "a publication was never answered");
            self.check_caught_up(&before);
        }
        self.truth.check_holes();
    }

    fn heads(&self) -> Vec<Option<At>> {
        (0..self.shape.topics).map(|topic| self.truth.head(topic)).collect()
    }

    /// Nobody is behind; the heads were these before.
    fn check_caught_up(&mut self, before: &[Option<At>]) {
        let heads = self.heads();
        let fresh = |topic| heads[topic] != before[topic];
        for reader in &self.readers {
            reader.check_caught_up(&heads, fresh(reader.topic()), &mut self.truth);
        }
        for session in &self.sessions {
            session.check_caught_up(&heads, fresh, &mut self.truth);
        }
    }

    /// Everybody goes; nothing is left of them.
    fn end(&mut self) {
        if self.shape.drains {
            for worker in 0..self.shape.workers {
                self.post(worker, Envelope::Drain { over: Duration::from_millis(700) });
            }
            self.calm(60_000);
            assert!(!self.running.contains(&true), "a worker did not end when it was drained");
        } else {
            let mut scene = Scene { net: &self.net, truth: &mut self.truth, rng: &mut self.rng, calm: true };
            self.readers.iter_mut().for_each(|reader| reader.leave(&mut scene));
            self.sessions.iter_mut().for_each(|session| session.leave(&mut scene));
            self.publishers.iter_mut().for_each(|publisher| publisher.leave(&mut scene));
            self.calm(50);
            self.check_departed();
            self.calm(200_000);
        }
        for worker in 0..self.shape.workers {
            self.check_empty(worker);
        }
        assert!((0..self.shape.connections_max).all(|_| self.shared.enter()), "a place was not given back");
    }

    fn check_empty(&self, index: usize) {
        let worker = &self.workers[index];
        let left = (worker.table.len(), worker.wheel.len(), worker.polls.len(), worker.wishes.len());
        assert_eq!(left, (0, 0, 0, 0), "worker {index}: connections, timers, polls, wishes");
        assert!(worker.members.is_empty(), "worker {index}: members");
        assert_eq!(worker.service.sessions(), 0, "worker {index}: sessions");
        assert!(worker.output.is_empty() && worker.asked.is_none(), "worker {index}: something is unsaid");
        let metrics = &self.shared.ports[index].metrics;
        let gauges = (metrics.opening.read(), metrics.open.read(), metrics.closing.read());
        assert_eq!(gauges, (0, 0, 0), "worker {index}: gauges");
        if !self.shape.drains {
            assert_eq!(worker.topics.locals.len(), 0, "worker {index}: topics that nobody listens to");
            let idle = worker.timeout().is_none_or(|timeout| !timeout.is_zero());
            assert!(idle, "worker {index}: it is called again in {:?}, with nothing to do", worker.timeout());
            for topic in 0..self.shape.topics {
                let name = TopicName::new(&format!("t{topic}")).expect("a name");
                assert!(worker.topics.attached(&name).is_empty(), "worker {index}: somebody is attached to t{topic}");
                let there = worker.topics.presence(&name, true).members;
                assert!(there.is_empty(), "worker {index}: somebody is there in t{topic}: {there:?}");
            }
        }
    }
}

/// Runs one seed; panics where the server is wrong.
fn run(seed: u64) -> Tally {
    let mut world = World::new(seed);
    world.storm();
    world.calm(1000);
    world.check_caught_up(&world.heads());
    world.last_words();
    world.end();
    world.truth.tally
}

/// Runs seeds, says which fail, and what was seen in all of them.
fn run_all(seeds: impl IntoIterator<Item = u64>) -> Tally {
    let (mut sum, mut failed) = (Tally::default(), Vec::new());
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(tally) => sum.add(&tally),
            Err(_) => {
                eprintln!("seed {seed} failed, with {:?}; to see it again:", Shape::draw(&mut Rng::new(seed)));
                eprintln!("  THRONG_SEEDS={seed}..{} cargo test --lib simulation -- --nocapture", seed + 1);
                failed.push(seed);
            }
        }
    }
    eprintln!("{sum:?}");
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}", failed.len());
    sum
}

/// Seeds that once found something: a subscriber was sent to where it no longer stood, since sending what was put aside had
/// shown another to be gone, who gave its place away.
const FOUND: [u64; 1] = [1687];

#[test]
fn nobody_is_left_behind_whatever_the_machine_does() {
    if let Ok(seeds) = std::env::var("THRONG_SEEDS") {
        let (from, to) = seeds.split_once("..").expect("THRONG_SEEDS is FROM..TO");
        let number = |text: &str| text.parse().expect("THRONG_SEEDS is FROM..TO, in numbers");
        run_all(number(from)..number(to));
        return;
    }
    let seen = run_all((0..200).chain(FOUND));
    // What never happens proves nothing.
    seen.check();
}
