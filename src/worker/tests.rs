//! The real worker over a scripted kernel: what the loop does when the machine misbehaves.

#[cfg(feature = "centrifugo")]
mod emulation;
mod ends;
mod inspect;
mod limits;
mod polls;
mod proxies;

use super::*;
use crate::config::Config;
use crate::error::Violation;
use crate::mem::Mailbox;
use crate::metrics::Metrics;
use crate::service::{Accept, Connection, Decision, Message, Request};
use crate::sys::Wake;
use crate::topic::{Limits, TopicName};
use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const HELLO: &[u8] = b"\x81\x85\0\0\0\0hello";

#[derive(Debug)]
struct Echo;

impl Service for Echo {
    type State = ();

    fn open(&mut self, _: &Request<'_>) -> Decision<()> {
        Accept::new(()).into()
    }

    fn message(&mut self, connection: &mut Connection<'_, ()>, message: Message<'_>) {
        let _ = connection.send(message);
    }
}

/// One connection as both sides see it.
#[derive(Debug, Default)]
struct Wire {
    input: VecDeque<u8>,
    output: Vec<u8>,
    /// Bytes the socket still takes; `None` is any number.
    room: Option<usize>,
    /// What the next read meets when the input is used up.
    error: Option<ErrorKind>,
    token: Option<u64>,
    closed: bool,
}

type Shared_ = Rc<RefCell<Wire>>;

/// Dropping it closes it, like the real one.
#[derive(Debug)]
struct Socket(Shared_);

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.borrow_mut().closed = true;
    }
}

#[derive(Debug, Default)]
struct Script {
    now: u64,
    /// What accept gives, in this order; then it would block.
    accepts: VecDeque<Result<Shared_, i32>>,
    events: Vec<Event>,
    spare_released: usize,
    timeout: Option<Duration>,
}

#[derive(Debug, Clone, Default)]
struct Scripted(Rc<RefCell<Script>>);

impl Kernel for Scripted {
    type Socket = Socket;
    type Listener = ();

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let mut script = self.0.borrow_mut();
        script.timeout = timeout;
        events.append(&mut script.events);
        Ok(())
    }

    fn micros(&mut self) -> u64 {
        self.0.borrow().now * 1000
    }

    fn unix_ms(&mut self) -> u64 {
        784_111_777_000
    }

    fn register_listener(&mut self, (): &(), _: u64) -> io::Result<()> {
        Ok(())
    }

    fn register(&mut self, socket: &Socket, token: u64) -> io::Result<()> {
        socket.0.borrow_mut().token = Some(token);
        Ok(())
    }

    fn accept(&mut self, (): &()) -> io::Result<(Socket, SocketAddr)> {
        match self.0.borrow_mut().accepts.pop_front() {
            None => Err(ErrorKind::WouldBlock.into()),
            Some(Err(code)) => Err(io::Error::from_raw_os_error(code)),
            Some(Ok(wire)) => Ok((Socket(wire), ([127, 0, 0, 1], 1).into())),
        }
    }

    fn recv(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = socket.0.borrow_mut();
        assert!(!wire.closed);
        if wire.input.is_empty() {
            return match wire.error.unwrap_or(ErrorKind::WouldBlock) {
                ErrorKind::UnexpectedEof => Ok(0),
                error => Err(error.into()),
            };
        }
        let count = wire.input.len().min(buffer.len());
        buffer.iter_mut().zip(wire.input.drain(..count)).for_each(|(to, byte)| *to = byte);
        Ok(count)
    }

    fn send(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = socket.0.borrow_mut();
        assert!(!wire.closed);
        if let Some(error) = wire.error.filter(|&error| error == ErrorKind::ConnectionReset) {
            return Err(error.into());
        }
        let count = bytes.len().min(wire.room.unwrap_or(usize::MAX));
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        wire.room = wire.room.map(|room| room - count);
        wire.output.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn shutdown_write(&mut self, _: &Socket) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self, _: Socket) {}

    fn release_spare(&mut self) {
        self.0.borrow_mut().spare_released += 1;
    }

    fn restore_spare(&mut self) {}
}

struct Stage<S: Service = Echo> {
    worker: Worker<S, Scripted>,
    script: Rc<RefCell<Script>>,
}

impl Stage {
    fn new() -> Self {
        Self::with(Echo)
    }

    /// A client whose request is there when it is accepted.
    fn client(&mut self) -> Shared_ {
        self.client_with(HEAD)
    }
}

impl<S: Service> Stage<S> {
    fn with(service: S) -> Self {
        Self::set(service, &Config::default(), |shared| shared)
    }

    fn by(service: S, config: &Config) -> Self {
        Self::set(service, config, |shared| shared)
    }

    fn sharing(service: S, limited: impl FnOnce(Shared<S::State>) -> Shared<S::State>) -> Self {
        Self::set(service, &Config::default(), limited)
    }

    fn set(service: S, config: &Config, limited: impl FnOnce(Shared<S::State>) -> Shared<S::State>) -> Self {
        let kernel = Scripted::default();
        let script = Rc::clone(&kernel.0);
        let wake = Wake::new().expect("an eventfd");
        let live = Arc::new(Live::new(16));
        let port = Port { mailbox: Mailbox::default(), wake, live, metrics: Metrics::default() };
        let rules = config.rules().expect("the settings are right");
        let budget = config.memory.map(|memory| Budget::new(memory, rules.held_bytes_max(), 1));
        let setup = Setup {
            index: 0,
            slots: 16,
            rules,
            tick_interval: None,
            connection_age_max: None,
            seed: 1,
            origins: Arc::default(),
            retention: Retention::uniform(Limits { messages: 1000, bytes: 1 << 20, age_ms: 600_000 }, 86_400_000, 100),
            shared: Arc::new(limited(Shared::new(Box::new([port]), 16, 1, budget))),
        };
        Self { worker: Worker::new(kernel, service, setup, vec![()]).expect("it starts"), script }
    }

    fn turn(&mut self) {
        assert!(self.worker.turn().expect("the script does not fail"));
    }

    fn client_with(&mut self, request: &[u8]) -> Shared_ {
        let wire = Rc::new(RefCell::new(Wire { input: request.iter().copied().collect(), ..Wire::default() }));
        self.script.borrow_mut().accepts.push_back(Ok(Rc::clone(&wire)));
        self.connectable();
        wire
    }

    fn connectable(&mut self) {
        self.event(listener_token(0), |_| {});
    }

    fn event(&mut self, token: u64, change: impl FnOnce(&mut Event)) {
        let mut event = Event { token, readable: true, writable: true, read_closed: false, error: false };
        change(&mut event);
        self.script.borrow_mut().events.push(event);
    }

    fn say(&mut self, wire: &Shared_, bytes: &[u8]) {
        wire.borrow_mut().input.extend(bytes);
        let token = wire.borrow().token.expect("registered");
        self.event(token, |_| {});
    }

    fn metrics(&self) -> &Metrics {
        &self.worker.port().metrics
    }

    /// Nothing is left of anybody.
    fn assert_empty(&self) {
        assert_eq!((self.worker.table.len(), self.worker.wheel.len()), (0, 0));
        let metrics = self.metrics();
        assert_eq!((metrics.opening.read(), metrics.open(), metrics.closing.read()), (0, 0, 0));
        assert!(self.worker.output.is_empty());
    }
}

#[test]
fn a_deferred_request_is_answered_as_it_is_accepted() {
    let mut stage = Stage::new();
    let client = stage.client();
    stage.turn();
    assert!(client.borrow().output.starts_with(b"HTTP/1.1 101 "));
    stage.say(&client, HELLO);
    stage.turn();
    assert!(client.borrow().output.ends_with(b"\x81\x05hello"));
}

/// How many of them have been answered.
fn served(clients: &[Shared_]) -> usize {
    clients.iter().filter(|client| !client.borrow().output.is_empty()).count()
}

#[test]
fn who_comes_faster_than_the_accept_rate_waits_in_the_queue_and_the_loop_sleeps() {
    let mut stage = Stage::sharing(Echo, |shared| shared.accepting(None, Some(4)));
    let clients: Vec<_> = (0..12).map(|_| stage.client()).collect();
    stage.turn();
    assert_eq!(served(&clients), 4, "a second's worth at once");
    for more in 5..=12 {
        assert_eq!(stage.worker.timeout(), Some(Duration::from_millis(250)));
        // Another edge does not shorten the wait.
        stage.connectable();
        stage.script.borrow_mut().now += 249;
        stage.turn();
        assert_eq!((served(&clients), stage.worker.timeout()), (more - 1, Some(Duration::from_millis(1))));
        stage.script.borrow_mut().now += 1;
        stage.turn();
        assert_eq!(served(&clients), more, "the edge was kept");
    }
    assert_eq!(stage.metrics().accept_paused.read(), 9);
    // Nobody is left, which costs nothing of the rate, however often it is found.
    for _ in 0..20 {
        stage.script.borrow_mut().now += 250;
        stage.connectable();
        stage.turn();
        assert!(stage.worker.timeout().is_none_or(|timeout| timeout > Duration::from_secs(1)));
    }
    let more: Vec<_> = (0..4).map(|_| stage.client()).collect();
    stage.turn();
    assert_eq!(served(&more), 4);
}

#[test]
fn a_drain_does_not_leave_anybody_waiting_for_the_accept_rate() {
    let mut stage = Stage::sharing(Echo, |shared| shared.accepting(None, Some(1)));
    let clients: Vec<_> = (0..12).map(|_| stage.client()).collect();
    stage.turn();
    assert_eq!(served(&clients), 1);
    stage.worker.begin_drain(Duration::from_secs(1).into());
    stage.turn();
    stage.turn();
    assert_eq!(served(&clients), 12);
}

#[test]
fn a_stale_event_for_a_reused_slot_is_dropped() {
    let mut stage = Stage::new();
    let first = stage.client();
    stage.turn();
    let stale = first.borrow().token.expect("registered");
    // It resets; in the same batch the listener has the next one, which gets the same slot, and then the kernel has
    // one more event of the first.
    first.borrow_mut().error = Some(ErrorKind::ConnectionReset);
    stage.event(stale, |event| event.error = true);
    stage.turn();
    assert!(first.borrow().closed);
    let second = stage.client();
    stage.event(stale, |event| event.error = true);
    stage.turn();
    let fresh = second.borrow().token.expect("registered");
    assert_eq!(stale >> SERIAL_BITS, fresh >> SERIAL_BITS, "the slot is the same");
    assert!(!second.borrow().closed);
    assert_eq!(stage.metrics().stale_events.read(), 1);
}

#[test]
fn a_full_table_neither_spins_nor_loses_the_listener() {
    let mut stage = Stage::new();
    const EMFILE: i32 = 24;
    let told = Rc::new(RefCell::new(Wire { input: HEAD.iter().copied().collect(), ..Wire::default() }));
    stage.script.borrow_mut().accepts.extend([Err(EMFILE), Ok(Rc::clone(&told))]);
    let waiting = stage.client(); // behind them in the queue; its edge is the last there will be
    stage.turn();
    assert!(told.borrow().output.starts_with(b"HTTP/1.1 503 ") && told.borrow().closed);
    assert_eq!(stage.script.borrow().spare_released, 1);
    stage.turn();
    let timeout = stage.script.borrow().timeout.expect("it does not sleep for ever");
    assert!(timeout > Duration::from_millis(50) && timeout <= Duration::from_secs(1), "{timeout:?}");
    assert!(waiting.borrow().output.is_empty());
    stage.script.borrow_mut().now += 200;
    stage.turn();
    stage.turn();
    assert!(waiting.borrow().output.starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn a_client_that_gave_up_in_the_queue_does_not_stop_the_others() {
    let mut stage = Stage::new();
    const ECONNABORTED: i32 = 103;
    stage.script.borrow_mut().accepts.push_back(Err(ECONNABORTED));
    let client = stage.client();
    stage.turn();
    assert!(client.borrow().output.starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn whoever_comes_when_all_slots_are_taken_is_told() {
    let mut stage = Stage::new();
    let taken: Vec<_> = (0..16).map(|_| stage.client()).collect();
    let late: Vec<_> = (0..crate::limits::REFUSALS_MAX + 5).map(|_| stage.client()).collect();
    stage.turn();
    stage.turn();
    assert!(taken.iter().all(|client| client.borrow().output.starts_with(b"HTTP/1.1 101 ")));
    assert!(late.iter().all(|client| client.borrow().output.starts_with(b"HTTP/1.1 503 ")));
    // With care: not closed before it has ended, so that it reads the answer. The last five just as well as can be.
    assert_eq!(late.iter().filter(|client| client.borrow().closed).count(), 5);
    for gone in late.iter().filter(|client| !client.borrow().closed).chain([&taken[3]]) {
        gone.borrow_mut().error = Some(ErrorKind::UnexpectedEof);
        let token = gone.borrow().token.expect("registered");
        stage.event(token, |event| event.read_closed = true);
    }
    // A few of them a turn.
    (0..late.len()).for_each(|_| stage.turn());
    let next = stage.client();
    stage.turn();
    assert!(next.borrow().output.starts_with(b"HTTP/1.1 101 "));
    assert_eq!(stage.worker.table.len(), 16);
}

#[test]
fn those_who_stay_do_not_wait_for_all_who_go() {
    let mut stage = Stage::new();
    let clients: Vec<_> = (0..16).map(|_| stage.client()).collect();
    stage.turn();
    let [stays, gone @ ..] = &clients[..] else { unreachable!() };
    for gone in gone {
        gone.borrow_mut().error = Some(ErrorKind::UnexpectedEof);
        let token = gone.borrow().token.expect("registered");
        stage.event(token, |event| event.read_closed = true);
    }
    let mut frame = Vec::new();
    crate::ws::encode_masked(&mut frame, crate::ws::Opcode::Text, b"behind them", [0; 4]);
    stays.borrow_mut().input.extend(frame);
    stays.borrow_mut().output.clear();
    let token = stays.borrow().token.expect("registered");
    stage.event(token, |event| event.readable = true);
    stage.turn();
    assert!(stays.borrow().output.ends_with(b"behind them"), "it is answered in the same turn");
    assert_eq!(stage.worker.table.len(), 16 - crate::limits::ENDS_PER_TURN);
    (0..gone.len()).for_each(|_| stage.turn());
    assert_eq!((stage.worker.table.len(), stage.worker.ended.capacity()), (1, 0));
}

#[test]
fn a_flood_on_the_list_twice_is_read_once() {
    let mut stage = Stage::new();
    let flood = stage.client();
    stage.turn();
    // An event in every turn, beside the list's own.
    for turn in 1..=10 {
        stage.say(&flood, &b"\x81\x80\0\0\0\0".repeat(100_000));
        let before = flood.borrow().input.len();
        stage.turn();
        assert!(before - flood.borrow().input.len() <= 2 * SCRATCH_BYTES, "turn {turn}");
    }
}

#[test]
fn data_and_end_in_one_event_are_both_seen() {
    let mut stage = Stage::new();
    let client = stage.client();
    stage.turn();
    client.borrow_mut().error = Some(ErrorKind::UnexpectedEof);
    client.borrow_mut().input.extend(HELLO);
    let token = client.borrow().token.expect("registered");
    stage.event(token, |event| event.read_closed = true);
    stage.turn();
    assert!(client.borrow().output.ends_with(b"\x81\x05hello") && client.borrow().closed);
    stage.assert_empty();
}

#[test]
fn a_peer_that_vanishes_mid_write_frees_everything() {
    let mut stage = Stage::new();
    let client = stage.client();
    stage.turn();
    client.borrow_mut().room = Some(3);
    stage.say(&client, HELLO);
    stage.turn();
    assert!(client.borrow().output.ends_with(b"\x81\x05h"));
    client.borrow_mut().error = Some(ErrorKind::ConnectionReset);
    let token = client.borrow().token.expect("registered");
    stage.event(token, |event| (event.error, event.writable) = (true, false));
    stage.turn();
    assert!(client.borrow().closed);
    stage.assert_empty();
}

#[test]
fn what_a_full_socket_left_over_follows_when_it_takes_more() {
    let mut stage = Stage::new();
    let client = stage.client();
    stage.turn();
    let answer = client.borrow().output.len();
    client.borrow_mut().room = Some(0);
    stage.say(&client, HELLO);
    stage.turn();
    for _ in 0..7 {
        client.borrow_mut().room = Some(1);
        let token = client.borrow().token.expect("registered");
        stage.event(token, |event| event.readable = false);
        stage.turn();
    }
    assert_eq!(&client.borrow().output[answer..], b"\x81\x05hello");
}

/// Many connections in one turn, each saying something else: some of it is put aside to be sent together, some ends
/// that, some connections end.
#[test]
fn what_one_says_never_reaches_another() {
    let mut stage = Stage::new();
    let clients: Vec<_> = (0..16).map(|_| stage.client()).collect();
    stage.turn();
    let before: Vec<_> = clients.iter().map(|client| client.borrow().output.len()).collect();
    let mut rng = Rng::new(3);
    let mut expected = vec![Vec::new(); clients.len()];
    let mut gone = [false; 16];
    for _ in 0..200 {
        for (index, client) in clients.iter().enumerate() {
            if gone[index] || rng.below(3) == 0 {
                continue;
            }
            let length = [1, 5, 100, 5000, 20_000][rng.below(5) as usize];
            let mut frame = Vec::new();
            crate::ws::encode_masked(&mut frame, crate::ws::Opcode::Binary, &vec![index as u8; length], [1, 2, 3, 4]);
            crate::ws::encode(&mut expected[index], crate::ws::Opcode::Binary, &vec![index as u8; length]);
            if rng.below(50) == 0 {
                crate::ws::encode_masked(&mut frame, crate::ws::Opcode::Close, &[], [1, 2, 3, 4]);
                crate::ws::encode_close(&mut expected[index], None, "");
                gone[index] = true;
            }
            // Now and then it takes only a part, and the rest when it is said to take more.
            client.borrow_mut().room = (rng.below(4) == 0).then(|| rng.below(3000) as usize);
            stage.say(client, &frame);
        }
        stage.turn();
        for (index, client) in clients.iter().enumerate() {
            client.borrow_mut().room = None;
            let token = client.borrow().token.expect("registered");
            if !client.borrow().closed {
                stage.event(token, |event| event.readable = false);
            }
            assert!(expected[index].starts_with(&client.borrow().output[before[index]..]), "client {index}");
        }
        stage.turn();
    }
    for (index, client) in clients.iter().enumerate() {
        assert!(client.borrow().output[before[index]..] == expected[index][..], "client {index}");
        assert_eq!(client.borrow().closed, gone[index]);
    }
    assert!(gone.contains(&true) && gone.contains(&false));
}

#[test]
fn a_flood_is_read_a_scratch_at_a_time() {
    let mut stage = Stage::new();
    let (flood, other) = (stage.client(), stage.client());
    stage.turn();
    stage.say(&flood, &b"\x81\x80\0\0\0\0".repeat(100_000));
    stage.say(&other, HELLO);
    stage.turn();
    assert!(other.borrow().output.ends_with(b"\x81\x05hello"), "served in the same turn");
    assert_eq!(flood.borrow().input.len(), 600_000 - SCRATCH_BYTES);
    for _ in 0..600_000 / SCRATCH_BYTES {
        stage.turn();
        assert_eq!(stage.script.borrow().timeout, Some(Duration::ZERO), "no edge will tell of the rest");
    }
    assert!(flood.borrow().input.is_empty());
    assert_eq!(stage.metrics().messages_in.read(), 100_001);
}

#[test]
fn the_loop_sleeps_again_once_its_mailbox_is_empty() {
    let mut scene = Stage::new();
    let nobody = crate::service::ConnId { worker: 0, slot: 3, serial: 77 };
    scene.worker.port().post(Envelope::Close { id: nobody, code: 1000, reason: "".into() });
    scene.event(MAIL_TOKEN, |_| {});
    scene.turn();
    assert_eq!(scene.worker.timeout(), None, "nothing is left to do");
}
