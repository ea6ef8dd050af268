//! The real workers in a simulated world: machine, network, clients and clock, all from one seed.
//!
//! Several workers take turns on one thread, in an order that the seed draws, each over a [`Simulated`] kernel on one
//! [`Net`]; mailboxes and what workers share are the real ones. Clients ([`Reader`], [`Session`], [`Publisher`]) speak the
//! wire by an implementation of their own and report to the [`Truth`] what they were told, which fails on the first
//! contradiction; among them are peers that break the rules ([`Hostile`]). After every turn [`Watch`] looks at what must
//! always be true. After the storm everything calms down: whoever is still connected must come to its topic's head without
//! any timer's help, then all leave, and nothing may be left of them.
//!
//! `SIM_SEED=1234 cargo test --lib simulation -- --nocapture` runs one seed, `THRONG_SEEDS=1000..2000` that many, on all cores.

mod compressed;
mod emulated;
mod hostile;
mod invariants;
mod line;
mod machine;
mod net;
#[cfg(test)]
mod planted;
mod publisher;
mod reader;
mod schedule;
#[cfg(test)]
mod seeds;
mod session;
mod shape;
mod told;
mod truth;
mod wire;

use super::*;
use crate::http::Response;
use crate::mem::{Mailbox, Permits};
use crate::metrics::Metrics;
use crate::service::{Accept, Answer, Centrifugo, Close, Connection, Decision, Message, Mounted, Request, TopicUrl};
use crate::sys::Wake;
use crate::sys::ledger::counting;
use crate::topic::TopicName;
use emulated::Carrier;
use hostile::Hostile;
use invariants::{Budget, Watch};
use line::Scene;
use machine::{Listener, Simulated};
use net::Net;
use publisher::Publisher;
use reader::{Reader, Transport};
pub(crate) use schedule::schedule;
use session::Session;
use shape::Shape;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;
use truth::{Tally, Truth};
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
            Some(Err(refused)) => refused.into(),
            None => Response::new(404).into(),
        }
    }

    fn message(&mut self, connection: &mut Connection<'_, ()>, message: Message<'_>) {
        match connection.topic().cloned() {
            Some(topic) if self.client_publish => connection.publish(&topic, message),
            _ => connection.close(1008, "POST instead"),
        }
    }

    fn close(&mut self, _: ConnId, (): (), close: &Close<'_>) {
        told::check_close(&self.net.borrow(), close);
    }

    fn request(&mut self, request: &Request<'_>) -> Answer {
        match TopicUrl::of(request) {
            Some(Ok(topic)) => topic.answer(request),
            Some(Err(refused)) => refused.into(),
            None => Response::new(404).into(),
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
    /// How often each mailbox had rung when it was last looked at, and whether its worker had been granted a permit.
    heard: Vec<(usize, bool)>,
    running: Vec<bool>,
    readers: Vec<Reader>,
    sessions: Vec<Session>,
    publishers: Vec<Publisher>,
    hostiles: Vec<Hostile>,
    watches: Vec<Watch>,
    budget: Budget,
    rules: Rules,
    /// Until when each worker has no core to run on.
    stalled_until: Vec<u64>,
    /// For so many steps the clock stands still.
    frozen: u32,
    /// When the workers are given other settings, and which.
    reloads: Option<Rng>,
}

impl World {
    /// At most so many steps of the storm.
    fn of(mut rng: Rng, steps_max: u32) -> Self {
        // Nothing reads it: who rings is looked up in the mailbox.
        static WAKE: OnceLock<Wake> = OnceLock::new();
        let mut shape = Shape::draw(&mut rng);
        shape.steps = shape.steps.min(steps_max);
        warm_up(&shape);
        let net = Rc::new(RefCell::new(Net::new(rng.next(), shape.workers, shape.descriptors_max, shape.faults)));
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
                // Beside the ticks, which go over the table as well.
                connection_age_max: shape.ticks.then_some(Duration::from_secs(4)),
                seed: rng.next(),
                origins: Arc::default(),
                retention: Retention::uniform(shape.history, 24 * 60 * 60 * 1000, shape.topics_max),
                shared: Arc::clone(&shared),
            };
            let listeners: Vec<Listener> = vec![kernel.listener()];
            let push = Push { client_publish: shape.client_publish, net: Rc::clone(&net) };
            let service = Centrifugo::seeded(push, rng.next());
            counting(true, || Worker::new(kernel, service, setup, listeners).expect("it starts"))
        };
        let workers: Vec<_> = (0..shape.workers).map(worker).collect();
        let reader = |name| {
            let transport = Transport::ALL[rng.below(5) as usize];
            Reader::new(name, transport, rng.below(shape.topics as u64) as usize, shape.client_publish)
        };
        let readers = (0..shape.readers).map(reader).collect();
        let session = |name| {
            let first = rng.below(shape.topics as u64) as usize;
            let carrier = Carrier::ALL[rng.below(4) as usize];
            Session::new(name, carrier, (first..shape.topics).take(3))
        };
        let sessions = (0..shape.sessions).map(session).collect();
        let first = rng.below(100) as usize;
        Self {
            shape,
            net,
            rng,
            truth: Truth::new(shape.topics, shape.promise()),
            shared,
            workers,
            heard: vec![(0, false); shape.workers],
            running: vec![true; shape.workers],
            readers,
            sessions,
            publishers: (0..shape.publishers).map(|_| Publisher::default()).collect(),
            hostiles: (first..first + shape.hostiles).map(Hostile::new).collect(),
            watches: (0..shape.workers).map(|_| Watch::default()).collect(),
            budget: Budget::new(),
            rules: shape.rules(),
            stalled_until: vec![0; shape.workers],
            frozen: 0,
            reloads: shape.reloads().then(|| Rng::new(first as u64)),
        }
    }

    /// When the worker wakes without an event.
    fn deadline(&self, worker: usize) -> Option<u64> {
        let worker = &self.workers[worker];
        worker.timeout().map(|timeout| worker.now.0 + timeout.as_millis() as u64)
    }

    fn is_runnable(&self, worker: usize) -> bool {
        let net = self.net.borrow();
        self.running[worker]
            && self.stalled_until[worker] <= net.now
            && (net.rouses(worker) || self.deadline(worker).is_some_and(|at| at <= net.now))
    }

    fn turn(&mut self, worker: usize) {
        self.truth.tally.turns += 1;
        self.running[worker] = counting(true, || self.workers[worker].turn().expect("the machine does not fail"));
        (0..self.shape.workers).for_each(|other| self.hear(other));
        self.check_remembered(worker);
        self.watches[worker].check(&mut self.workers[worker], &mut self.net.borrow_mut());
        let connections = self.workers.iter().map(|worker| worker.table.len()).sum();
        self.budget.check(&self.shape, &self.rules, connections, self.truth.published());
    }

    /// Wakes a worker whose mailbox has rung since, or who has been granted a permit.
    fn hear(&mut self, worker: usize) {
        let is_granted = |permits: &Permits| permits.is_granted(worker as u16);
        let granted = self.shared.sweeps.as_ref().is_some_and(is_granted);
        let heard = (self.shared.ports[worker].mailbox.rings(), granted);
        let before = std::mem::replace(&mut self.heard[worker], heard);
        if heard.0 > before.0 || heard.1 && !before.1 {
            let delay_ms = self.rng.below(4);
            self.net.borrow_mut().ring(worker, delay_ms);
        }
    }

    fn post(&mut self, worker: usize, envelope: Envelope<Mounted<()>>) {
        self.shared.ports[worker].post(envelope);
        self.hear(worker);
    }

    /// Steps a client: whether something happened.
    fn client(&mut self, index: usize, calm: bool) -> bool {
        let compression = self.shape.compression.is_some();
        let mut scene = Scene { net: &self.net, truth: &mut self.truth, rng: &mut self.rng, calm, compression };
        let publisher = index.wrapping_sub(self.readers.len() + self.sessions.len());
        let hostile = publisher.wrapping_sub(self.publishers.len());
        if let Some(reader) = self.readers.get_mut(index) {
            reader.step(&mut scene)
        } else if let Some(session) = self.sessions.get_mut(index - self.readers.len()) {
            session.step(&mut scene)
        } else if let Some(hostile) = self.hostiles.get_mut(hostile) {
            hostile.step(&mut scene)
        } else {
            self.publishers[publisher].step(self.shape.topics, &mut scene)
        }
    }

    fn clients(&self) -> usize {
        self.readers.len() + self.sessions.len() + self.publishers.len() + self.hostiles.len()
    }

    /// From the storm to the end; panics where the server is wrong.
    fn run(mut self) -> Tally {
        self.storm();
        self.calm(1000);
        self.check_caught_up(&self.heads());
        self.last_words();
        self.end();
        let mut tally = self.truth.tally;
        tally.add(&self.net.borrow().seen);
        tally
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
            self.perhaps_reload();
            self.pass_time();
        }
    }

    /// Gives all workers other settings, now and then: each takes them when it looks at its mail.
    fn perhaps_reload(&mut self) {
        let Some(rng) = self.reloads.as_mut().filter(|_| !self.shape.drains) else { return };
        if rng.below(100) > 0 {
            return;
        }
        // Counted, since it is the workers that give it back.
        let reload = counting(true, || {
            let other = self.shape.other(rng);
            let retention = Retention::of_worker(&other.topics, self.shape.topics_max, 1);
            Arc::new(Reload { rules: other, origins: Arc::default(), retention, accept_rate: None })
        });
        (0..self.shape.workers).for_each(|worker| self.post(worker, Envelope::Reload(Arc::clone(&reload))));
        self.truth.tally.reloads += 1;
    }

    /// The clock goes on, or leaps, or stands still; a worker may lose its core.
    fn pass_time(&mut self) {
        if self.shape.stalls && self.rng.below(400) == 0 {
            let worker = self.rng.below(self.shape.workers as u64) as usize;
            self.stalled_until[worker] = self.net.borrow().now + [5, 100, 4000][self.rng.below(3) as usize];
            self.truth.tally.stalls += 1;
        }
        if self.frozen > 0 {
            self.frozen -= 1;
            return;
        }
        let passed = match self.rng.below(2000) {
            0 if self.shape.leaps => {
                self.truth.tally.jumps += 1;
                60_000 + self.rng.below(600_000)
            }
            0 => self.rng.below(40_000),
            1..20 => self.rng.below(1500),
            20..400 => 1,
            400..405 => {
                self.truth.tally.standstills += 1;
                self.frozen = 200;
                0
            }
            _ => 0,
        };
        self.net.borrow_mut().now += passed;
    }

    /// Runs until nothing moves any more; timers count only if they are due within `patience_ms`.
    fn calm(&mut self, patience_ms: u64) {
        self.net.borrow_mut().calm();
        self.stalled_until.fill(0);
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
                let (net, truth, rng) = (&self.net, &mut self.truth, &mut self.rng);
                self.publishers[0].publish(topic, &mut Scene { net, truth, rng, calm: true, compression: false });
            }
            let (rounds, leaver) = (self.rng.below(20), self.rng.below(self.readers.len() as u64));
            (0..rounds).for_each(|_| _ = self.round());
            let mut scene =
                Scene { net: &self.net, truth: &mut self.truth, rng: &mut self.rng, calm: true, compression: false };
            self.readers[leaver as usize].leave(&mut scene);
            self.calm(500);
            let open = self.publishers.iter().find(|publisher| !publisher.is_idle());
            assert!(open.is_none(), "a publication was never answered: {open:?}");
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
                self.post(worker, Envelope::Drain(Duration::from_millis(700).into()));
            }
            self.calm(60_000);
            assert!(!self.running.contains(&true), "a worker did not end when it was drained");
        } else {
            let compression = false;
            let (net, truth, rng) = (&self.net, &mut self.truth, &mut self.rng);
            let mut scene = Scene { net, truth, rng, calm: true, compression };
            self.hostiles.iter_mut().for_each(|hostile| hostile.leave(&mut scene));
            self.readers.iter_mut().for_each(|reader| reader.leave(&mut scene));
            self.sessions.iter_mut().for_each(|session| session.leave(&mut scene));
            self.publishers.iter_mut().for_each(|publisher| publisher.leave(&mut scene));
            self.calm(50);
            self.check_departed();
            self.calm(200_000);
        }
        for worker in 0..self.shape.workers {
            self.check_empty(worker);
            self.net.borrow().sides[worker].check_closed();
        }
        assert!((0..self.shape.connections_max).all(|_| self.shared.enter()), "a place was not given back");
        if !self.shape.drains {
            self.forget();
        }
    }

    /// A day passes: what was said is forgotten, and its memory given back.
    fn forget(&mut self) {
        self.net.borrow_mut().now += 25 * 60 * 60 * 1000;
        for _ in 0..40 {
            self.net.borrow_mut().now += 1001;
            (0..self.shape.workers).for_each(|worker| self.turn(worker));
        }
        assert!(self.workers.iter().all(|worker| worker.topics.is_empty()), "a topic is kept for ever");
        // What is remembered of those who went is meant to stay: it is bounded, and no leak.
        counting(true, || self.workers.iter_mut().for_each(Worker::forget_recent));
        self.budget.check_end(self.shape.workers);
    }

    fn check_empty(&self, index: usize) {
        let worker = &self.workers[index];
        let left = (worker.table.len(), worker.wheel.len(), worker.polls.len(), worker.wishes.len());
        assert_eq!(left, (0, 0, 0, 0), "worker {index}: connections, timers, polls, wishes");
        assert!(worker.members.is_empty(), "worker {index}: members");
        assert_eq!(worker.service.sessions(), 0, "worker {index}: sessions");
        assert!(worker.output.is_empty() && worker.asked.is_none(), "worker {index}: something is unsaid");
        let metrics = &self.shared.ports[index].metrics;
        let gauges = (metrics.opening.read(), metrics.open(), metrics.closing.read());
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

/// Has the thread's own compressors made: they are nobody's.
fn warm_up(shape: &Shape) {
    use crate::ws::deflate::{Window, encode_compressed, inflate};
    if let Some(compression) = &shape.compression {
        for window in [Window::Small, Window::Full] {
            encode_compressed(&mut Vec::new(), crate::ws::Opcode::Text, &[b'x'; 1000], (compression, window), None);
        }
        let _ = inflate(&[0], 10, None, &mut Vec::new());
    }
}
