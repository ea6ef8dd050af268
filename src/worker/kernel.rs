//! The seam between the loop and the machine: poller, network, clock and descriptors in one, since a simulation
//! of them needs one truth for all. The loop is generic over it; nothing is called through a pointer.

use crate::sys::{self, Listener, Socket, Wake};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

/// What a socket has to say, edge-triggered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) token: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer's direction has ended: data and end come as one event, and no edge follows.
    pub(crate) read_closed: bool,
    /// Reset, or another error: nothing goes either way.
    pub(crate) error: bool,
}

/// What the loop asks of the machine. Errors are the kernel's own.
pub(crate) trait Kernel {
    type Socket;
    type Listener;

    /// Waits until something happens or `timeout` is over (`None`: for ever), and appends what did to `events`.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;
    /// The time, which does not go back, in microseconds since the server started.
    fn micros(&mut self) -> u64;
    /// The time of day, in milliseconds since 1970.
    fn unix_ms(&mut self) -> u64;
    /// Reports a listener's readiness under `token`; one that is shared to one of those who wait.
    fn register_listener(&mut self, listener: &Self::Listener, token: u64) -> io::Result<()>;
    /// Reports a socket's readiness, both directions, under `token`, until it is closed.
    fn register(&mut self, socket: &Self::Socket, token: u64) -> io::Result<()>;
    /// Whether other workers accept from the same listener.
    fn is_shared(&self, listener: &Self::Listener) -> bool {
        let _ = listener;
        false
    }
    /// The unspecified address stands for a peer without one.
    fn accept(&mut self, listener: &Self::Listener) -> io::Result<(Self::Socket, SocketAddr)>;
    fn recv(&mut self, socket: &Self::Socket, buffer: &mut [u8]) -> io::Result<usize>;
    fn send(&mut self, socket: &Self::Socket, bytes: &[u8]) -> io::Result<usize>;
    fn shutdown_write(&mut self, socket: &Self::Socket) -> io::Result<()>;
    /// Closes with a reset. Dropping closes in order.
    fn reset(&mut self, socket: Self::Socket);
    /// Gives up the descriptor kept for the day when there are no more, and tries to get it back.
    fn release_spare(&mut self);
    fn restore_spare(&mut self);
}

/// The machine itself: mio's epoll and the calling thread's descriptor table.
#[derive(Debug)]
pub(crate) struct Machine {
    poll: mio::Poll,
    events: mio::Events,
    started: Instant,
    spare: Option<OwnedFd>,
}

impl Machine {
    /// Belongs to the calling thread. Wakeups of `wake` are reported under `token`; times count from `started`.
    pub(crate) fn new(wake: Wake, token: u64, started: Instant) -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        poll.registry().register(&mut SourceFd(&wake.as_raw_fd()), Token(token as usize), Interest::READABLE)?;
        let events = mio::Events::with_capacity(crate::limits::EVENTS_PER_TURN);
        Ok(Self { poll, events, started, spare: sys::reserve_descriptor().ok() })
    }
}

impl Kernel for Machine {
    type Socket = Socket;
    type Listener = Listener;

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        events.extend(self.events.iter().map(|event| Event {
            token: event.token().0 as u64,
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            error: event.is_error(),
        }));
        Ok(())
    }

    fn micros(&mut self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn unix_ms(&mut self) -> u64 {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn register_listener(&mut self, listener: &Listener, token: u64) -> io::Result<()> {
        if listener.is_shared() {
            return sys::watch_exclusively(&self.poll, listener, token);
        }
        self.poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), Token(token as usize), Interest::READABLE)
    }

    fn register(&mut self, socket: &Socket, token: u64) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(token as usize), both)
    }

    fn is_shared(&self, listener: &Listener) -> bool {
        listener.is_shared()
    }

    fn accept(&mut self, listener: &Listener) -> io::Result<(Socket, SocketAddr)> {
        listener.accept()
    }

    fn recv(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        socket.recv(buffer)
    }

    fn send(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        socket.send(bytes)
    }

    fn shutdown_write(&mut self, socket: &Socket) -> io::Result<()> {
        socket.shutdown_write()
    }

    fn reset(&mut self, socket: Socket) {
        socket.reset();
    }

    fn release_spare(&mut self) {
        self.spare = None;
    }

    fn restore_spare(&mut self) {
        if self.spare.is_none() {
            self.spare = sys::reserve_descriptor().ok();
        }
    }
}
