//! The server: settings, start and stop of the workers, and the handle for other threads.

mod observe;

use crate::config::{
    Allow, Compression, Config, ConfigError, Drain, Hosts, Memory, Plan, Proxies, RuleSet, SlowReaders,
};
use crate::error::{End, Refused};
use crate::http::{Origins, Response};
use crate::launch::Launch;
use crate::mem::Mailbox;
use crate::metrics::Metrics;
use crate::service::{Accept, ConnId, Message, Service, Token};
#[cfg(feature = "centrifugo")]
use crate::service::{Answered, AnsweredKind};
use crate::sys::{self, LocalListener, SocketFile, Wake};
use crate::topic::{Cursor, Publication, TopicName};
use crate::worker::{Asker, Budget, Envelope, Live, Port, Shared, Sources, Then};
use std::hash::RandomState;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io};

mod reload;

/// A server to be started. Each method is a setting; what is not set has the default it names.
///
/// ```no_run
/// # use throng::*;
/// # struct Echo;
/// # impl Service for Echo {
/// #     type State = ();
/// #     fn open(&mut self, _: &Request<'_>) -> Decision<()> { Accept::new(()).into() }
/// #     fn message(&mut self, connection: &mut Connection<'_, ()>, message: Message<'_>) {
/// #         let _ = connection.send(message);
/// #     }
/// # }
/// let server = Server::new().listen(([127, 0, 0, 1], 8080).into()).connections_max(100_000).start(|_| Echo)?;
/// println!("listening on {:?}", server.addresses());
/// server.run_until_signal(std::time::Duration::from_secs(5))?;
/// # Ok::<(), StartError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a server does nothing until it is started"]
pub struct Server {
    config: Config,
}

/// Declares the settings that are one duration each.
macro_rules! durations {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])* pub fn $name(mut self, $name: Duration) -> Self {
            self.config.$name = $name;
            self
        })*
    };
}

impl Server {
    /// A server with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens on this address too; port 0 is any free one. Default: 127.0.0.1:8080, if none is named. `[::]` takes
    /// IPv6 only, so that `0.0.0.0` can stand beside it.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.config.listen.push(address);
        self
    }

    /// Listens on a Unix-domain socket at this path too; all workers accept from it. Who comes through it has no address
    /// ([`Peer`](crate::Peer)). A socket that a server left there is replaced, one that somebody listens at is not; it is
    /// removed at the end.
    pub fn listen_unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.listen_unix.push(path.into());
        self
    }

    /// The permissions of Unix-domain sockets: whoever may write may connect. Default: 0o660, owner and group.
    pub fn listen_unix_mode(mut self, mode: u32) -> Self {
        self.config.listen_unix_mode = mode;
        self
    }

    /// Takes the word of these proxies for their clients' addresses. Default: nobody's.
    ///
    /// What follows from the address (logs, [`connections_per_address_max`](Self::connections_per_address_max)) then follows
    /// from the client's. A proxy's own connections do not count for its address. A client's count from when it is known
    /// who it is: the PROXY header or the request's head are here. By then it has taken one of
    /// [`connections_max`](Self::connections_max).
    pub fn proxies(mut self, proxies: Proxies) -> Self {
        self.config.proxies = proxies;
        self
    }

    /// Closes connections that have been there for so long (1001, Centrifugo's clients 3011), so that clients spread over the
    /// servers that there are by then. Each may stay up to a tenth less, so that those who came together do not go together;
    /// and a little more, since they are looked at in rounds of a 32nd of this time, 30 s at most. Default: any age.
    pub fn connection_age_max(mut self, age: Duration) -> Self {
        self.config.connection_age_max = Some(age);
        self
    }

    /// The number of workers, one thread each. Default: one per core. Raised where the connections would not fit
    /// into that many descriptor tables.
    pub fn workers(mut self, workers: usize) -> Self {
        self.config.workers = Some(workers);
        self
    }

    /// Most connections at a time, over all workers; the next one gets a 503. Default: what the descriptor tables
    /// hold. The table of connections takes 64 bytes a connection plus the service's state, touched as they come.
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.config.connections_max = Some(connections);
        self
    }

    /// Most connections of one source address at a time, over all workers; the next one gets a 429. Default: no limit of its
    /// own, since behind a proxy or a NAT many clients have one address. IPv6 counts by its /64. Takes 16 bytes for each
    /// connection that there may be, 128 KiB to 8 MiB in all: addresses share counters, so that a client may, rarely, be
    /// refused because of others, and never has more (docs/threat-model.md has the odds). From 1 to 65,535, and no more than
    /// [`connections_max`](Self::connections_max).
    pub fn connections_per_address_max(mut self, connections: usize) -> Self {
        self.config.connections_per_address_max = Some(connections);
        self
    }

    /// Most connections accepted in a second, and as many at once after a rest. Those beyond wait in the kernel's
    /// [`backlog`](Self::backlog), and nobody is refused for it. Each worker has an equal share. Default: any number.
    pub fn accept_rate(mut self, per_second: u32) -> Self {
        self.config.accept_rate = Some(per_second);
        self
    }

    /// Longest message in bytes; a longer one ends the connection (1009). Default: 64 KiB. A client that sends a
    /// message of this size slowly costs that much memory meanwhile.
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.config.message_bytes_max = bytes;
        self
    }

    /// Most bytes that may wait for one client. Default: 1 MiB, or more where the longest message asks for it. What
    /// a slow reader may cost in memory.
    pub fn queue_bytes_max(mut self, bytes: usize) -> Self {
        self.config.queue_bytes_max = Some(bytes);
        self
    }

    durations! {
        /// A client that is silent this long is pinged, together with others: earlier by up to half a second, and by no more
        /// than a sixteenth of it. Default: 25 s. NAT boxes and proxies drop idle connections after 30 s to 300 s; a ping and
        /// its pong cost about 15 us, 0.6 of a core for a million clients at 25 s.
        ping_interval;
        /// A pinged client that sends nothing for this long is closed (1011). Default: 20 s.
        pong_timeout;
        /// A request's head must be complete this long after the connection was accepted, and its body this long after
        /// the head, however they trickle. Default: 10 s.
        head_timeout;
        /// A connection between two requests is closed after this time. Default: 75 s.
        idle_timeout;
        /// A decision that was put off must be made within this time; the client gets a 503 then. Default: 10 s.
        decision_timeout;
        /// How long the other side's Close is waited for. Default: 3 s.
        close_timeout;
        /// A client whose socket takes nothing for this long, while something waits for it, is reset. Default: 30 s.
        write_timeout;
        /// A WebSocket's message must be complete this long after its first byte came, in however many frames and pieces; else
        /// the connection is closed (1008). Looked at when bytes come and when the heartbeat is due. Default: 30 s.
        message_timeout;
    }

    /// Most messages and requests that one connection may send in a second, in bursts of up to five seconds' worth. Who sends
    /// more is not read for a while, so that TCP holds it back; who has gone on like that for 10 s is closed (1008, or 429).
    /// Default: 0, no limit.
    pub fn message_rate(mut self, per_second: u32) -> Self {
        self.config.message_rate = per_second;
        self
    }

    /// The same of bytes, of whatever kind. Default: 0, no limit.
    pub fn byte_rate(mut self, per_second: u64) -> Self {
        self.config.byte_rate = per_second;
        self
    }

    /// The same of pings, and of pongs that were not asked for. Default: 200; 0: no limit.
    pub fn control_rate(mut self, per_second: u32) -> Self {
        self.config.control_rate = per_second;
        self
    }

    /// Most memory that the process may use, in bytes, as `used` tells: ask the allocator how much is allocated (not how much
    /// is resident, which goes down late). It is asked every 50 ms while there is something to do, and sooner where much comes
    /// in. Over it new connections get a 503, and the connections that hold most are reset, what waits for them and what they
    /// have sent of unfinished messages, until it is enough; when that does not do, topics lose the older halves of what they
    /// keep. Default: no limit.
    pub fn memory_max(mut self, bytes: u64, used: fn() -> u64) -> Self {
        self.config.memory = Some(Memory { bytes_max: bytes, used });
        self
    }

    /// Calls [`Service::tick`] for every open connection once in this interval. Default: never.
    pub fn tick_interval(mut self, interval: Duration) -> Self {
        self.config.tick_interval = Some(interval);
        self
    }

    /// Most topics, spread evenly over the workers. Default: 1,000,000. One more takes the place of one that is idle: nobody
    /// listens to it and it keeps no message. Else it is refused (503), or, published by a [`Handle`] or a service, lost
    /// with a line in the log.
    pub fn topics_max(mut self, topics: usize) -> Self {
        self.config.topics_max = topics;
        self
    }

    /// How much each topic keeps for those who come late or read slowly; whichever bound is reached first counts.
    /// Default: 1,000 messages, 1 MiB, 10 minutes. 0 messages: no history, and nobody can come back to a cursor.
    pub fn history(mut self, messages: usize, bytes: usize, age: Duration) -> Self {
        let rules = &mut self.config.topics.without_namespace;
        (rules.history_size, rules.history_bytes, rules.history_ttl) = (messages, bytes, age);
        self
    }

    /// The rules of topics, namespace by namespace: what is kept of them, and which clients may do what, whatever their
    /// transport. Default: [`RuleSet::open`]. [`history`](Self::history), [`presence`](Self::presence),
    /// [`join_leave`](Self::join_leave) and [`client_publish`](Self::client_publish) change those of topics without a
    /// namespace; call them afterwards.
    pub fn topics(mut self, rules: RuleSet) -> Self {
        self.config.topics = rules;
        self
    }

    /// Lets every client publish, by sending on a topic's WebSocket or over Centrifugo's protocol. Default: off.
    pub fn client_publish(mut self, may: bool) -> Self {
        self.config.topics.without_namespace.allow_publish = if may { Allow::EVERYBODY } else { Allow::default() };
        self
    }

    /// How long the position of a topic that keeps no message outlives its last one, while nobody listens: who comes back
    /// to it later is told of a gap that may be none. Default: a day.
    pub fn history_meta_ttl(mut self, ttl: Duration) -> Self {
        self.config.topics.history_meta_ttl = ttl;
        self
    }

    /// Most topics that one connection may subscribe to. Default: 128.
    pub fn subscriptions_max(mut self, subscriptions: usize) -> Self {
        self.config.subscriptions_max = subscriptions;
        self
    }

    /// Compresses messages for WebSockets that offer it (permessage-deflate). Default: off, and an offer is declined.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = Some(compression);
        self
    }

    /// What becomes of a subscriber that reads so slowly that its next message is no longer kept. Default: it is
    /// disconnected.
    pub fn slow_readers(mut self, policy: SlowReaders) -> Self {
        self.config.slow_readers = policy;
        self
    }

    /// Has topics know who subscribes: `GET /topics/NAME/presence`, and the presence commands of Centrifugo's clients. A
    /// subscription costs about 250 bytes more then. Default: off.
    pub fn presence(mut self, presence: bool) -> Self {
        self.config.topics.without_namespace.presence = presence;
        self
    }

    /// Has Centrifugo's clients that ask for it told of each other's coming and going. Default: off.
    pub fn join_leave(mut self, join_leave: bool) -> Self {
        self.config.topics.without_namespace.join_leave = join_leave;
        self
    }

    /// Lets pages of this origin (`https://app.example.com`) talk to the server, beside those of the server's own host;
    /// `https://*.example.com` stands for all below that host, `*` for all. Browsers say where a page comes from in `Origin`; requests without one are no page's, and
    /// are let in. May be called several times.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.config.origins.push(origin.into());
        self
    }

    /// What `Host` a request may name; any other is refused (421). For a server on loopback that asks nobody who it is: a page
    /// whose own name is made to mean 127.0.0.1 would be taken for one of the same host ([`Hosts::Loopback`] keeps it out).
    /// Default: any.
    pub fn hosts(mut self, hosts: Hosts) -> Self {
        self.config.hosts = hosts;
        self
    }

    /// Connections that may wait in the kernel to be accepted, per worker; cut to `net.core.somaxconn`. Default: 4096.
    pub fn backlog(mut self, backlog: u16) -> Self {
        self.config.backlog = backlog;
        self
    }

    /// Leaves it to the kernel to find out that clients are gone (tcp(7), SO_KEEPALIVE): bare WebSockets get no pings, event
    /// streams no comments. After [`ping_interval`](Self::ping_interval) of silence, in whole seconds, the kernel probes,
    /// every third of [`pong_timeout`](Self::pong_timeout), and whoever has answered neither that nor what was sent by the end of
    /// both, or of [`write_timeout`](Self::write_timeout) if that is longer, is gone; who was sent something meanwhile has that
    /// time from there. It holds for every TCP connection, beside the heartbeats of the service's own. Default: off.
    ///
    /// It costs the server less, and says less: that the client's kernel is there, not its program, and nothing where a proxy is
    /// between, which would get the probes and see no traffic. It is a fault together with [`proxies`](Self::proxies) or a
    /// Unix-domain socket.
    pub fn tcp_keepalive(mut self, keepalive: bool) -> Self {
        self.config.tcp_keepalive = keepalive;
        self
    }

    /// Leaves all workers in the process's one descriptor table, as threads usually are. Default: off, each worker
    /// has its own, so that RLIMIT_NOFILE counts for each.
    pub fn shared_descriptors(mut self, shared: bool) -> Self {
        self.config.shared_descriptors = shared;
        self
    }

    /// Keeps each worker on one processor. Default: off. Helps when the machine does nothing else.
    pub fn pin(mut self, pin: bool) -> Self {
        self.config.pin = pin;
        self
    }

    /// Starts the workers; `factory` makes the service of each, in its thread. When this returns, all of them listen.
    ///
    /// Each worker gets a descriptor table of its own, a copy of the process's: what is open now stays open there,
    /// even when it is closed here. So start the server before opening what is to be closed again, listeners above all.
    ///
    /// # Errors
    ///
    /// [`StartError`]: a setting that cannot be, an address that cannot be bound, or a thread that cannot be had.
    pub fn start<S, F>(mut self, factory: F) -> Result<Running<S::State>, StartError>
    where
        S: Service,
        F: Fn(&Seat<S::State>) -> S + Send + Sync + 'static,
    {
        if self.config.listen.is_empty() && self.config.listen_unix.is_empty() {
            self.config.listen.push(Config::ADDRESS);
        }
        let rules = self.config.rules()?;
        let origins = Arc::new(Origins::new(&self.config.origins)?.at(self.config.hosts));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let per_address = self.config.per_address()?;
        let plan = self.config.plan(cores, sys::raise_descriptor_limit()?)?;
        explain(&plan, cores);
        // The eventfds come first, while there is one table: their numbers must mean the same in all.
        let ports = (0..plan.workers)
            .map(|_| {
                let (wake, live) = (Wake::new()?, Arc::new(Live::new(plan.slots)));
                Ok(Port { mailbox: Mailbox::default(), wake, live, metrics: Metrics::default() })
            })
            .collect::<io::Result<_>>()?;
        let budget = self.config.memory.map(|memory| Budget::new(memory, rules.held_bytes_max(), plan.workers));
        let sources = per_address.map(|most| Sources::new(most, plan.connections_max, RandomState::new()));
        let shared = Shared::new(ports, plan.connections_max, (cores - 1).max(1), budget);
        let shared = Arc::new(shared.accepting(sources, self.config.accept_rate));
        *shared.told.lock().unwrap_or_else(PoisonError::into_inner) = self.config.clone();
        let locals = self.config.bind_unix()?;
        let files: Vec<SocketFile> = locals.iter().map(LocalListener::file).collect();
        let launch = Launch {
            config: self.config,
            plan,
            rules,
            origins,
            shared: Arc::clone(&shared),
            factory,
            locals: locals.iter().map(LocalListener::share).collect(),
            started: Instant::now(),
        };
        match launch.go(locals) {
            Ok((threads, addresses)) => Ok(Running { threads, addresses, files, handle: Handle { shared } }),
            Err(error) => {
                files.iter().for_each(SocketFile::remove);
                Err(error)
            }
        }
    }
}

impl Config {
    /// The Unix-domain sockets: all, or none.
    fn bind_unix(&self) -> Result<Vec<LocalListener>, StartError> {
        let mut locals: Vec<LocalListener> = Vec::new();
        for path in &self.listen_unix {
            match LocalListener::bind(path, self.listen_unix_mode, i32::from(self.backlog)) {
                Ok(local) => locals.push(local),
                Err(error) => {
                    locals.iter().for_each(|local| local.file().remove());
                    return Err(StartError::ListenUnix(path.clone(), error));
                }
            }
        }
        Ok(locals)
    }
}

impl From<Config> for Server {
    fn from(config: Config) -> Self {
        Self { config }
    }
}

/// Says what was laid out for whom.
fn explain(plan: &Plan, cores: usize) {
    if plan.raised {
        log::info!(
            "{} workers on {cores} cores: {} connections are to fit into private descriptor tables with room for {} each",
            plan.workers,
            plan.connections_max,
            plan.slots
        );
    }
}

/// A worker's place in its server, for the factory that makes its service.
#[derive(Debug)]
pub struct Seat<T> {
    index: usize,
    handle: Handle<T>,
}

impl<T> Seat<T> {
    pub(crate) fn new(index: usize, shared: Arc<Shared<T>>) -> Self {
        Self { index, handle: Handle { shared } }
    }

    /// The worker's number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The server's handle, to be cloned and kept.
    pub fn handle(&self) -> &Handle<T> {
        &self.handle
    }
}

/// A running server. Dropping this leaves it running, without anybody to wait for it.
#[derive(Debug)]
pub struct Running<T> {
    threads: Vec<JoinHandle<io::Result<()>>>,
    addresses: Vec<SocketAddr>,
    files: Vec<SocketFile>,
    handle: Handle<T>,
}

impl<T: Send + 'static> Running<T> {
    /// The addresses that it listens on, with the ports that were chosen.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The paths of the Unix-domain sockets that it listens on.
    pub fn unix_paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(SocketFile::path)
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.threads.len()
    }

    /// The most connections that it takes at a time.
    pub fn connections_max(&self) -> usize {
        self.handle.shared.connections_max()
    }

    /// A handle, for any thread.
    pub fn handle(&self) -> Handle<T> {
        self.handle.clone()
    }

    /// Has something done on a thread beside the workers, which the signals that end the server do not reach. It is not waited
    /// for in the end.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn beside(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let _blocked = sys::block_signals(&sys::ASYNCHRONOUS)?;
        std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
    }

    /// Waits until it has ended: somebody must tell it to, through a [`Handle`].
    ///
    /// # Errors
    ///
    /// A worker's poller failed, or a worker panicked outside of the service: the whole server ends then.
    pub fn wait(self) -> io::Result<()> {
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            result = result.and(ended);
        }
        self.files.iter().for_each(SocketFile::remove);
        result
    }

    /// Runs until SIGTERM or SIGINT, then drains as [`Handle::shutdown`] does, and returns. A second signal ends at once.
    ///
    /// Call it on the main thread before spawning others: a thread that does not block these signals would be
    /// killed by them, and the process with it.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn run_until_signal(self, drain: impl Into<Drain>) -> io::Result<()> {
        let drain = drain.into();
        self.run(&[sys::SIGINT, sys::SIGTERM], drain, move || drain)
    }

    /// The same. At each SIGHUP `reload` is called, on a thread of its own, one at a time: it may give the server other settings
    /// ([`Handle::reconfigure`]), and says how the server is drained in the end. One that does not come to an end keeps no
    /// signal from ending the server: it has a second, and then the drain is that of the one before.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn run_until_signal_reloading(
        self,
        drain: impl Into<Drain>,
        reload: impl FnMut() -> Drain + Send + 'static,
    ) -> io::Result<()> {
        self.run(&[sys::SIGINT, sys::SIGTERM, sys::SIGHUP], drain.into(), reload)
    }

    fn run(
        self,
        signals: &[i32],
        mut drain: Drain,
        mut reload: impl FnMut() -> Drain + Send + 'static,
    ) -> io::Result<()> {
        let _blocked = sys::block_signals(signals)?;
        let (handle, signals) = (self.handle(), signals.to_vec());
        let (wanted, reloads) = channel();
        let (done, drains) = channel();
        if signals.contains(&sys::SIGHUP) {
            std::thread::Builder::new().name("reload".into()).spawn(move || {
                for () in reloads {
                    let _ = done.send(reload());
                }
            })?;
        }
        // Never joined: it sleeps in sigwait for as long as the process lives.
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let ending = [sys::SIGINT, sys::SIGTERM];
            let mut under_way = 0_usize;
            loop {
                match sys::wait_signal(&signals) {
                    Ok(sys::SIGHUP) => under_way += usize::from(wanted.send(()).is_ok()),
                    Ok(_) => break,
                    Err(_) => {}
                }
                while let Ok(told) = drains.try_recv() {
                    (drain, under_way) = (told, under_way - 1);
                }
            }
            while under_way > 0 {
                let Ok(told) = drains.recv_timeout(RELOAD_PATIENCE) else { break };
                (drain, under_way) = (told, under_way - 1);
            }
            let (connections, Drain { delay, over }) = (handle.connections(), drain);
            let when = if delay.is_zero() { String::new() } else { format!("in {delay:?} ") };
            let over = if over.is_zero() { "at once".to_owned() } else { format!("within {over:?}") };
            log::info!("told to stop: not ready any more; {when}closing {connections} connections {over}");
            handle.shutdown(drain);
            while sys::wait_signal(&ending).is_err() {}
            log::info!("told again: ending at once");
            handle.abort();
        })?;
        self.wait()
    }
}

/// How long a reload that is under way may take when the server is told to end.
const RELOAD_PATIENCE: Duration = Duration::from_secs(1);

/// Reaches a server's connections from any thread. Cloning is cheap.
///
/// Messages to one connection through one handle arrive in the order they were sent.
#[derive(Debug)]
pub struct Handle<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// The connection is gone: nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is gone")
    }
}

impl std::error::Error for Gone {}

impl<T> Handle<T> {
    /// Sends a message to a connection. If more than `queue_bytes_max` would wait for the client, it is closed (1013),
    /// since a message must not be lost unnoticed.
    ///
    /// # Errors
    ///
    /// [`Gone`] when the connection has ended. `Ok` means that its worker has been handed the message; the client may
    /// still vanish before it arrives.
    pub fn send<'m>(&self, id: ConnId, message: impl Into<Message<'m>>) -> Result<(), Gone> {
        let (opcode, payload) = message.into().parts();
        let mut frame = Vec::with_capacity(payload.len() + 10);
        crate::ws::encode(&mut frame, opcode, payload);
        self.post(id, Envelope::Send { id, frame: frame.into() })
    }

    /// Starts the closing handshake of a connection, as [`Connection::close`](crate::Connection::close) does.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn close(&self, id: ConnId, code: u16, reason: &str) -> Result<(), Gone> {
        let code = if crate::ws::close_code_may_be_sent(code) { code } else { End::Panic.code() };
        self.post(id, Envelope::Close { id, code, reason: reason.into() })
    }

    /// Answers an upgrade request that was put off with [`Decision::Later`](crate::Decision::Later).
    ///
    /// # Errors
    ///
    /// [`Gone`] when the client has left, or its time is up.
    pub fn answer(&self, token: Token, verdict: Result<Accept<T>, Response>) -> Result<(), Gone> {
        let (verdict, join) = match verdict {
            Ok(Accept(opening, join)) => (Ok(opening), join),
            Err(response) => (Err(response), None),
        };
        self.post(token.0, Envelope::Answer { id: token.0, verdict, join })
    }

    /// Publishes a message to all subscribers of a topic on all workers. Messages that one thread publishes to one topic
    /// arrive in that order.
    pub fn publish(&self, topic: &TopicName, message: impl Into<Publication>) {
        self.shared.publish(topic, message.into(), Asker::Nobody);
    }

    /// What publishes, and does nothing else: to be handed to those who need no more.
    pub fn publisher(&self) -> Publisher
    where
        T: Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        Publisher(Arc::new(move |topic, publication, then| {
            shared.publish(topic, publication, then.map_or(Asker::Nobody, Asker::Caller));
        }))
    }

    fn post(&self, id: ConnId, envelope: Envelope<T>) -> Result<(), Gone> {
        let port = self.shared.ports.get(usize::from(id.worker)).ok_or(Gone)?;
        if !port.live.is_live(id.slot, id.serial) {
            return Err(Gone);
        }
        port.post(envelope);
        Ok(())
    }

    /// Has the service of a connection's worker told, as of an answer.
    #[cfg(feature = "centrifugo")]
    pub(crate) fn tell(&self, id: ConnId, tag: u64, answer: AnsweredKind) -> Result<(), Gone> {
        self.post(id, Envelope::Tell { id, tag, answer: Box::new(Answered(answer)) })
    }

    /// Whether clients should be sent here: the server has not been told to end.
    pub fn is_ready(&self) -> bool {
        !self.shared.leaving.load(Ordering::Relaxed)
    }

    /// Ends the server in order. At once it is not [ready](Self::is_ready) any more. After the delay it lets nobody stay:
    /// upgrades get a 503, streams are told when to come back, other requests are answered and their connections
    /// closed; a second later nobody can connect. Whoever is there is closed, spread evenly over the drain's time: WebSockets with 1001
    /// (Centrifugo's clients with 3001), event streams with a `retry` of their own, long polls with an answer. Whoever is left
    /// then, and does not answer within the close timeout, is reset.
    pub fn shutdown(&self, drain: impl Into<Drain>) {
        let drain = drain.into();
        self.shared.leaving.store(true, Ordering::Relaxed);
        self.shared.ports.iter().for_each(|port| port.post(Envelope::Drain(drain)));
    }

    /// Ends the server at once: everybody is reset.
    pub fn abort(&self) {
        self.shared.ports.iter().for_each(|port| port.post(Envelope::Abort));
    }
}

type Publish = dyn Fn(&TopicName, Publication, Option<Then>) + Send + Sync;

/// Publishes to a server's topics, from any thread. Cloning is cheap. Publishing never waits.
///
/// ```no_run
/// # use throng::*;
/// # fn example<S: Service>(server: &Running<S::State>) -> Result<(), Box<dyn std::error::Error>> {
/// let (publisher, news) = (server.handle().publisher(), TopicName::new("news")?);
/// publisher.publish(&news, "hello");
/// publisher.publish(&news, Publication::json(r#"{"price": 12.5}"#)?);
///
/// // To know where it stands in the topic, or that it was refused:
/// let (done, outcome) = std::sync::mpsc::channel();
/// publisher.publish_then(&news, "hello again", move |outcome| { let _ = done.send(outcome); });
/// println!("it is at {}", outcome.recv()??);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Publisher(Arc<Publish>);

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Publisher")
    }
}

impl Publisher {
    /// Publishes a message to all subscribers of a topic on all workers. Messages that one thread publishes to one topic
    /// arrive in that order. One that is refused, because there are too many topics ([`Server::topics_max`]), is lost with
    /// a line in the log.
    pub fn publish(&self, topic: &TopicName, message: impl Into<Publication>) {
        (self.0)(topic, message.into(), None);
    }

    /// As [`publish`](Self::publish), and tells of the outcome: where the message stands, once it does and whoever reads
    /// from here on sees it; or why it was refused. `then` is called on a worker's thread, so it should hand the outcome on
    /// and return. It is dropped without a call if the server ends before.
    pub fn publish_then(
        &self,
        topic: &TopicName,
        message: impl Into<Publication>,
        then: impl FnOnce(Result<Cursor, Refused>) + Send + 'static,
    ) {
        (self.0)(topic, message.into(), Some(Box::new(then)));
    }
}

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be.
    Config(ConfigError),
    /// An address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// A Unix-domain socket cannot be made.
    ListenUnix(PathBuf, io::Error),
    /// The machine did not give a thread, an eventfd, a poller.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Listen(address, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "cannot listen on {address}: another process does; stop it, or choose another port")
            }
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::ListenUnix(path, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "cannot listen on unix:{}: another process does; stop it, or choose another path",
                    path.display()
                )
            }
            Self::ListenUnix(path, error) => write!(f, "cannot listen on unix:{}: {error}", path.display()),
            Self::System(error) => write!(f, "the system refused what the server needs: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
