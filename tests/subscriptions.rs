//! Topics from within a service: a connection that subscribes to many, and publishers on other threads.

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use support::*;
use throng::error::Refused;
use throng::{
    Accept, Connection, Cursor, Decision, Frames, Handle, Message, Publication, Publisher, Request, Running, Server,
    Service, Since, SlowReaders, TopicName,
};

/// Does what the words of a message say, several of them in one callback: `+t` subscribes, `-t` unsubscribes, `=t` says
/// `hello` there, `x` closes; `#t` subscribes from the earliest, `@t,CURSOR` from there.
struct Rooms {
    frames: Frames,
}

fn name(name: &str) -> TopicName {
    TopicName::new(name).expect("a name")
}

impl Service for Rooms {
    type State = ();

    fn open(&mut self, _: &Request<'_>) -> Decision<()> {
        Accept::new(()).into()
    }

    fn message(&mut self, connection: &mut Connection<'_, ()>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        for word in text.split(' ') {
            let (what, topic) = word.split_at(1);
            match what {
                "+" => connection.subscribe(&name(topic), Since::Latest, self.frames),
                "#" => connection.subscribe(&name(topic), Since::Earliest, self.frames),
                "@" => {
                    let (topic, cursor) = topic.split_once(',').expect("a cursor");
                    connection.subscribe(&name(topic), cursor.parse().expect("a cursor"), self.frames);
                }
                "-" => connection.unsubscribe(&name(topic)),
                "=" => connection.publish(&name(topic), "hello"),
                "?" => {
                    let first = connection.topic().map_or("-".to_owned(), ToString::to_string);
                    connection.send(&*first).expect("there is room");
                }
                _ => connection.close(4000, "as you wish"),
            }
        }
    }

    fn subscribed(&mut self, connection: &mut Connection<'_, ()>, topic: &TopicName, is: Result<Cursor, Refused>) {
        let said = match is {
            Ok(cursor) => format!("{topic} from {cursor}"),
            Err(refused) => format!("{topic} {}", refused.word()),
        };
        connection.send(&*said).expect("there is room");
    }
}

struct Site {
    running: Option<Running<()>>,
    handle: Handle<()>,
    publisher: Publisher,
    address: SocketAddr,
}

impl Site {
    fn start(frames: Frames, settings: impl FnOnce(Server) -> Server) -> Self {
        let server = settings(Server::new().listen("127.0.0.1:0".parse().expect("an address")).workers(4));
        let running = server.start(move |_| Rooms { frames }).expect("it starts");
        let (handle, address) = (running.handle(), running.addresses()[0]);
        Self { running: Some(running), publisher: handle.publisher(), handle, address }
    }

    fn open(&self) -> Raw {
        let mut raw = Raw::connect(self.address);
        raw.upgrade();
        raw
    }

    /// Publishes, and waits until it has its place.
    fn publish(&self, topic: &str, message: impl Into<Publication>) -> Result<Cursor, Refused> {
        let (done, outcome) = channel();
        self.publisher.publish_then(&name(topic), message, move |outcome| {
            let _ = done.send(outcome);
        });
        outcome.recv_timeout(PATIENCE).expect("the home answers")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.handle.abort();
        if let Some(running) = self.running.take() {
            running.wait().expect("it ends");
        }
    }
}

fn say(raw: &mut Raw, words: &str) {
    raw.send(text(words).bytes());
}

/// The next message as text.
fn hear(raw: &mut Raw) -> String {
    String::from_utf8(raw.frame().payload).expect("text")
}

/// The next message that does not tell of a subscription.
fn next(raw: &mut Raw) -> String {
    std::iter::repeat_with(|| hear(raw)).find(|said| !said.contains(" from ")).expect("it goes on")
}

/// The topic of the first subscription.
fn first(raw: &mut Raw) -> String {
    say(raw, "?");
    next(raw)
}

/// Subscribes, and waits until that has come about.
fn subscribe(raw: &mut Raw, word: &str) -> String {
    say(raw, word);
    let said = hear(raw);
    let topic = word[1..].split(',').next().expect("a topic");
    said.strip_prefix(&format!("{topic} from ")).unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn one_connection_hears_many_topics_in_order() {
    let site = Site::start(Frames::Bare, |server| server);
    let mut raw = site.open();
    for topic in 0..100 {
        subscribe(&mut raw, &format!("+t{topic}"));
    }
    say(&mut raw, "-t7 -t0 -t99");
    // Messages that came together are handled before what they want is seen to.
    eventually("the first is gone", PATIENCE, || first(&mut raw) == "-");
    for number in 0..3 {
        for topic in 0..100 {
            site.publish(&format!("t{topic}"), format!("{topic} {number}")).expect("room");
        }
    }
    let mut heard: HashMap<String, Vec<String>> = HashMap::new();
    for _ in 0..97 * 3 {
        let message = hear(&mut raw);
        let (topic, number) = message.split_once(' ').expect("two words");
        heard.entry(topic.to_owned()).or_default().push(number.to_owned());
    }
    assert!(heard.values().all(|numbers| *numbers == ["0", "1", "2"]), "{heard:?}");
    assert!(!heard.contains_key("7") && !heard.contains_key("0") && !heard.contains_key("99"));
    assert!(!raw.hears(millis(100)));
}

#[test]
fn twice_is_once_and_what_is_asked_happens_in_order() {
    let site = Site::start(Frames::Bare, |server| server);
    let mut raw = site.open();
    subscribe(&mut raw, "+a");
    say(&mut raw, "+a +a");
    say(&mut raw, "+b -b +b -b +b");
    say(&mut raw, "+c -c");
    assert_eq!(first(&mut raw), "a");
    for topic in ["c", "b", "a"] {
        site.publish(topic, topic).expect("room");
    }
    let mut both = [next(&mut raw), next(&mut raw)];
    both.sort();
    assert_eq!(both, ["a", "b"]);
    assert!(!raw.hears(millis(100)));
    // Whoever unsubscribed and came back sees what lies between, from where it says it was.
    let from = subscribe(&mut raw, "+d");
    say(&mut raw, "-d");
    assert_eq!(first(&mut raw), "a", "it has been seen to");
    site.publish("d", "meanwhile").expect("room");
    assert_eq!(subscribe(&mut raw, &format!("@d,{from}")), from);
    assert_eq!(hear(&mut raw), "meanwhile");
}

#[test]
fn what_is_published_before_a_close_is_published() {
    let site = Site::start(Frames::Bare, |server| server);
    let mut other = site.open();
    subscribe(&mut other, "+a");
    let mut raw = site.open();
    say(&mut raw, "=a x");
    assert_eq!(raw.expect_close(4000), "as you wish");
    assert_eq!(hear(&mut other), "hello");
}

#[test]
fn a_connection_has_so_many_subscriptions_and_no_more() {
    let site = Site::start(Frames::Bare, |server| server.subscriptions_max(3));
    let mut raw = site.open();
    for topic in ["+a", "+b", "+c"] {
        subscribe(&mut raw, topic);
    }
    say(&mut raw, "+d");
    assert_eq!(hear(&mut raw), "d too_many_subscriptions");
    say(&mut raw, "-b");
    subscribe(&mut raw, "+d");
    site.publish("b", "b").expect("room");
    site.publish("d", "d").expect("room");
    assert_eq!(hear(&mut raw), "d");
}

#[test]
fn too_many_topics_are_refused_to_publishers_and_subscribers() {
    let site = Site::start(Frames::Bare, |server| server.workers(1).topics_max(2));
    let mut raw = site.open();
    subscribe(&mut raw, "+a");
    site.publish("b", "kept").expect("room");
    assert_eq!(site.publish("c", "c"), Err(Refused::TopicsFull));
    say(&mut raw, "+c");
    assert_eq!(hear(&mut raw), "c topics_full");
    site.publish("a", "a").expect("it is there");
    assert_eq!(hear(&mut raw), "a");
}

#[test]
fn a_publisher_says_what_it_publishes() {
    let site = Site::start(Frames::Json, |server| server);
    let mut raw = site.open();
    subscribe(&mut raw, "+a");
    let json = Publication::json("[1, 2]").expect("JSON");
    let first = site.publish("a", json.clone().idempotency_key("k")).expect("room");
    assert_eq!(site.publish("a", json.idempotency_key("k")), Ok(first), "the same key");
    let second = site.publish("a", &b"\xff"[..]).expect("room");
    let third = site.publish("a", "text").expect("room");
    assert_eq!(hear(&mut raw), format!("{{\"id\":\"{first}\",\"data\":[1, 2]}}"));
    assert_eq!(hear(&mut raw), format!("{{\"id\":\"{second}\",\"base64\":\"/w==\"}}"));
    assert_eq!(hear(&mut raw), format!("{{\"id\":\"{third}\",\"data\":\"text\"}}"));
    assert_eq!(Publication::json("[1,").expect_err("no JSON").to_string(), "expected a value at byte 3");
}

#[test]
fn a_gap_closes_a_bare_one_and_is_said_to_a_json_one() {
    for frames in [Frames::Bare, Frames::Json] {
        let site = Site::start(frames, |server| server.history(2, 1 << 20, Duration::from_secs(60)));
        let cursors: Vec<_> = (0..5).map(|number| site.publish("a", number.to_string()).expect("room")).collect();
        let mut raw = site.open();
        let resumed = subscribe(&mut raw, &format!("@a,{}", cursors[0]));
        assert_eq!(resumed, cursors[2].to_string(), "the position before the oldest kept");
        if frames == Frames::Bare {
            assert_eq!(raw.expect_close(4410), format!("gap: resume at {resumed}"));
        } else {
            assert_eq!(
                hear(&mut raw),
                format!("{{\"gap\":{{\"since\":\"{}\",\"resumed\":\"{resumed}\"}}}}", cursors[0])
            );
            assert!(hear(&mut raw).ends_with("\"data\":\"3\"}"));
        }
    }
}

/// What a JSON frame says: a cursor's epoch and offset, and for a gap the offset that it goes on from.
fn position(frame: &str) -> (String, u64, bool) {
    let is_gap = frame.starts_with("{\"gap\"");
    let key = if is_gap { "\"resumed\":\"" } else { "\"id\":\"" };
    let cursor = frame.split_once(key).expect("a cursor").1.split('"').next().expect("it ends");
    let (epoch, offset) = cursor.split_once('-').expect("a cursor");
    (epoch.to_owned(), offset.parse().expect("a number"), is_gap)
}

#[test]
fn a_slow_reader_of_many_topics_skips_or_is_closed() {
    for policy in [SlowReaders::Skip, SlowReaders::Disconnect] {
        let site = Site::start(Frames::Json, |server| {
            server.slow_readers(policy).history(8, 1 << 20, Duration::from_secs(60))
        });
        let mut slow = site.open();
        for topic in 0..5 {
            subscribe(&mut slow, &format!("+t{topic}"));
        }
        // Far more than the sockets take, and it does not read meanwhile.
        let filler = "x".repeat(8000);
        let mut heads = HashMap::new();
        for number in 0..400 {
            for topic in 0..5 {
                let cursor = site.publish(&format!("t{topic}"), format!("{number} {filler}")).expect("room");
                let (epoch, offset) =
                    cursor.to_string().split_once('-').map(|(e, o)| (e.to_owned(), o.to_owned())).expect("a cursor");
                heads.insert(epoch, offset.parse::<u64>().expect("a number"));
            }
        }
        let mut seen: HashMap<String, u64> = HashMap::new();
        let mut gaps = 0;
        loop {
            let frame = slow.frame();
            if frame.opcode == CLOSE {
                assert_eq!(policy, SlowReaders::Disconnect);
                assert_eq!(frame.payload[..2], 1013_u16.to_be_bytes());
                break;
            }
            let (epoch, offset, is_gap) = position(&String::from_utf8(frame.payload).expect("text"));
            let last = seen.insert(epoch, offset).unwrap_or(0);
            assert!(if is_gap { offset > last } else { offset == last + 1 }, "{last} then {offset}");
            gaps += usize::from(is_gap);
            if seen == heads {
                assert_eq!(policy, SlowReaders::Skip, "it is closed before it is told all");
                assert!(gaps >= 5, "each topic was skipped: {gaps}");
                break;
            }
        }
    }
}

/// Everybody comes and goes on 20 topics while everybody publishes: streams have no holes.
#[test]
fn streams_have_no_holes_while_everybody_comes_and_goes() {
    let site = Site::start(Frames::Json, |server| server.history(100_000, 1 << 30, Duration::from_secs(60)));
    thread::scope(|scope| {
        for thread in 0..4 {
            let publisher = site.handle.publisher();
            scope.spawn(move || {
                for number in 0..2000 {
                    publisher.publish(&name(&format!("t{}", (number + thread * 5) % 20)), "x");
                    if number % 20 == 0 {
                        thread::sleep(millis(5));
                    }
                }
            });
        }
        for seed in 0..8 {
            let site = &site;
            scope.spawn(move || {
                let (mut raw, mut random) = (site.open(), throng::mem::Rng::new(seed));
                // By epoch, which names the topic too: what was seen last, while it is subscribed.
                let (mut seen, mut frames) = (HashMap::new(), 0);
                for _ in 0..150 {
                    let topic = random.below(20);
                    say(&mut raw, &if random.below(3) == 0 { format!("-t{topic}") } else { format!("+t{topic}") });
                    while raw.hears(millis(random.below(20))) {
                        let said = hear(&mut raw);
                        if let Some((_, cursor)) = said.split_once(" from ") {
                            let (epoch, offset) = cursor.split_once('-').expect("a cursor");
                            seen.insert(epoch.to_owned(), offset.parse::<u64>().expect("a number"));
                            continue;
                        }
                        let (epoch, offset, _) = position(&said);
                        let last = seen.insert(epoch, offset).expect("a cursor came first");
                        assert_eq!(offset, last + 1, "seed {seed}");
                        frames += 1;
                        if frames % 50 == 0 {
                            break;
                        }
                    }
                }
                assert!(frames > 100, "{frames}");
            });
        }
    });
}
