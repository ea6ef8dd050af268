//! The floor of a broadcast: one plain send to each.

use std::io;
use std::net::SocketAddrV4;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{sys, wire};

const PERIOD: Duration = Duration::from_secs(1);

/// Accepts `connections`, then sends each of them a frame every second, in the order in which they
/// came. The first that cannot take it ends this: the client has seen enough.
pub(crate) fn run(listen: SocketAddrV4, connections: usize) -> io::Result<()> {
    let listener = sys::listen(listen, true)?;
    let mut epoll = sys::Epoll::new()?;
    epoll.add(listener, libc::EPOLLIN, listener as usize)?;
    let mut subscribers = Vec::with_capacity(connections);
    let mut scratch = [0; 4096];
    while subscribers.len() < connections {
        for index in 0..epoll.wait(-1)? {
            let fd = epoll.event(index).token as i32;
            if fd != listener {
                sys::recv(fd, &mut scratch)?;
                sys::send(fd, wire::SWITCHING)?;
                subscribers.push(fd);
                continue;
            }
            while let Some(fd) = sys::accept(listener)? {
                epoll.add(fd, libc::EPOLLIN, fd as usize)?;
            }
        }
    }
    let mut due = Instant::now();
    loop {
        due += PERIOD;
        sleep(due.saturating_duration_since(Instant::now()));
        for &fd in &subscribers {
            if sys::send(fd, &wire::FRAME).is_err() {
                return Ok(());
            }
        }
    }
}
