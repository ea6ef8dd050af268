//! The subscribers of one worker.

use super::Ledger;
use super::audit::{Audit, Delivery};
use super::mark::{Mark, Marks};
use super::template::{Template, Values};
use super::travel::{Ticket, Travellers};
use crate::clock::Nanos;
use crate::engine::{Cursor, Gone, Mode, Net, Phase, picks};
use crate::reason::Loss;
use hdrhistogram::Histogram;
use memchr::memmem::Finder;
use std::sync::Arc;
use std::time::Duration;
use throng::ws::Opcode;

/// Longest latency that is told apart, in nanoseconds.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;
/// How often slow readers read, and how often it is checked whether everything has come.
const SLOW_TICK: Duration = Duration::from_millis(50);
const CHECK: Duration = Duration::from_millis(10);
/// How a subscriber that fell behind is told so, which is a gap said aloud: a bare WebSocket is closed; one of Centrifugo's
/// clients is unsubscribed, or closed, for insufficient state.
const GAPS: [Loss; 3] = [Loss::Closed(4410), Loss::Unsubscribed(2500), Loss::Closed(3010)];

/// How some of the subscribers read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slowness {
    /// Share of the subscribers that is slow.
    pub(crate) share: f64,
    /// What they read; 0: nothing until the load is over.
    pub(crate) bytes_per_second: u32,
}

/// What subscribers of one kind have seen.
#[derive(Clone, Debug)]
pub(crate) struct Tale {
    pub(crate) subscribers: u64,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    /// Of which behind the last that came: perhaps not lost but late, since nothing came to push them on.
    pub(crate) lost_at_end: u64,
    pub(crate) gap_announced: u64,
    pub(crate) missed_by_lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) misrouted: u64,
    pub(crate) foreign: u64,
    /// Gaps that were announced, whatever was missing behind them.
    pub(crate) gaps: u64,
    /// Subscribers that leave and come back, and how often one did.
    pub(crate) travellers: u64,
    pub(crate) reconnects: u64,
    pub(crate) latency_ns: Histogram<u64>,
}

impl Default for Tale {
    fn default() -> Self {
        let latency_ns = Histogram::new_with_max(LATENCY_MAX_NS, 3).expect("the bounds are constants");
        Self {
            subscribers: 0,
            expected: 0,
            delivered: 0,
            lost: 0,
            lost_at_end: 0,
            gap_announced: 0,
            missed_by_lost: 0,
            duplicated: 0,
            reordered: 0,
            misrouted: 0,
            foreign: 0,
            gaps: 0,
            travellers: 0,
            reconnects: 0,
            latency_ns,
        }
    }
}

impl Tale {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.subscribers += other.subscribers;
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.lost_at_end += other.lost_at_end;
        self.gap_announced += other.gap_announced;
        self.missed_by_lost += other.missed_by_lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.misrouted += other.misrouted;
        self.foreign += other.foreign;
        self.gaps += other.gaps;
        self.travellers += other.travellers;
        self.reconnects += other.reconnects;
        self.latency_ns += &other.latency_ns;
    }
}

/// What a worker's subscribers of one transport have seen: those that read, and the slow ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct FanoutReport {
    pub(crate) prompt: Tale,
    pub(crate) slow: Tale,
}

/// A subscriber. Its account goes on across its connections.
#[derive(Debug, Default)]
pub(crate) struct Subscriber {
    topic: u32,
    /// Which of the transports it has.
    part: u8,
    is_slow: bool,
    is_subscribed: bool,
    ticket: Option<Ticket>,
    /// Messages that came and were not duplicates.
    received: u32,
    audit: Audit,
}

// One that never leaves pays nothing for those that do.
const _: () = assert!(size_of::<Subscriber>() <= 32);

/// The mode.
#[derive(Debug)]
pub(crate) struct Subscribers {
    ledger: Arc<Ledger>,
    subscribe: Option<Template>,
    opcode: Opcode,
    gap_marker: Finder<'static>,
    marks: Marks,
    slowness: Slowness,
    /// One for each transport, as they were dealt.
    reports: Vec<FanoutReport>,
    /// Slots of slow readers.
    slow: Vec<u32>,
    travellers: Travellers,
    /// Subscribers whose connection ended in the middle: judged when all has been published.
    ended: Vec<(Subscriber, bool)>,
    /// Messages that came and were not duplicates, of subscribers that are still there, and those that would be
    /// all there are.
    delivered_live: u64,
    live: Vec<u32>,
    next_slow_tick: Nanos,
    is_running: bool,
    is_complete: bool,
    scratch: Vec<u8>,
}

impl Subscribers {
    pub(crate) fn new(
        ledger: Arc<Ledger>,
        subscribe: Option<&str>,
        opcode: Opcode,
        gap: &str,
        slowness: Slowness,
        travellers: Travellers,
    ) -> Self {
        let live = vec![0; ledger.topics.len()];
        Self {
            ledger,
            subscribe: subscribe.map(Template::new),
            opcode,
            gap_marker: Finder::new(gap).into_owned(),
            marks: Marks::default(),
            slowness,
            reports: Vec::new(),
            slow: Vec::new(),
            travellers,
            ended: Vec::new(),
            delivered_live: 0,
            live,
            next_slow_tick: Nanos(0),
            is_running: false,
            is_complete: false,
            scratch: Vec::new(),
        }
    }

    /// Whether all that was published has come to all that are there.
    fn check_complete(&mut self) {
        if self.is_complete || !self.ledger.is_final() {
            return;
        }
        let topics = self.live.iter().enumerate();
        let expected: u64 =
            topics.map(|(topic, &live)| u64::from(live) * u64::from(self.ledger.published(topic as u32))).sum();
        self.is_complete = self.delivered_live >= expected;
    }

    /// Closes a subscriber's account.
    fn judge(&mut self, subscriber: &Subscriber, gone: bool, gap_said: bool) {
        let published = self.ledger.published(subscriber.topic);
        let missing = subscriber.audit.missing(published);
        let tale = tale_of(&mut self.reports, subscriber);
        tale.subscribers += 1;
        tale.travellers += u64::from(subscriber.ticket.is_some());
        tale.gaps += u64::from(gap_said);
        tale.expected += u64::from(published);
        tale.lost += missing.unnoticed;
        tale.gap_announced += missing.announced + missing.tail_announced;
        match (gone, gap_said) {
            (_, true) => tale.gap_announced += missing.tail,
            (true, false) => tale.missed_by_lost += missing.tail,
            (false, false) => {
                tale.lost += missing.tail;
                tale.lost_at_end += missing.tail;
            }
        }
    }

    fn read_slowly(&mut self, net: &mut Net<Subscriber>) -> Option<Nanos> {
        if !self.is_running || self.slowness.bytes_per_second == 0 || self.slow.is_empty() {
            return None;
        }
        if net.now >= self.next_slow_tick {
            self.next_slow_tick = net.now + SLOW_TICK;
            let budget = (f64::from(self.slowness.bytes_per_second) * SLOW_TICK.as_secs_f64()).ceil() as usize;
            net.to_read.extend(self.slow.iter().map(|&slot| (slot, budget)));
        }
        Some(self.next_slow_tick)
    }
}

impl Mode for Subscribers {
    type State = Subscriber;
    type Report = Vec<FanoutReport>;

    fn opened(&mut self, net: &mut Net<Subscriber>, slot: u32) {
        self.reports.resize_with(net.line.dial.transports.len(), FanoutReport::default);
        if let Some(ticket) = net.table[slot].state.ticket {
            tale_of(&mut self.reports, &net.table[slot].state).reconnects += 1;
            return self.travellers.came_back(ticket, net);
        }
        let number = net.line.number(slot);
        let topic = (number % self.ledger.topics.len() as u64) as u32;
        let is_slow = picks(self.slowness.share, number);
        let ticket = net.line.returns(slot).then(|| self.travellers.enlist(slot));
        let part = net.line.part(slot) as u8;
        net.table[slot].state =
            Subscriber { topic, part, is_slow, is_subscribed: true, ticket, ..Subscriber::default() };
        self.live[topic as usize] += 1;
        if is_slow {
            self.slow.push(slot);
        }
        if let Some(template) = &self.subscribe {
            self.scratch.clear();
            let topic = &self.ledger.topics[topic as usize];
            template.write(&mut self.scratch, Values { topic, number, ..Values::default() });
            net.send(slot, self.opcode, &self.scratch);
        }
    }

    fn start(&mut self, net: &mut Net<Subscriber>) {
        self.is_running = true;
        for &slot in &self.slow {
            net.table[slot].is_paused = true;
        }
        self.travellers.start(net);
    }

    fn message(&mut self, net: &mut Net<Subscriber>, slot: u32, payload: &[u8]) {
        let state = &mut net.table[slot].state;
        let tale = tale_of(&mut self.reports, state);
        let (run, now, delivered_live) = (self.ledger.run, net.now, &mut self.delivered_live);
        let mut foreign = false;
        let marks = self.marks.each(payload, |mark: Mark| {
            if mark.run != run {
                foreign = true;
                return;
            }
            if mark.topic != state.topic {
                tale.misrouted += 1;
                return;
            }
            match state.audit.take(mark.sequence) {
                Delivery::Duplicate => {
                    tale.duplicated += 1;
                    return;
                }
                Delivery::Late => tale.reordered += 1,
                Delivery::InOrder => {}
            }
            tale.delivered += 1;
            state.received += 1;
            *delivered_live += 1;
            tale.latency_ns.saturating_record(now.0.saturating_sub(mark.due.0));
        });
        if self.gap_marker.find(payload).is_some() {
            tale.gaps += 1;
            state.audit.announce_gap();
        } else if marks == 0 || foreign {
            tale.foreign += 1;
        }
    }

    fn gap(&mut self, net: &mut Net<Subscriber>, slot: u32) {
        let state = &mut net.table[slot].state;
        let tale = tale_of(&mut self.reports, state);
        tale.gaps += 1;
        state.audit.announce_gap();
    }

    fn cursor(&mut self, net: &mut Net<Subscriber>, slot: u32, cursor: Cursor<'_>) {
        if let Some(ticket) = net.table[slot].state.ticket {
            self.travellers.note_cursor(ticket, cursor);
        }
    }

    fn gone(&mut self, net: &mut Net<Subscriber>, slot: u32, state: Subscriber, how: Gone) {
        if !state.is_subscribed {
            return;
        }
        // Only who has been there already has a state, and fails to open.
        if let (Gone::Failed(_), Some(ticket)) = (how, state.ticket) {
            return self.travellers.turned_back(ticket, state, net);
        }
        self.live[state.topic as usize] -= 1;
        // What it had got no longer counts towards completion; what is missing of it never will.
        self.delivered_live -= u64::from(state.received);
        self.slow.retain(|&one| one != slot);
        let gap_said = GAPS.iter().any(|&gap| how == Gone::Lost(gap));
        self.ended.push((state, gap_said));
    }

    fn turn(&mut self, net: &mut Net<Subscriber>) -> Option<Nanos> {
        let next = self.travellers.turn(net, self.is_running);
        let other = if self.is_running {
            self.read_slowly(net)
        } else {
            self.check_complete();
            (!self.is_complete && net.began > Nanos(0)).then(|| net.now + CHECK)
        };
        next.into_iter().chain(other).min()
    }

    fn stop(&mut self, net: &mut Net<Subscriber>) {
        self.is_running = false;
        for &slot in &self.slow {
            net.table[slot].is_paused = false;
            net.to_read.push((slot, usize::MAX));
        }
    }

    fn is_drained(&self, _net: &Net<Subscriber>) -> bool {
        self.is_complete
    }

    fn report(&mut self, net: &mut Net<Subscriber>) -> Vec<FanoutReport> {
        for subscriber in self.travellers.away().collect::<Vec<_>>() {
            self.judge(&subscriber, true, false);
        }
        for (subscriber, gap_said) in std::mem::take(&mut self.ended) {
            self.judge(&subscriber, true, gap_said);
        }
        for slot in 0..net.table.slots() {
            let is_open = net.table[slot].phase == Phase::Open;
            let state = std::mem::take(&mut net.table[slot].state);
            if state.is_subscribed {
                self.judge(&state, !is_open, false);
            }
        }
        // Not taken: what a slow server still sends while connections are closed is written into it, and counts for nothing.
        self.reports.clone()
    }
}

fn tale_of<'a>(reports: &'a mut [FanoutReport], subscriber: &Subscriber) -> &'a mut Tale {
    let report = &mut reports[usize::from(subscriber.part)];
    if subscriber.is_slow { &mut report.slow } else { &mut report.prompt }
}
