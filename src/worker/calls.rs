//! What the server API does with the connections of a user: a slice of them a turn.

use super::errands::Share;
use super::{Kernel, Worker};
use crate::service::{ConnId, Found, Service, UserCall};

impl<S: Service, K: Kernel> Worker<S, K> {
    /// Has the service do what a call says with some more of the connections that it is for, and counts them; `None`: there
    /// are more.
    pub(super) fn call_some(&mut self, call: &UserCall, share: &mut Share, reached: &mut usize) -> Option<Found> {
        let some = self.service.reach(call, share.walk);
        *reached += some.slots.len();
        for slot in some.slots {
            if let Some(serial) = self.table.at(slot).map(|entry| entry.serial) {
                let id = ConnId { serial, slot, worker: self.index };
                self.serve(id, |service, connection| service.called(connection, call));
            }
        }
        share.walk = some.walk;
        share.walk.is_none().then_some(Found::Called)
    }
}
