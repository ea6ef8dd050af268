//! The event loop: one thread, one poller, its own descriptors, nothing shared but a mailbox.
//!
//! A turn, in this order and for these reasons:
//!
//! 1. wait until something is ready, a timer is due, or work is left from the last turn;
//! 2. the mailbox: before whoever comes, since who comes may know already what it says;
//! 3. accept, within a budget: newcomers wait in a queue of the kernel that overflows, and with TCP_DEFER_ACCEPT
//!    their request is there already, so that the whole handshake happens here;
//! 4. read and handle what is ready, a scratch-full at most from each; what had more goes to the next turn's list;
//! 5. a slice of the sweeps (tick, drain): last of the sends, since nobody waits for them in particular; then a slice
//!    of the fan-out: what topics' subscribers have not seen; then one of what the control plane asks;
//! 6. due timers, within a budget: after reading, so that a byte that has come counts before its deadline does.
//!
//! What a handler sends is collected and leaves in one `send`, together with that of a few other connections, and at
//! the latest at the end of the turn; a connection that has ended is freed there and then. Events that the same batch still holds for it are recognised by their
//! token, which names the slot and the serial.

mod accept;
mod ages;
mod aging;
mod budget;
#[cfg(feature = "centrifugo")]
mod calls;
mod drain;
mod drive;
mod errands;
mod expiry;
mod fanout;
mod glue;
mod inspect;
mod kernel;
mod mail;
mod memory;
mod parcels;
mod recent;
mod reload;
mod sources;
mod subscriptions;
mod sweep;
mod table;
mod tap;
mod throttle;
mod topics;

pub(crate) use inspect::{Filter, Found, GoneFilter, Inspection, Order, Quest, Row, TopicOrder};
pub(crate) use kernel::{Kernel, Machine};
pub(crate) use mail::{Envelope, Port, Shared};
pub(crate) use memory::Budget;
use memory::Looked;
pub(crate) use recent::{Gone, Transport, Why};
pub(crate) use reload::{Reload, Update};
pub(crate) use sources::Sources;
pub(crate) use table::Live;
pub(crate) use tap::{Seen, Tap, Target, Way};
pub(crate) use topics::{Asker, Then};

use crate::config::Rules;
use crate::conn::Peer;
use crate::error::End;
use crate::http::{Date, Origins, imf_fixdate};
use crate::limits::{
    ENDS_PER_TURN, ENVELOPES_PER_TURN, EVENTS_PER_TURN, EXPIRY_LOOK_MS, OUTPUT_KEEP_BYTES, SCRATCH_BYTES,
    TIMERS_PER_TURN,
};
use crate::mem::{Rng, Wheel};
use crate::planted::{Bug, planted};
use crate::service::{ConnId, Service, Wish};
use crate::time::Millis;
use crate::topic::{Author, Retention, Topics};
use accept::{Accepting, Pace};
use ages::Ages;
use aging::Aging;
use budget::LogBudget;
use drain::Leaving;
use drive::Corked;
use expiry::Expiries;
use fanout::{Joined, Permit};
use kernel::Event;
use recent::{Parting, Recent};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use subscriptions::Held;
use sweep::Tick;
use table::Table;
use tap::Taps;
use throttle::Throttle;
use topics::{Asked, Poll};

/// The mailbox's token; listeners count down from the one below. Connections' tokens are smaller: a slot in 24
/// bits, of which not all are used, above 40 bits of the serial.
pub(crate) const MAIL_TOKEN: u64 = u64::MAX;
const SERIAL_BITS: u32 = 40;

fn listener_token(index: usize) -> u64 {
    MAIL_TOKEN - 1 - index as u64
}

fn token(slot: u32, serial: u64) -> u64 {
    u64::from(slot) << SERIAL_BITS | serial & ((1 << SERIAL_BITS) - 1)
}

/// What a worker is set up with.
#[derive(Debug)]
pub(crate) struct Setup<T> {
    pub(crate) index: u16,
    pub(crate) slots: usize,
    pub(crate) rules: Rules,
    pub(crate) tick_interval: Option<Duration>,
    pub(crate) connection_age_max: Option<Duration>,
    pub(crate) seed: u64,
    pub(crate) origins: Arc<Origins>,
    pub(crate) retention: Retention,
    pub(crate) shared: Arc<Shared<T>>,
}

/// A worker.
#[derive(Debug)]
pub(crate) struct Worker<S: Service, K: Kernel> {
    kernel: K,
    service: S,
    table: Table<S::State, K::Socket>,
    wheel: Wheel,
    rng: Rng,
    rules: Rules,
    shared: Arc<Shared<S::State>>,
    index: u16,
    now: Millis,
    /// What a `recv` fills. Frames are decoded and unmasked in place here.
    scratch: Box<[u8]>,
    /// What the connection under way sends; empty between connections.
    output: Vec<u8>,
    /// What was put aside to be sent with others'.
    corked: Corked,
    events: Vec<Event>,
    /// Connections to be read on in the next turn: they had more than their share, or an edge was passed over.
    ready: Vec<(u32, u64)>,
    /// What is known of connections whose peers have gone, and was not looked at yet.
    ended: VecDeque<Event>,
    /// Envelopes taken out of the mailbox and not handed out yet.
    mail: VecDeque<Envelope<S::State>>,
    /// The mailbox rang since it was last emptied: until it is, it does not ring again.
    rung: bool,
    topics: Topics,
    /// When topics are looked at for what has expired.
    expiry: Millis,
    /// What the request under way wants of a topic, asked once it has been handled.
    asked: Option<Asked<S::State>>,
    /// What the service wants for connections, for the same moment.
    wishes: VecDeque<(ConnId, Wish)>,
    /// They are being seen to.
    granting: bool,
    /// The service is being told that a subscription begins.
    beginning: bool,
    held: Held,
    /// Counts subscriptions that were asked for.
    tickets: u32,
    /// Subscribers that others know of, by slot and number.
    members: HashMap<(u32, u16), Arc<Author>>,
    /// Long polls that wait, by slot.
    polls: HashMap<u32, Poll>,
    joined: Joined,
    permit: Permit,
    throttle: Throttle,
    expiries: Expiries,
    memory_looked: Looked,
    accepting: Accepting<K::Listener>,
    ages: Ages,
    aging: Option<Aging>,
    /// The proxies through which requests come of which each names its client: who is really on the other side, by slot,
    /// while there may be another request.
    hops: HashMap<u32, Peer>,
    recent: Recent,
    /// Connections that end, and have left their topics, by slot.
    partings: HashMap<u32, Parting>,
    /// What the control plane asked.
    inspections: VecDeque<Inspection>,
    taps: Taps,
    tick: Option<Tick>,
    drain: Option<Leaving>,
    aborted: bool,
    log: LogBudget,
    /// Whose pages may talk to this server.
    origins: Arc<Origins>,
    /// The time as responses carry it, and the second that it was made in.
    date: Date,
    date_second: u64,
    /// The time of day at the start of the worker's clock, in milliseconds of Unix time; looked at every second.
    unix_start_ms: u64,
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// A worker that accepts from `listeners` as soon as it [`run`](Self::run)s.
    pub(crate) fn new(
        mut kernel: K,
        service: S,
        setup: Setup<S::State>,
        listeners: Vec<K::Listener>,
    ) -> io::Result<Self> {
        for (index, listener) in listeners.iter().enumerate() {
            kernel.register_listener(listener, listener_token(index))?;
        }
        let (now, unix_ms) = (Millis(kernel.micros() / 1000), kernel.unix_ms());
        let recent = Recent::new(setup.shared.ports.len());
        let live = Arc::clone(&setup.shared.ports[usize::from(setup.index)].live);
        let pace = setup.shared.accept_rate.map(|rate| Pace::new(rate, setup.shared.ports.len()));
        Ok(Self {
            kernel,
            service,
            table: Table::new(setup.slots, live, setup.shared.sources.clone()),
            wheel: Wheel::new(now.tick()),
            rng: Rng::new(setup.seed),
            shared: setup.shared,
            index: setup.index,
            now,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            output: Vec::new(),
            corked: Corked::default(),
            events: Vec::with_capacity(EVENTS_PER_TURN),
            ready: Vec::new(),
            ended: VecDeque::new(),
            mail: VecDeque::new(),
            rung: false,
            topics: Topics::new(setup.retention),
            expiry: now,
            asked: None,
            wishes: VecDeque::new(),
            beginning: false,
            granting: false,
            held: Held::default(),
            tickets: 0,
            members: HashMap::new(),
            polls: HashMap::new(),
            joined: Joined::default(),
            permit: Permit::None,
            throttle: Throttle::new(&setup.rules.rates),
            expiries: Expiries::default(),
            rules: Rules { ping_phase: setup.index.into(), ..setup.rules },
            memory_looked: Looked { at: now, read_bytes: 0 },
            accepting: Accepting::new(listeners, pace),
            ages: Ages::default(),
            aging: setup.connection_age_max.map(|most| Aging::new(most, now)),
            hops: HashMap::new(),
            recent,
            partings: HashMap::new(),
            inspections: VecDeque::new(),
            taps: Taps::default(),
            tick: setup.tick_interval.map(|interval| Tick::new(interval, now)),
            drain: None,
            aborted: false,
            log: LogBudget::default(),
            origins: setup.origins,
            date: imf_fixdate(unix_ms / 1000),
            date_second: now.0 / 1000,
            unix_start_ms: unix_ms.saturating_sub(now.0),
        })
    }

    /// Turns until it is told to end and everybody is gone.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while self.turn()? {}
        self.give_up_permit();
        Ok(())
    }

    /// The time of day, in milliseconds of Unix time.
    fn unix_ms(&self) -> u64 {
        self.unix_start_ms.saturating_add(self.now.0)
    }

    /// One turn; `false` after the last.
    pub(crate) fn turn(&mut self) -> io::Result<bool> {
        let timeout = self.timeout();
        self.events.clear();
        self.kernel.wait(timeout, &mut self.events)?;
        let began_us = self.kernel.micros();
        self.now = Millis(began_us / 1000);
        self.port().metrics.turns.add(1);
        if self.date_second != self.now.0 / 1000 {
            self.date_second = self.now.0 / 1000;
            self.unix_start_ms = self.kernel.unix_ms().saturating_sub(self.now.0);
            self.date = imf_fixdate(self.unix_ms() / 1000);
            self.taps.tidy(self.now);
        }

        for index in 0..self.events.len() {
            let token = self.events[index].token;
            if token == MAIL_TOKEN {
                self.rung = true;
            } else if token > listener_token(self.accepting.count()) {
                self.accepting.ready((MAIL_TOKEN - 1 - token) as usize);
            }
        }
        self.deliver_mail();
        if !self.aborted {
            self.accept();
        }
        self.release_throttled();

        // Once each: a flood has an event in every turn beside its place on the list, and each of the two would bring
        // it back twice, and so on.
        let mut resume = std::mem::take(&mut self.ready);
        resume.sort_unstable();
        resume.dedup();
        for (slot, serial) in resume {
            self.resume(slot, serial);
        }
        for index in 0..self.events.len() {
            let event = self.events[index];
            if event.token > listener_token(self.accepting.count()) {
                continue;
            }
            if event.read_closed || event.error {
                self.ended.push_back(event);
            } else {
                self.event(event);
            }
        }
        // Those who stay first: it costs as much to see somebody off as to answer.
        for _ in 0..ENDS_PER_TURN {
            let Some(event) = self.ended.pop_front() else {
                self.ended = VecDeque::new();
                break;
            };
            self.event(event);
        }
        self.sweep();
        self.release_held();
        self.sweep_topics();
        self.look_on();
        if self.expiry <= self.now {
            self.topics.expire(self.now.0);
            self.expiry = self.now + Duration::from_millis(EXPIRY_LOOK_MS);
        }
        self.fire_timers();
        self.end_expired();
        self.look_at_memory();
        self.log.settle(self.now);
        self.uncork();
        if self.output.capacity() > OUTPUT_KEEP_BYTES {
            self.output = Vec::new();
        }
        self.note_turn(began_us);
        let is_over = self.drain.as_ref().is_some_and(Leaving::is_deaf) && self.table.len() == 0;
        Ok(!self.aborted && !is_over)
    }

    /// What others may see of the worker once a turn is over.
    fn note_turn(&mut self, began_us: u64) {
        let ended_us = self.kernel.micros();
        let metrics = &self.shared.ports[usize::from(self.index)].metrics;
        metrics.turn_us.observe(ended_us.saturating_sub(began_us));
        metrics.timers.set(self.wheel.len() as u64);
        metrics.mail_left.set(self.mail.len() as u64);
        metrics.table_bytes.set(self.table.bytes() as u64);
        metrics.recent_bytes.set(self.recent.bytes() as u64);
        self.topics.note(metrics);
    }

    /// How long nothing needs to be done; `None`: until something happens.
    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty()
            || !self.ended.is_empty()
            || !self.mail.is_empty()
            || self.rung && !planted(Bug::RungForgotten)
            || self.may_sweep_on()
            || self.held.is_any_released()
            || !self.inspections.is_empty()
            || self.accepting.is_ready(self.now)
        {
            return Some(Duration::ZERO);
        }
        let timer = self.wheel.next().map(|tick| tick.starts_at(self.now));
        let tick = self.tick.as_ref().map(Tick::next);
        let drain = self.drain.as_ref().map(|leaving| leaving.next(self.table.high(), self.now));
        let aging = self.aging.as_ref().filter(|_| self.table.len() > 0).map(Aging::next);
        let expiry = (!self.topics.is_empty()).then_some(self.expiry);
        let others =
            [self.accepting.next(), self.throttle.next(), self.memory_look(), self.next_expiry(), self.log.next()];
        [timer, tick, drain, aging, expiry].into_iter().chain(others).flatten().min().map(|next| next.since(self.now))
    }

    fn port(&self) -> &Port<S::State> {
        &self.shared.ports[usize::from(self.index)]
    }

    /// Hands the envelopes out, a budget of them; what is left keeps the next turn from sleeping.
    fn deliver_mail(&mut self) {
        if self.mail.is_empty() {
            let mut mail = std::mem::take(&mut self.mail);
            self.port().mailbox.take(&mut mail);
            self.port().metrics.mail.add(mail.len() as u64);
            self.mail = mail;
            self.rung = false;
        }
        for _ in 0..ENVELOPES_PER_TURN {
            let Some(envelope) = self.mail.pop_front() else {
                return;
            };
            match envelope {
                Envelope::Send { id, frame } => self.send_frame(id, &frame),
                Envelope::Close { id, code, reason } => self.on_open(id, |conn, output| {
                    let ended = crate::conn::Ended { end: End::ServiceClosed, code, reason, clean: false };
                    conn.close(Some(code), ended, output);
                }),
                Envelope::Answer { id, verdict: Ok(opening), join: Some(join) } => {
                    self.ask(topics::asked_to_open(id, opening, join));
                }
                Envelope::Answer { id, verdict, .. } => self.answer(id, verdict),
                Envelope::Parcel(from, parcel) => self.deliver(from, *parcel),
                Envelope::Reply(to, response) => self.reply(to, &response),
                Envelope::Topic(mail) => self.topic_mail_came(*mail),
                #[cfg(feature = "centrifugo")]
                Envelope::Tell { id, tag, answer } => self.tell(id, tag, Ok(*answer)),
                Envelope::Reload(told) => self.reload(&told),
                Envelope::Update(update) => self.update(&update),
                Envelope::Inspect(inspection) => self.inspections.push_back(*inspection),
                Envelope::Shed { bound } => self.shed_memory(bound),
                Envelope::Accept { listener } => self.accepting.ready(listener),
                Envelope::Drain(drain) => self.begin_drain(drain),
                Envelope::Abort => return self.abort_all(),
            }
        }
    }

    /// Fires what is due, a budget of it.
    fn fire_timers(&mut self) {
        self.wheel.advance(&mut self.table, self.now.tick());
        for _ in 0..TIMERS_PER_TURN {
            let Some(slot) = self.wheel.pop(&mut self.table) else {
                return;
            };
            self.fire(slot);
        }
    }
}

#[cfg(all(any(test, fuzzing), feature = "centrifugo"))]
#[cfg_attr(not(test), allow(dead_code, reason = "what sums up many seeds"))]
pub(crate) mod simulation;
#[cfg(test)]
mod tests;
