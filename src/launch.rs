//! How a server's threads start, in an order in which each step was tried.
//!
//! 1. Signals are blocked, so that the workers never see one; the eventfds exist already, and the Unix-domain sockets, which
//!    all workers share: each takes over the copy in its own table, and the main thread closes its own once they have.
//! 2. All workers are spawned, and each gets a descriptor table of its own.
//! 3. Only when all of them have one does anybody open another descriptor: a listener that was opened before would
//!    stay alive in every copy, rebinding would fail, and connections would go into nothing.
//! 4. The first worker binds, and with that chooses the ports; then the others bind the same.
//!
//! At the end each worker closes its listeners and sockets itself, before its thread is done: the kernel closes a
//! table's descriptors some time after `join` has returned.

use crate::config::{Config, Plan, Rules};
use crate::http::Origins;
use crate::server::{Seat, StartError};
use crate::service::Service;
use crate::sys::{self, Keepalive, ListenOptions, Listener, LocalListener, Share};
use crate::topic::Retention;
use crate::worker::{Envelope, MAIL_TOKEN, Machine, Setup, Shared, Worker};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A socket holds at most this many bytes that were not sent yet, beside what is in flight: an unread loopback
/// socket swallows 4.3 MB of kernel memory without it, 165 KB with it.
const UNSENT_BYTES_MAX: u32 = 16 * 1024;

/// What the threads of a starting server need.
pub(crate) struct Launch<S: Service, F> {
    pub(crate) config: Config,
    pub(crate) plan: Plan,
    pub(crate) rules: Rules,
    pub(crate) origins: Arc<Origins>,
    pub(crate) shared: Arc<Shared<S::State>>,
    pub(crate) factory: F,
    /// The Unix-domain sockets.
    pub(crate) locals: Vec<Share>,
    pub(crate) started: Instant,
}

/// What a worker reports while it starts.
enum Report {
    /// It has a descriptor table of its own, or was refused one.
    Parted(io::Result<()>),
    /// It listens on these addresses.
    Listening(Result<Vec<SocketAddr>, StartError>),
}

/// The workers' threads, and where they listen.
type Started = (Vec<JoinHandle<io::Result<()>>>, Vec<SocketAddr>);

impl<S, F> Launch<S, F>
where
    S: Service,
    F: Fn(&Seat<S::State>) -> S + Send + Sync + 'static,
{
    /// Starts all workers. When one fails, none is left.
    /// `locals` are open until all have their own.
    pub(crate) fn go(self, locals: Vec<LocalListener>) -> Result<Started, StartError> {
        let launch = Arc::new(self);
        let (report, reports) = channel();
        let _blocked = sys::block_signals(&sys::ASYNCHRONOUS)?;
        let (mut threads, mut starters) = (Vec::new(), Vec::new());
        let mut outcome = Ok(());
        for index in 0..launch.plan.workers {
            let (launch, report) = (Arc::clone(&launch), report.clone());
            let (starter, start) = channel();
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            match thread.spawn(move || launch.worker(index, &report, &start)) {
                Ok(thread) => {
                    threads.push(thread);
                    starters.push(starter);
                }
                Err(error) => {
                    outcome = Err(StartError::System(error));
                    break;
                }
            }
        }
        let addresses = outcome.and_then(|()| launch.bring_up(&reports, &starters));
        if addresses.is_err() {
            // Whoever waits for its start ends when its channel does; whoever runs is told.
            drop(starters);
            launch.shared.ports.iter().for_each(|port| port.post(Envelope::Abort));
            threads.drain(..).for_each(|thread| drop(thread.join()));
        }
        drop(locals);
        addresses.map(|addresses| (threads, addresses))
    }

    /// Waits for all tables to part, then lets the workers listen, the first one first.
    fn bring_up(
        &self,
        reports: &Receiver<Report>,
        starters: &[Sender<Vec<SocketAddr>>],
    ) -> Result<Vec<SocketAddr>, StartError> {
        let mut refused = None;
        for _ in starters {
            if let Ok(Report::Parted(Err(error))) = reports.recv() {
                refused = Some(error);
            }
        }
        if let Some(error) = refused {
            self.without_private_tables(error)?;
        }
        let mut addresses = self.config.listen.clone();
        for (index, starter) in starters.iter().enumerate() {
            // A worker that is gone has reported why, or panicked.
            let _ = starter.send(addresses.clone());
            if index == 0 {
                addresses = listening(reports.recv())?;
            }
        }
        for _ in starters.iter().skip(1) {
            listening(reports.recv())?;
        }
        Ok(addresses)
    }

    /// The system (a seccomp profile, most likely) does not let threads part with the process's table.
    fn without_private_tables(&self, error: io::Error) -> Result<(), StartError> {
        let shared = Config { shared_descriptors: true, ..self.config.clone() };
        let fits = shared.plan(self.plan.workers, sys::descriptor_limit()?).is_ok();
        log::warn!("no private descriptor tables, unshare(CLONE_FILES) is refused: {error}");
        if fits { Ok(()) } else { Err(StartError::System(error)) }
    }

    /// A worker's thread.
    fn worker(&self, index: usize, report: &Sender<Report>, start: &Receiver<Vec<SocketAddr>>) -> io::Result<()> {
        let parted = if self.config.shared_descriptors { Ok(()) } else { sys::private_table() };
        let is_parted = !self.config.shared_descriptors && parted.is_ok();
        let _ = report.send(Report::Parted(parted));
        let Ok(addresses) = start.recv() else {
            return Ok(());
        };
        let ending = EndAll(&self.shared);
        match self.set_up(index, &addresses, is_parted) {
            Ok((worker, addresses)) => {
                let _ = report.send(Report::Listening(Ok(addresses)));
                worker.run()?;
                std::mem::forget(ending);
            }
            Err(error) => {
                let _ = report.send(Report::Listening(Err(error)));
            }
        }
        Ok(())
    }

    /// What each worker keeps of topics.
    fn retention(&self) -> Retention {
        Retention::of_worker(&self.rules.topics, self.config.topics_max, self.plan.workers)
    }

    /// Everything that a worker opens, in its own table.
    fn set_up(
        &self,
        index: usize,
        addresses: &[SocketAddr],
        is_parted: bool,
    ) -> Result<(Worker<S, Machine>, Vec<SocketAddr>), StartError> {
        if self.config.pin {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            sys::pin_to_cpu(index % cores).unwrap_or_else(|error| log::warn!("cannot pin worker {index}: {error}"));
        }
        let options = ListenOptions {
            backlog: i32::from(self.config.backlog),
            unsent_bytes_max: UNSENT_BYTES_MAX,
            keepalive: keepalive(&self.config),
        };
        let mut listeners = Vec::new();
        let mut bound = Vec::new();
        for &address in addresses {
            let listen = || {
                if index == 0 && address.port() != 0 {
                    Listener::check_free(address)?;
                }
                let listener = Listener::bind(address, options)?;
                Ok((listener.local_addr()?, listener))
            };
            let (at, listener) = listen().map_err(|error| StartError::Listen(address, error))?;
            listeners.push(listener);
            bound.push(at);
        }
        for share in &self.locals {
            listeners.push(share.take(is_parted)?);
        }
        let machine = Machine::new(self.shared.ports[index].wake, MAIL_TOKEN, self.started)?;
        let service = (self.factory)(&Seat::new(index, Arc::clone(&self.shared)));
        let setup = Setup {
            index: index as u16,
            slots: self.plan.slots,
            rules: self.rules.clone(),
            tick_interval: self.config.tick_interval,
            connection_age_max: self.config.connection_age_max,
            seed: sys::random_u64()?,
            origins: Arc::clone(&self.origins),
            retention: self.retention(),
            shared: Arc::clone(&self.shared),
        };
        Ok((Worker::new(machine, service, setup, listeners)?, bound))
    }
}

/// What the kernel is told, if it looks after silent peers: a probe when a ping would be due, more while a pong would be waited
/// for, and the end when that would be the end, though not before a client that reads nothing would be reset.
fn keepalive(config: &Config) -> Option<Keepalive> {
    // From 0.1 s to a day, and what the kernel takes (`Config::faults`); a third of a day fits, too.
    let seconds = |time: Duration| time.as_millis().div_ceil(1000) as u16;
    config.tcp_keepalive.then(|| Keepalive {
        idle_s: seconds(config.ping_interval),
        interval_s: seconds(config.pong_timeout / 3),
        // A client that answers probes and takes nothing has its `write_timeout`. Two days at most.
        timeout_ms: (config.ping_interval + config.pong_timeout).max(config.write_timeout).as_millis() as u32,
    })
}

/// What a worker said when it was told to listen.
fn listening(report: Result<Report, RecvError>) -> Result<Vec<SocketAddr>, StartError> {
    match report {
        Ok(Report::Listening(result)) => result,
        _ => Err(StartError::System(io::Error::other("a worker ended while it started"))),
    }
}

/// Ends the whole server when a worker ends other than it should: a server that has lost one of its workers would
/// look alive and be deaf to a part of its clients.
struct EndAll<'a, T>(&'a Shared<T>);

impl<T> Drop for EndAll<'_, T> {
    fn drop(&mut self) {
        self.0.ports.iter().for_each(|port| port.post(Envelope::Abort));
    }
}
