//! What a handle sees of its server, and asks its workers for the control plane.

use super::Handle;
use crate::metrics::{self, Metrics};
use crate::service::ConnId;
use crate::worker::{Envelope, Found, Inspection, Quest};
use std::sync::Arc;
use std::sync::mpsc::Sender;

impl<T> Handle<T> {
    /// How many workers there are.
    pub(crate) fn workers(&self) -> usize {
        self.shared.ports.len()
    }

    /// The connection of that worker and serial, if it is there.
    pub(crate) fn find(&self, worker: u16, serial: u64) -> Option<ConnId> {
        let slot = self.shared.ports.get(usize::from(worker))?.live.slot_of(serial).filter(|_| serial as u32 != 0)?;
        Some(ConnId { serial, slot, worker })
    }

    /// Has a worker answer something, in slices.
    pub(crate) fn inspect(&self, worker: u16, quest: Arc<Quest>, answer: Sender<(u16, Found)>) {
        let inspection = Box::new(Inspection::new(quest, answer));
        self.shared.ports[usize::from(worker)].post(Envelope::Inspect(inspection));
    }

    /// How many WebSockets are open.
    pub fn connections(&self) -> u64 {
        self.shared.ports.iter().map(|port| port.metrics.open()).sum()
    }

    /// The metrics in Prometheus's text format (0.0.4): `docs/metrics.md` explains each. All workers are added up.
    pub fn metrics(&self) -> String {
        self.render_metrics(false)
    }

    /// The same, with a few metrics of each worker.
    pub fn metrics_by_worker(&self) -> String {
        self.render_metrics(true)
    }

    fn render_metrics(&self, each: bool) -> String {
        let ports = &self.shared.ports;
        let mailboxes: Vec<u64> = ports.iter().map(|port| port.mailbox.len() as u64).collect();
        let (connections_max, memory) = (self.shared.connections_max() as u64, self.shared.memory());
        let all: Vec<&Metrics> = ports.iter().map(|port| &port.metrics).collect();
        metrics::render(&all, metrics::Server { mailboxes: &mailboxes, connections_max, memory, each })
    }
}
