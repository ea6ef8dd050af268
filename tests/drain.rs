//! The end of a server that many are at: spread over its time, in time, and in order.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};
use support::*;

/// More than one descriptor table of 20,000 holds: the server's are three, and each thread here has its own.
const CROWD: usize = 20_000;
const THREADS: usize = 4;
const DRAIN_S: u64 = 4;

/// A thread's part of the crowd, in a descriptor table of its own.
fn part(thread: usize, server: SocketAddr, begun: &Barrier) -> Vec<(Instant, u16)> {
    throng::sys::private_table().expect("a table of its own");
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1 + thread as u8));
    let mut clients: Vec<TcpStream> = (0..CROWD / THREADS)
        .map(|_| {
            let mut peer = Raw::connect_from(source, server);
            peer.upgrade();
            peer.stream().try_clone().expect("a descriptor")
        })
        .collect();
    let mut poll = Poll::new().expect("an epoll");
    for (index, client) in clients.iter().enumerate() {
        client.set_nonblocking(true).expect("a socket");
        let fd = client.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), Token(index), Interest::READABLE).expect("registered");
    }
    begun.wait();
    let (mut closes, mut events) = (Vec::new(), Events::with_capacity(1024));
    let end = Instant::now() + Duration::from_secs(DRAIN_S) + PATIENCE;
    while closes.len() < clients.len() && Instant::now() < end {
        poll.poll(&mut events, Some(millis(100))).expect("events");
        for event in &events {
            let client = &mut clients[event.token().0];
            let mut bytes = [0; 256];
            match client.read(&mut bytes) {
                // A Close (RFC 6455, section 5.5.1): the first byte, the length, the code.
                Ok(count) if count >= 4 && bytes[0] == 0x88 => {
                    closes.push((Instant::now(), u16::from_be_bytes([bytes[2], bytes[3]])));
                    let _ = client.write(&close(1001, "").bytes());
                }
                Ok(0) => {}
                Ok(_) => panic!("not a Close: {bytes:?}"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    closes
}

#[test]
fn a_crowd_is_closed_spread_over_the_drain_and_within_its_time() {
    raise_own_descriptor_limit();
    let flags = format!("--max-connections {} --workers 3 --drain {DRAIN_S} --ping-interval 600", CROWD + 100);
    let mut server = Throng::start(&flags);
    let (address, begun) = (server.addrs[0], Barrier::new(THREADS + 1));
    let (started, closes) = thread::scope(|scope| {
        let parts: Vec<_> = (0..THREADS).map(|n| (n, &begun)).collect();
        let parts: Vec<_> = parts.into_iter().map(|(n, begun)| scope.spawn(move || part(n, address, begun))).collect();
        begun.wait();
        let started = Instant::now();
        server.signal("TERM");
        let closes: Vec<_> = parts.into_iter().flat_map(|part| part.join().expect("it ends")).collect();
        (started, closes)
    });
    assert_eq!(closes.len(), CROWD);
    assert!(closes.iter().all(|&(_, code)| code == 1001));
    let mut tenths = [0; 10];
    for (at, _) in &closes {
        tenths[((at.duration_since(started).as_millis() / u128::from(100 * DRAIN_S)) as usize).min(9)] += 1;
    }
    // Each tenth of the time has a tenth of the crowd; on a busy machine some come late.
    println!("closed in each tenth of {DRAIN_S} s: {tenths:?}");
    let half: usize = tenths[..5].iter().sum();
    assert!(tenths[..8].iter().all(|&tenth| tenth > CROWD / 40 && tenth < CROWD / 3), "{tenths:?}");
    assert!(half > CROWD * 3 / 10 && half < CROWD * 6 / 10, "{tenths:?}");
    // Who answered is gone: the close timeout is not waited for.
    assert_eq!(server.exit(Duration::from_secs(DRAIN_S + 3)).code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(DRAIN_S + 4), "{:?}", started.elapsed());
}
