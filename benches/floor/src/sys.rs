//! Every system call of this program. A descriptor is a plain number here: the loops own theirs by
//! keeping count of nothing, as a bare C loop would. Failure is `io::Error` with the errno.

use std::io;
use std::mem::size_of_val;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::RawFd;

use libc::{c_int, c_void, epoll_event, sockaddr_in, socklen_t};

const BACKLOG: c_int = 4096;

/// Ends this process by SIGALRM.
pub(crate) fn exit_after(seconds: u32) {
    // SAFETY: no pointers.
    unsafe { libc::alarm(seconds) };
}

/// A non-blocking listener; says where on stderr, which is how a script knows that it is ready.
///
/// With `defer` the options that children inherit are set here, once, and a connection surfaces
/// together with its first bytes (or a second later without).
pub(crate) fn listen(addr: SocketAddrV4, defer: bool) -> io::Result<RawFd> {
    // SAFETY: no pointers.
    let fd =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })?;
    if defer {
        set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1)?;
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &1)?;
    }
    bind(fd, addr)?;
    // SAFETY: no pointers.
    check(unsafe { libc::listen(fd, BACKLOG) })?;

    let mut bound = sockaddr(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let mut len = size_of_val(&bound) as socklen_t;
    // SAFETY: both point at locals, and `len` says how large the first is.
    check(unsafe { libc::getsockname(fd, (&raw mut bound).cast(), &raw mut len) })?;
    let ip = Ipv4Addr::from(u32::from_be(bound.sin_addr.s_addr));
    eprintln!("listening on {ip}:{}", u16::from_be(bound.sin_port));
    Ok(fd)
}

/// The next connection, non-blocking; `None` when the backlog is empty.
pub(crate) fn accept(listener: RawFd) -> io::Result<Option<RawFd>> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null says that the peer's address is not wanted.
    let result = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    match check(result) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn set_nodelay(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)
}

pub(crate) fn set_send_buffer(fd: RawFd, bytes: c_int) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes)
}

/// A connected socket from the source address given. Blocks for the SYN's way there and back, which
/// on loopback happens inside the call.
pub(crate) fn connect(source: Ipv4Addr, target: SocketAddrV4) -> io::Result<RawFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // The port is chosen by connect, for the pair of addresses: cheaper, and it may be shared.
    set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1)?;
    bind(fd, SocketAddrV4::new(source, 0))?;
    let target = sockaddr(target);
    // SAFETY: points at a local of the length given.
    check(unsafe { libc::connect(fd, (&raw const target).cast(), size_of_val(&target) as socklen_t) })?;
    Ok(fd)
}

/// Bytes read; 0 at the end. Never blocks.
pub(crate) fn recv(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is writable for its length.
    let read = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Sends all of `bytes` or fails: nothing here is ever as large as a socket's buffer.
pub(crate) fn send(fd: RawFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: `bytes` is readable for its length.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    match usize::try_from(sent) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

pub(crate) fn close(fd: RawFd) {
    // SAFETY: no pointers. That nobody uses the number afterwards is the caller's to see to; here
    // each number lives in one loop.
    unsafe { libc::close(fd) };
}

/// Closes by a reset: leaves no TIME_WAIT behind that the next run would have to search past.
pub(crate) fn reset(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    close(fd);
    Ok(())
}

/// CPU time that all threads of a process have used, those that ended included, in nanoseconds.
/// Exact where /proc counts in ticks, and it includes the slice that is running.
pub(crate) fn cpu_ns(pid: u32) -> io::Result<u64> {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: points at a local.
    let errno = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
    }
    // SAFETY: points at a local.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// An epoll instance and room for a batch of its events.
pub(crate) struct Epoll {
    fd: RawFd,
    events: Vec<epoll_event>,
}

/// What `add` was told, and what happened (`EPOLLIN`...).
pub(crate) struct Event {
    pub(crate) token: usize,
    pub(crate) flags: c_int,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Epoll { fd, events: vec![epoll_event { events: 0, u64: 0 }; 1024] })
    }

    pub(crate) fn add(&self, fd: RawFd, flags: c_int, token: usize) -> io::Result<()> {
        let mut event = epoll_event { events: flags as u32, u64: token as u64 };
        // SAFETY: points at a local, which the kernel copies.
        check(unsafe { libc::epoll_ctl(self.fd, libc::EPOLL_CTL_ADD, fd, &raw mut event) })?;
        Ok(())
    }

    /// Waits for events, at most `timeout_ms` (-1: for ever), and returns how many there are.
    pub(crate) fn wait(&mut self, timeout_ms: c_int) -> io::Result<usize> {
        loop {
            // SAFETY: `events` is writable for its length.
            let count = check(unsafe {
                libc::epoll_wait(self.fd, self.events.as_mut_ptr(), self.events.len() as c_int, timeout_ms)
            });
            match count {
                Ok(count) => return Ok(count as usize),
                // A tracer that attaches is enough for this (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Event `index` of those that `wait` has counted.
    pub(crate) fn event(&self, index: usize) -> Event {
        let event = self.events[index];
        Event { token: event.u64 as usize, flags: event.events as c_int }
    }
}

fn bind(fd: RawFd, addr: SocketAddrV4) -> io::Result<()> {
    let addr = sockaddr(addr);
    // SAFETY: points at a local of the length given.
    check(unsafe { libc::bind(fd, (&raw const addr).cast(), size_of_val(&addr) as socklen_t) })?;
    Ok(())
}

fn set_option<T>(fd: RawFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let pointer = std::ptr::from_ref(value).cast::<c_void>();
    // SAFETY: points at a value of the length given.
    check(unsafe { libc::setsockopt(fd, level, name, pointer, size_of_val(value) as socklen_t) })?;
    Ok(())
}

fn sockaddr(addr: SocketAddrV4) -> sockaddr_in {
    sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: addr.port().to_be(),
        sin_addr: libc::in_addr { s_addr: addr.ip().to_bits().to_be() },
        sin_zero: [0; 8],
    }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
