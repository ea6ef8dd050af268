//! An open connection between two threads of its own and the main one: a thread reads, a thread writes, so that neither a
//! server that does not read nor one that sends without end can make the two sides wait for each other.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// What may wait to be sent before a pipe is read on, in bytes.
const BACKLOG_BYTES_MAX: usize = 1024 * 1024;

/// Happenings that may wait: a reader waits beyond that, and so in the end does the server.
const INBOX_MAX: usize = 64;

const READ_BYTES: usize = 64 * 1024;

/// What the main thread is told.
#[derive(Debug)]
pub(super) enum Happening {
    /// A line was typed or came by the pipe, without its end.
    Line(String),
    InputEnded,
    InputBroken(String),
    /// Somebody wants it to end.
    Interrupted,
    /// Bytes have come on the link of this number.
    Bytes(u64, Vec<u8>),
    /// It ended: by the server's doing, or with an error.
    Ended(u64, Option<io::Error>),
}

pub(super) type Inbox = SyncSender<Happening>;

pub(super) fn inbox() -> (Inbox, Receiver<Happening>) {
    mpsc::sync_channel(INBOX_MAX)
}

/// How much waits to be sent.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: Mutex<usize>,
    less: Condvar,
}

impl Backlog {
    /// Waits while there is too much of it.
    pub(super) fn wait(&self) {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.less.wait_while(bytes, |bytes| *bytes > BACKLOG_BYTES_MAX));
    }

    fn add(&self, bytes: usize) {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
    }

    fn take(&self, bytes: usize) {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
        self.less.notify_all();
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Vec<u8>>,
    is_closed: bool,
}

#[derive(Debug)]
struct Outgoing {
    queue: Mutex<Queue>,
    more: Condvar,
    backlog: Arc<Backlog>,
}

/// An open connection. It is shut down when this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    /// Happenings of another number are of a connection that is no more.
    pub(super) number: u64,
    stream: Arc<TcpStream>,
    outgoing: Arc<Outgoing>,
}

impl Link {
    /// Starts to read and to write.
    pub(super) fn start(number: u64, stream: TcpStream, inbox: Inbox, backlog: &Arc<Backlog>) -> io::Result<Self> {
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        let stream = Arc::new(stream);
        let outgoing =
            Arc::new(Outgoing { queue: Mutex::default(), more: Condvar::new(), backlog: Arc::clone(backlog) });
        let socket = Arc::clone(&stream);
        thread::spawn(move || read_all(number, &socket, &inbox));
        let (socket, queue) = (Arc::clone(&stream), Arc::clone(&outgoing));
        thread::spawn(move || queue.write_all(&socket));
        Ok(Self { number, stream, outgoing })
    }

    /// Sends in the order in which it is called, and does not wait for it.
    pub(super) fn send(&self, bytes: Vec<u8>) {
        self.outgoing.backlog.add(bytes.len());
        self.outgoing.queue.lock().unwrap_or_else(PoisonError::into_inner).waiting.push_back(bytes);
        self.outgoing.more.notify_one();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.outgoing.queue.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.outgoing.more.notify_one();
        // It may be over already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Outgoing {
    fn write_all(&self, mut socket: &TcpStream) {
        loop {
            let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let mut queue = self
                .more
                .wait_while(queue, |queue| queue.waiting.is_empty() && !queue.is_closed)
                .unwrap_or_else(PoisonError::into_inner);
            if queue.is_closed {
                let left = queue.waiting.drain(..).map(|bytes| bytes.len()).sum();
                self.backlog.take(left);
                return;
            }
            let bytes = queue.waiting.pop_front();
            drop(queue);
            let Some(bytes) = bytes else { continue };
            let written = socket.write_all(&bytes);
            self.backlog.take(bytes.len());
            // That it is lost is the reader's to tell, who may still have something to read.
            if written.is_err() {
                self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
            }
        }
    }
}

fn read_all(number: u64, mut socket: &TcpStream, inbox: &Inbox) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let happening = match socket.read(&mut buffer) {
            Ok(0) => Happening::Ended(number, None),
            Ok(length) => Happening::Bytes(number, buffer[..length].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Happening::Ended(number, Some(error)),
        };
        let is_last = matches!(happening, Happening::Ended(..));
        if inbox.send(happening).is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

    /// A link, and its other end.
    fn pair(inbox: Inbox, backlog: &Arc<Backlog>) -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let far = listener.accept().unwrap().0;
        far.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        (Link::start(7, near, inbox, backlog).unwrap(), far)
    }

    #[test]
    fn whoever_sends_waits_for_no_reader_but_a_pipe_does() {
        let (sender, inbox) = inbox();
        let backlog = Arc::new(Backlog::default());
        let (link, mut far) = pair(sender, &backlog);
        let all = vec![7; 64 * BACKLOG_BYTES_MAX];
        link.send(all.clone());
        let (told, waited) = mpsc::channel();
        let held = Arc::clone(&backlog);
        thread::spawn(move || {
            held.wait();
            told.send(()).unwrap();
        });
        assert!(waited.try_recv().is_err(), "nothing is read yet");
        let mut read = vec![0; all.len()];
        far.read_exact(&mut read).unwrap();
        waited.recv_timeout(Duration::from_secs(60)).expect("it goes on once there is room");
        far.write_all(b"hello").unwrap();
        assert!(matches!(inbox.recv().unwrap(), Happening::Bytes(7, bytes) if bytes == b"hello"));
        drop(link);
        assert_eq!(far.read(&mut read).unwrap(), 0, "shut down");
        assert!(matches!(inbox.recv().unwrap(), Happening::Ended(7, _)));
    }
}
