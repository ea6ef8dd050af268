//! What a server is told at its start, and what follows from it for this machine.

use crate::limits::{
    DESCRIPTORS_RESERVED, KEEPALIVE_S_MAX, MESSAGE_BYTES_CEILING, QUEUE_BYTES_BEYOND_MESSAGE, SLOTS_MAX,
    SUBSCRIPTIONS_CEILING, WORKERS_MAX,
};
use crate::time::Span;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod compression;
mod proxies;
mod rules;

pub use compression::Compression;
pub(crate) use compression::WINDOW_BITS;
pub use proxies::{ForwardedHeader, Network, Proxies};
pub use rules::{Allow, RuleSet, TopicRules};
pub(crate) use rules::{Denied, Right};

/// All settings of a [`Server`](crate::Server) at once, for programs that read them from a file or show them: each is what the
/// method of that name sets, and says there what it is. Here alone are the defaults.
///
/// ```
/// use throng::{Config, Server};
///
/// let mut config = Config::default();
/// config.workers = Some(2);
/// let server = Server::from(config).pin(true);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// If there is none, and no Unix-domain socket, [`ADDRESS`](Self::ADDRESS).
    pub listen: Vec<SocketAddr>,
    pub workers: Option<usize>,
    pub connections_max: Option<usize>,
    pub connections_per_address_max: Option<usize>,
    pub accept_rate: Option<u32>,
    /// Unix-domain sockets to listen on as well.
    pub listen_unix: Vec<PathBuf>,
    /// Their permissions.
    pub listen_unix_mode: u32,
    pub proxies: Proxies,
    pub connection_age_max: Option<Duration>,
    pub message_bytes_max: usize,
    /// What follows from the longest message, if it is not set.
    pub queue_bytes_max: Option<usize>,
    pub ping_interval: Duration,
    pub pong_timeout: Duration,
    /// Whether the kernel's probes take the place of pings.
    pub tcp_keepalive: bool,
    pub head_timeout: Duration,
    pub idle_timeout: Duration,
    pub decision_timeout: Duration,
    pub close_timeout: Duration,
    pub write_timeout: Duration,
    pub message_timeout: Duration,
    pub message_rate: u32,
    pub byte_rate: u64,
    pub control_rate: u32,
    pub memory: Option<Memory>,
    pub tick_interval: Option<Duration>,
    pub backlog: u16,
    /// Each is one that is allowed.
    pub origins: Vec<String>,
    pub hosts: Hosts,
    pub topics_max: usize,
    pub topics: RuleSet,
    pub subscriptions_max: usize,
    pub slow_readers: SlowReaders,
    pub compression: Option<Compression>,
    pub shared_descriptors: bool,
    pub pin: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            workers: None,
            connections_max: None,
            connections_per_address_max: None,
            accept_rate: None,
            listen_unix: Vec::new(),
            listen_unix_mode: 0o660,
            proxies: Proxies::default(),
            connection_age_max: None,
            message_bytes_max: 64 * 1024,
            queue_bytes_max: None,
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(20),
            tcp_keepalive: false,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            decision_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(3),
            write_timeout: Duration::from_secs(30),
            message_timeout: Duration::from_secs(30),
            message_rate: 0,
            byte_rate: 0,
            control_rate: 200,
            memory: None,
            tick_interval: None,
            backlog: 4096,
            origins: Vec::new(),
            hosts: Hosts::Any,
            topics_max: 1_000_000,
            topics: RuleSet::open(),
            subscriptions_max: 128,
            slow_readers: SlowReaders::Disconnect,
            compression: None,
            shared_descriptors: false,
            pin: false,
        }
    }
}

/// What a connection's state machine is told about the server it runs in. Durations are in ticks.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) head_timeout: Span,
    pub(crate) idle_timeout: Span,
    pub(crate) decision_timeout: Span,
    pub(crate) ping_interval: Span,
    /// Where this worker's pings lie on the grid that they are sent on: not where the other workers' do.
    pub(crate) ping_phase: u32,
    pub(crate) pong_timeout: Span,
    /// The kernel looks after silent peers: there are no pings, and no comments in event streams.
    pub(crate) tcp_keepalive: bool,
    pub(crate) close_timeout: Span,
    pub(crate) write_timeout: Span,
    pub(crate) message_timeout: Span,
    pub(crate) rates: Rates,
    pub(crate) message_bytes_max: usize,
    pub(crate) queue_bytes_max: usize,
    pub(crate) subscriptions_max: usize,
    pub(crate) slow_readers: SlowReaders,
    pub(crate) compression: Option<Compression>,
    pub(crate) topics: Arc<RuleSet>,
    /// Whose word on clients' addresses is taken, if anybody's.
    pub(crate) proxies: Option<Arc<Proxies>>,
    /// Whether any topic has its subscribers told of each other.
    pub(crate) any_join_leave: bool,
}

impl Rules {
    /// The most that one connection may hold, about: what waits for it, and a message that is not complete.
    pub(crate) fn held_bytes_max(&self) -> usize {
        self.queue_bytes_max.saturating_add(self.message_bytes_max.saturating_mul(2))
    }
}

/// How much one connection may send in a second; 0: as much as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    /// Messages, or requests.
    pub(crate) messages: u32,
    pub(crate) bytes: u64,
    /// Pings, and pongs that nobody asked for.
    pub(crate) controls: u32,
}

/// How a server comes to its end. Made of a [`Duration`], it is how long the closing is spread over, and begins at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// For so long it serves as ever, but says that it is not ready ([`Handle::is_ready`](crate::Handle::is_ready)): a load
    /// balancer needs as long to notice.
    pub delay: Duration,
    /// Then everybody is closed, spread evenly over so long.
    pub over: Duration,
}

impl From<Duration> for Drain {
    fn from(over: Duration) -> Self {
        Self { delay: Duration::ZERO, over }
    }
}

/// How much memory the process may use: what [`Server::memory_max`](crate::Server::memory_max) is told.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub bytes_max: u64,
    /// How many bytes it does.
    pub used: fn() -> u64,
}

/// What becomes of a subscriber that reads so slowly that its next message is no longer kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowReaders {
    /// It is closed (1013); an event stream ends. It can come back to its cursor, and is told of the gap then.
    #[default]
    Disconnect,
    /// It is told of the gap and goes on from the newest message. A WebSocket with bare frames has no place for that: it
    /// is closed with 4410.
    Skip,
}

/// The names that a server answers to: what `Host` may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hosts {
    /// Any.
    #[default]
    Any,
    /// Those of loopback: `localhost` and what lies below it, 127.0.0.0/8, `[::1]`.
    Loopback,
}

/// A setting that cannot be: which one, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: Cow<'static, str>,
    text: String,
}

impl ConfigError {
    pub(crate) fn new(field: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Self {
        Self { field: field.into(), text: text.into() }
    }

    /// The field of [`Config`] that it is about: `ping_interval`, `origins[0]`, `compression.level`,
    /// `topics.namespaces.NAME.history_ttl`, `topics.without_namespace.force_recovery`.
    pub fn field(&self) -> &str {
        &self.field
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ConfigError {}

/// How the connections are laid out over workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) workers: usize,
    /// What one worker may hold: below its descriptor table.
    pub(crate) slots: usize,
    /// What all of them together may hold.
    pub(crate) connections_max: usize,
    /// The number of workers was raised, so that the connections fit into their tables.
    pub(crate) raised: bool,
}

impl Config {
    /// Where a server listens that is told no address.
    pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

    /// Most bytes that may wait for one client: an echo of the largest message, behind a queue at which reading
    /// pauses, of what one more read may bring, always fits.
    fn queue_bytes_min(&self) -> usize {
        self.message_bytes_max + QUEUE_BYTES_BEYOND_MESSAGE
    }

    /// Everything that cannot be, on any machine; empty if a server may start with this.
    ///
    /// ```
    /// use throng::{Config, RuleSet, TopicRules};
    ///
    /// let mut config = Config::default();
    /// config.topics = RuleSet::new().namespace("news", TopicRules { force_recovery: true, ..TopicRules::default() });
    /// config.origins = vec!["app.example.com".into()];
    /// let fields: Vec<_> = config.faults().iter().map(|fault| fault.field().to_owned()).collect();
    /// assert_eq!(fields, ["origins[0]", "topics.namespaces.news.force_recovery"]);
    /// ```
    pub fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        self.check_sizes(&mut faults);
        self.check_durations(&mut faults);
        self.check_connections(&mut faults);
        faults.extend(self.check_keepalive().err());
        for (index, origin) in self.origins.iter().enumerate() {
            faults.extend(check_origin(origin).err().map(|text| ConfigError::new(format!("origins[{index}]"), text)));
        }
        self.topics.check(&mut faults);
        self.compression.into_iter().for_each(|compression| compression.check(&mut faults));
        faults
    }

    /// Leaves what a running server keeps as it was told before: which fields those are, of those that differ.
    pub(crate) fn keep_of(&mut self, running: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        if self.listen.is_empty() && self.listen_unix.is_empty() {
            self.listen.push(Self::ADDRESS);
        }
        macro_rules! keep {
            ($($field:ident)*) => {$(
                if self.$field != running.$field {
                    self.$field = running.$field.clone();
                    kept.push(stringify!($field));
                }
            )*};
        }
        keep!(listen listen_unix listen_unix_mode workers connections_max connection_age_max tick_interval backlog tcp_keepalive shared_descriptors pin);
        if self.tcp_keepalive {
            keep!(ping_interval pong_timeout write_timeout); // the listeners have them
        }
        if self.connections_per_address_max.is_some() != running.connections_per_address_max.is_some() {
            self.connections_per_address_max = running.connections_per_address_max;
            kept.push("connections_per_address_max");
        }
        if self.memory.is_some() != running.memory.is_some() {
            self.memory = running.memory;
            kept.push("memory");
        }
        kept
    }

    fn check_sizes(&self, faults: &mut Vec<ConfigError>) {
        let mut fault = |field: &'static str, text: String| faults.push(ConfigError::new(field, text));
        if self.message_bytes_max > MESSAGE_BYTES_CEILING {
            let text = format!(
                "the largest message cannot be {} bytes: at most {MESSAGE_BYTES_CEILING}",
                self.message_bytes_max
            );
            return fault("message_bytes_max", text);
        }
        let min = self.queue_bytes_min();
        if let Some(bytes) = self.queue_bytes_max.filter(|&bytes| bytes < min) {
            let text = format!(
                "the most bytes that may wait for a client cannot be {bytes}: at least {min}, so that a message of the largest size fits"
            );
            fault("queue_bytes_max", text);
        }
        if self.subscriptions_max == 0 || self.subscriptions_max > SUBSCRIPTIONS_CEILING {
            let text = format!("the subscriptions of a connection must be from 1 to {SUBSCRIPTIONS_CEILING}");
            fault("subscriptions_max", text);
        }
    }

    fn check_durations(&self, faults: &mut Vec<ConfigError>) {
        for (field, name, duration) in [
            ("ping_interval", "ping interval", self.ping_interval),
            ("pong_timeout", "pong timeout", self.pong_timeout),
            ("head_timeout", "head timeout", self.head_timeout),
            ("idle_timeout", "idle timeout", self.idle_timeout),
            ("decision_timeout", "decision timeout", self.decision_timeout),
            ("close_timeout", "close timeout", self.close_timeout),
            ("write_timeout", "write timeout", self.write_timeout),
        ] {
            if duration < Duration::from_millis(100) || duration > Duration::from_secs(86_400) {
                let text = format!("the {name} cannot be {duration:?}: from 0.1 s to a day");
                faults.push(ConfigError::new(field, text));
            }
        }
    }

    /// Probes reach whoever is at the other end of the TCP connection.
    fn check_keepalive(&self) -> Result<(), ConfigError> {
        let fault = |text: String| Err(ConfigError::new("tcp_keepalive", text));
        if self.tcp_keepalive && !(self.proxies.trusted.is_empty() && self.listen_unix.is_empty()) {
            return fault(
                "behind a proxy the kernel's probes reach the proxy, not the client: leave TCP keepalive off, for which a \
                 server that runs must be restarted"
                    .to_owned(),
            );
        }
        if self.tcp_keepalive && self.ping_interval > Duration::from_secs(KEEPALIVE_S_MAX.into()) {
            return fault(format!(
                "the kernel waits {KEEPALIVE_S_MAX} s at most before it probes: with TCP keepalive set a shorter ping interval"
            ));
        }
        Ok(())
    }

    fn check_connections(&self, faults: &mut Vec<ConfigError>) {
        if self.accept_rate == Some(0) {
            let text = "the server must accept at least 1 connection a second: set a rate, or leave it out for none";
            faults.push(ConfigError::new("accept_rate", text));
        }
        if self.connection_age_max.is_some_and(|age| age < Duration::from_secs(1)) {
            let text = "the age of a connection cannot be limited to less than 1 s: leave it out for no limit";
            faults.push(ConfigError::new("connection_age_max", text));
        }
        if self.workers.is_some_and(|workers| workers == 0 || workers > WORKERS_MAX) {
            faults.push(ConfigError::new("workers", format!("the number of workers must be from 1 to {WORKERS_MAX}")));
        }
        if self.connections_max == Some(0) {
            faults.push(ConfigError::new("connections_max", "the number of connections must be at least 1"));
        }
        faults.extend(self.per_address().err());
        faults.extend(self.proxies.check().err());
    }

    /// The rules for connections, or the first thing that is wrong with the settings.
    pub(crate) fn rules(&self) -> Result<Rules, ConfigError> {
        self.faults().into_iter().next().map_or(Ok(()), Err)?;
        let queue_bytes_max = self.queue_bytes_max.unwrap_or_else(|| self.queue_bytes_min().max(1024 * 1024));
        Ok(Rules {
            head_timeout: Span::covering(self.head_timeout),
            idle_timeout: Span::covering(self.idle_timeout),
            decision_timeout: Span::covering(self.decision_timeout),
            ping_interval: Span::covering(self.ping_interval),
            ping_phase: 0,
            pong_timeout: Span::covering(self.pong_timeout),
            tcp_keepalive: self.tcp_keepalive,
            close_timeout: Span::covering(self.close_timeout),
            write_timeout: Span::covering(self.write_timeout),
            message_timeout: Span::covering(self.message_timeout),
            rates: Rates { messages: self.message_rate, bytes: self.byte_rate, controls: self.control_rate },
            message_bytes_max: self.message_bytes_max,
            queue_bytes_max,
            subscriptions_max: self.subscriptions_max,
            slow_readers: self.slow_readers,
            compression: self.compression,
            topics: Arc::new(self.topics.clone()),
            proxies: (!self.proxies.trusted.is_empty()).then(|| Arc::new(self.proxies.clone())),
            any_join_leave: self.topics.any_join_leave(),
        })
    }

    /// How many connections one address may have, if that is limited.
    pub(crate) fn per_address(&self) -> Result<Option<u16>, ConfigError> {
        let Some(most) = self.connections_per_address_max else { return Ok(None) };
        if let Some(all) = self.connections_max.filter(|&all| most > all) {
            return Err(ConfigError::new(
                "connections_per_address_max",
                format!(
                    "one address cannot have {most} connections where all together have {all}: set fewer, or leave it out for no limit of its own"
                ),
            ));
        }
        // A client's port has 16 bits: more than that is no limit.
        match u16::try_from(most) {
            Ok(most) if most > 0 => Ok(Some(most)),
            _ => Err(ConfigError::new(
                "connections_per_address_max",
                format!(
                    "the connections of one address cannot be {most}: from 1 to {}, or leave it out for no limit of its own",
                    u16::MAX
                ),
            )),
        }
    }

    /// Lays the connections out: `cores` of this machine, `table` descriptors in one table.
    pub(crate) fn plan(&self, cores: usize, table: u64) -> Result<Plan, ConfigError> {
        let fail = |text: String| Err(ConfigError::new("connections_max", text));
        let table = usize::try_from(table).unwrap_or(usize::MAX).min(SLOTS_MAX + DESCRIPTORS_RESERVED);
        let mut workers = self.workers.unwrap_or(cores).clamp(1, WORKERS_MAX);
        if self.shared_descriptors {
            let slots = room(table, workers);
            let connections_max = self.connections_max.unwrap_or(slots);
            if connections_max > slots {
                return fail(format!(
                    "{connections_max} connections do not fit into one descriptor table, which holds {slots} besides what the server needs: \
                     raise `ulimit -n`, or let the workers have private tables (no --shared-fds)"
                ));
            }
            return Ok(Plan { workers, slots: connections_max, connections_max, raised: false });
        }
        let Some(connections_max) = self.connections_max else {
            let slots = room(table, workers);
            return Ok(Plan { workers, slots, connections_max: slots * workers, raised: false });
        };
        let before = workers;
        // SO_REUSEPORT spreads like dice: four standard deviations above the mean must fit.
        while spread(connections_max, workers) > room(table, workers) {
            workers += 1;
            if workers > WORKERS_MAX || room(table, workers) == 0 {
                return fail(format!(
                    "{connections_max} connections do not fit into {WORKERS_MAX} descriptor tables of {table}: raise `ulimit -n`"
                ));
            }
        }
        let slots = room(table, workers).min(connections_max);
        Ok(Plan { workers, slots, connections_max, raised: workers > before })
    }
}

/// What is wrong with an origin: it is to be as browsers write them, with `*.` in front of the host for all that lie below
/// it; or `*`.
pub(crate) fn check_origin(origin: &str) -> Result<(), String> {
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    let host = authority.strip_prefix("*.").unwrap_or(authority);
    if let Some(without) = origin.strip_suffix('/').filter(|origin| check_origin(origin).is_ok()) {
        return Err(format!("the origin {origin:?} cannot be: without the slash at the end, {without:?}"));
    }
    if origin != "*" && (host.is_empty() || host.contains(['/', '?', '#', '*', ' '])) {
        return Err(format!(
            "the origin {origin:?} cannot be: SCHEME://HOST or SCHEME://HOST:PORT, such as https://app.example.com or https://*.example.com, or *"
        ));
    }
    Ok(())
}

/// Descriptors for connections in a table of that size: less the workers' eventfds, which stand in every table,
/// and what is reserved, or a quarter where the table is small.
fn room(table: usize, workers: usize) -> usize {
    table.saturating_sub(workers + DESCRIPTORS_RESERVED.min(table / 4))
}

/// What the fullest of `workers` will hold of that many connections, four standard deviations above the mean.
fn spread(connections: usize, workers: usize) -> usize {
    let mean = connections as f64 / workers as f64;
    if workers == 1 { connections } else { (mean + 4.0 * mean.sqrt()).ceil() as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(connections: usize, cores: usize, table: u64) -> Result<Plan, ConfigError> {
        Config { connections_max: Some(connections), ..Config::default() }.plan(cores, table)
    }

    #[test]
    fn workers_are_raised_until_the_fullest_fits_its_table() {
        for (connections, table) in
            [(1_000_000, 20_000), (2_000_000, 20_000), (110_000, 20_000), (10_000_000, 1_048_576), (100_000, 1024)]
        {
            let plan = plan(connections, 2, table).expect("fits");
            assert!(plan.raised);
            assert!(spread(connections, plan.workers) <= plan.slots && plan.slots + plan.workers < table as usize);
            assert!(
                spread(connections, plan.workers - 1) > room(table as usize, plan.workers - 1),
                "one fewer would do"
            );
        }
    }

    #[test]
    fn what_fits_is_left_alone() {
        let expected = Plan { workers: 2, slots: 1000, connections_max: 1000, raised: false };
        assert_eq!(plan(1000, 2, 20_000), Ok(expected));
        assert_eq!(Config::default().plan(2, 20_000).map(|plan| plan.connections_max), Ok(2 * (20_000 - 130)));
    }

    /// The listeners have it, and the times that it goes by.
    #[test]
    fn tcp_keepalive_stays_through_a_reload_and_is_a_fault_beside_a_new_proxy() {
        let running = Config { tcp_keepalive: true, listen: vec![Config::ADDRESS], ..Config::default() };
        let second = Duration::from_secs(1);
        let mut told =
            Config { ping_interval: second, write_timeout: second, head_timeout: second, ..Config::default() };
        assert_eq!(told.keep_of(&running), ["tcp_keepalive", "ping_interval", "write_timeout"]);
        assert_eq!((told.ping_interval, told.head_timeout), (running.ping_interval, second));
        assert!(told.faults().is_empty());
        let trusted = vec!["10.0.0.0/8".parse().expect("a network")];
        told.proxies = Proxies { trusted, protocol: true, header: None };
        assert_eq!(told.faults().iter().map(ConfigError::field).collect::<Vec<_>>(), ["tcp_keepalive"]);
    }

    #[test]
    fn what_cannot_be_is_said() {
        assert!(plan(1_000_000, 2, 64).is_err());
        assert!(Config { connections_max: Some(0), ..Config::default() }.rules().is_err());
        let shared = Config { connections_max: Some(30_000), shared_descriptors: true, ..Config::default() };
        assert!(shared.plan(2, 20_000).is_err_and(|error| error.to_string().contains("ulimit -n")));
        assert!(Config { workers: Some(0), ..Config::default() }.rules().is_err());
        assert!(Config { ping_interval: Duration::ZERO, ..Config::default() }.rules().is_err());
        assert!(Config { queue_bytes_max: Some(1), ..Config::default() }.rules().is_err());
        for compression in
            [Compression::default().level(0), Compression::default().level(10), Compression::default().context(8)]
        {
            assert!(Config { compression: Some(compression), ..Config::default() }.rules().is_err());
        }
        assert!(Config { message_bytes_max: usize::MAX, ..Config::default() }.rules().is_err());
    }

    #[test]
    fn what_one_address_may_have_is_a_part_of_all() {
        let per_address = |most, all| {
            let config = Config { connections_per_address_max: most, connections_max: all, ..Config::default() };
            config.per_address()
        };
        assert_eq!(per_address(None, Some(10)), Ok(None));
        assert_eq!(per_address(Some(10), Some(10)), Ok(Some(10)));
        assert_eq!(per_address(Some(65_535), None), Ok(Some(65_535)));
        for (most, all) in [(0, None), (65_536, None), (usize::MAX, None), (11, Some(10))] {
            let error = per_address(Some(most), all).expect_err("it cannot be").to_string();
            assert!(error.contains(&most.to_string()) && error.contains("leave it out"), "{error}");
        }
        assert!(Config { accept_rate: Some(0), ..Config::default() }.rules().is_err());
    }

    #[test]
    fn small_tables_keep_room_for_connections() {
        assert!(Config::default().plan(2, 64).is_ok_and(|plan| plan.slots > 40));
    }
}
