//! Messages that come by a request of their own, to whichever worker: brought to the connection that they are for, and
//! answered when they are there.
//!
//! ```text
//!   the request's worker                the connection's worker
//!     bring -------- a Parcel --------->  deliver: is it there, does the service take it?
//!     reply <------- 204, or 404 --------'
//! ```

use super::{Envelope, Kernel, Worker};
use crate::conn::Phase;
use crate::error::Refused;
use crate::http::Response;
use crate::service::{ConnId, Parcel, Service};

impl<S: Service, K: Kernel> Worker<S, K> {
    /// Sends a parcel off, for the request of this connection.
    pub(super) fn bring(&mut self, from: ConnId, parcel: Parcel) {
        match self.shared.ports.get(usize::from(parcel.to.worker)) {
            Some(port) if port.live.is_live(parcel.to.slot, parcel.to.serial) => {
                port.post(Envelope::Parcel(from, Box::new(parcel)));
            }
            _ => self.answer_parcel(from, parcel, false),
        }
    }

    /// A parcel has come.
    pub(super) fn deliver(&mut self, from: ConnId, parcel: Parcel) {
        let Parcel { to, key, ref data, .. } = parcel;
        let mut is_taken = false;
        if self.table.find(to.slot, to.serial).is_some_and(|entry| entry.conn.phase() == Phase::Emulated) {
            self.serve(to, |service, connection| is_taken = service.parcel(connection, key, data));
            // Whoever does not have the session's key is nobody to it: what he sends is not its.
            if is_taken && !self.taps.is_empty() {
                self.tap_parcel(to, data);
            }
        }
        self.answer_parcel(from, parcel, is_taken);
    }

    fn answer_parcel(&mut self, from: ConnId, Parcel { headers, .. }: Parcel, is_taken: bool) {
        let response = if is_taken { Response::new(204) } else { Refused::NoSession.into() }.headers(headers);
        self.shared.ports[usize::from(from.worker)].post(Envelope::Reply(from, Box::new(response)));
    }
}
