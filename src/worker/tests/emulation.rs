//! Centrifugo's sessions without a WebSocket, in virtual time.

use super::*;
use crate::service::{Centrifugo, TokenKeys};
use crate::worker::{Tap, Target};

type Site = Stage<Centrifugo<Echo>>;

fn post(path: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// What has come since, behind the head if there is one.
fn heard(wire: &Shared_) -> String {
    let text = String::from_utf8(std::mem::take(&mut wire.borrow_mut().output)).expect("text");
    text.split_once("\r\n\r\n")
        .filter(|(head, _)| head.starts_with("HTTP/"))
        .map_or(text.clone(), |(_, body)| body.into())
}

/// A chunk of one line.
fn chunk(line: &str) -> String {
    format!("{:x}\r\n{line}\n\r\n", line.len() + 1)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).and_then(|(_, rest)| rest.split_once(after)).expect("it is there").0
}

impl Site {
    /// Timers fire when they are due, not all at the end.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(100) {
            self.script.borrow_mut().now += 100;
            (0..3).for_each(|_| self.turn());
        }
    }

    /// How many milliseconds that took.
    fn until_something_comes(&mut self, wire: &Shared_) -> u64 {
        let start = self.script.borrow().now;
        while wire.borrow().output.is_empty() {
            self.pass(100);
            assert!(self.script.borrow().now < start + 60_000, "nothing comes");
        }
        self.script.borrow().now - start
    }

    /// A session, with the body of a request that brings these commands to it.
    fn session(&mut self) -> (Shared_, impl Fn(&str) -> Vec<u8> + use<>) {
        let stream = self.client_with(&post("/connection/http_stream", r#"{"id":1,"connect":{}}"#));
        self.turn();
        let connected = heard(&stream);
        let (session, node) = (between(&connected, "\"session\":\"", "\""), between(&connected, "\"node\":\"", "\""));
        let envelope = format!("{{\"session\":\"{session}\",\"node\":\"{node}\",\"data\":");
        (stream, move |commands: &str| post("/emulation", &format!("{envelope}{commands}}}")))
    }
}

#[test]
fn a_session_lives_by_its_pongs_whatever_connection_they_come_by() {
    let mut site = Site::with(Centrifugo::new(Echo));
    let (stream, say) = site.session();
    assert!((12_400..25_200).contains(&site.until_something_comes(&stream)), "the first ping is a little early");
    assert_eq!(heard(&stream), chunk("{}"));
    let posting = site.client_with(&say("\"{}\""));
    site.pass(7_000);
    assert!(posting.borrow().output.starts_with(b"HTTP/1.1 204 "));
    assert_eq!(heard(&stream), "");
    assert!((17_900..18_300).contains(&site.until_something_comes(&stream)), "the next is not");
    assert_eq!(heard(&stream), chunk("{}"));
    // This time nobody answers.
    assert!((7_900..8_300).contains(&site.until_something_comes(&stream)));
    let last = chunk(r#"{"push":{"disconnect":{"code":3012,"reason":"no pong"}}}"#);
    assert_eq!(heard(&stream), format!("{last}0\r\n\r\n"));
    let posting = site.client_with(&say("\"{}\""));
    site.pass(10);
    assert!(posting.borrow().output.starts_with(b"HTTP/1.1 404 "), "there is no such session any more");
    posting.borrow_mut().error = Some(ErrorKind::UnexpectedEof);
    site.pass(100_000);
    assert!(stream.borrow().closed && posting.borrow().closed);
    site.assert_empty();
}

#[test]
fn who_does_not_connect_in_time_is_told_so() {
    let mut site = Site::with(Centrifugo::new(Echo).tokens(TokenKeys::new(b"secret")));
    let claims = serde_json::json!({"sub": "u", "exp": 1});
    let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token");
    let connect = format!("{{\"id\":1,\"connect\":{{\"token\":\"{token}\"}}}}");
    let stream = site.client_with(&post("/connection/http_stream", &connect));
    site.turn();
    assert!(heard(&stream).contains("\"code\":109"), "a reply like any other");
    site.pass(9_000);
    assert_eq!(heard(&stream), "");
    site.pass(2_000);
    assert!(heard(&stream).contains(r#"{"push":{"disconnect":{"code":3502,"reason":"stale"}}}"#));
}

#[test]
fn what_a_session_says_on_its_own_connection_is_nothing_and_hanging_up_is_the_end() {
    let mut site = Site::with(Centrifugo::new(Echo));
    let (stream, say) = site.session();
    site.say(&stream, HELLO);
    site.say(&stream, &post("/connection/http_stream", r#"{"id":1,"connect":{}}"#));
    site.turn();
    assert_eq!((heard(&stream), site.metrics().open()), (String::new(), 1));
    stream.borrow_mut().error = Some(ErrorKind::UnexpectedEof);
    let token = stream.borrow().token.expect("registered");
    site.event(token, |event| event.read_closed = true);
    site.turn();
    assert!(stream.borrow().closed);
    site.assert_empty();
    // The slot is somebody else's now.
    let (next, _) = site.session();
    let posting = site.client_with(&say(r#""{\"id\":2,\"ping\":{}}""#));
    site.pass(10);
    assert!(posting.borrow().output.starts_with(b"HTTP/1.1 404 "));
    assert_eq!(heard(&next), "");
}

#[test]
fn no_frame_gets_into_a_stream() {
    let mut site = Site::with(Centrifugo::new(Echo));
    let (stream, _) = site.session();
    let id = ConnId { worker: 0, slot: 0, serial: 1 };
    assert!(site.worker.port().live.is_live(id.slot, id.serial));
    site.worker.send_frame(id, b"\x81\x02hi");
    site.pass(10);
    assert_eq!(heard(&stream), "");
    site.worker.begin_drain(Duration::ZERO.into());
    site.pass(10);
    let last = chunk(r#"{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}"#);
    assert_eq!(heard(&stream), format!("{last}0\r\n\r\n"));
}

#[test]
fn a_client_that_takes_nothing_holds_what_any_other_may() {
    let mut site = Site::with(Centrifugo::new(Echo));
    let (stream, say) = site.session();
    stream.borrow_mut().room = Some(0);
    let pings = vec![r#"{\"id\":2,\"ping\":{}}"#; 2000].join(r"\n");
    let queue_bytes_max = site.worker.rules.queue_bytes_max;
    for _ in 0..1000 {
        let posting = site.client_with(&say(&format!("\"{pings}\"")));
        site.turn();
        site.turn();
        posting.borrow_mut().error = Some(ErrorKind::UnexpectedEof);
        let token = posting.borrow().token.expect("registered");
        site.event(token, |event| event.read_closed = true);
        site.turn();
        let queued = site.worker.table.at(0).expect("it is there").conn.queued();
        assert!(queued <= queue_bytes_max + 1000, "{queued}");
        if site.metrics().open() == 0 {
            stream.borrow_mut().room = None;
            let token = stream.borrow().token.expect("registered");
            site.event(token, |_| {});
            site.turn();
            assert!(
                heard(&stream).ends_with(&format!(
                    "{}0\r\n\r\n",
                    chunk(r#"{"push":{"disconnect":{"code":3008,"reason":"slow"}}}"#)
                ))
            );
            return;
        }
    }
    panic!("it may queue anything");
}

#[test]
fn a_tap_shows_what_comes_for_a_session_from_whoever_has_its_key_and_from_nobody_else() {
    let mut site = Site::with(Centrifugo::new(Echo));
    let (stream, say) = site.session();
    let id = ConnId { worker: 0, slot: 0, serial: 1 };
    let tap = Arc::new(Tap::new(Target::Connection(id), true, Duration::from_secs(100)));
    let now = site.worker.now;
    site.worker.taps.begin(Arc::clone(&tap), now);
    let right = String::from_utf8(say("\"{}\"")).expect("text");
    let at = right.find("\"session\":\"").expect("a session") + "\"session\":\"".len();
    let last = right[at..].find('"').expect("its end") + at - 1;
    let other = if right.as_bytes()[last] == b'0' { "1" } else { "0" };
    let forged = format!("{}{other}{}", &right[..last], &right[last + 1..]);
    for (request, status, seen) in [(forged, "404", 0), (right, "204", 1)] {
        let posting = site.client_with(request.as_bytes());
        site.pass(10);
        let said = String::from_utf8_lossy(&posting.borrow().output).into_owned();
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        assert_eq!(tap.fetch().0.iter().filter(|seen| seen.what == "commands").count(), seen, "{status}");
    }
    drop(stream);
}
