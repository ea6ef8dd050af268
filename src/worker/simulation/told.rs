//! What a worker was told, it knows until it has seen to it; and it takes nobody to have gone who is there.

use super::World;
use super::net::Net;
use crate::error::End;
use crate::service::Close;

/// The service is told that a client has gone of those alone who have.
pub(super) fn check_close(net: &Net, close: &Close<'_>) {
    let has_left = net.is_left(usize::from(close.peer.address().map_or(0, |address| address.port())));
    let is_said = matches!(close.end, End::PeerGone | End::PeerReset);
    assert!(!is_said || has_left, "{} is taken to have gone, and has not", close.peer);
}

impl World {
    /// What the machine says once, the worker remembers until it has seen to it: who waits to be accepted, and that its
    /// mailbox rang.
    pub(super) fn check_remembered(&self, index: usize) {
        let (worker, net) = (&self.workers[index], self.net.borrow());
        let accepts = worker.accepting.is_ready(worker.now) || worker.accepting.next().is_some();
        assert!(accepts || !net.is_awaited(index), "worker {index}: has forgotten who waits to be accepted");
        let is_told = net.wake_at(index).is_some() || worker.timeout().is_some_and(|timeout| timeout.is_zero());
        let rings = self.running[index] && self.shared.ports[index].mailbox.is_ringing();
        assert!(is_told || !rings, "worker {index}: has forgotten that its mailbox rang");
    }

    /// All clients who do as they should have gone, and nothing moves any more: the workers know it, without the help of a deadline, of
    /// everybody but those for whom something waits that nobody takes.
    pub(super) fn check_departed(&mut self) {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            for slot in 0..worker.table.high() {
                let Some(entry) = worker.table.at(slot) else { continue };
                let (phase, waits) = (entry.conn.phase(), entry.conn.queued() > 0);
                // Who breaks the rules stays until it is sent away.
                let has_left = self.net.borrow().is_left(entry.socket.id);
                let link = &self.net.borrow().links[entry.socket.id];
                assert!(
                    waits || !has_left,
                    "worker {index}: slot {slot} ({phase:?}) is not known to have gone: {link:?}"
                );
            }
        }
    }
}
