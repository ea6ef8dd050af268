//! One event loop a thread, shared by all modes: it opens connections, keeps them, reads and writes what their transport
//! speaks, answers pings and closing handshakes, polls on, and counts. A [`Mode`] is a small state machine on top that
//! decides what is sent and what becomes of what is received.
//!
//! A turn of the loop: wait; handle the sockets that have something; let the mode do what is due; let deadlines
//! pass; open connections. Slots are given out only in the last two steps, after all events of the turn
//! have been handled: so no event can meet a connection that took over the slot of the one it was meant for.

mod dial;
mod gauge;
mod input;
mod net;
mod session;
mod stage;
mod table;
mod worker;

pub(crate) use dial::{Dial, Line, picks};
pub(crate) use gauge::{Account, Farewell, Gauge, Tally};
pub(crate) use net::Net;
pub(crate) use stage::{Note, Outcome, Seat, Shared, Stage};
pub(crate) use table::Phase;
pub(crate) use worker::run;

use crate::clock::Nanos;
use crate::reason::{Failure, Loss};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It never opened.
    Failed(Failure),
    /// It was open and ended without our asking.
    Lost(Loss),
    /// We ended it.
    Closed(Farewell),
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cursor<'a> {
    /// As the server says it.
    At(&'a [u8]),
    /// The number behind the last dash of that is this now.
    Offset(u64),
}

/// What a kind of load does with the connections of one worker. Everything it needs is in [`Net`].
pub(crate) trait Mode: Sized + Send {
    /// What it keeps for a connection. An idle one pays for it too.
    type State: Default;
    /// What it found out.
    type Report: Send;

    /// A connection is open. This can happen at any stage.
    fn opened(&mut self, _net: &mut Net<Self::State>, _slot: u32) {}

    /// All connections of all workers have been tried; the measured part begins at `net.began`.
    fn start(&mut self, _net: &mut Net<Self::State>) {}

    /// A message came.
    fn message(&mut self, _net: &mut Net<Self::State>, _slot: u32, _payload: &[u8]) {}

    /// The server said that something will be missing.
    fn gap(&mut self, _net: &mut Net<Self::State>, _slot: u32) {}

    /// The server said where a connection stands: behind the message that came last.
    fn cursor(&mut self, _net: &mut Net<Self::State>, _slot: u32, _cursor: Cursor<'_>) {}

    /// A connection that was tried or open is gone; its slot is free already.
    fn gone(&mut self, _net: &mut Net<Self::State>, _slot: u32, _state: Self::State, _how: Gone) {}

    /// Does what is due at `net.now`; says when it wants to be called again.
    fn turn(&mut self, _net: &mut Net<Self::State>) -> Option<Nanos> {
        None
    }

    /// Whether the load is done, where no clock says so.
    fn is_done(&self, _net: &Net<Self::State>) -> bool {
        false
    }

    /// The measured part is over: nothing new is to be sent.
    fn stop(&mut self, _net: &mut Net<Self::State>) {}

    /// Whether everything that was on its way has come.
    fn is_drained(&self, _net: &Net<Self::State>) -> bool {
        true
    }

    /// What was found out; called before connections are closed.
    fn report(&mut self, net: &mut Net<Self::State>) -> Self::Report;
}
