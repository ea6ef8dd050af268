//! The calling side of a connection, and the clock that tells when to call: what the load generator needs.

use super::{Socket, syscall};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// A socket address in the shape the kernel wants it, made once and used for every call.
#[derive(Clone, Debug)]
pub struct Address {
    raw: socket2::SockAddr,
    family: i32,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        Self { raw: address.into(), family }
    }
}

/// What a calling socket is given before it connects.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectOptions {
    /// Small messages leave at once although earlier ones are unacknowledged (tcp(7), TCP_NODELAY).
    pub nodelay: bool,
    /// The caller speaks first, so the handshake's last acknowledgement may travel with its first bytes: one
    /// packet less (tcp(7), TCP_QUICKACK of 0: the kernel then acknowledges with data).
    pub speaks_first: bool,
}

impl Socket {
    /// Starts to connect (connect(2)), from `source` if there is one, and does not wait: the socket becomes
    /// writable when it is through, [`take_error`](Self::take_error) says whether it failed. To a loopback
    /// address it mostly is through when this returns.
    ///
    /// The source's port should be 0: it is chosen by connect(2), for the pair of addresses, so that one
    /// source has as many as there are ports for every target (ip(7), IP_BIND_ADDRESS_NO_PORT).
    #[inline]
    pub fn connect(source: Option<&Address>, target: &Address, options: ConnectOptions) -> io::Result<Self> {
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Takes no pointers.
        let fd = syscall!(socket(target.family, kind, 0))?;
        // SAFETY: socket(2) just gave us this descriptor; nobody else owns it.
        let socket = Self::new(unsafe { OwnedFd::from_raw_fd(fd) });
        if let Some(source) = source {
            // The option's level is IP for both families.
            set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1)?;
            // The address is valid for the length that it says.
            syscall!(bind(fd, source.raw.as_ptr().cast(), source.raw.len()))?;
        }
        if options.nodelay {
            set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
        }
        if options.speaks_first {
            set_option(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, &0)?;
        }
        // As above.
        match syscall!(connect(fd, target.raw.as_ptr().cast(), target.raw.len())) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(socket),
        }
    }
}

/// Sets an option that is a number (setsockopt(2)).
fn set_option(fd: RawFd, level: i32, name: i32, value: &i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // `value` is a live i32, which is only read.
    syscall!(setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), length)).map(drop)
}

/// A descriptor of the calling thread that becomes readable at a moment (timerfd_create(2)): to the
/// microsecond, where a poller's own timeout counts in milliseconds.
#[derive(Debug)]
pub struct Alarm {
    fd: OwnedFd,
}

impl Alarm {
    /// An alarm that is not set, on the monotonic clock.
    pub fn new() -> io::Result<Self> {
        // Takes no pointers.
        let fd = syscall!(timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC))?;
        // SAFETY: timerfd_create(2) just gave us this descriptor; nobody else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Sets it to go off once, `after` from now. Registered edge-triggered, it need not be read.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        // Zero would unset it.
        let after = after.max(Duration::from_nanos(1));
        let it_value = libc::timespec {
            tv_sec: after.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(after.subsec_nanos()),
        };
        let setting = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        // `setting` is only read; null says that the old one is not wanted.
        syscall!(timerfd_settime(self.fd.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut())).map(drop)
    }
}

impl AsRawFd for Alarm {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn a_call_comes_from_the_address_it_was_given() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Address::from(listener.local_addr().unwrap());
        let source = Address::from("127.3.2.1:0".parse::<SocketAddr>().unwrap());
        let options = ConnectOptions { nodelay: true, speaks_first: true };
        let socket = Socket::connect(Some(&source), &target, options).unwrap();
        let (mut peer, from) = listener.accept().unwrap();
        assert_eq!(from.ip().to_string(), "127.3.2.1");
        assert_eq!(socket.take_error().unwrap().map(|error| error.to_string()), None);
        assert_eq!(socket.send(b"hello").unwrap(), 5);
        drop(socket);
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_call_that_nobody_takes_fails_at_once_or_says_so_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Address::from(listener.local_addr().unwrap());
        drop(listener);
        let error = match Socket::connect(None, &target, ConnectOptions::default()) {
            Ok(socket) => socket.take_error().unwrap().expect("an error waits"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
