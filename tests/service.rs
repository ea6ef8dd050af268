//! The library as its user sees it: a service of one's own, and a handle on other threads.

mod support;

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use support::{PATIENCE, Raw, eventually, millis, text, upgrade};
use throng::{
    Accept, Close, Config, ConnId, Connection, Decision, Gone, Handle, Message, Request, Response, Running, SendError,
    Server, Service, Token,
};

/// What a service saw.
#[derive(Debug, PartialEq)]
enum Seen {
    Asked(Token),
    Ready(ConnId),
    Closed(ConnId, String, u16, String, bool),
}

/// Does what the path and the messages say.
struct Obedient {
    seen: Sender<Seen>,
}

impl Service for Obedient {
    type State = String;

    fn open(&mut self, request: &Request<'_>) -> Decision<String> {
        match request.path() {
            "/later" => {
                self.seen.send(Seen::Asked(request.token())).expect("the test listens");
                Decision::Later(request.token())
            }
            "/refused" => Response::refuse(451, "not \"here\"").header("X-Why", "law").into(),
            "/panic" => panic!("as the path says"),
            "/subprotocol" => {
                let wanted = request.subprotocols().last().unwrap_or("nothing").to_owned();
                Accept::new(String::new()).subprotocol(wanted).header("X-Seen", "1").into()
            }
            "/foreign-subprotocol" => Accept::new(String::new()).subprotocol("mine").into(),
            "/bad-header" => Accept::new(String::new()).header("X-Bad", "a\r\nb: c").into(),
            path => Accept::new(format!("{path} {}", request.query().unwrap_or("-"))).into(),
        }
    }

    fn ready(&mut self, connection: &mut Connection<'_, String>) {
        self.seen.send(Seen::Ready(connection.id())).expect("the test listens");
        if connection.state().starts_with("/hello") {
            connection.send("hello").expect("there is room");
        }
    }

    fn message(&mut self, connection: &mut Connection<'_, String>, message: Message<'_>) {
        match message {
            Message::Text("panic") => panic!("as the message says"),
            Message::Text("state") => {
                let state = connection.state().clone();
                connection.send(&*state).expect("there is room");
            }
            Message::Text("peer") => {
                let peer = connection.peer().to_string();
                connection.send(&*peer).expect("there is room");
            }
            Message::Text("close") => {
                connection.close(4001, "as you wish");
                assert_eq!(connection.send("more"), Err(SendError::Closed));
            }
            Message::Text("flood") => {
                let chunk = vec![0; 60_000];
                while connection.send(&*chunk).is_ok() {}
                assert!(connection.queued_bytes() > 900_000);
                assert_eq!(connection.send(&*chunk), Err(SendError::QueueFull));
            }
            Message::Text("ping") => connection.ping(b"are you there").expect("there is room"),
            other => connection.send(other).expect("there is room"),
        }
    }

    fn pong(&mut self, connection: &mut Connection<'_, String>, payload: &[u8]) {
        connection.send(payload).expect("there is room");
    }

    fn tick(&mut self, connection: &mut Connection<'_, String>) {
        if connection.state().starts_with("/tick") {
            connection.send("tick").expect("there is room");
        }
    }

    fn close(&mut self, id: ConnId, state: String, close: &Close<'_>) {
        assert_ne!(state, "/panic-at-close -", "as the path says");
        let _ = self.seen.send(Seen::Closed(id, close.end.word().into(), close.code, close.reason.into(), close.clean));
    }
}

struct Site {
    running: Option<Running<String>>,
    handle: Handle<String>,
    address: SocketAddr,
    seen: Receiver<Seen>,
}

impl Site {
    fn start(settings: impl FnOnce(Server) -> Server) -> Self {
        let (sender, seen) = channel();
        let server = settings(Server::new().listen("127.0.0.1:0".parse().expect("an address")));
        let running = server.start(move |_| Obedient { seen: sender.clone() }).expect("it starts");
        let (handle, address) = (running.handle(), running.addresses()[0]);
        Self { running: Some(running), handle, address, seen }
    }

    fn ask(&self, target: &str) -> Raw {
        self.ask_with(target, "X-Nothing: 1")
    }

    fn ask_with(&self, target: &str, line: &str) -> Raw {
        let mut raw = Raw::connect(self.address);
        let mut head = upgrade().with(line).bytes();
        head.splice(..head.iter().position(|&b| b == b'\r').expect("a line"), format!("GET {target} HTTP/1.1").bytes());
        raw.send(head);
        raw
    }

    fn open(&self, target: &str) -> (Raw, ConnId) {
        let mut raw = self.ask(target);
        assert_eq!(raw.head().status, 101);
        match self.next() {
            Seen::Ready(id) => (raw, id),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("the service sees something")
    }

    fn asked(&self) -> Token {
        match self.next() {
            Seen::Asked(token) => token,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.handle.abort();
        if let Some(running) = self.running.take() {
            running.wait().expect("no worker fails");
        }
    }
}

#[test]
fn a_service_sees_the_request_and_keeps_state() {
    let site = Site::start(|server| server);
    let (mut raw, _) = site.open("/room/7?who=me");
    raw.send(text("state").bytes());
    raw.expect(1, "/room/7 who=me");
    raw.send(text("peer").bytes());
    raw.expect(1, raw.stream().local_addr().expect("connected").to_string());
}

#[test]
fn a_greeting_from_ready_follows_the_answer() {
    let site = Site::start(|server| server);
    site.open("/hello").0.expect(1, "hello");
}

#[test]
fn a_refusal_is_the_services_own() {
    let site = Site::start(|server| server);
    let response = site.ask("/refused").response();
    assert_eq!((response.status, response.field("X-Why")), (451, Some("law")));
    assert_eq!(response.problem()["detail"], "not \"here\"");
}

#[test]
fn a_subprotocol_is_one_of_those_offered() {
    let site = Site::start(|server| server);
    let response = site.ask_with("/subprotocol", "Sec-WebSocket-Protocol: a, b").head();
    assert_eq!((response.status, response.field("Sec-WebSocket-Protocol")), (101, Some("b")));
    assert_eq!(response.field("X-Seen"), Some("1"));
    assert_eq!(site.ask_with("/foreign-subprotocol", "Sec-WebSocket-Protocol: a").response().status, 500);
    assert_eq!(site.ask("/bad-header").response().status, 500);
}

#[test]
fn a_decision_can_be_made_later_on_any_thread() {
    let site = Site::start(|server| server);
    let mut raw = site.ask("/later");
    raw.send(text("state").bytes()); // comes while nobody has decided, and is not lost
    let (token, handle) = (site.asked(), site.handle.clone());
    std::thread::spawn(move || handle.answer(token, Ok(Accept::new("decided".into()))))
        .join()
        .expect("no panic")
        .expect("it waits");
    assert_eq!(raw.head().status, 101);
    raw.expect(1, "decided");
    raw.echo("and reading goes on");
}

#[test]
fn a_later_decision_can_be_a_refusal_or_none_at_all() {
    let site = Site::start(|server| server.decision_timeout(millis(300)));
    let mut raw = site.ask("/later");
    site.handle.answer(site.asked(), Err(Response::refuse(403, "no"))).expect("it waits");
    assert_eq!(raw.response().status, 403);

    let mut raw = site.ask("/later");
    let token = site.asked();
    let response = raw.response();
    assert_eq!((response.status, &*response.problem()["code"]), (503, "decision_timeout"));
    drop(raw);
    eventually("the token is stale", PATIENCE, || {
        site.handle.answer(token, Ok(Accept::new(String::new()))) == Err(Gone)
    });
}

#[test]
fn a_client_that_leaves_before_the_decision_is_gone() {
    let site = Site::start(|server| server);
    let raw = site.ask("/later");
    let token = site.asked();
    drop(raw);
    eventually("it is gone", PATIENCE, || {
        std::thread::sleep(millis(50));
        site.handle.answer(token, Err(Response::new(403))).is_err()
    });
}

#[test]
fn a_panic_costs_one_connection() {
    let site = Site::start(|server| server.workers(1));
    let (mut bystander, _) = site.open("/");
    assert_eq!(site.ask("/panic").response().status, 500);
    let (mut raw, id) = site.open("/");
    raw.send(text("panic").bytes());
    raw.expect_close(1011);
    raw.expect_eof();
    assert_eq!(site.next(), Seen::Closed(id, "panic".into(), 1011, "internal error".into(), false));
    let (mut raw, _) = site.open("/panic-at-close");
    raw.send(support::close(1000, "").bytes());
    raw.expect_close(1000);
    bystander.echo("still here");
}

#[test]
fn a_handle_reaches_a_connection_and_nobody_else() {
    let site = Site::start(|server| server.workers(2));
    let mut all: Vec<_> = (0..20).map(|_| site.open("/")).collect();
    for (number, (_, id)) in all.iter().enumerate() {
        site.handle.send(*id, &*format!("you are {number}")).expect("open");
    }
    for (number, (raw, _)) in all.iter_mut().enumerate() {
        raw.expect(1, format!("you are {number}"));
    }
    assert_eq!(site.handle.connections(), 20);

    // Its slot is taken by the next one; the old id must not reach it.
    let (mut raw, stale) = all.pop().expect("twenty");
    site.handle.close(stale, 4000, "bye").expect("open");
    assert_eq!(raw.expect_close(4000), "bye");
    raw.send(support::close(4000, "").bytes());
    raw.expect_eof();
    assert_eq!(site.next(), Seen::Closed(stale, "service_closed".into(), 4000, "bye".into(), true));
    eventually("the id is stale", PATIENCE, || site.handle.send(stale, "anyone?") == Err(Gone));
    let mut successors: Vec<_> = (0..5).map(|_| site.open("/").0).collect();
    assert_eq!(site.handle.close(stale, 4000, ""), Err(Gone));
    successors.iter_mut().for_each(|raw| raw.echo("undisturbed"));
}

#[test]
fn messages_of_one_handle_arrive_in_order_and_many_threads_lose_none() {
    let site = Site::start(|server| server.workers(2));
    let (mut raw, id) = site.open("/");
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let handle = site.handle.clone();
            std::thread::spawn(move || {
                (0..500).for_each(|n| handle.send(id, &*format!("{thread} {n}")).expect("open"));
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..2000 {
        let frame = raw.frame();
        let line = String::from_utf8(frame.payload).expect("text");
        let (thread, n) = line.split_once(' ').expect("two numbers");
        let thread: usize = thread.parse().expect("a number");
        assert_eq!(n, next[thread].to_string());
        next[thread] += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

#[test]
fn a_service_closes_with_its_code_and_hears_how_it_ended() {
    let site = Site::start(|server| server);
    let (mut raw, id) = site.open("/");
    raw.send([text("close").bytes(), text("ignored").bytes()].concat());
    assert_eq!(raw.expect_close(4001), "as you wish");
    raw.send(support::close(4001, "").bytes());
    raw.expect_eof();
    assert_eq!(site.next(), Seen::Closed(id, "service_closed".into(), 4001, "as you wish".into(), true));

    let (mut raw, id) = site.open("/");
    raw.send(support::close(3000, "my turn").bytes());
    raw.expect_close(3000);
    assert_eq!(site.next(), Seen::Closed(id, "peer_closed".into(), 3000, "my turn".into(), true));

    let (raw, id) = site.open("/");
    drop(raw);
    assert!(matches!(site.next(), Seen::Closed(closed, word, 1006, _, false) if closed == id && word == "peer_gone"));
}

#[test]
fn a_slow_reader_is_told_to_the_service_and_closed_for_a_handle() {
    let site = Site::start(|server| server.workers(1));
    let (mut raw, id) = site.open("/");
    raw.send(text("flood").bytes());
    eventually("more than fits is refused, and the client closed", PATIENCE, || {
        std::thread::sleep(millis(1));
        site.handle.send(id, &vec![0; 500_000][..]).is_err()
    });
    assert!(matches!(site.next(), Seen::Closed(closed, word, 1013, _, false) if closed == id && word == "slow_reader"));
}

#[test]
fn a_tick_comes_to_every_open_connection() {
    let site = Site::start(|server| server.workers(1).tick_interval(millis(100)));
    let mut ticking: Vec<_> = (0..150).map(|_| site.open("/tick").0).collect();
    let (mut quiet, _) = site.open("/");
    for raw in &mut ticking {
        raw.expect(1, "tick");
        raw.expect(1, "tick");
    }
    quiet.echo("no tick here");
}

#[test]
fn pongs_to_its_own_pings_reach_the_service() {
    let site = Site::start(|server| server);
    let (mut raw, _) = site.open("/");
    raw.send(text("ping").bytes());
    raw.expect(9, "are you there");
    raw.send(support::frame(10, "are you there").bytes());
    raw.expect(2, "are you there");
}

#[test]
fn shutdown_closes_everybody_and_ends() {
    let mut site = Site::start(|server| server.workers(2));
    let mut all: Vec<_> = (0..50).map(|_| site.open("/").0).collect();
    site.handle.shutdown(Duration::from_millis(500));
    for raw in &mut all {
        raw.expect_close(1001);
        raw.send(support::close(1001, "").bytes());
        raw.expect_eof();
    }
    site.running.take().expect("running").wait().expect("it ends well");
    assert!(std::net::TcpStream::connect(site.address).is_err(), "nobody listens any more");
}

#[test]
fn settings_that_cannot_be_are_refused_at_the_start() {
    let start = |server: Server| server.start(|_| Obedient { seen: channel().0 }).map(drop);
    let error = start(Server::new().workers(0)).expect_err("no workers");
    assert!(error.to_string().contains("workers"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let error = start(Server::new().listen(taken.local_addr().expect("bound"))).expect_err("a port in use");
    assert!(error.to_string().contains("another process"), "{error}");
}

/// Waits until every worker has seen to what it was told before. Gives how many those are.
fn settle(handle: &Handle<String>) -> usize {
    let (done, all) = channel();
    handle.update_services(move |_: &mut Obedient| _ = done.send(()));
    // It ends when the last worker has done it.
    std::iter::from_fn(|| all.recv_timeout(PATIENCE).ok()).count()
}

#[test]
fn a_running_server_takes_other_settings_and_names_those_that_it_cannot() {
    let site = Site::start(|server| server.workers(2));
    let (mut raw, _) = site.open("/");
    let mut config = Config::default();
    config.listen = vec!["127.0.0.1:0".parse().expect("an address")];
    (config.workers, config.backlog, config.message_bytes_max) = (Some(3), 7, 1000);
    assert_eq!(site.handle.reconfigure(config.clone()), Ok(vec!["workers", "backlog"]));
    assert_eq!(settle(&site.handle), 2);
    raw.echo(&"x".repeat(1000));
    (config.queue_bytes_max, config.message_bytes_max) = (Some(1), 2000);
    let faults = site.handle.reconfigure(config.clone()).expect_err("a message would not fit");
    assert_eq!(faults.iter().map(throng::ConfigError::field).collect::<Vec<_>>(), ["queue_bytes_max"]);
    settle(&site.handle);
    raw.send(text("x".repeat(1001)).bytes());
    raw.expect_close(1009);
    (config.queue_bytes_max, config.workers, config.backlog) = (None, Some(2), Config::default().backlog);
    assert_eq!(site.handle.reconfigure(config), Ok(Vec::new()), "what was not taken is as it was");
    settle(&site.handle);
    site.open("/").0.echo(&"x".repeat(2000));
}

#[test]
fn a_service_is_changed_by_what_knows_it_and_outlives_a_panic_of_that() {
    struct Another;
    impl Service for Another {
        type State = String;
        fn open(&mut self, _: &Request<'_>) -> Decision<String> {
            Response::new(404).into()
        }
        fn message(&mut self, _: &mut Connection<'_, String>, _: Message<'_>) {}
    }
    let site = Site::start(|server| server.workers(2));
    site.handle.update_services(|_: &mut Another| panic!("the server runs no such service"));
    site.handle.update_services(|_: &mut Obedient| panic!("as the test says"));
    let (sender, seen) = channel();
    site.handle.update_services(move |service: &mut Obedient| service.seen = sender.clone());
    assert_eq!(settle(&site.handle), 2);
    let mut raw = site.ask("/");
    assert_eq!(raw.head().status, 101);
    assert!(matches!(seen.recv_timeout(PATIENCE), Ok(Seen::Ready(_))), "the new one is told");
    assert!(site.seen.try_recv().is_err());
}
