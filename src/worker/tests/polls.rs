//! Polls whose clients read slowly: what waits for them are references to the topic's messages.

use super::*;
use crate::service::{Answer, TopicUrl};
use crate::topic::{Message as Stored, Publication, Read, Since, TopicName, Wanted};
use crate::worker::topics::Asker;

#[derive(Debug)]
pub(super) struct Urls;

impl Service for Urls {
    type State = ();

    fn open(&mut self, _: &Request<'_>) -> Decision<()> {
        crate::http::Response::upgrade_required().into()
    }

    fn message(&mut self, _: &mut Connection<'_, ()>, _: Message<'_>) {}

    fn request(&mut self, request: &Request<'_>) -> Answer {
        TopicUrl::of(request).expect("a topic").expect("its name").answer(request)
    }
}

const POLL: &[u8] = b"GET /topics/t HTTP/1.1\r\nHost: a\r\n\r\n";

/// A topic with 300 messages of a thousand bytes.
fn full_topic() -> Stage<Urls> {
    let mut stage = Stage::with(Urls);
    let message = format!("POST /topics/t HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{:01000}", 0);
    let publisher = stage.client_with(message.as_bytes());
    stage.turn();
    for _ in 1..300 {
        stage.say(&publisher, message.as_bytes());
        stage.turn();
    }
    assert_eq!(stage.metrics().published.read(), 300);
    stage.hang_up(&publisher);
    stage
}

impl Stage<Urls> {
    pub(super) fn hang_up(&mut self, wire: &Shared_) {
        wire.borrow_mut().error = Some(ErrorKind::ConnectionReset);
        let token = wire.borrow().token.expect("registered");
        self.event(token, |event| event.error = true);
        self.turn();
        assert!(wire.borrow().closed);
    }

    /// What comes to a client that sends this and reads everything at once.
    fn whole(&mut self, request: &[u8]) -> Vec<u8> {
        let wire = self.client_with(request);
        (0..10).for_each(|_| self.turn());
        let output = wire.borrow().output.clone();
        self.hang_up(&wire);
        output
    }

    /// A client whose socket takes so much and then nothing.
    fn stalled(&mut self, request: &[u8], room: usize) -> Shared_ {
        let wire = self.client_with(request);
        wire.borrow_mut().room = Some(room);
        self.turn();
        wire
    }

    /// How many hold the first message that is kept, whoever asks left out.
    fn holders(&mut self) -> usize {
        let read = Read::all(Wanted::Since(Since::Earliest));
        let name = TopicName::new("t").expect("a name");
        let found = self.worker.topics.resolve(&name, read, None, 0, || 0).expect("there is room");
        let first: &Arc<Stored> = &found.messages[0];
        Arc::strong_count(first) - 1
    }

    /// Bytes that wait for a client, and those of them that are its own.
    fn queued(&mut self, wire: &Shared_) -> (usize, usize) {
        let slot = (wire.borrow().token.expect("registered") >> SERIAL_BITS) as u32;
        let conn = &self.worker.table.at(slot).expect("it is there").conn;
        (conn.queued(), conn.queued_own())
    }
}

/// Whoever comes may do so because of an answer that was given after the mail had been posted.
#[test]
fn mail_that_is_there_comes_before_whoever_comes() {
    let mut stage = Stage::with(Urls);
    let name = TopicName::new("t").expect("a name");
    let client = stage.client_with(b"GET /topics/t?since=earliest HTTP/1.1\r\nHost: a\r\n\r\n");
    stage.worker.shared.publish(&name, Publication::from("news"), Asker::Nobody);
    stage.event(MAIL_TOKEN, |_| {});
    stage.turn();
    let output = String::from_utf8_lossy(&client.borrow().output).into_owned();
    assert!(output.starts_with("HTTP/1.1 200 ") && output.contains("news"), "{output}");
}

#[test]
fn what_waits_for_a_slow_poll_is_referred_to() {
    let mut stage = full_topic();
    let whole = stage.whole(POLL);
    assert!(whole.len() > 300_000 && whole.ends_with(b"}]\n"));
    let alone = stage.holders();
    for (nth, room) in [0, 1, 100, 1000, 100_000, whole.len() - 10_000].into_iter().enumerate() {
        let wire = stage.stalled(POLL, room);
        let (queued, own) = stage.queued(&wire);
        assert_eq!((queued, stage.holders()), (whole.len() - room, alone + 1), "{nth}");
        assert!(own < 4000, "{own} bytes of its own with {queued} that wait");
        stage.hang_up(&wire);
        assert_eq!(stage.holders(), alone, "whoever goes in the middle holds nothing");
    }
    // So little that a copy is as good.
    let wire = stage.stalled(POLL, whole.len() - 100);
    assert_eq!(stage.queued(&wire).0, 100);
    stage.hang_up(&wire);
    stage.assert_empty();
}

#[test]
fn slow_polls_get_every_byte_and_what_is_asked_behind_them() {
    let mut stage = full_topic();
    let head = &b"HEAD /topics/t HTTP/1.1\r\nHost: a\r\n\r\n"[..];
    let last = &b"GET /topics/t?limit=7 HTTP/1.0\r\nHost: a\r\n\r\n"[..];
    let requests = [POLL, head, POLL, last].concat();
    let whole = [stage.whole(POLL), stage.whole(head), stage.whole(POLL), stage.whole(last)].concat();
    let alone = stage.holders();
    let mut rng = crate::mem::Rng::new(7);
    for most in [700, 5000, 70_000, 400_000] {
        let wire = stage.stalled(&requests, 0);
        for _ in 0..2 * whole.len() / most + 100 {
            wire.borrow_mut().room = Some(1 + rng.below(most as u64) as usize);
            let token = wire.borrow().token.expect("registered");
            stage.event(token, |_| {});
            stage.turn();
        }
        assert!(wire.borrow().output == whole, "at most {most} bytes at a time");
        assert_eq!(stage.holders(), alone);
        stage.hang_up(&wire);
    }
    stage.assert_empty();
}
