//! Stream sockets: just the calls the loops make, without a layer between.

use super::syscall;
use std::io;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A connected, non-blocking stream socket in the calling thread's descriptor table. Dropping closes it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// The number means nothing in another thread's table.
    not_send: PhantomData<*const ()>,
}

impl Socket {
    /// Wraps a descriptor that this thread opened: it must be a non-blocking stream socket.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, not_send: PhantomData }
    }

    /// Reads what is there (recv(2)): 0 is the peer's end of stream, `WouldBlock` an empty queue.
    #[inline]
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // The pointer and length are those of a live, exclusively borrowed slice.
        syscall!(recv(self.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)).map(|n| n as usize)
    }

    /// Writes what fits (send(2) with MSG_NOSIGNAL). A short count means that the socket is full and that
    /// an edge will tell when it no longer is: the kernel marks it as it stops.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        // The pointer and length are those of a live slice, which is only read.
        syscall!(send(self.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL)).map(|n| n as usize)
    }

    /// Ends our direction (shutdown(2)): the peer reads what was sent, then end of stream.
    pub fn shutdown_write(&self) -> io::Result<()> {
        // Takes no pointers.
        syscall!(shutdown(self.as_raw_fd(), libc::SHUT_WR)).map(drop)
    }

    /// Closes with a reset instead of an orderly end: what was not sent is thrown away, and no state stays
    /// in the kernel (socket(7), SO_LINGER of zero).
    pub fn reset(self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // Failing means an orderly close, which is the next best thing.
        let _ = self.set_option(libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    }

    fn set_option<T>(&self, level: i32, name: i32, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        // `value` is a live reference to `length` bytes, which are only read.
        syscall!(setsockopt(self.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)).map(drop)
    }

    /// The error that waits on the socket, if one does (socket(7), SO_ERROR).
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let (mut code, mut length) = (0_i32, size_of::<i32>() as libc::socklen_t);
        // Both pointers are valid for writing, `length` says how much.
        syscall!(getsockopt(
            self.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut code).cast(),
            &raw mut length
        ))?;
        Ok((code != 0).then(|| io::Error::from_raw_os_error(code)))
    }
}

impl AsRawFd for Socket {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// How a listener is set up. What can be set on it is inherited by the sockets it accepts.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
    pub backlog: i32,
    /// Bytes that may wait unsent in a socket before it counts as full (tcp(7), TCP_NOTSENT_LOWAT): what a
    /// peer that does not read can hold of the kernel's memory.
    pub unsent_bytes_max: u32,
    /// Whether the kernel looks after peers that are silent, and how.
    pub keepalive: Option<Keepalive>,
}

/// How the kernel finds out that a peer is gone (tcp(7)): it probes a connection on which nothing came for some time, and gives
/// it up (ETIMEDOUT) when the probes, or what was sent, stay without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe, in seconds (TCP_KEEPIDLE).
    pub idle_s: u16,
    /// From one probe to the next, in seconds (TCP_KEEPINTVL).
    pub interval_s: u16,
    /// Until the end, in milliseconds (TCP_USER_TIMEOUT): from the last sign of life where nothing was sent since, else from the
    /// first byte that was not acknowledged, or that the peer had no room for.
    pub timeout_ms: u32,
}

/// A listening socket of the calling thread: one of several on its address (SO_REUSEPORT), or one that several threads have
/// in common.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    is_shared: bool,
    not_send: PhantomData<*const ()>,
}

impl Listener {
    /// Binds and listens. Port 0 is any free port: [`local_addr`](Self::local_addr) says which.
    ///
    /// Set here and inherited by every accepted socket: TCP_NODELAY, TCP_NOTSENT_LOWAT, and what [`Keepalive`] needs. TCP_DEFER_ACCEPT lets
    /// `accept` return with the request already there; a silent client surfaces after a second. An IPv6
    /// address takes IPv6 only, so that `0.0.0.0` and `[::]` can stand side by side.
    pub fn bind(address: SocketAddr, options: ListenOptions) -> io::Result<Self> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking().cloexec(), None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_keepalive(options.keepalive.is_some())?;
        socket.bind(&address.into())?;
        let listener = Self { fd: socket.into(), is_shared: false, not_send: PhantomData };
        listener.set_option(libc::TCP_DEFER_ACCEPT, 1)?;
        listener.set_option(libc::TCP_NOTSENT_LOWAT, options.unsent_bytes_max as i32)?;
        if let Some(keepalive) = options.keepalive {
            listener.set_option(libc::TCP_KEEPIDLE, keepalive.idle_s.into())?;
            listener.set_option(libc::TCP_KEEPINTVL, keepalive.interval_s.into())?;
            listener.set_option(libc::TCP_USER_TIMEOUT, keepalive.timeout_ms as i32)?;
        }
        // Takes no pointers.
        syscall!(listen(listener.as_raw_fd(), options.backlog))?;
        Ok(listener)
    }

    /// A descriptor of this thread for a socket that others accept from as well: it must be a non-blocking stream socket that
    /// listens.
    pub fn shared(fd: OwnedFd) -> Self {
        Self { fd, is_shared: true, not_send: PhantomData }
    }

    /// Whether others accept from it as well.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Fails if somebody listens on `address` already, another server of several listeners included, beside which
    /// [`bind`](Self::bind) would succeed and take half of its clients.
    pub fn check_free(address: SocketAddr) -> io::Result<()> {
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM.cloexec(), None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(1)
    }

    fn set_option(&self, name: i32, value: i32) -> io::Result<()> {
        let length = size_of::<i32>() as libc::socklen_t;
        // `value` is a live i32, which is only read.
        syscall!(setsockopt(self.as_raw_fd(), libc::IPPROTO_TCP, name, (&raw const value).cast(), length)).map(drop)
    }

    /// Takes one connection (accept4(2)), non-blocking, and says who it is.
    #[inline]
    pub fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        // SAFETY: all-zero bytes are a valid sockaddr_storage.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // Both pointers are valid for writing; `length` says how much the address may take.
        let fd = syscall!(accept4(
            self.as_raw_fd(),
            (&raw mut storage).cast(),
            &raw mut length,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC
        ))?;
        // SAFETY: accept4 just gave us this descriptor; nobody else owns it.
        let socket = Socket::new(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok((socket, address_of(&storage)))
    }

    /// The address that it is bound to, with the port that was chosen.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        // SAFETY: all-zero bytes are a valid sockaddr_storage.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // Both pointers are valid for writing; `length` says how much.
        syscall!(getsockname(self.as_raw_fd(), (&raw mut storage).cast(), &raw mut length))?;
        Ok(address_of(&storage))
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The internet address in `storage`; the unspecified one for any other family.
fn address_of(storage: &libc::sockaddr_storage) -> SocketAddr {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in, and a storage is large and aligned
            // enough for every address.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            SocketAddr::from((ip, u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, a sockaddr_in6.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into()
        }
        _ => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
    }
}
