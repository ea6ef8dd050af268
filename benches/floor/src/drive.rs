//! The client: one thread that opens connections, upgrades them properly, and keeps a server busy
//! while its CPU time is read from outside. Prints one line of JSON.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::RawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cpu::{self, Cpu, TICKS_PER_S};
use crate::{Args, invalid, sys, wire};

/// More from one address, and the kernel's search for a free port dominates.
const CONNECTIONS_PER_ADDRESS: usize = 4_000;
const SOURCE_FIRST: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// A server that says nothing for so long is stuck, and so is the measurement.
const STALL_MS: i32 = 10_000;
/// Lets the server finish what follows its last answer before its clock is read.
const SETTLE: Duration = Duration::from_millis(50);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(30);

const WARMUP_ECHOES: usize = 10_000;

pub(crate) fn run(args: &mut Args) -> io::Result<()> {
    let mode = args.word();
    let target = args.value("--target", None)?;
    let pids: String = args.value("--pid", None)?;
    let pids: Result<_, _> = pids.split(',').map(str::parse).collect();
    let pids = pids.map_err(|error| invalid(format!("--pid: {error}")))?;
    let path: String = args.value("--path", Some("/".to_owned()))?;
    let mut drive = Drive::new(target, &path, pids)?;
    match mode.as_str() {
        "handshake" => {
            let count = args.value("--count", Some(18_000))?;
            let inflight = args.value("--inflight", Some(64))?;
            args.finish()?;
            drive.handshake(count, inflight)
        }
        "echo" => {
            let connections = args.value("--connections", Some(100))?;
            let count = args.value("--count", Some(300_000))?;
            let size = args.value("--size", Some(64))?;
            args.finish()?;
            drive.echo(connections, count, size)
        }
        "sweep" => {
            let connections = args.value("--connections", Some(18_000))?;
            let sweeps = args.value("--sweeps", Some(10))?;
            let publish = args.flag("--publish");
            args.finish()?;
            let post = publish.then(|| wire::post(target, &path));
            drive.sweep(connections, sweeps, post.as_deref())
        }
        other => Err(invalid(format!("cannot drive `{other}`"))),
    }
}

struct Drive {
    target: SocketAddrV4,
    pids: Vec<u32>,
    request: Vec<u8>,
    epoll: sys::Epoll,
    /// Indexed by token.
    clients: Vec<Client>,
    scratch: Vec<u8>,
}

struct Client {
    fd: RawFd,
    /// What has come of a head or a frame that is not whole yet: empty but for servers that write
    /// in pieces.
    partial: Vec<u8>,
}

impl Drive {
    fn new(target: SocketAddrV4, path: &str, pids: Vec<u32>) -> io::Result<Drive> {
        Ok(Drive {
            target,
            pids,
            request: wire::request(target, path),
            epoll: sys::Epoll::new()?,
            clients: Vec::new(),
            scratch: vec![0; 256 * 1024],
        })
    }

    /// Opens `count` connections, `inflight` of them at a time without an answer yet.
    fn handshake(&mut self, count: usize, inflight: usize) -> io::Result<()> {
        let open_before = cpu::open_files(&self.pids)?;
        let window = Window::open(&self.pids)?;
        self.open(count, inflight)?;
        let report = window.close(&self.pids, count)?;
        let released_s = self.release(open_before)?;
        println!(
            r#"{{"mode": "handshake", "count": {count}, "inflight": {inflight}, {report}, "released_s": {released_s:.2}}}"#
        );
        Ok(())
    }

    /// Sends `count` messages, one at a time on each of `connections`.
    fn echo(&mut self, connections: usize, count: usize, size: u16) -> io::Result<()> {
        self.open(connections, 64)?;
        let (message, answer) = wire::frames(size);
        self.exchange(WARMUP_ECHOES, &message, &answer)?;
        let window = Window::open(&self.pids)?;
        self.exchange(count, &message, &answer)?;
        let report = window.close(&self.pids, count)?;
        println!(r#"{{"mode": "echo", "count": {count}, "connections": {connections}, "size": {size}, {report}}}"#);
        Ok(())
    }

    /// Receives what the server sends everyone, by itself or once a second as it is published with `post`: a first time
    /// to get going, then `sweeps` measured ones.
    fn sweep(&mut self, connections: usize, sweeps: usize, post: Option<&[u8]>) -> io::Result<()> {
        self.open(connections, 64)?;
        let mut publisher =
            post.map(|post| Ok::<_, io::Error>((TcpStream::connect(self.target)?, post))).transpose()?;
        let mut publish = || match &mut publisher {
            Some((stream, post)) => {
                sleep(Duration::from_secs(1));
                stream.write_all(post)?;
                // The answer fits one segment, and nobody else writes on this connection.
                stream.read(&mut [0; 4096]).map(drop)
            }
            None => Ok(()),
        };
        publish()?;
        self.collect(connections, &wire::FRAME)?;
        let window = Window::open(&self.pids)?;
        let mut last_ms = 0.0;
        for _ in 0..sweeps {
            publish()?;
            last_ms += self.collect(connections, &wire::FRAME)?.as_secs_f64() * 1e3 / sweeps as f64;
        }
        let report = window.close(&self.pids, connections * sweeps)?;
        println!(
            r#"{{"mode": "sweep", "connections": {connections}, "sweeps": {sweeps}, {report}, "first_to_last_ms": {last_ms:.1}}}"#
        );
        Ok(())
    }

    /// Opens `count` connections in two steps, as a round trip would separate them: all the
    /// connects there is room for, then all their requests. (Each request right behind its connect
    /// would meet a server that has only just woken up, and cost it one wake-up per connection.)
    fn open(&mut self, count: usize, inflight: usize) -> io::Result<()> {
        let mut answered = 0;
        while answered < count {
            let fresh = self.clients.len()..count.min(answered + inflight);
            for token in fresh.clone() {
                self.connect(token)?;
            }
            for client in &self.clients[fresh] {
                sys::send(client.fd, &self.request)?;
            }
            for index in 0..self.wait()? {
                let token = self.epoll.event(index).token;
                answered += self.receive(token, |bytes| {
                    let head = wire::response_head(bytes)?;
                    Ok((usize::from(head > 0), head))
                })?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, token: usize) -> io::Result<()> {
        let source = SOURCE_FIRST.to_bits() + (token / CONNECTIONS_PER_ADDRESS) as u32;
        let fd = sys::connect(source.into(), self.target)?;
        self.epoll.add(fd, libc::EPOLLIN, token)?;
        self.clients.push(Client { fd, partial: Vec::new() });
        Ok(())
    }

    /// A closed loop: every answer lets its connection send the next message, until `count` of them
    /// have been sent and answered.
    fn exchange(&mut self, count: usize, message: &[u8], answer: &[u8]) -> io::Result<()> {
        let (mut sent, mut answered) = (0, 0);
        for client in self.clients.iter().take(count) {
            sys::send(client.fd, message)?;
            sent += 1;
        }
        while answered < count {
            for index in 0..self.wait()? {
                let token = self.epoll.event(index).token;
                let whole = self.receive(token, |bytes| take_frames(bytes, answer))?;
                answered += whole;
                if whole > 0 && sent < count {
                    sys::send(self.clients[token].fd, message)?;
                    sent += 1;
                }
            }
        }
        Ok(())
    }

    /// Waits for `count` frames; how long it took from the first to the last of them.
    fn collect(&mut self, count: usize, frame: &[u8]) -> io::Result<Duration> {
        let (mut collected, mut first) = (0, None);
        while collected < count {
            let ready = self.wait()?;
            let first = *first.get_or_insert_with(Instant::now);
            for index in 0..ready {
                let token = self.epoll.event(index).token;
                collected += self.receive(token, |bytes| take_frames(bytes, frame))?;
            }
            if collected >= count {
                return Ok(first.elapsed());
            }
        }
        Ok(Duration::ZERO)
    }

    fn wait(&mut self) -> io::Result<usize> {
        match self.epoll.wait(STALL_MS)? {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, "the server went silent")),
            ready => Ok(ready),
        }
    }

    /// Reads once and lets `take` have what there is. It says how many things it found and how many
    /// bytes they took; the rest waits for more.
    fn receive(&mut self, token: usize, take: impl Fn(&[u8]) -> Result<(usize, usize), String>) -> io::Result<usize> {
        let client = &mut self.clients[token];
        let read = sys::recv(client.fd, &mut self.scratch)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed a connection"));
        }
        let read = &self.scratch[..read];
        let whole = if client.partial.is_empty() {
            let (whole, used) = take(read).map_err(io::Error::other)?;
            client.partial.extend_from_slice(&read[used..]);
            whole
        } else {
            client.partial.extend_from_slice(read);
            let (whole, used) = take(&client.partial).map_err(io::Error::other)?;
            client.partial.drain(..used);
            whole
        };
        Ok(whole)
    }

    /// Closes every connection; seconds until the server has closed its ends too.
    fn release(&mut self, open_before: u64) -> io::Result<f64> {
        let start = Instant::now();
        for client in self.clients.drain(..) {
            sys::reset(client.fd)?;
        }
        while cpu::open_files(&self.pids)? > open_before {
            if start.elapsed() > RELEASE_TIMEOUT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server keeps closed connections"));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Whole frames at the start of `bytes` and what they take; anything but `frame` is an error.
fn take_frames(bytes: &[u8], frame: &[u8]) -> Result<(usize, usize), String> {
    let whole = bytes.chunks_exact(frame.len());
    let rest = whole.remainder();
    match whole.clone().all(|chunk| chunk == frame) && frame.starts_with(rest) {
        true => Ok((whole.len(), bytes.len() - rest.len())),
        false => Err(format!("not the frame expected: {:02x?}", &bytes[..bytes.len().min(80)])),
    }
}

/// What is measured, from `open` to `close`: the server's CPU time, our own, and the wall clock.
struct Window {
    server: Cpu,
    driver_ns: u64,
    start: Instant,
}

impl Window {
    fn open(server: &[u32]) -> io::Result<Window> {
        sleep(SETTLE);
        let (server, driver_ns) = (Cpu::read(server)?, sys::cpu_ns(std::process::id())?);
        Ok(Window { server, driver_ns, start: Instant::now() })
    }

    /// Members of a JSON object: per operation, of which there were `count`.
    fn close(self, server: &[u32], count: usize) -> io::Result<String> {
        let wall_s = self.start.elapsed().as_secs_f64();
        let driver_ns = (sys::cpu_ns(std::process::id())? - self.driver_ns) as f64;
        sleep(SETTLE);
        let server = Cpu::read(server)?.since(self.server);
        let (server_ns, count) = (server.total_ns as f64, count as f64);
        let ticks_us = |ticks: u64| ticks as f64 / TICKS_PER_S * 1e6 / count;
        Ok(format!(
            r#""server_us": {:.3}, "user_us": {:.2}, "system_us": {:.2}, "driver_us": {:.3}, "wall_s": {wall_s:.3}, "per_s": {:.0}, "server_busy": {:.3}, "driver_busy": {:.3}"#,
            server_ns / 1e3 / count,
            ticks_us(server.user_ticks),
            ticks_us(server.system_ticks),
            driver_ns / 1e3 / count,
            count / wall_s,
            server_ns / 1e9 / wall_s,
            driver_ns / 1e9 / wall_s,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_whole_and_checked_to_the_last_byte() {
        assert_eq!(take_frames(b"abcabcab", b"abc"), Ok((2, 6)));
        assert_eq!(take_frames(b"a", b"abc"), Ok((0, 0)));
        assert!(take_frames(b"abcabd", b"abc").is_err());
        assert!(take_frames(b"abcb", b"abc").is_err());
    }
}
