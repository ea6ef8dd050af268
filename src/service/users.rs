//! Calls of the server API that are about a user: from the worker to the sessions.

use super::Centrifugo;
use crate::adapter::centrifugo::call::Call;
use crate::adapter::centrifugo::session::Session;
use crate::adapter::centrifugo::users::{Neighbours, Sessions};
use crate::limits::CALLS_PER_TURN;
use std::collections::HashMap;
use std::sync::Arc;

/// What is done with all connections of a user.
#[derive(Clone, Debug)]
pub struct UserCall(pub(crate) Arc<Call>);

/// Some of the connections that a call is for.
#[derive(Debug, Default)]
pub struct Reached {
    pub(crate) slots: Vec<u32>,
    /// To go on from there.
    pub(crate) walk: Option<u64>,
}

impl Sessions for HashMap<u32, Box<Session>> {
    fn neighbours(&mut self, slot: u32) -> Option<&mut Neighbours> {
        self.get_mut(&slot)?.neighbours()
    }
}

impl<S> Centrifugo<S> {
    /// Who a session is has just been said.
    pub(super) fn enter(&mut self, slot: u32) {
        let Some(user) = self.sessions.get(&slot).map(|session| session.user().to_owned()) else { return };
        let neighbours = self.users.enter(&mut self.sessions, slot, &user);
        self.sessions.get_mut(&slot).into_iter().for_each(|session| session.entered(neighbours));
    }

    /// A session is over.
    pub(super) fn forget(&mut self, slot: u32) {
        let Some(mut session) = self.sessions.remove(&slot) else { return };
        if let Some(from) = session.neighbours().copied() {
            self.users.leave(&mut self.sessions, slot, session.user(), from);
        }
    }

    /// The next few sessions of a user.
    pub(super) fn some_of(&mut self, call: &Call, walk: Option<u64>) -> Reached {
        let Some(walk) = walk.or_else(|| self.users.walk(&call.user)) else { return Reached::default() };
        let (slots, goes_on) = self.users.step(&mut self.sessions, walk, CALLS_PER_TURN);
        Reached { slots, walk: goes_on.then_some(walk) }
    }
}
