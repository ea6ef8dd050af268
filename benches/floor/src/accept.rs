//! The floor of a handshake: accept, recv, send, epoll_ctl. Every connection is then held until its
//! peer closes it.

use std::io;
use std::net::SocketAddrV4;

use crate::{sys, wire};

/// Serves for ever. With `defer` the request is read right after accept, since it is there already;
/// otherwise the ordinary way, by an event of its own.
pub(crate) fn run(listen: SocketAddrV4, defer: bool) -> io::Result<()> {
    let listener = sys::listen(listen, defer)?;
    let mut epoll = sys::Epoll::new()?;
    epoll.add(listener, libc::EPOLLIN, listener as usize)?;
    let mut scratch = [0; 4096];
    loop {
        for index in 0..epoll.wait(-1)? {
            let fd = epoll.event(index).token as i32;
            if fd != listener {
                match sys::recv(fd, &mut scratch) {
                    Ok(1..) => sys::send(fd, wire::SWITCHING)?,
                    Ok(0) | Err(_) => sys::close(fd),
                }
                continue;
            }
            while let Some(fd) = sys::accept(listener)? {
                if !defer {
                    sys::set_nodelay(fd)?;
                } else if matches!(sys::recv(fd, &mut scratch), Ok(1..)) {
                    sys::send(fd, wire::SWITCHING)?;
                }
                epoll.add(fd, libc::EPOLLIN, fd as usize)?;
            }
        }
    }
}
