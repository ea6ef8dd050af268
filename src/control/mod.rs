//! The admin port: metrics, who is there, what topics there are, why somebody was disconnected, disconnecting, and taps.
//!
//! It is a small server of its own, with one worker and this service: a user of the library like any other, so that there is
//! no second HTTP stack. What it asks of the data workers goes through their mailboxes ([`Quest`]), is worked off there in
//! slices, and comes back by a channel; meanwhile this one thread waits, which serves nobody else.
//!
//! ```text
//!   operator --> admin worker --Envelope::Inspect--> data workers, a slice a turn
//!                     ^                                   |
//!                     +------- channel, or a Tap ---------+
//! ```
//!
//! The data server is started first: then the admin worker's table holds the data workers' eventfds, and it can ring them.
//! They cannot ring it, and need not: it waits, or looks by itself every few milliseconds while somebody taps.

mod access;
mod closes;
mod connections;
mod explain;
mod params;
mod tap;
mod text;
mod topics;

use crate::error::Refused;
use crate::http::Response;
use crate::limits::INSPECT_WAIT_MS;
use crate::server::{Handle, Running, Server, StartError};
use crate::service::{Answer, ApiKey, Close, ConnId, Connection, Decision, Message, Request, Service};
use crate::worker::{Found, Quest};
use access::Access;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const INDEX: &str = "\
GET    /healthz                    alive
GET    /readyz                     may be sent clients
GET    /metrics                    Prometheus's text format; ?workers: each worker's, too
GET    /connections                who is there; ?sort=queued|lag|age &limit=N &user= &topic= &address= &transport= &id=
DELETE /connections/ID             disconnects one; ?code=N &reason=TEXT
DELETE /connections?user=NAME      disconnects all of them; or by topic, address, transport
GET    /topics                     what topics there are; ?sort=subscribers|messages|bytes &limit=N &prefix= &name=
GET    /closes                     why somebody was disconnected or refused; ?id= &user= &address= &reason= &limit=N
GET    /tap                        a WebSocket with frames; ?id= or &user= or &topic=, &payload &seconds=N
Lists are JSON, or with ?format=text a table.
";

/// The admin port of a server: see `docs/operations.md`.
///
/// ```no_run
/// # use throng::*;
/// # fn example<S: Service>(server: &Running<S::State>) -> Result<(), StartError> {
/// let admin = Control::new(server.handle()).start("127.0.0.1:8081".parse().expect("an address"))?;
/// println!("curl http://{}/connections", admin.addresses()[0]);
/// # Ok(())
/// # }
/// ```
#[must_use = "it listens once it is started"]
pub struct Control<T> {
    handle: Handle<T>,
    key: Option<ApiKey>,
}

impl<T> fmt::Debug for Control<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Control<T> {
    /// The admin port of that server, which runs already: it has to be started first.
    pub fn new(handle: Handle<T>) -> Self {
        Self { handle, key: None }
    }

    /// Takes only requests with this key, as `X-API-Key: KEY` or `Authorization: apikey KEY`; `/healthz` and `/readyz` need none.
    /// An empty key is none. Without one only loopback addresses can be listened on, and only their names count as `Host`.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        let key = key.into();
        self.key = (!key.is_empty()).then(|| ApiKey::new(key));
        self
    }

    /// Starts it. It ends when it is told to by its own handle, as any server.
    ///
    /// # Errors
    ///
    /// As [`Server::start`]; an address beyond loopback without a key is a setting that cannot be.
    pub fn start(self, address: SocketAddr) -> Result<Running<Watcher>, StartError> {
        let access = Access::new(self.key, address)?;
        let desk = Arc::new(Desk { handle: self.handle, access });
        let server = Server::new().listen(address).workers(1).connections_max(CONNECTIONS_MAX).topics_max(1);
        server.idle_timeout(IDLE).start(move |_| Admin(Arc::clone(&desk)))
    }
}

/// Operators, their tools and probes; each is a descriptor.
const CONNECTIONS_MAX: usize = 128;

/// How long a connection is kept for another request: whoever comes again later connects again, and nobody takes the room of
/// probes by doing nothing.
const IDLE: Duration = Duration::from_secs(5);

/// What the service has at hand.
struct Desk<T> {
    handle: Handle<T>,
    access: Access,
}

struct Admin<T>(Arc<Desk<T>>);

/// Somebody who taps.
#[derive(Debug)]
pub struct Watcher(tap::Watch);

/// What the workers said.
struct Asked {
    found: Vec<(u16, Found)>,
    /// Those that did not answer in time.
    silent: Vec<u16>,
}

impl<T> Desk<T> {
    /// Asks all workers, or the one, and waits for their answers; not for ever.
    fn ask(&self, quest: Quest, only: Option<u16>) -> Asked {
        let (quest, (answer, answers)) = (Arc::new(quest), channel());
        let mut silent: Vec<u16> =
            (0..self.handle.workers() as u16).filter(|at| only.is_none_or(|only| only == *at)).collect();
        for &worker in &silent {
            self.handle.inspect(worker, Arc::clone(&quest), answer.clone());
        }
        drop(answer);
        let (until, mut found) = (Instant::now() + Duration::from_millis(INSPECT_WAIT_MS), Vec::new());
        while !silent.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let Ok((worker, answer)) = answers.recv_timeout(left) else { break };
            silent.retain(|&other| other != worker);
            found.push((worker, answer));
        }
        found.sort_by_key(|(worker, _)| *worker);
        Asked { found, silent }
    }
}

impl<T: Send + 'static> Admin<T> {
    fn answer(&self, request: &Request<'_>) -> Result<Response, Response> {
        let desk = &*self.0;
        let is_read = matches!(request.method(), "GET" | "HEAD");
        let probe = matches!(request.path(), "/healthz" | "/readyz");
        desk.access.check(request, probe)?;
        match request.path() {
            "/healthz" if is_read => Ok(plain("ok\n")),
            "/readyz" if is_read && desk.handle.is_ready() => Ok(plain("ready\n")),
            // No refusal: it is a right answer to a good question, and no line of the log.
            "/readyz" if is_read => {
                Err(Response::new(503)
                    .body("text/plain; charset=utf-8", "this server is about to end: send nobody here\n"))
            }
            "/metrics" if is_read => {
                let by_worker = params::Params::read(request, &["workers"])?.has("workers");
                let text = if by_worker { desk.handle.metrics_by_worker() } else { desk.handle.metrics() };
                Ok(Response::new(200).body("text/plain; version=0.0.4; charset=utf-8", text))
            }
            "/" if is_read => Ok(plain(INDEX)),
            "/connections" if is_read => connections::list(desk, request),
            "/connections" if request.method() == "DELETE" => connections::dismiss(desk, request, None),
            path if path.starts_with("/connections/") && request.method() == "DELETE" => {
                connections::dismiss(desk, request, Some(&path["/connections/".len()..]))
            }
            "/topics" if is_read => topics::list(desk, request),
            "/closes" if is_read => closes::list(desk, request),
            "/tap" if is_read => Err(Refused::UpgradeRequired.into()),
            path if path == "/connections" || path.starts_with("/connections/") => {
                Err(method("GET, HEAD, DELETE", "read this with GET, or disconnect with DELETE"))
            }
            "/" | "/healthz" | "/readyz" | "/metrics" | "/topics" | "/closes" | "/tap" => {
                Err(method("GET, HEAD", "this can only be read: use GET"))
            }
            _ => Err(Response::refuse(404, "there is nothing here: GET / lists what there is")),
        }
    }
}

fn plain(text: &'static str) -> Response {
    Response::new(200).body("text/plain; charset=utf-8", text)
}

fn method(allow: &'static str, detail: &str) -> Response {
    Response::refuse(405, detail).header("Allow", allow)
}

impl<T: Send + 'static> Service for Admin<T> {
    type State = Watcher;

    fn open(&mut self, request: &Request<'_>) -> Decision<Watcher> {
        match self.0.access.check(request, false).and_then(|()| tap::open(&self.0, request)) {
            Ok(accept) => accept.into(),
            Err(refusal) => refusal.into(),
        }
    }

    fn ready(&mut self, connection: &mut Connection<'_, Watcher>) {
        tap::ready(connection);
    }

    fn woken(&mut self, connection: &mut Connection<'_, Watcher>) {
        tap::look(connection);
    }

    fn message(&mut self, _: &mut Connection<'_, Watcher>, _: Message<'_>) {}

    fn close(&mut self, _: ConnId, state: Watcher, _: &Close<'_>) {
        state.0.end();
    }

    fn request(&mut self, request: &Request<'_>) -> Answer {
        // There is little room, so that whoever is refused does not stay in it.
        let response = self.answer(request).unwrap_or_else(Response::last);
        response.header("Cache-Control", "no-store").header("X-Content-Type-Options", "nosniff").into()
    }
}
