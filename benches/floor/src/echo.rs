//! The floor of an echo: epoll_wait, recv, send.

use std::io;
use std::net::SocketAddrV4;

use libc::{EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP};

use crate::{sys, wire};

/// Serves for ever: level-triggered as a bare loop would, or with `edge` as a loop that registers
/// for both directions once and never again, reading once an event.
pub(crate) fn run(listen: SocketAddrV4, edge: bool) -> io::Result<()> {
    let interest = if edge { EPOLLET | EPOLLIN | EPOLLOUT | EPOLLRDHUP } else { EPOLLIN };
    let listener = sys::listen(listen, false)?;
    let mut epoll = sys::Epoll::new()?;
    epoll.add(listener, EPOLLIN, listener as usize)?;
    let mut scratch = [0; 4096];
    loop {
        for index in 0..epoll.wait(-1)? {
            let event = epoll.event(index);
            let fd = event.token as i32;
            if fd == listener {
                while let Some(fd) = sys::accept(listener)? {
                    sys::set_nodelay(fd)?;
                    epoll.add(fd, interest, fd as usize)?;
                }
            } else if event.flags & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) != 0 {
                sys::close(fd);
            } else if event.flags & EPOLLIN != 0 {
                match sys::recv(fd, &mut scratch) {
                    // The upgrade: a masked frame never starts with a `G`.
                    Ok(1..) if scratch[0] == b'G' => sys::send(fd, wire::SWITCHING)?,
                    Ok(1..) => sys::send(fd, &wire::FRAME)?,
                    Ok(0) | Err(_) => sys::close(fd),
                }
            }
        }
    }
}
