//! Compression (permessage-deflate, RFC 7692) over raw sockets, at the limits of production.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use support::*;

/// What ends a message and is not sent (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];
const OFFER: &str = "permessage-deflate; client_max_window_bits";
const NO_CONTEXT: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A client that compresses.
struct Peer {
    raw: Raw,
    deflate: Compress,
    inflate: Decompress,
    /// Whether each side keeps its context from message to message.
    client_keeps: bool,
    server_keeps: bool,
}

impl Peer {
    #[track_caller]
    fn open(server: &Throng, target: &str, offer: &str) -> Self {
        Self::open_as(server, upgrade().line(format!("GET {target} HTTP/1.1")), offer)
    }

    #[track_caller]
    fn open_as(server: &Throng, head: Head, offer: &str) -> Self {
        let mut raw = server.connect();
        raw.send(head.with(format!("Sec-WebSocket-Extensions: {offer}")).bytes());
        let answer = raw.head();
        assert_eq!(answer.status, 101, "{answer:?}");
        let agreed = answer.field("Sec-WebSocket-Extensions").expect("it is agreed on").to_owned();
        let bits =
            |name| agreed.split("; ").find_map(|part| part.strip_prefix(name)).map_or(15, |bits| bits.parse().unwrap());
        Self {
            raw,
            deflate: Compress::new_with_window_bits(Compression::new(6), false, bits("client_max_window_bits=")),
            // Not a bit more than what was agreed on: what refers further back is an error.
            inflate: Decompress::new_with_window_bits(false, bits("server_max_window_bits=")),
            client_keeps: !agreed.contains("client_no_context_takeover"),
            server_keeps: !agreed.contains("server_no_context_takeover"),
        }
    }

    /// A message compressed.
    fn pack(&mut self, message: &[u8]) -> Vec<u8> {
        if !self.client_keeps {
            self.deflate.reset();
        }
        pack_with(&mut self.deflate, message)
    }

    fn say(&mut self, opcode: u8, message: impl AsRef<[u8]>) {
        let packed = self.pack(message.as_ref());
        self.raw.send(frame(opcode, packed).reserved(0x40).bytes());
    }

    /// What a message says, and whether it was compressed.
    #[track_caller]
    fn hear(&mut self) -> (Received, bool) {
        let (is_compressed, received) = self.raw.any_frame();
        (self.unpack(received, is_compressed), is_compressed)
    }

    #[track_caller]
    fn unpack(&mut self, received: Received, is_compressed: bool) -> Received {
        if !is_compressed {
            return received;
        }
        if !self.server_keeps {
            self.inflate.reset(false);
        }
        let input = [&received.payload[..], &TAIL].concat();
        let mut payload = Vec::with_capacity(1 << 20);
        let before = self.inflate.total_in();
        self.inflate.decompress_vec(&input, &mut payload, FlushDecompress::Sync).expect("what the server compressed");
        assert_eq!(self.inflate.total_in() - before, input.len() as u64, "all of it was read");
        Received { payload, ..received }
    }

    #[track_caller]
    fn expect(&mut self, opcode: u8, payload: impl AsRef<[u8]>, is_compressed: bool) {
        let (received, was) = self.hear();
        let payload = payload.as_ref();
        assert!(received.opcode == opcode && received.payload == payload, "{received:?}");
        assert_eq!(was, is_compressed, "{} bytes", payload.len());
    }
}

fn pack_with(deflate: &mut Compress, message: &[u8]) -> Vec<u8> {
    let before = deflate.total_in();
    let mut packed = Vec::new();
    while packed.len() == packed.capacity() || deflate.total_in() - before < message.len() as u64 {
        packed.reserve(1 << 16);
        let from = (deflate.total_in() - before) as usize;
        deflate.compress_vec(&message[from..], &mut packed, FlushCompress::Sync).unwrap();
    }
    assert!(packed.ends_with(&TAIL));
    packed.truncate(packed.len() - TAIL.len());
    packed
}

fn words(length: usize) -> String {
    let mut words = String::new();
    for number in 0.. {
        if words.len() >= length {
            break;
        }
        words += &format!("{{\"symbol\": \"S{}\", \"price\": {}.25}}, ", number % 7, number * 31 % 97);
    }
    words.truncate(length);
    words
}

fn noise(length: usize) -> Vec<u8> {
    let mut random = Random::new();
    (0..length).map(|_| random.below(256) as u8).collect()
}

#[track_caller]
fn negotiated(server: &Throng, offers: &[&str]) -> Option<String> {
    let mut raw = server.connect();
    let head = offers.iter().fold(upgrade(), |head, offer| head.with(format!("Sec-WebSocket-Extensions: {offer}")));
    raw.send(head.bytes());
    let answer = raw.head();
    assert_eq!(answer.status, 101, "an offer that is declined is no fault: {answer:?}");
    answer.field("Sec-WebSocket-Extensions").map(str::to_owned)
}

/// RFC 7692, section 7.1.
#[test]
fn offers_are_answered_by_the_letter() {
    let server = Throng::start("--echo --compression");
    let with_bits =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9";
    let with_all_bits = &format!("{NO_CONTEXT}; server_max_window_bits=15");
    for (offers, answer) in [
        (&["permessage-deflate"][..], Some(NO_CONTEXT)),
        (&["permessage-deflate; client_max_window_bits"], Some(NO_CONTEXT)),
        (&["permessage-deflate; client_max_window_bits=8"], Some(NO_CONTEXT)),
        (&["permessage-deflate; client_max_window_bits=\"15\""], Some(NO_CONTEXT)),
        (&["permessage-deflate; server_no_context_takeover; client_no_context_takeover"], Some(NO_CONTEXT)),
        (&["permessage-deflate;server_max_window_bits=15"], Some(with_all_bits)),
        (&["permessage-deflate; server_max_window_bits=9"], Some(with_bits)),
        (&["permessage-deflate; server_max_window_bits=8"], None),
        (&["permessage-deflate; server_max_window_bits=8, permessage-deflate"], Some(NO_CONTEXT)),
        (&["x-first; a=1", "permessage-deflate; x, permessage-deflate; server_max_window_bits=9"], Some(with_bits)),
        (&["permessage-deflate; server_max_window_bits"], None),
        (&["permessage-deflate; server_max_window_bits=16"], None),
        (&["permessage-deflate; server_max_window_bits=09"], None),
        (&["permessage-deflate; client_max_window_bits=7"], None),
        (&["permessage-deflate; client_max_window_bits=a"], None),
        (&["permessage-deflate; client_max_window_bits; client_max_window_bits"], None),
        (&["permessage-deflate; server_no_context_takeover; server_no_context_takeover"], None),
        (&["permessage-deflate; client_no_context_takeover=1"], None),
        (&["permessage-deflate; unknown"], None),
        (&["x-webkit-deflate-frame"], None),
    ] {
        assert_eq!(negotiated(&server, offers).as_deref(), answer, "{offers:?}");
    }
    let off = Throng::start("--echo");
    assert_eq!(negotiated(&off, &["permessage-deflate"]), None);
    let mut raw = off.websocket();
    raw.send(text("x").reserved(0x40).bytes());
    raw.expect_close(1002);
}

#[test]
fn messages_are_compressed_both_ways_whatever_their_length() {
    let server = Throng::start("--echo --compression");
    for offer in [OFFER, "permessage-deflate; server_max_window_bits=9"] {
        let mut peer = Peer::open(&server, "/", offer);
        for length in [0, 1, 255, 256, 1000, 10_000, 65_535, 65_536] {
            let message = words(length);
            peer.say(TEXT, &message);
            peer.expect(TEXT, &message, length >= 256);
            peer.raw.send(text(&message).bytes());
            peer.expect(TEXT, &message, length >= 256);
        }
        let noise = noise(65_536);
        peer.say(BINARY, &noise);
        peer.expect(BINARY, &noise, false);
        peer.say(TEXT, "the last");
        peer.expect(TEXT, "the last", false);
        peer.raw.send(close(1000, "").bytes());
        peer.raw.expect_close(1000);
    }
    assert_eq!(server.metric("throng_opened_compressed_total"), 2.0);
    assert_eq!(server.metric("throng_compression_context_bytes"), 0.0);
}

#[test]
fn a_compressed_message_in_fragments_with_pings_between_is_whole_however_it_is_cut() {
    let server = Throng::start("--echo --compression");
    let mut peer = Peer::open(&server, "/", OFFER);
    let message = words(2000);
    for cut in Cut::ALL {
        let packed = peer.pack(message.as_bytes());
        let (first, rest) = packed.split_at(10);
        let mut frames = vec![frame(TEXT, first).reserved(0x40).unfinished()];
        for part in rest.chunks(50) {
            frames.push(frame(PING, "?"));
            frames.push(frame(CONTINUATION, part).unfinished());
        }
        frames.push(frame(CONTINUATION, ""));
        peer.raw.send_cut(&wire(&frames), cut);
        for _ in rest.chunks(50) {
            peer.expect(PONG, "?", false);
        }
        peer.expect(TEXT, &message, true);
    }
    let packed = peer.pack(message.as_bytes());
    peer.raw.send(wire(&[frame(TEXT, packed).reserved(0x40).unfinished(), frame(CONTINUATION, "").reserved(0x40)]));
    peer.raw.expect_close(1002);
}

/// What a client's messages go to: an echo, a topic, a session of Centrifugo's protocol.
const TARGETS: [&str; 3] = ["/", "/topics/t", "/connection/websocket"];

/// So many MiB of zeros, compressed: a stream may be made of equal parts.
fn bomb(mib: usize) -> Vec<u8> {
    let part = pack_with(&mut Compress::new(Compression::new(9), false), &vec![0; 1 << 20]);
    vec![&part[..]; mib].join(&TAIL[..])
}

/// A compressed message, in one frame or in fragments of so many bytes.
fn in_fragments(opcode: u8, packed: &[u8], length: usize) -> Vec<u8> {
    let mut frames: Vec<_> = packed.chunks(length).map(|part| frame(CONTINUATION, part).unfinished()).collect();
    frames[0] = frame(opcode, &packed[..length.min(packed.len())]).reserved(0x40).unfinished();
    frames.push(frame(CONTINUATION, ""));
    if packed.len() <= length { frame(opcode, packed).reserved(0x40).bytes() } else { wire(&frames) }
}

/// A crowd sends the same bomb at once, each to one of the targets, whole or in fragments, and each is told so.
#[track_caller]
fn bombs_are_1009(siege: &Siege, bomb: &[u8]) {
    let ways: Vec<Vec<u8>> = [usize::MAX, 10_000, 1000].map(|length| in_fragments(BINARY, bomb, length)).into();
    let head = |target| {
        let head = upgrade().line(format!("GET {target} HTTP/1.1"));
        head.with("Sec-WebSocket-Extensions: permessage-deflate").bytes()
    };
    let mut crowd = siege.crowd(crowd_of(90), |n| [head(TARGETS[n % 3]), ways[n / 3 % 3].clone()].concat());
    for peer in &mut crowd {
        let answer = peer.head();
        assert!(answer.status == 101 && answer.field("Sec-WebSocket-Extensions").is_some(), "{answer:?}");
        peer.expect_close(1009);
        peer.expect_eof();
    }
}

#[test]
fn a_bomb_of_256_mib_in_261_kb_is_1009_as_soon_as_the_limit_is_passed() {
    let bomb = bomb(256);
    assert!((255_000..280_000).contains(&bomb.len()), "{}", bomb.len());
    let siege = Siege::lay("--compression --max-message 1048576");
    bombs_are_1009(&siege, &bomb);
    // What they have sent, and what came of one of them.
    siege.lift(crowd_of(90) as u64 * 300_000 + (8 << 20));
}

#[test]
fn at_the_limit_of_production_a_bomb_is_1009_too() {
    let siege = Siege::lay("--compression");
    // 63 MiB in less than a message may have, and what is too long as it comes.
    let [small, large] = [63, 256].map(bomb);
    assert!(small.len() < 65_536, "{}", small.len());
    bombs_are_1009(&siege, &small);
    bombs_are_1009(&siege, &large);
    siege.lift(crowd_of(90) as u64 * 150_000 + (2 << 20));
}

#[test]
fn a_message_of_the_largest_size_passes_and_one_byte_more_does_not() {
    let siege = Siege::lay("--compression --client-publish");
    for (message, packs) in [(vec![b'x'; 65_537], true), (noise(65_537), false)] {
        for (target, length) in TARGETS[..2].iter().flat_map(|target| [usize::MAX, 1000].map(|length| (target, length)))
        {
            let mut peer = Peer::open(&siege.server, target, OFFER);
            let packed = peer.pack(&message[..65_536]);
            peer.raw.send(in_fragments(BINARY, &packed, length));
            peer.expect(BINARY, &message[..65_536], packs);
            let packed = peer.pack(&message);
            peer.raw.send(in_fragments(BINARY, &packed, length));
            peer.raw.expect_close(1009);
            peer.raw.expect_eof();
        }
    }
    // The topic's messages stay.
    siege.lift(4 << 20);
}

#[test]
fn what_is_corrupt_or_no_text_is_1007() {
    let server = Throng::start("--echo --compression");
    for (opcode, payload) in [
        (BINARY, vec![0xFF; 20]),
        (BINARY, b"\x07".to_vec()),
        (TEXT, pack_with(&mut Compress::new(Compression::new(6), false), b"\xC3(")),
        (TEXT, pack_with(&mut Compress::new(Compression::new(6), false), b"\xE2\x82")),
    ] {
        let mut peer = Peer::open(&server, "/", OFFER);
        peer.raw.send(frame(opcode, &payload).reserved(0x40).bytes());
        peer.raw.expect_close(1007);
        peer.raw.expect_eof();
    }
    assert_eq!(server.metric("throng_violations_total{reason=\"invalid_deflate\"}"), 2.0);
    // A distance that lies before the message, for a server that keeps no context.
    let mut peer = Peer::open(&server, "/", OFFER);
    peer.client_keeps = true;
    let message = noise(400);
    peer.say(BINARY, &message);
    peer.expect(BINARY, &message, false);
    peer.say(BINARY, &message);
    peer.raw.expect_close(1007);
}

#[test]
fn random_bits_hurt_nobody() {
    const CROWD: usize = crowd_of(6000);
    let siege = Siege::lay("--compression --client-publish");
    let mut random = Random::new();
    let packed = pack_with(&mut Compress::new(Compression::new(6), false), words(500).as_bytes());
    for n in 0..CROWD {
        let payload = if n % 2 == 0 {
            let mut payload = packed.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(payload.len());
                payload[at] ^= 1 << random.below(8);
            }
            payload
        } else {
            (0..1 + random.below(2000)).map(|_| random.below(256) as u8).collect()
        };
        let mut peer = Peer::open(&siege.server, TARGETS[n % 3], OFFER);
        peer.raw.send(in_fragments(BINARY, &payload, 1 + random.below(2 * payload.len())));
        let (received, _) = peer.hear();
        let code = received.payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
        // What it happens to be is a message; a command it is not.
        let is_taken = received.opcode == BINARY && n % 3 < 2;
        assert!(is_taken || received.opcode == CLOSE && matches!(code, Some(1007 | 1009 | 3501)), "{received:?}");
    }
    siege.lift(4 << 20);
}

fn publish(server: &Throng, topic: &str, body: &str) {
    let mut raw = server.connect();
    raw.send(format!(
        "POST /topics/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(raw.answer().status, 200);
}

/// A client of Centrifugo's that compresses, connected and subscribed.
fn centrifugo(server: &Throng, offer: &str) -> Peer {
    let head = upgrade().line("GET /connection/websocket HTTP/1.1");
    let mut peer = Peer::open_as(server, head, offer);
    peer.say(TEXT, "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}");
    let mut heard = String::new();
    while !heard.contains("\"id\":2,\"subscribe\":{") {
        heard += &String::from_utf8(peer.hear().0.payload).unwrap();
    }
    peer
}

/// The same with Protobuf: fields 1 (id), 4 (connect) and 5 (subscribe) of a command.
fn centrifugo_protobuf(server: &Throng) -> Peer {
    let head = upgrade().line("GET /connection/websocket?format=protobuf HTTP/1.1");
    let mut peer = Peer::open_as(server, head, OFFER);
    peer.say(BINARY, b"\x04\x08\x01\x22\x00");
    assert!(peer.hear().0.payload.windows(2).any(|bytes| bytes == b"\x08\x01"));
    peer.say(BINARY, b"\x0A\x08\x02\x2A\x06\x0A\x04news");
    assert!(peer.hear().0.payload.windows(2).any(|bytes| bytes == b"\x08\x02"));
    peer
}

/// What is published is compressed once for all who get it in the same form, and everybody gets it.
#[test]
fn a_publication_reaches_compressed_and_plain_subscribers_alike() {
    let server = Throng::start("--workers 4 --compression");
    let small = "permessage-deflate; server_max_window_bits=10";
    let mut plain = server.connect();
    plain.send(upgrade().line("GET /topics/news HTTP/1.1").bytes());
    assert_eq!(plain.head().status, 101);
    let mut bare: Vec<_> =
        (0..6).map(|n| Peer::open(&server, "/topics/news", if n < 3 { OFFER } else { small })).collect();
    let mut json: Vec<_> = [OFFER, small].map(|offer| Peer::open(&server, "/topics/news?frames=json", offer)).into();
    let mut sessions: Vec<_> = [OFFER, small].map(|offer| centrifugo(&server, offer)).into();
    let mut protobuf = centrifugo_protobuf(&server);
    for length in [1000, 20, 60_000, 300, 0, 2000] {
        // A JSON value: a string of words.
        let body = format!("\"{}\"", words(length).replace('"', "'"));
        publish(&server, "news", &body);
        let long = body.len() >= 256;
        plain.expect(TEXT, &body);
        let mut seen: Vec<Vec<u8>> = Vec::new();
        for peer in &mut bare {
            let (is_compressed, received) = peer.raw.any_frame();
            seen.push(received.payload.clone());
            assert_eq!((is_compressed, received.opcode), (long, TEXT));
            assert_eq!(peer.unpack(received, is_compressed).payload, body.as_bytes());
        }
        assert!(seen[0] == seen[1] && seen[1] == seen[2] && seen[3] == seen[4] && seen[4] == seen[5]);
        let expected = format!(",\"data\":{}}}", json_text(&body));
        for peer in &mut json {
            let (received, is_compressed) = peer.hear();
            let text = String::from_utf8(received.payload).unwrap();
            assert!(text.ends_with(&expected), "{text}");
            assert_eq!(is_compressed, text.len() >= 256);
        }
        for peer in &mut sessions {
            let (received, is_compressed) = peer.hear();
            let text = String::from_utf8(received.payload).unwrap();
            assert!(
                text.starts_with("{\"push\":{\"channel\":\"news\",\"pub\":{") && text.contains(&json_text(&body)),
                "{text}"
            );
            assert_eq!(is_compressed, text.len() >= 256);
        }
        let (received, is_compressed) = protobuf.hear();
        assert!(received.opcode == BINARY && received.payload.windows(body.len()).any(|part| part == body.as_bytes()));
        assert_eq!(is_compressed, received.payload.len() >= 256);
    }
}

/// How a text that was published as text stands in JSON; here without anything but quotes to be escaped.
fn json_text(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}

/// A subscriber that was away gets all of it, in order, whatever was compressed.
#[test]
fn a_slow_reader_gets_everything_in_order() {
    let server = Throng::start("--workers 2 --compression --history-bytes 16777216");
    let mut peers =
        [OFFER, "permessage-deflate; server_max_window_bits=9"].map(|offer| Peer::open(&server, "/topics/slow", offer));
    let mut random = Random::new();
    let bodies: Vec<String> = (0..150)
        .map(|n| {
            let mut body = String::new();
            while body.len() < [40_000, 100, 5000][n % 3] {
                body += &format!("{{\"number\": {}}}, ", random.below(1 << 30));
            }
            body
        })
        .collect();
    for _ in 0..3 {
        bodies.iter().for_each(|body| publish(&server, "slow", body));
    }
    for body in bodies.iter().cycle().take(450) {
        for peer in &mut peers {
            peer.expect(TEXT, body, body.len() >= 256);
        }
    }
}

/// With a context that is kept: replies of a client's own and publications that all get, one after another.
#[test]
fn a_context_is_kept_across_what_is_shared_and_counted_while_it_lasts() {
    let config = format!("{}/tests/configs/compression.toml", env!("CARGO_MANIFEST_DIR"));
    let server = Throng::start(&format!("--workers 2 --echo --config {config}"));
    let answer = "permessage-deflate; server_max_window_bits=11; client_max_window_bits=11";
    assert_eq!(negotiated(&server, &[OFFER]).as_deref(), Some(answer));
    let mut peer = Peer::open(&server, "/", OFFER);
    let (mut lengths, message) = (Vec::new(), words(500));
    for _ in 0..4 {
        peer.say(TEXT, &message);
        let (is_compressed, received) = peer.raw.any_frame();
        lengths.push(received.payload.len());
        assert_eq!(peer.unpack(received, is_compressed).payload, message.as_bytes());
    }
    assert!(lengths[1..].iter().all(|length| length * 3 < lengths[0]), "{lengths:?}");
    peer.say(TEXT, words(99));
    peer.expect(TEXT, words(99), false);
    let each = throng::Compression::context_bytes(11) as f64;
    eventually("one context", PATIENCE, || server.metric("throng_compression_context_bytes") == each);

    let mut session = centrifugo(&server, OFFER);
    let mut mute = centrifugo(&server, "permessage-deflate; server_no_context_takeover; client_no_context_takeover");
    for round in 3..30 {
        publish(&server, "news", &message);
        let ask = format!("{{\"id\":{round},\"history\":{{\"channel\":\"news\",\"limit\":{}}}}}", round % 3);
        for peer in [&mut session, &mut mute] {
            peer.say(TEXT, &ask);
            let mut heard = Vec::new();
            while heard.len() < 2 {
                heard.push(String::from_utf8(peer.hear().0.payload).unwrap());
            }
            assert!(
                heard.iter().any(|text| text.starts_with("{\"push\"") && text.contains(&json_text(&message))),
                "{heard:?}"
            );
            assert!(heard.iter().any(|text| text.starts_with(&format!("{{\"id\":{round},\"history\""))), "{heard:?}");
        }
    }
    drop((peer, session, mute));
    eventually("no context", PATIENCE, || server.metric("throng_compression_context_bytes") == 0.0);
}
