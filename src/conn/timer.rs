//! What the one timer of a connection means, by phase.
//!
//! | phase | fires | then |
//! |---|---|---|
//! | `Preamble` | as `Head`, of which it is a part | 408 |
//! | `Head` | `head_timeout` after accept, whatever trickles in | 408 |
//! | `Body` | `head_timeout` after the request's head was complete, whatever trickles in | 408 |
//! | `Idle` | `idle_timeout` after the last byte came | closed |
//! | `Deciding` | `decision_timeout` after the request | 503 |
//! | `Waiting` | when the client has waited as long as it asked to | the worker answers |
//! | `Streaming` | every `ping_interval` | a comment, unless `tcp_keepalive` |
//! | `Open` | `ping_interval` after the last byte came ([`Conn::ping_due`]); the first time after a random half to whole of it ([`Conn::stagger`]) | ping, unless `tcp_keepalive` |
//! | `Pinged` | `pong_timeout` after the ping | Close 1011, reset |
//! | `Paced` | when the service asked to be called | it is called; without another such wish `Open` |
//! | `Emulated` | when the service asked to be called | it is called, and asks again |
//! | any of these three | `message_timeout` after a message was begun that is still not complete, if the timer fires then | Close 1008 |
//! | `Closing` | `close_timeout` after our Close left | reset |
//! | `Lingering` | `close_timeout` after our direction was shut | closed |
//! | any of these, while output waits | `write_timeout` after the socket last took a byte; in `Closing` after the Close was queued | reset |
//!
//! Activity only stamps the connection; a timer that fires and finds a newer stamp is armed again.

use super::{Conn, Ended, Handler, Phase};
use crate::config::Rules;
use crate::error::{End, Refused};
use crate::limits::PING_GRID_TICKS;
use crate::mem::Rng;
use crate::planted::{Bug, planted};
use crate::time::Tick;
use crate::ws::{self, Opcode};

impl<T> Conn<T> {
    /// Makes a connection that has just opened look silent for up to half a ping interval already, so that those that
    /// came together do not ping together for ever after.
    pub(crate) fn stagger(&mut self, rules: &Rules, rng: &mut Rng) {
        let ahead = rng.below(u64::from(rules.ping_interval.0 / 2)) as u32;
        self.last_seen = Tick(self.last_seen.0.wrapping_sub(ahead));
    }

    /// When an open connection is pinged: on a grid, so that pings leave together, and pongs come together, while the code and
    /// the data of both are in the cache. Up to a sixteenth of `ping_interval`, and half a second, before the whole of it is
    /// over.
    pub(super) fn ping_due(&self, rules: &Rules) -> Tick {
        let (due, grid) =
            (self.last_seen + rules.ping_interval, (rules.ping_interval.0 / 16).clamp(1, PING_GRID_TICKS));
        Tick(due.0.wrapping_sub(due.0.wrapping_add(rules.ping_phase) % grid))
    }

    /// Has an open connection's service called at that moment, instead of pinging it.
    pub(crate) fn pace(&mut self, until: Tick) {
        match self.phase() {
            Phase::Emulated => self.last_seen = until,
            phase if phase.is_open() => {
                self.set_phase(Phase::Paced);
                self.last_seen = until;
            }
            _ => {}
        }
    }

    /// When what is being read of a request must be complete. One may follow another without a change of phase.
    fn request_due(&self, rules: &Rules) -> Option<Tick> {
        Some(self.rare.as_ref()?.handshake.as_ref()?.since()? + rules.head_timeout)
    }

    /// That moment, or when the message under way must be complete, if that is earlier.
    fn or_message_due(&self, due: Tick, rules: &Rules) -> Tick {
        self.message_due(rules).filter(|message| due.minus(*message) > 0).unwrap_or(due)
    }

    /// When the timer should fire, for a connection that has just come to where it stands.
    pub(crate) fn deadline(&self, now: Tick, rules: &Rules) -> Tick {
        if let Some(rare) = &self.rare
            && !rare.outbox.is_empty()
        {
            // From when it moved, not from now: requests that are answered meanwhile must not put it off.
            let from = if self.phase() == Phase::Closing { now } else { rare.moved };
            return from + rules.write_timeout;
        }
        match self.phase() {
            Phase::Preamble | Phase::Head | Phase::Body => self.request_due(rules).unwrap_or(now + rules.head_timeout),
            Phase::Idle => self.last_seen + rules.idle_timeout,
            Phase::Deciding => now + rules.decision_timeout,
            Phase::Open => self.or_message_due(self.ping_due(rules), rules),
            Phase::Paced | Phase::Emulated => self.last_seen,
            Phase::Streaming => now + rules.ping_interval,
            Phase::Waiting => self.rare.as_ref().map_or(now, |rare| rare.until),
            Phase::Pinged => now + rules.pong_timeout,
            Phase::Closing | Phase::Finishing | Phase::Refusing | Phase::Lingering | Phase::Resetting => {
                now + rules.close_timeout
            }
        }
    }

    /// The timer fired: when to fire again without anything having changed, or `None` when something has.
    pub(crate) fn timer(
        &mut self,
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) -> Option<Tick> {
        if self.rare.as_ref().is_some_and(|rare| !rare.outbox.is_empty()) {
            return self.stalled(now, rules);
        }
        if matches!(self.phase(), Phase::Preamble | Phase::Head | Phase::Body)
            && let Some(due) = self.request_due(rules)
            && !due.is_due(now)
        {
            return Some(due);
        }
        if self.end_overdue_message(now, rules, output, handler) {
            return None;
        }
        match self.phase() {
            Phase::Head if planted(Bug::HeadPutOff) && !(self.last_seen + rules.head_timeout).is_due(now) => {
                return Some(self.last_seen + rules.head_timeout);
            }
            Phase::Preamble | Phase::Head => self.refuse(&Refused::HeadTimeout.into(), false, output, handler),
            Phase::Body => self.refuse(&Refused::BodyTimeout.into(), false, output, handler),
            Phase::Idle => {
                let due = self.last_seen + rules.idle_timeout;
                if !due.is_due(now) {
                    return Some(due);
                }
                self.set_phase(Phase::Finishing);
            }
            Phase::Deciding => self.refuse(&Refused::DecisionTimeout.into(), false, output, handler),
            Phase::Open => {
                let due = self.ping_due(rules);
                if !due.is_due(now) {
                    return Some(self.or_message_due(due, rules));
                }
                if rules.tcp_keepalive {
                    return Some(self.or_message_due(now + rules.ping_interval, rules));
                }
                ws::encode(output, Opcode::Ping, &[]);
                self.set_phase(Phase::Pinged);
            }
            Phase::Paced | Phase::Emulated if !self.last_seen.is_due(now) => return Some(self.last_seen),
            Phase::Paced | Phase::Emulated => {
                if self.phase() == Phase::Paced {
                    self.set_phase(Phase::Open);
                    self.last_seen = now;
                }
                self.with_state(rules, output, |io, state| handler.woken(io, state));
            }
            Phase::Pinged => self.abort(Ended::new(End::PingTimeout), output),
            // A comment, for proxies that end what is silent (HTML, section 9.2.7).
            Phase::Streaming => {
                if !rules.tcp_keepalive {
                    output.extend_from_slice(b":\n\n");
                }
                return Some(now + rules.ping_interval);
            }
            Phase::Waiting => self.refuse(&Refused::DecisionTimeout.into(), false, output, handler),
            Phase::Lingering => self.set_phase(Phase::Finishing),
            Phase::Closing if planted(Bug::ClosePutOff) && !(self.last_seen + rules.close_timeout).is_due(now) => {
                return Some(self.last_seen + rules.close_timeout);
            }
            Phase::Closing | Phase::Finishing | Phase::Refusing | Phase::Resetting => self.set_phase(Phase::Resetting),
        }
        None
    }

    /// The timer fired while something waits to be written: it has moved since, or the peer does not read.
    fn stalled(&mut self, now: Tick, rules: &Rules) -> Option<Tick> {
        let moved = self.rare.as_ref().map_or(now, |rare| rare.moved);
        let due = moved + rules.write_timeout;
        if self.phase() != Phase::Closing && !due.is_due(now) {
            return Some(due);
        }
        // It takes nothing, so a Close has no way to it.
        self.settle(Ended::new(End::WriteStall));
        self.set_phase(Phase::Resetting);
        None
    }
}
