//! Known frames.

use super::super::codec::{Format, Malformed, commands, emulation};
use super::super::codes::{DisconnectCode, ErrorCode, UnsubscribeCode};
use super::super::protocol::*;
use super::super::push::{self, Published};
use super::{all, frame, read, text};
use crate::topic::{Kind, Message as TopicMessage, Publication as TopicPublication, TopicName};
use std::collections::BTreeMap;

fn reply(id: u32, outcome: Outcome) -> Reply {
    Reply { id, outcome: Some(outcome) }
}

#[track_caller]
fn request(line: &str) -> Request {
    let [Command { request: Some(request), .. }] = &read(Format::Json, line.as_bytes())[..] else { panic!("{line}") };
    request.clone()
}

#[test]
fn the_first_frame_of_the_javascript_client_is_read() {
    let lines = concat!(
        r#"{"connect":{"token":"abc","data":{"a": [1, 2]},"name":"js","headers":{"x":"y"},"#,
        r#""subs":{"news":{"recover":true,"offset":7,"epoch":"xyz"}}},"id":1}"#,
        "\n",
        r#"{"subscribe":{"channel":"ch1","flag":1,"recover":true,"offset":18446744073709551615,"epoch":"e"},"id":2}"#
    );
    let connect = ConnectRequest {
        token: "abc".into(),
        data: br#"{"a": [1, 2]}"#.to_vec(),
        name: "js".into(),
        headers: [("x".into(), "y".into())].into(),
        subs: BTreeMap::from([(
            "news".to_owned(),
            SubscribeRequest { recover: true, offset: 7, epoch: "xyz".into(), ..Default::default() },
        )]),
        ..Default::default()
    };
    let subscribe = SubscribeRequest {
        channel: "ch1".into(),
        flag: 1,
        recover: true,
        offset: u64::MAX,
        epoch: "e".into(),
        ..Default::default()
    };
    let expected = [
        Command { id: 1, request: Some(Request::Connect(connect)) },
        Command { id: 2, request: Some(Request::Subscribe(subscribe)) },
    ];
    assert_eq!(read(Format::Json, lines.as_bytes()), expected);
    assert_eq!(read(Format::Json, format!("{lines}\n").as_bytes()), expected, "one line feed may end a frame");
}

#[test]
fn every_request_has_its_name() {
    let channel = |channel: &str| ChannelRequest { channel: channel.into() };
    assert_eq!(request(r#"{"id":1,"unsubscribe":{"channel":"a"}}"#), Request::Unsubscribe(channel("a")));
    assert_eq!(request(r#"{"id":1,"presence":{"channel":"a"}}"#), Request::Presence(channel("a")));
    assert_eq!(request(r#"{"id":1,"presence_stats":{"channel":"a"}}"#), Request::PresenceStats(channel("a")));
    assert_eq!(request(r#"{"id":1,"ping":{}}"#), Request::Ping(Empty {}));
    assert_eq!(request(r#"{"send":{"data":[]}}"#), Request::Send(Message { data: b"[]".to_vec() }));
    let rpc = RpcRequest { method: "m".into(), data: b"1".to_vec() };
    assert_eq!(request(r#"{"id":1,"rpc":{"method":"m","data":1}}"#), Request::Rpc(rpc));
    let refresh = RefreshRequest { token: "t".into() };
    assert_eq!(request(r#"{"id":1,"refresh":{"token":"t"}}"#), Request::Refresh(refresh));
    let refresh = SubRefreshRequest { channel: "a".into(), token: "t".into(), r#type: 0 };
    assert_eq!(request(r#"{"id":1,"sub_refresh":{"channel":"a","token":"t"}}"#), Request::SubRefresh(refresh));
    let since = Some(StreamPosition { offset: 3, epoch: "e".into() });
    let history = HistoryRequest { channel: "a".into(), limit: -1, since, reverse: true };
    assert_eq!(
        request(r#"{"id":1,"history":{"channel":"a","limit":-1,"since":{"offset":3,"epoch":"e"},"reverse":true}}"#),
        Request::History(history)
    );
}

#[test]
fn a_payload_is_what_the_client_wrote_null_included() {
    let data = |line: &str| match request(line) {
        Request::Publish(request) => String::from_utf8(request.data).unwrap(),
        other => panic!("{other:?}"),
    };
    for written in ["null", "0", r#""a\nb\u00e9""#, "[1 ,\t2]", r#"{"a":{"b":[{}]},"a":1e400}"#] {
        assert_eq!(data(&format!(r#"{{"id":1,"publish":{{"channel":"a","data": {written} }}}}"#)), written);
    }
    assert_eq!(data(r#"{"id":1,"publish":{"channel":"a"}}"#), "");
}

#[test]
fn null_is_absent_and_the_unknown_is_skipped() {
    let line = r#"{"id":null,"connect":null,"later":[{}],"subscribe":{"channel":"a","token":null,"recover":null,"tf":null,"x":{}}}"#;
    let subscribe = SubscribeRequest { channel: "a".into(), ..Default::default() };
    assert_eq!(read(Format::Json, line.as_bytes()), [Command { id: 0, request: Some(Request::Subscribe(subscribe)) }]);
    let filtered = r#"{"id":1,"subscribe":{"channel":"a","type":1,"tf":{"op":"and","nodes":[{"key":"k"}]}}}"#;
    let Request::Subscribe(subscribe) = request(filtered) else { panic!() };
    assert_eq!((subscribe.tf, subscribe.r#type), (Some(Filter {}), 1));
}

#[test]
fn of_several_requests_in_a_line_the_first_of_the_schema_counts() {
    let both = r#"{"id":1,"rpc":{},"connect":{"token":"t"}}"#;
    assert_eq!(request(both), Request::Connect(ConnectRequest { token: "t".into(), ..Default::default() }));
}

#[test]
fn nothing_is_a_pong() {
    let pong = Command::default;
    for json in ["", "\n", "{}", " {} \r\n", r#"{"id":0}"#] {
        assert_eq!(read(Format::Json, json.as_bytes()), [pong()], "{json:?}");
    }
    assert_eq!(read(Format::Json, b"{}\n{}"), [pong(), pong()]);
    assert_eq!(read(Format::Protobuf, b""), [pong()]);
    assert_eq!(read(Format::Protobuf, b"\0"), [pong()]);
    assert_eq!(read(Format::Protobuf, b"\0\0\x02\x08\x00"), [pong(), pong(), pong()]);
}

#[test]
fn what_is_malformed_is_refused_with_the_reason() {
    let fault = |format, frame: &[u8]| {
        let mut commands = all(format, frame);
        commands.pop().unwrap().unwrap_err().to_string()
    };
    let json = |frame: &str| fault(Format::Json, frame.as_bytes());
    assert_eq!(json("{"), "a line is not JSON: see column 1");
    assert_eq!(json("{}\n\n{}"), "a line is not JSON: see column 0");
    assert_eq!(json("{}\n\n"), "a line is not JSON: see column 0", "one line feed at the end, not two");
    assert_eq!(json("[]"), "a line is not a command: see column 1");
    assert_eq!(json("null"), "a line is not a command: see column 4");
    assert_eq!(json(r#"{"id":-1}"#), "a line is not a command: see column 8");
    assert_eq!(json(r#"{"id":1,"connect":[1]}"#), "a line is not a command: see column 20");
    assert_eq!(json(r#"{"id":1}{"id":2}"#), "a line is not JSON: see column 9");
    assert_eq!(json(r#"{"id":7}"#), "command 7 asks for nothing that is known here");
    assert_eq!(json(r#"{"id":7,"conect":{}}"#), "command 7 asks for nothing that is known here");
    assert_eq!(fault(Format::Json, b"{\"connect\":{\"token\":\"\xff\"}}"), "a line is not JSON: see column 22");
    let protobuf = |frame: &[u8]| fault(Format::Protobuf, frame);
    assert_eq!(protobuf(b"\x80"), "the length before a command is not a varint");
    assert_eq!(protobuf(&[0xFF; 11]), "the length before a command is not a varint");
    assert_eq!(protobuf(b"\x05\x08\x01"), "the frame ends 3 bytes before its last command does");
    assert_eq!(protobuf(b"\x02\x08\x07"), "command 7 asks for nothing that is known here");
    assert!(protobuf(b"\x01\x22").starts_with("not a command: "));
    assert!(protobuf(b"\x05\x22\x03\x0a\x01\xff").starts_with("not a command: "), "a string is UTF-8");
}

#[test]
fn a_command_is_bounded_and_a_frame_is_not() {
    let counted = |format, frame: &[u8], bytes_max| {
        let all: Vec<_> = commands(format, frame, bytes_max).collect();
        (all.iter().filter(|command| command.is_ok()).count(), all.into_iter().find_map(Result::err))
    };
    let lines = b"{\"ping\":{}}\n{}\n{\"ping\":{}}";
    assert_eq!(counted(Format::Json, lines, 11), (3, None));
    assert_eq!(counted(Format::Json, lines, 10), (0, Some(Malformed::TooLong { bytes: 11, bytes_max: 10 })));
    // What is announced is judged before it is waited for.
    assert_eq!(
        counted(Format::Protobuf, b"\0\xff\xff\xff\xff\x0f", 100),
        (1, Some(Malformed::TooLong { bytes: u32::MAX.into(), bytes_max: 100 }))
    );
    let endless = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_eq!(counted(Format::Protobuf, endless, usize::MAX), (0, Some(Malformed::Cut { missing: u64::MAX })));
}

#[test]
fn commands_are_these_bytes_in_protobuf() {
    // id (field 1, varint) 1; connect (field 4, 2 bytes): name (field 4, 2 bytes) "js".
    let connect = b"\x08\x08\x01\x22\x04\x22\x02js";
    let expected = ConnectRequest { name: "js".into(), ..Default::default() };
    assert_eq!(read(Format::Protobuf, connect), [Command { id: 1, request: Some(Request::Connect(expected)) }]);
    // id 300; publish (field 7): channel (1) "a", data (2) of two bytes.
    let publish = b"\x0c\x08\xac\x02\x3a\x07\x0a\x01a\x12\x02\xff\0";
    let expected = PublishRequest { channel: "a".into(), data: vec![0xFF, 0], r#type: 0 };
    assert_eq!(read(Format::Protobuf, publish), [Command { id: 300, request: Some(Request::Publish(expected)) }]);
    // id 1; history (field 10): channel "a", limit (7) -1 in ten bytes, since (8): offset (1) 3.
    let history = b"\x16\x08\x01\x52\x12\x0a\x01a\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x42\x02\x08\x03";
    let since = Some(StreamPosition { offset: 3, epoch: String::new() });
    let expected = HistoryRequest { channel: "a".into(), limit: -1, since, reverse: false };
    assert_eq!(read(Format::Protobuf, history), [Command { id: 1, request: Some(Request::History(expected)) }]);
    // send (field 12), without an id, holding an unknown field 9 beside its data.
    let send = b"\x07\x62\x05\x0a\x01x\x48\x05";
    let expected = Message { data: b"x".to_vec() };
    assert_eq!(read(Format::Protobuf, send), [Command { id: 0, request: Some(Request::Send(expected)) }]);
    // id 2; subscribe (field 5): channel "a", recover (3), epoch (6) "e", offset (7) 5, flag (14) 3.
    let subscribe = b"\x10\x08\x02\x2a\x0c\x0a\x01a\x18\x01\x32\x01e\x38\x05\x70\x03";
    let expected = SubscribeRequest {
        channel: "a".into(),
        recover: true,
        epoch: "e".into(),
        offset: 5,
        flag: 1 | SubscribeRequest::REJECT_UNRECOVERED,
        ..Default::default()
    };
    assert_eq!(read(Format::Protobuf, subscribe), [Command { id: 2, request: Some(Request::Subscribe(expected)) }]);
}

#[test]
fn replies_are_these_bytes_in_protobuf() {
    let bytes = |reply| frame(Format::Protobuf, &[reply]);
    assert_eq!(bytes(Reply::default()), Format::Protobuf.ping());
    assert_eq!(bytes(reply(3, Outcome::Unsubscribe(Empty {}))), b"\x04\x08\x03\x3a\x00");
    assert_eq!(
        bytes(reply(1, Outcome::Error(ErrorCode::UnknownChannel.into()))),
        b"\x17\x08\x01\x12\x13\x08\x66\x12\x0funknown channel"
    );
    // push (4): channel (2) "a", pub (4): data (4) "x", offset (6) 1, tags (7): key (1) "k", value (2) "v".
    let tags = BTreeMap::from([("k".into(), "v".into())]);
    let publication = Publication { data: b"x".to_vec(), offset: 1, tags, ..Default::default() };
    let pushed = push::push(Format::Protobuf, "a", Event::Pub(publication));
    assert_eq!(pushed, b"\x14\x22\x12\x12\x01a\x22\x0d\x22\x01x\x30\x01\x3a\x06\x0a\x01k\x12\x01v");
    // push (4), connect (10): its client (1), data (3), ping (7) and pong (8) have other numbers than the result's.
    let connect = Connect { client: "c".into(), data: b"1".to_vec(), ping: 25, pong: true, ..Default::default() };
    let pushed = push::push(Format::Protobuf, "", Event::Connect(connect));
    assert_eq!(pushed, b"\x0e\x22\x0c\x52\x0a\x0a\x01c\x1a\x011\x38\x19\x40\x01");
}

#[test]
fn an_empty_value_of_a_map_is_said() {
    let subs = vec![Subscribed { channel: "a".into(), result: SubscribeResult::default() }];
    let connect = reply(1, Outcome::Connect(ConnectResult { subs: subs.clone(), ..Default::default() }));
    // connect (5): an entry of subs (6): key (1) "a", value (2) of no bytes.
    assert_eq!(frame(Format::Protobuf, &[connect]), b"\x0b\x08\x01\x2a\x07\x32\x05\x0a\x01a\x12\x00");
    let pushed = push::push(Format::Protobuf, "", Event::Connect(Connect { subs, ..Default::default() }));
    assert_eq!(pushed, b"\x0b\x22\x09\x52\x07\x22\x05\x0a\x01a\x12\x00");
}

#[test]
fn results_are_these_lines() {
    let connect = ConnectResult {
        client: "c1".into(),
        version: "1".into(),
        expires: true,
        ttl: 60,
        data: b"{\"a\": \r\n1}".to_vec(),
        subs: vec![Subscribed { channel: "news".into(), result: SubscribeResult::default() }],
        ping: 25,
        pong: true,
        session: "s".into(),
        node: "n".into(),
        time: 0,
    };
    assert_eq!(
        text(&[reply(1, Outcome::Connect(connect))]),
        concat!(
            r#"{"id":1,"connect":{"client":"c1","version":"1","expires":true,"ttl":60,"data":{"a": 1},"#,
            r#""subs":{"news":{}},"ping":25,"pong":true,"session":"s","node":"n"}}"#
        )
    );
    let subscribe = SubscribeResult {
        recoverable: true,
        positioned: true,
        epoch: "abcdefgh".into(),
        offset: 2,
        recovered: true,
        was_recovering: true,
        publications: vec![Publication { data: b"\"x\"".to_vec(), offset: 2, ..Default::default() }],
        ..Default::default()
    };
    assert_eq!(
        text(&[reply(2, Outcome::Subscribe(subscribe))]),
        concat!(
            r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"abcdefgh","publications":[{"data":"x","offset":2}],"#,
            r#""recovered":true,"offset":2,"positioned":true,"was_recovering":true}}"#
        )
    );
    assert_eq!(text(&[reply(3, Outcome::Publish(Empty {}))]), r#"{"id":3,"publish":{}}"#);
    assert_eq!(text(&[reply(4, Outcome::Unsubscribe(Empty {}))]), r#"{"id":4,"unsubscribe":{}}"#);
    assert_eq!(text(&[reply(5, Outcome::Rpc(Message { data: b"[1]".to_vec() }))]), r#"{"id":5,"rpc":{"data":[1]}}"#);
    let refresh = Refresh { expires: true, ttl: 9 };
    assert_eq!(text(&[reply(6, Outcome::SubRefresh(refresh))]), r#"{"id":6,"sub_refresh":{"expires":true,"ttl":9}}"#);
    assert_eq!(
        text(&[reply(7, Outcome::Error(ErrorCode::Internal.into()))]),
        r#"{"id":7,"error":{"code":100,"message":"internal server error","temporary":true}}"#
    );
    assert_eq!(text(&[Reply::default()]).as_bytes(), Format::Json.ping());
    assert_eq!(
        text(&[reply(8, Outcome::Publish(Empty {})), Reply::default(), reply(9, Outcome::Ping(Empty {}))]),
        "{\"id\":8,\"publish\":{}}\n{}\n{\"id\":9,\"ping\":{}}"
    );
}

#[test]
fn what_the_go_server_always_sends_is_always_there() {
    assert_eq!(
        text(&[reply(1, Outcome::History(HistoryResult::default()))]),
        r#"{"id":1,"history":{"publications":[],"epoch":"","offset":0}}"#
    );
    assert_eq!(
        text(&[reply(1, Outcome::Presence(PresenceResult::default()))]),
        r#"{"id":1,"presence":{"presence":{}}}"#
    );
    assert_eq!(
        text(&[reply(1, Outcome::PresenceStats(PresenceStatsResult::default()))]),
        r#"{"id":1,"presence_stats":{"num_clients":0,"num_users":0}}"#
    );
    let presence = BTreeMap::from([("c".into(), ClientInfo { client: "c".into(), ..Default::default() })]);
    assert_eq!(
        text(&[reply(1, Outcome::Presence(PresenceResult { presence }))]),
        r#"{"id":1,"presence":{"presence":{"c":{"user":"","client":"c"}}}}"#
    );
}

#[test]
fn pushes_are_these_lines() {
    let line = |channel, event| String::from_utf8(push::push(Format::Json, channel, event)).unwrap();
    let info =
        ClientInfo { user: "u".into(), client: "c".into(), conn_info: br#"{"n":1}"#.to_vec(), chan_info: vec![0xFF] };
    let member = Member { info: Some(info) };
    assert_eq!(
        line("a", Event::Join(member.clone())),
        concat!(
            r#"{"push":{"channel":"a","join":{"info":{"user":"u","client":"c","#,
            r#""conn_info":{"n":1},"chan_info":{"base64":"/w=="}}}}}"#
        )
    );
    assert!(line("a", Event::Leave(member)).starts_with(r#"{"push":{"channel":"a","leave":{"info":"#));
    assert_eq!(
        line("a", Event::Unsubscribe(UnsubscribeCode::InsufficientState.into())),
        r#"{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#
    );
    assert_eq!(
        line("", Event::Disconnect(DisconnectCode::Shutdown.into())),
        r#"{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}"#
    );
    assert_eq!(line("", Event::Message(Message { data: b"1".to_vec() })), r#"{"push":{"message":{"data":1}}}"#);
    let subscribe = Subscribe { recoverable: true, epoch: "e".into(), offset: 1, ..Default::default() };
    assert_eq!(
        line("a", Event::Subscribe(subscribe)),
        r#"{"push":{"channel":"a","subscribe":{"recoverable":true,"epoch":"e","offset":1}}}"#
    );
    assert_eq!(
        line("", Event::Refresh(Refresh { expires: true, ttl: 5 })),
        r#"{"push":{"refresh":{"expires":true,"ttl":5}}}"#
    );
}

#[test]
fn a_publication_looks_to_each_format_as_it_should() {
    let cases: [(Kind, &[u8], &str); 9] = [
        (Kind::Json, b"{\"a\":1}", "{\"a\":1}"),
        (Kind::Json, b" {\r\n  \"a\":\n[1,\r2]}\n", "{  \"a\":[1,2]}"),
        (Kind::Json, b"\"a\\r\\n\"", "\"a\\r\\n\""),
        (Kind::Text, b"42", "\"42\""),
        (Kind::Text, "a\r\n\u{1}\"\u{e9}".as_bytes(), "\"a\\r\\n\\u0001\\\"\u{e9}\""),
        (Kind::Text, b"", "\"\""),
        (Kind::Bytes, b"42", "{\"base64\":\"NDI=\"}"),
        (Kind::Bytes, b"\xff\0\n", "{\"base64\":\"/wAK\"}"),
        (Kind::Bytes, b"", "{\"base64\":\"\"}"),
    ];
    for (kind, payload, expected) in cases {
        let (topic, cursor) = (TopicName::new("a").unwrap(), "abcdefgh-7".parse().unwrap());
        let message = TopicMessage::new(topic, cursor, true, TopicPublication::new(kind, payload.into()), 0);
        let published = Published::from(&message);
        let json = String::from_utf8(push::publication(Format::Json, "a", &published)).unwrap();
        assert_eq!(json, format!("{{\"push\":{{\"channel\":\"a\",\"pub\":{{\"data\":{expected},\"offset\":7}}}}}}"));
        assert_eq!(published.publication(Format::Protobuf).data, payload);
    }
}

#[test]
fn a_publication_carries_who_published_it_and_its_tags() {
    let info = ClientInfo { user: "u".into(), client: "c".into(), ..Default::default() };
    let tags = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "\n".to_owned())]);
    let (info, tags) = (Some(info), Some(&tags));
    let published = Published { kind: Kind::Json, payload: b"1", offset: 0, time_ms: 1_700_000_000_000, info, tags };
    assert_eq!(
        String::from_utf8(push::publication(Format::Json, "a", &published)).unwrap(),
        concat!(
            r#"{"push":{"channel":"a","pub":{"data":1,"info":{"user":"u","client":"c"},"#,
            r#""tags":{"a":"\n","b":"2"},"time":1700000000000}}}"#
        )
    );
}

#[test]
fn bytes_that_only_look_like_json_without_their_line_ends_stay_bytes() {
    let data = b"tr\nue".to_vec();
    let line = text(&[reply(1, Outcome::Rpc(Message { data }))]);
    assert_eq!(line, r#"{"id":1,"rpc":{"data":{"base64":"dHIKdWU="}}}"#);
}

#[test]
fn what_is_published_with_protobuf_is_json_if_it_can_be() {
    assert_eq!(push::kind_of(Format::Protobuf, b" [1]\n"), Ok(Kind::Json));
    for bytes in [&b"[1"[..], b"", b"\"\xff\""] {
        assert_eq!(push::kind_of(Format::Protobuf, bytes), Ok(Kind::Bytes));
    }
    assert_eq!(push::kind_of(Format::Json, b"null"), Ok(Kind::Json));
    assert!(push::kind_of(Format::Json, b"").is_err(), "there is no data");
    // As deep as the frame is long: nobody should have to parse that.
    let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
    let Request::Publish(request) = request(&format!(r#"{{"id":1,"publish":{{"data":{deep}}}}}"#)) else { panic!() };
    assert_eq!(push::kind_of(Format::Json, &request.data).map_err(|error| error.at), Err(128));
}

#[test]
fn a_frame_for_the_websocket_is_text_or_binary() {
    assert_eq!(push::websocket_frame(Format::Json, b"{}"), b"\x81\x02{}");
    assert_eq!(push::websocket_frame(Format::Protobuf, b"\0"), b"\x82\x01\0");
    assert_eq!(push::websocket_frame(Format::Json, &[b' '; 126])[..4], *b"\x81\x7e\x00\x7e");
}

#[test]
fn emulated_commands_come_in_an_envelope() {
    let expected = EmulationRequest { node: "n".into(), session: "s".into(), data: b"{}\n{}".to_vec() };
    assert_eq!(emulation(Format::Json, br#"{"session":"s","node":"n","data":"{}\n{}"}"#), Ok(expected.clone()));
    assert_eq!(emulation(Format::Protobuf, b"\x0a\x01n\x12\x01s\x1a\x05{}\n{}"), Ok(expected));
    for bad in [&br#"{"session":"s","node":"n","data":{}}"#[..], br#"{"session":"s","node":"n"}"#, b"[]", b"", b"{"] {
        assert!(emulation(Format::Json, bad).is_err(), "{}", bad.escape_ascii());
    }
    assert!(emulation(Format::Protobuf, b"\x0a\x05n").is_err());
}
