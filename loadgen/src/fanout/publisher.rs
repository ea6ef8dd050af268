//! Publishes at an even rate, to all topics in turn. A message's time is when it was due.

use super::Ledger;
use super::mark::Mark;
use super::template::{Template, Values};
use super::wire::{Http, Socket};
use crate::clock::{Nanos, Pace};
use crate::engine::{Shared, Stage};
use crate::target::Target;
use hdrhistogram::Histogram;
use std::io;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};
use throng::ws::Opcode;

/// How long it sleeps at most before it looks whether the run goes on.
const LOOK: Duration = Duration::from_millis(10);
/// Frames that are written together when many are due, in bytes.
const BATCH_BYTES: usize = 64 * 1024;

/// Where messages are published.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    /// Over a WebSocket; with header lines, each with its CR LF, and offered subprotocols.
    WebSocket { target: Target, fields: String, subprotocol: Option<String> },
    /// By HTTP POST, with header lines; the path may hold `{topic}`.
    Http { target: Target, fields: String },
}

/// What publishers found out.
#[derive(Clone, Debug)]
pub(crate) struct PublisherReport {
    /// From due to written.
    pub(crate) late_ns: Histogram<u64>,
    /// From written to answered; HTTP only.
    pub(crate) answer_ns: Histogram<u64>,
    pub(crate) errors: u64,
}

impl Default for PublisherReport {
    fn default() -> Self {
        let histogram = || Histogram::new_with_max(120_000_000_000, 3).expect("the bounds are constants");
        Self { late_ns: histogram(), answer_ns: histogram(), errors: 0 }
    }
}

impl PublisherReport {
    fn merge(&mut self, other: &Self) {
        self.late_ns += &other.late_ns;
        self.answer_ns += &other.answer_ns;
        self.errors += other.errors;
    }
}

/// A publisher: a thread and a connection of its own. Of several, each has every `count`-th topic to itself, and together
/// they keep to the rate.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    /// Which one it is, and of how many.
    pub(crate) index: u32,
    pub(crate) count: u32,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) route: Route,
    pub(crate) template: Template,
    pub(crate) opcode: Opcode,
    /// Messages a second of all publishers.
    pub(crate) rate: f64,
    /// Bytes of a payload.
    pub(crate) size: usize,
    pub(crate) seed: u64,
}

/// Tells the subscribers that nothing more will come from here, however publishing ends.
struct Final<'a>(&'a Ledger);

impl Drop for Final<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Publisher {
    /// Connects at once, publishes while the run is in its measured part, and returns.
    pub(crate) fn run(self, shared: &Shared) -> Result<(), String> {
        let _final = Final(&self.ledger);
        let mut report = PublisherReport::default();
        let result = match &self.route {
            Route::WebSocket { target, fields, subprotocol } => {
                let mut socket = Socket::open(target, fields, subprotocol.as_deref(), self.seed)?;
                self.publish(shared, |due, report| self.by_socket(shared, &mut socket, due, report), &mut report)
            }
            Route::Http { target, fields } => {
                let mut http = Http::new();
                self.publish(
                    shared,
                    |due, report| self.by_http(shared, &mut http, (target, fields), due, report),
                    &mut report,
                )
            }
        };
        self.ledger.publishers.lock().unwrap_or_else(PoisonError::into_inner).merge(&report);
        result.map_err(|error| format!("publishing ended: {error}"))
    }

    /// Calls `send` with what is due, as long as the measured part lasts.
    fn publish(
        &self,
        shared: &Shared,
        mut send: impl FnMut(&[(u32, Nanos)], &mut PublisherReport) -> io::Result<()>,
        report: &mut PublisherReport,
    ) -> io::Result<()> {
        while shared.stage() == Stage::Opening {
            thread::sleep(Duration::from_millis(1));
        }
        let mut pace = Pace::new(shared.began(), self.rate);
        let (mut topic, mut due) = (0_u32, Vec::new());
        while shared.stage() == Stage::Running {
            let now = shared.clock.now();
            due.clear();
            while due.len() < 1024
                && let Some(moment) = pace.take(now)
            {
                if topic % self.count == self.index {
                    due.push((topic, moment));
                }
                topic = (topic + 1) % self.ledger.topics.len() as u32;
            }
            if due.is_empty() {
                thread::sleep(pace.due().since(now).min(LOOK));
            } else {
                send(&due, report)?;
            }
        }
        Ok(())
    }

    /// The text of the next message of a topic.
    fn message(&self, out: &mut Vec<u8>, payload: &mut Vec<u8>, topic: u32, sequence: u32, due: Nanos) {
        payload.clear();
        Mark { run: self.ledger.run, topic, sequence, due }.write_payload(payload, self.size);
        let values = Values {
            topic: &self.ledger.topics[topic as usize],
            sequence: u64::from(sequence) + 1,
            time_ms: UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64),
            payload,
            number: u64::from(topic),
        };
        self.template.write(out, values);
    }

    fn by_socket(
        &self,
        shared: &Shared,
        socket: &mut Socket,
        due: &[(u32, Nanos)],
        report: &mut PublisherReport,
    ) -> io::Result<()> {
        let (mut frames, mut text, mut payload) = (Vec::new(), Vec::new(), Vec::new());
        let mut written = 0;
        for (index, &(topic, moment)) in due.iter().enumerate() {
            text.clear();
            // Frames that wait in the batch have their numbers already.
            let waiting = due[written..index].iter().filter(|(other, _)| *other == topic).count() as u32;
            self.message(&mut text, &mut payload, topic, self.ledger.published(topic) + waiting, moment);
            socket.frame(&mut frames, self.opcode, &text);
            if frames.len() >= BATCH_BYTES || index + 1 == due.len() {
                socket.write(&frames)?;
                frames.clear();
                let now = shared.clock.now();
                for &(topic, moment) in &due[written..=index] {
                    self.ledger.note_published(topic);
                    report.late_ns.saturating_record(now.0.saturating_sub(moment.0));
                }
                written = index + 1;
            }
        }
        Ok(())
    }

    fn by_http(
        &self,
        shared: &Shared,
        http: &mut Http,
        (target, fields): (&Target, &String),
        due: &[(u32, Nanos)],
        report: &mut PublisherReport,
    ) -> io::Result<()> {
        let (mut body, mut payload) = (Vec::new(), Vec::new());
        for &(topic, moment) in due {
            if shared.stage() != Stage::Running {
                return Ok(());
            }
            body.clear();
            self.message(&mut body, &mut payload, topic, self.ledger.published(topic), moment);
            let path = target.path.replace("{topic}", &self.ledger.topics[topic as usize]);
            let mut request = format!(
                "POST {path} HTTP/1.1\r\nHost: {}\r\n{fields}Content-Length: {}\r\n\r\n",
                target.host,
                body.len()
            )
            .into_bytes();
            request.extend_from_slice(&body);
            let sent = shared.clock.now();
            report.late_ns.saturating_record(sent.0.saturating_sub(moment.0));
            match http.exchange(target, &request)? {
                200..300 => self.ledger.note_published(topic),
                _ => report.errors += 1,
            }
            report.answer_ns.saturating_record(shared.clock.now().since(sent).as_nanos() as u64);
        }
        Ok(())
    }
}
