//! Readers of a topic over each of its transports, which hold the server to what it promises: from the position that it
//! names, every message, once, in order, or a gap said aloud.

use super::compressed::Codec;
use super::line::{Came, Line, Scene};
use super::publisher;
use super::truth::Truth;
use super::wire::{self, Answer, At, Block, Element, Payload};
use crate::error::End;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// WebSocket, the bare payloads.
    Bare,
    /// WebSocket, `frames=json`.
    Framed,
    /// Server-sent events.
    Events,
    LongPoll,
    Poll,
}

impl Transport {
    pub(super) const ALL: [Self; 5] = [Self::Bare, Self::Framed, Self::Events, Self::LongPoll, Self::Poll];

    fn is_poll(self) -> bool {
        matches!(self, Self::LongPoll | Self::Poll)
    }
}

/// From where it asked to read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Since {
    Latest,
    Earliest,
    /// Its own position.
    Own(At),
    /// A position that there never was.
    Nowhere(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Out,
    /// The request is sent, or on its way.
    Asking,
    /// The event stream's first block has not come.
    Opening,
    /// A gap is to be said before anything else.
    GapDue,
    Streaming,
    /// Nothing may follow: a Close came, or the answer to the last request.
    Over,
}

#[derive(Debug)]
pub(super) struct Reader {
    name: usize,
    transport: Transport,
    topic: usize,
    line: Line,
    codec: Codec,
    stage: Stage,
    since: Since,
    /// What has been seen, also between connections.
    position: Option<At>,
    /// What was acknowledged when it asked.
    head: Option<At>,
    limit: Option<usize>,
    head_only: bool,
    next_ms: u64,
    publishes: bool,
    /// Pings sent on this connection, and the last that was answered.
    pings: (u8, u8),
}

impl Reader {
    pub(super) fn new(name: usize, transport: Transport, topic: usize, publishes: bool) -> Self {
        let (line, codec, stage, since) = (Line::default(), Codec::default(), Stage::Out, Since::Latest);
        let (position, head, limit, head_only, next_ms) = (None, None, None, false, 0);
        let pings = (0, 0);
        Self {
            name,
            transport,
            topic,
            line,
            codec,
            stage,
            since,
            position,
            head,
            limit,
            head_only,
            next_ms,
            publishes,
            pings,
        }
    }

    pub(super) fn topic(&self) -> usize {
        self.topic
    }

    fn who(&self) -> String {
        format!("reader {} ({:?} of t{}, since {:?})", self.name, self.transport, self.topic, self.since)
    }

    pub(super) fn leave(&mut self, scene: &mut Scene<'_>) {
        self.line.leave(scene);
        self.stage = Stage::Out;
    }

    /// Whether something happened.
    pub(super) fn step(&mut self, scene: &mut Scene<'_>) -> bool {
        if self.line.link.is_none() {
            let begins = !scene.calm && self.next_ms <= scene.now() && self.line.connect(scene);
            if begins {
                self.ask(scene);
            }
            return begins;
        }
        if self.stage == Stage::Streaming && !scene.calm {
            self.act(scene);
        }
        let came = self.line.step(scene);
        if came != Came::Nothing {
            while self.take(scene) {}
        }
        if came == Came::End {
            self.check_end(scene);
        }
        if matches!(came, Came::End | Came::Reset) {
            self.out(scene);
        }
        came != Came::Nothing
    }

    /// Now and then it publishes, closes, or ends its direction.
    fn act(&mut self, scene: &mut Scene<'_>) {
        let is_websocket = matches!(self.transport, Transport::Bare | Transport::Framed);
        if is_websocket && self.publishes && scene.rng.below(30) == 0 {
            publisher::frame(self.topic, scene, &mut self.codec, &mut self.line.out);
        }
        match scene.rng.below(200) {
            0 if is_websocket => wire::put_frame(&mut self.line.out, 0x88, &1000_u16.to_be_bytes()),
            1 if is_websocket => {
                self.pings.0 = self.pings.0.wrapping_add(1);
                wire::put_frame(&mut self.line.out, 0x89, &[self.pings.0]);
            }
            2 => self.line.half_close(scene),
            3 => self.leave(scene),
            _ => {}
        }
    }

    /// The server has ended its direction: whoever asked, is there, and was not sent away at the door, has its answer. (Between two
    /// polls a connection may end at any time.)
    fn check_end(&self, scene: &Scene<'_>) {
        let is_asking = self.stage == Stage::Asking && !self.transport.is_poll() && self.line.out.is_empty();
        let net = scene.net.borrow();
        let is_in = self.line.link.is_some_and(|link| net.is_watched(link) && !net.is_left(link));
        assert!(!(is_asking && is_in), "{}: was sent away without a word", self.who());
    }

    /// The connection is over; it comes back soon, or at once.
    fn out(&mut self, scene: &mut Scene<'_>) {
        self.line.leave(scene);
        scene.truth.tally.inflated += std::mem::take(&mut self.codec.inflated);
        self.stage = Stage::Out;
        self.next_ms = scene.now() + [0, 1, 10, 1000][scene.rng.below(4) as usize];
    }

    fn ask(&mut self, scene: &mut Scene<'_>) {
        self.head = scene.truth.head(self.topic);
        self.since = match (scene.rng.below(20), self.position) {
            (0, _) => Since::Earliest,
            (1, _) => Since::Latest,
            (2, _) => Since::Nowhere("aaaaaaaa-3".into()),
            (3, Some(at)) => Since::Nowhere(At { offset: at.offset + 100_000, ..at }.to_string()),
            (4, _) if self.transport == Transport::Events => Since::Nowhere("no \"cursor\"".into()),
            (_, Some(at)) => Since::Own(at),
            _ => Since::Latest,
        };
        let (mut query, mut fields) = (Vec::new(), String::new());
        let since = match &self.since {
            Since::Latest if self.transport == Transport::Poll => Some("latest".to_owned()),
            Since::Latest => None,
            Since::Earliest => Some("earliest".to_owned()),
            Since::Own(at) => Some(at.to_string()),
            Since::Nowhere(text) => Some(text.clone()),
        };
        match since {
            Some(since) if self.transport == Transport::Events && since != "earliest" => {
                fields = format!("Last-Event-ID: {since}\r\n");
            }
            Some(since) => query.push(format!("since={since}")),
            None => {}
        }
        self.limit = (self.transport.is_poll() && scene.rng.below(4) == 0).then(|| 1 + scene.rng.below(4) as usize);
        query.extend(self.limit.map(|limit| format!("limit={limit}")));
        self.head_only = self.transport == Transport::Poll && scene.rng.below(8) == 0;
        match self.transport {
            Transport::Bare | Transport::Framed => {
                fields += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
                if scene.compression && scene.rng.below(3) > 0 {
                    fields += &format!("Sec-WebSocket-Extensions: {}\r\n", Codec::offer(scene.rng));
                }
                query.extend((self.transport == Transport::Framed).then(|| "frames=json".to_owned()));
            }
            Transport::Events => fields += "Accept: text/event-stream\r\n",
            Transport::LongPoll => query.push(format!("wait={}", 1 + scene.rng.below(60))),
            Transport::Poll => {}
        }
        let method = if self.head_only { "HEAD" } else { "GET" };
        let request =
            format!("{method} /topics/t{}?{} HTTP/1.1\r\nHost: s\r\n{fields}\r\n", self.topic, query.join("&"));
        self.line.out.extend_from_slice(request.as_bytes());
        self.stage = Stage::Asking;
    }

    /// Takes one thing of what was read. Whether there was a whole one.
    fn take(&mut self, scene: &mut Scene<'_>) -> bool {
        let input = &mut self.line.input;
        match (self.stage, self.transport) {
            (Stage::Out, _) => return false,
            (Stage::Over, _) => {
                let rest = String::from_utf8_lossy(&self.line.input);
                assert!(rest.is_empty(), "{}: this came behind the end: {rest}", self.who());
            }
            (Stage::Asking, _) => {
                let Some(answer) = Answer::take(input, self.head_only) else { return false };
                self.answered(&answer, scene);
                return true;
            }
            (_, Transport::Events) => {
                let Some(block) = Block::take(input) else { return false };
                self.block(&block, scene);
                return true;
            }
            _ => {
                let Some((opcode, payload)) = self.codec.take(input) else { return false };
                self.frame(opcode, payload, scene);
                return true;
            }
        }
        false
    }

    fn answered(&mut self, answer: &Answer, scene: &mut Scene<'_>) {
        let who = self.who();
        match (answer.status, self.transport) {
            (503 | 408, _) => {
                scene.truth.tally.refused += 1;
                self.stage = Stage::Over;
                if self.head_only {
                    self.out(scene); // whoever is refused before having said HEAD is told why
                }
            }
            (101, Transport::Bare | Transport::Framed) => {
                self.codec = Codec::agreed(answer.field("sec-websocket-extensions"));
                scene.truth.tally.compressed += u64::from(self.codec.is_compressed());
                scene.truth.tally.takeover += u64::from(self.codec.keeps_context());
                self.started(answer.cursor(), scene);
            }
            // There is no room: it is to come back later.
            (200, Transport::Events) if answer.body.starts_with("retry: ") => {
                scene.truth.tally.refused += 1;
                self.stage = Stage::Over;
            }
            (200, Transport::Events) => self.stage = Stage::Opening,
            (200, Transport::Poll) if self.head_only => {
                scene.truth.reaches(answer.cursor(), self.head, &who);
                self.polled(answer, scene);
            }
            (200, _) if self.transport.is_poll() => {
                self.found(answer, scene);
                self.polled(answer, scene);
            }
            (204, Transport::LongPoll) => {
                let at = answer.cursor();
                match &self.since {
                    Since::Own(own) => assert_eq!(at, *own, "{who}: nothing came, but the cursor moved"),
                    Since::Nowhere(_) => panic!("{who}: a gap is answered at once"),
                    Since::Latest | Since::Earliest => {}
                }
                scene.truth.reaches(at, self.head, &who);
                self.position = Some(at);
                self.polled(answer, scene);
            }
            (status, _) => panic!("{who}: answered {status}: {}", answer.body),
        }
    }

    /// The next poll may go out on the same connection.
    fn polled(&mut self, answer: &Answer, scene: &mut Scene<'_>) {
        scene.truth.tally.polls += 1;
        self.stage = Stage::Over;
        if !scene.calm && !answer.is_last() && self.line.input.is_empty() && scene.rng.below(4) > 0 {
            self.ask(scene);
        }
    }

    /// A stream starts behind `start`.
    fn started(&mut self, start: At, scene: &mut Scene<'_>) {
        let who = self.who();
        scene.truth.tally.streams += 1;
        self.pings = (0, 0);
        scene.truth.exists(self.topic, start, &who);
        self.stage = match &self.since {
            Since::Own(at) if *at == start => {
                scene.truth.tally.resumed += 1;
                Stage::Streaming
            }
            Since::Own(_) | Since::Nowhere(_) => Stage::GapDue,
            Since::Latest => {
                scene.truth.reaches(start, self.head, &who);
                Stage::Streaming
            }
            Since::Earliest => Stage::Streaming,
        };
        self.position = Some(start);
    }

    /// A gap was said: is it one, and is it the right one?
    fn gap(&mut self, since: Option<&str>, resumed: At, scene: &mut Scene<'_>) {
        let who = self.who();
        scene.truth.tally.gaps += 1;
        scene.truth.exists(self.topic, resumed, &who);
        match &self.since {
            Since::Own(at) => {
                assert!(since.is_none_or(|since| since == at.to_string()), "{who}: a gap since {since:?}");
                if at.epoch == resumed.epoch {
                    assert!(resumed.offset > at.offset, "{who}: a gap that leads back to {resumed}");
                    scene.truth.missed(self.topic, *at, &who);
                } else {
                    assert!(scene.truth.may_change_epoch(), "{who}: a gap to another epoch, {resumed}");
                }
            }
            Since::Nowhere(text) => assert!(since.is_none_or(|since| since == text), "{who}: a gap since {since:?}"),
            Since::Latest | Since::Earliest => panic!("{who}: there can be no gap"),
        }
        self.position = Some(resumed);
    }

    /// The next message.
    fn message(&mut self, at: At, payload: &Payload, scene: &mut Scene<'_>) {
        let position = self.position.expect("a stream has a position");
        let next = At { offset: position.offset + 1, ..position };
        assert!(at == next, "{}: {at} came behind {position}", self.who());
        scene.truth.saw(self.topic, at, payload, scene.now());
        self.position = Some(at);
    }

    fn element(&mut self, element: Element, scene: &mut Scene<'_>) {
        match element {
            Element::Message(at, payload) => {
                assert!(self.stage != Stage::GapDue, "{}: {at} came where a gap was to be said", self.who());
                self.message(at, &payload, scene);
            }
            Element::Gap { since, resumed } if self.stage == Stage::Streaming && scene.truth.may_skip() => {
                assert_eq!(Some(since), self.position.map(|at| at.to_string()), "{}: it stood elsewhere", self.who());
                self.skipped(resumed, scene);
            }
            Element::Gap { since, resumed } => {
                assert!(self.stage == Stage::GapDue, "{}: a gap amid the stream", self.who());
                assert_eq!(self.position, Some(resumed), "{}: the gap leads elsewhere", self.who());
                self.gap(Some(&since), resumed, scene);
                self.stage = Stage::Streaming;
            }
        }
    }

    /// It read too slowly, and goes on from `resumed`.
    fn skipped(&mut self, resumed: At, scene: &mut Scene<'_>) {
        let (who, position) = (self.who(), self.position.expect("a stream has a position"));
        assert!(resumed.epoch == position.epoch && resumed.offset > position.offset, "{who}: a skip to {resumed}");
        scene.truth.tally.lagged += 1;
        scene.truth.missed(self.topic, position, &who);
        scene.truth.exists(self.topic, resumed, &who);
        self.position = Some(resumed);
    }

    /// What a poll found.
    fn found(&mut self, answer: &Answer, scene: &mut Scene<'_>) {
        let (who, mut elements) = (self.who(), wire::elements(&answer.body));
        assert!(self.transport == Transport::Poll || !elements.is_empty(), "{who}: it did not wait");
        let gap = matches!(elements.first(), Some(Element::Gap { .. })).then(|| elements.remove(0));
        assert!(elements.len() <= self.limit.unwrap_or(usize::MAX), "{who}: more than was asked for");
        let first = elements.iter().find_map(|element| match element {
            Element::Message(at, _) => Some(At { offset: at.offset - 1, ..*at }),
            Element::Gap { .. } => None,
        });
        match (&self.since, gap) {
            (_, Some(Element::Gap { since, resumed })) => self.gap(Some(&since), resumed, scene),
            (Since::Own(at), _) => self.position = Some(*at),
            (Since::Nowhere(_), _) => panic!("{who}: no gap was said"),
            (Since::Latest | Since::Earliest, _) => self.position = Some(first.unwrap_or_else(|| answer.cursor())),
        }
        self.stage = Stage::Streaming;
        let cut = self.limit == Some(elements.len());
        elements.into_iter().for_each(|element| self.element(element, scene));
        assert_eq!(self.position, Some(answer.cursor()), "{who}: the cursor is not that of the last message");
        if !cut {
            scene.truth.reaches(answer.cursor(), self.head, &who);
        }
    }

    fn block(&mut self, block: &Block, scene: &mut Scene<'_>) {
        if self.stage == Stage::Opening {
            assert!(block.retry.is_some() && block.data.is_none(), "{}: {block:?} is no first block", self.who());
            return self.started(block.id.expect("the stream says where it starts"), scene);
        }
        let Some(data) = &block.data else {
            assert!(block.id.is_none(), "{}: {block:?} moves the cursor silently", self.who());
            return;
        };
        let id = block.id.expect("every event has its cursor");
        if block.event == "gap" {
            let element = wire::element(data);
            assert!(matches!(element, Element::Gap { resumed, .. } if resumed == id), "{}: {block:?}", self.who());
            self.element(element, scene);
        } else {
            self.element(Element::Message(id, block.payload()), scene);
        }
    }

    fn frame(&mut self, opcode: u8, payload: Vec<u8>, scene: &mut Scene<'_>) {
        match (opcode, self.transport) {
            (1, Transport::Framed) => {
                let text = String::from_utf8(payload).expect("text is UTF-8");
                self.element(wire::element(&text), scene);
            }
            (1 | 2, Transport::Bare) => {
                let position = self.position.expect("a stream has a position");
                let shape = if opcode == 2 { wire::Shape::Bytes } else { wire::Shape::Words };
                self.element(Element::Message(At { offset: position.offset + 1, ..position }, (shape, payload)), scene);
            }
            (8, _) => self.closed(&payload, scene),
            (9, _) => wire::put_frame(&mut self.line.out, 0x8a, &payload),
            (10, _) => self.pings.1 = payload[0],
            _ => panic!("{}: a frame with opcode {opcode}", self.who()),
        }
    }

    fn closed(&mut self, payload: &[u8], scene: &mut Scene<'_>) {
        let who = self.who();
        let (code, reason) = payload.split_at(2);
        let (code, reason) = (u16::from_be_bytes([code[0], code[1]]), String::from_utf8_lossy(reason));
        match code {
            4410 if self.transport == Transport::Bare && self.stage == Stage::Streaming && scene.truth.may_skip() => {
                self.skipped(At::parse(reason.strip_prefix("gap: resume at ").expect("the reason says where")), scene);
            }
            4410 => {
                assert!(self.transport == Transport::Bare && self.stage == Stage::GapDue, "{who}: {reason}");
                let resumed = At::parse(reason.strip_prefix("gap: resume at ").expect("the reason says where"));
                assert_eq!(self.position, Some(resumed), "{who}: the gap leads elsewhere");
                self.gap(None, resumed, scene);
            }
            1013 => {
                scene.truth.tally.lagged += 1;
                let position = self.position.expect("a stream has a position");
                scene.truth.missed(self.topic, position, &who);
            }
            // The answer to its own, silence, the end of the server.
            1001 if reason == End::MaxAge.text() => scene.truth.tally.aged += 1,
            1000 | 1011 | 1001 => {}
            1008 => assert!(!self.publishes, "{who}: {reason}"),
            _ => panic!("{who}: closed with {code}: {reason}"),
        }
        wire::put_frame(&mut self.line.out, 0x88, payload);
        self.stage = Stage::Over;
    }

    /// The server has nothing left to do and `head` is the topic's newest message, published just now if `fresh`:
    /// a reader whom nobody has ended has seen it.
    pub(super) fn check_caught_up(&self, heads: &[Option<At>], fresh: bool, truth: &mut Truth) {
        if self.line.link.is_none() {
            return;
        }
        let (who, head) = (self.who(), heads[self.topic]);
        match self.stage {
            Stage::Streaming => {
                let position = self.position.expect("a stream has a position");
                // Another epoch is a later one only if it was heard of just now.
                let is_behind = |head: At| match head.epoch == position.epoch {
                    true => head.offset > position.offset,
                    false => fresh,
                };
                let behind = head.is_some_and(is_behind);
                assert!(!behind, "{who}: left behind at {position}, the head is {head:?}");
                assert_eq!(self.pings.0, self.pings.1, "{who}: its last ping was not answered");
                truth.exists(self.topic, position, &who);
                truth.tally.caught_up += 1;
            }
            Stage::Asking => assert!(self.transport == Transport::LongPoll && !fresh, "{who}: was never answered"),
            Stage::Opening | Stage::GapDue => panic!("{who}: was left in the middle, {:?}", self.stage),
            Stage::Out | Stage::Over => {}
        }
    }
}
