//! Whose connection it is, behind proxies, and what follows from that.

use super::*;
use crate::config::{ForwardedHeader, Proxies};
use std::hash::RandomState;

/// Says who asks.
#[derive(Debug)]
struct Who;

impl Service for Who {
    type State = ();

    fn open(&mut self, _: &Request<'_>) -> Decision<()> {
        Accept::new(()).into()
    }

    fn message(&mut self, _: &mut Connection<'_, ()>, _: Message<'_>) {}

    fn request(&mut self, request: &Request<'_>) -> crate::service::Answer {
        crate::http::Response::new(200).body("text/plain", request.peer().to_string()).into()
    }
}

/// The script's clients come from 127.0.0.1.
fn config(trusted: &str, protocol: bool, header: Option<ForwardedHeader>) -> Config {
    let trusted = trusted.split_whitespace().map(|network| network.parse().expect("a network")).collect();
    Config { proxies: Proxies { trusted, protocol, header }, ..Config::default() }
}

fn stage(config: &Config, most: u16) -> Stage<Who> {
    Stage::set(Who, config, |shared| shared.accepting(Some(Sources::new(most, 16, RandomState::new())), None))
}

fn get(fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

/// The status and the end of what a client was answered.
fn answer(client: &Shared_) -> (String, String) {
    let text = String::from_utf8_lossy(&client.borrow().output).into_owned();
    let status = text.split(' ').nth(1).unwrap_or("").to_owned();
    (status, text.rsplit("\r\n\r\n").next().unwrap_or("").to_owned())
}

fn is(client: &Shared_, who: &str) {
    assert_eq!(answer(client), ("200".to_owned(), who.to_owned()));
}

const LIST: Option<ForwardedHeader> = Some(ForwardedHeader::XForwardedFor);

#[test]
fn each_request_of_a_proxys_connection_is_its_own_clients() {
    let mut stage = stage(&config("127.0.0.0/8 10.0.0.0/8", false, LIST), 8);
    let client = stage.client_with(&get("X-Forwarded-For: 192.0.2.1, 10.0.0.1\r\n"));
    stage.turn();
    is(&client, "192.0.2.1");
    for (fields, who) in [
        ("X-Forwarded-For: 192.0.2.2\r\nForwarded: for=192.0.2.9\r\n", "192.0.2.2"),
        ("", "127.0.0.1:1"),
        ("X-Forwarded-For: 203.0.113.5, 192.0.2.3\r\n", "192.0.2.3"),
    ] {
        client.borrow_mut().output.clear();
        stage.say(&client, &get(fields));
        stage.turn();
        is(&client, who);
    }
    assert_eq!(stage.worker.hops.len(), 1, "who is really there is remembered");
    client.borrow_mut().output.clear();
    stage.say(&client, HEAD);
    stage.turn();
    assert!(stage.worker.hops.is_empty(), "there is no other request on a WebSocket");
}

#[test]
fn what_others_say_of_addresses_is_ignored() {
    for config in [config("192.0.2.0/24", false, LIST), config("192.0.2.0/24", true, LIST), Config::default()] {
        let mut stage = stage(&config, 8);
        let client = stage.client_with(&get("X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n"));
        stage.turn();
        is(&client, "127.0.0.1:1");
    }
}

#[test]
fn a_header_may_stand_behind_a_preamble() {
    let mut stage = stage(&config("127.0.0.1 192.0.2.0/24", true, LIST), 8);
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.2 4242 80\r\n";
    let named = stage.client_with(&[line, &get("X-Forwarded-For: 203.0.113.9\r\n")[..]].concat());
    let foreign = b"PROXY TCP4 198.51.100.9 198.51.100.2 4242 80\r\n";
    let forged = stage.client_with(&[foreign, &get("X-Forwarded-For: 203.0.113.9\r\n")[..]].concat());
    stage.turn();
    is(&named, "203.0.113.9");
    is(&forged, "198.51.100.9:4242");
}

#[test]
fn what_a_trusted_proxy_cannot_have_meant_is_refused() {
    let mut stage = stage(&config("127.0.0.1", false, LIST), 8);
    let client = stage.client_with(&get("X-Forwarded-For: what\r\n"));
    stage.turn();
    let (status, body) = answer(&client);
    assert!(status == "400" && body.contains("forwarded_invalid"), "{status} {body}");
}

/// In both ways to name a client: it counts from when it is known, a proxy's own address never does, and what was counted
/// is given back.
#[test]
fn clients_behind_a_proxy_are_counted_by_their_own_address() {
    for protocol in [true, false] {
        let config = config("127.0.0.1", protocol, (!protocol).then_some(ForwardedHeader::XForwardedFor));
        let mut stage = stage(&config, 2);
        let by = |address: &str| {
            if protocol {
                [format!("PROXY TCP4 {address} 198.51.100.2 4242 80\r\n").as_bytes(), HEAD].concat()
            } else {
                String::from_utf8_lossy(HEAD)
                    .replace("Host: a\r\n", &format!("Host: a\r\nX-Forwarded-For: {address}\r\n"))
                    .into_bytes()
            }
        };
        let opens = |stage: &mut Stage<Who>, address: &str| {
            let client = stage.client_with(&by(address));
            stage.turn();
            let status = answer(&client).0;
            (client, status)
        };
        let (first, _) = opens(&mut stage, "192.0.2.1");
        assert_eq!(opens(&mut stage, "192.0.2.1").1, "101");
        assert_eq!(opens(&mut stage, "192.0.2.1").1, "429", "that is its third");
        assert_eq!(opens(&mut stage, "192.0.2.2").1, "101");
        first.borrow_mut().error = Some(ErrorKind::ConnectionReset);
        let token = first.borrow().token.expect("registered");
        stage.event(token, |event| event.error = true);
        stage.turn();
        assert_eq!(opens(&mut stage, "192.0.2.1").1, "101", "one has gone");
        assert_eq!(opens(&mut stage, "192.0.2.1").1, "429");
    }
}

/// A reload finds connections that proxies keep alive.
#[test]
fn a_proxy_that_is_trusted_no_longer_is_itself_and_counts() {
    let mut stage = stage(&config("127.0.0.0/8", false, LIST), 1);
    let proxy = stage.client_with(&get("X-Forwarded-For: 192.0.2.1\r\n"));
    stage.turn();
    is(&proxy, "192.0.2.1");
    stage.worker.rules = Config::default().rules().expect("the settings are right");
    proxy.borrow_mut().output.clear();
    stage.say(&proxy, &get("X-Forwarded-For: 192.0.2.2\r\n"));
    stage.turn();
    is(&proxy, "127.0.0.1:1");
    let second = stage.client_with(&get(""));
    stage.turn();
    assert_eq!(answer(&second).0, "429", "the first counts for that address now");
}

#[test]
fn who_never_counted_does_once_it_is_trusted_no_longer() {
    let mut stage = stage(&config("127.0.0.0/8", false, LIST), 1);
    let proxy = stage.client_with(&get(""));
    stage.turn();
    stage.worker.rules = Config::default().rules().expect("the settings are right");
    proxy.borrow_mut().output.clear();
    stage.say(&proxy, &get(""));
    stage.turn();
    is(&proxy, "127.0.0.1:1");
    let second = stage.client_with(&get(""));
    stage.turn();
    assert_eq!(answer(&second).0, "429", "the first counts now");
}
