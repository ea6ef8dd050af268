//! Peers that break the rules, each in a way of its own, again and again. They hold the server to one thing more: whatever
//! they did, what comes back is HTTP and then frames, at most one Close, with the code that their violation has, and nothing
//! behind it. They never leave by themselves: the server's deadlines must see all of them off.

use super::compressed::{Codec, bomb};
use super::line::{Came, Line, Scene};
use super::wire::{self, Answer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    Silence,
    TrickledHead,
    RandomHead,
    LyingBody,
    UnreadPipeline,
    /// The only one that leaves at the end: nothing but bytes that it does not read would tell that it is deaf.
    UnreadStream,
    ForgedTicket,
    RandomFrames,
    Violation,
    Fragments,
    UnreadPings,
    IgnoredClose,
    BehindClose,
    BadDeflate,
    BadCommands,
    /// It does nothing wrong: it asks, ends its direction, and waits for the answer.
    Parting,
}

impl Attack {
    const ALL: [Self; 16] = [
        Self::Silence,
        Self::TrickledHead,
        Self::RandomHead,
        Self::LyingBody,
        Self::UnreadPipeline,
        Self::UnreadStream,
        Self::ForgedTicket,
        Self::RandomFrames,
        Self::Violation,
        Self::Fragments,
        Self::UnreadPings,
        Self::IgnoredClose,
        Self::BehindClose,
        Self::BadDeflate,
        Self::BadCommands,
        Self::Parting,
    ];

    /// Whether it begins with a handshake that is right.
    fn upgrades(self) -> bool {
        matches!(
            self,
            Self::RandomFrames
                | Self::Violation
                | Self::Fragments
                | Self::UnreadPings
                | Self::IgnoredClose
                | Self::BehindClose
                | Self::BadDeflate
                | Self::BadCommands
        )
    }

    fn is_deaf(self) -> bool {
        matches!(self, Self::UnreadPipeline | Self::UnreadStream)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Out,
    /// What comes is HTTP.
    Http,
    Frames,
    /// A body that goes on.
    Body,
    /// Nothing may follow.
    Over,
}

/// What the Close may say that a peer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// What any connection may be told.
    Usual,
    /// The code of the violation.
    Code(u16),
    /// It said so much that it may be anything.
    Anything,
}

#[derive(Debug)]
pub(super) struct Hostile {
    attack: Attack,
    line: Line,
    stage: Stage,
    codec: Codec,
    due: Due,
    /// What it has to say has been said, but for what it says again and again.
    said: bool,
    /// All that it has to say was on its way when it ended its direction.
    parted: bool,
    /// It has had an answer.
    answered: bool,
    next_ms: u64,
}

/// Frames that are wrong, and the code of the Close that each has to be answered with (RFC 6455).
const VIOLATIONS: [(&[u8], u16); 15] = [
    (&[0x81, 0x01, b'x'], 1002),                                  // not masked
    (&[0xa1, 0x81, 0, 0, 0, 0, b'x'], 1002),                      // a reserved bit
    (&[0x83, 0x80, 0, 0, 0, 0], 1002),                            // a reserved opcode
    (&[0x8b, 0x80, 0, 0, 0, 0], 1002),                            // another, of a control frame
    (&[0x09, 0x80, 0, 0, 0, 0], 1002),                            // a ping in fragments
    (&[0x89, 0xfe, 0, 126, 0, 0, 0, 0], 1002),                    // a ping that is too long
    (&[0x80, 0x80, 0, 0, 0, 0], 1002),                            // nothing to continue
    (&[0x01, 0x80, 0, 0, 0, 0, 0x81, 0x80, 0, 0, 0, 0], 1002),    // a message inside another
    (&[0x81, 0xfe, 0, 5, 0, 0, 0, 0], 1002),                      // a length that is not the shortest
    (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1002), // a length with its top bit
    (&[0x82, 0xff, 0, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0], 1009), // two gigabytes
    (&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28], 1007),                // not UTF-8
    (&[0x88, 0x81, 0, 0, 0, 0, 3], 1002),                         // a Close of one byte
    (&[0x88, 0x82, 0, 0, 0, 0, 3, 237], 1002),                    // 1005 may not be sent
    (&[0x88, 0x83, 0, 0, 0, 0, 3, 232, 0xff], 1007),              // a reason that is not UTF-8
];

/// What is said about a connection that did nothing wrong: the end of the server, silence, a message that nobody wants, slow
/// reading.
const USUAL: [u16; 5] = [1001, 1008, 1011, 1013, 4410];

impl Hostile {
    pub(super) fn new(name: usize) -> Self {
        let attack = Attack::ALL[name % Attack::ALL.len()];
        let (line, codec, stage, due) = (Line::default(), Codec::default(), Stage::Out, Due::Usual);
        Self { attack, line, stage, codec, due, said: false, parted: false, answered: false, next_ms: 0 }
    }

    /// At the very end, for the one that would stay for ever.
    pub(super) fn leave(&mut self, scene: &mut Scene<'_>) {
        if self.attack == Attack::UnreadStream || self.stage == Stage::Body {
            self.line.leave(scene);
        }
    }

    /// Whether something happened.
    pub(super) fn step(&mut self, scene: &mut Scene<'_>) -> bool {
        if self.line.link.is_none() {
            let begins = !scene.calm && self.next_ms <= scene.now() && self.line.connect(scene);
            if begins {
                self.begin(scene);
            }
            return begins;
        }
        if !scene.calm && self.line.out.len() < 5000 {
            self.go_on(scene);
        }
        let has_asked = self.attack == Attack::Parting && self.said && self.line.out.is_empty();
        if let Some(link) = self.line.link.filter(|_| has_asked)
            && !scene.net.borrow().is_left(link)
        {
            self.parted = true;
            self.line.half_close(scene);
        }
        let came = self.line.step(scene);
        while self.hear(scene) {}
        if self.parted && matches!(came, Came::End | Came::Reset) {
            let net = scene.net.borrow();
            let link = self.line.link.map(|link| &net.links[link]);
            // Who reads too slowly may be reset in the middle of the answer.
            let is_in = link.is_some_and(|link| link.token.is_some() && !link.reset && link.sent == 0);
            assert!(self.answered || !is_in, "it ended its direction behind a request, and was not answered: {link:?}");
        }
        if matches!(came, Came::End | Came::Reset) {
            self.line.leave(scene);
            self.stage = Stage::Out;
            self.next_ms = scene.now() + [0, 10, 1000][scene.rng.below(3) as usize];
        }
        came != Came::Nothing
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        (self.stage, self.due, self.said, self.codec) = (Stage::Http, Due::Usual, false, Codec::default());
        (self.parted, self.answered) = (false, false);
        if scene.rng.below(3) == 0 {
            self.attack = Attack::ALL[scene.rng.below(Attack::ALL.len() as u64) as usize];
        }
        self.line.is_deaf = self.attack.is_deaf();
        if self.attack == Attack::BadCommands {
            self.due = Due::Anything; // the protocol's own codes
        }
        if self.attack.upgrades() {
            let head = Self::upgrade(self.attack);
            self.line.out.extend_from_slice(head.as_bytes());
        } else {
            self.count(scene);
        }
    }

    fn upgrade(attack: Attack) -> String {
        let path = if attack == Attack::BadCommands { "/connection/websocket" } else { "/topics/h0" };
        let offer = match attack {
            Attack::BadDeflate => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            _ => "",
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    }

    fn count(&self, scene: &mut Scene<'_>) {
        let tally = &mut scene.truth.tally;
        tally.hostile += 1;
        *match self.attack {
            Attack::Silence => &mut tally.silent,
            Attack::TrickledHead => &mut tally.trickled_heads,
            Attack::RandomHead => &mut tally.random_heads,
            Attack::LyingBody => &mut tally.lying_bodies,
            Attack::UnreadPipeline => &mut tally.unread_pipelines,
            Attack::UnreadStream => &mut tally.unread_streams,
            Attack::ForgedTicket => &mut tally.forged_tickets,
            Attack::RandomFrames => &mut tally.random_frames,
            Attack::Violation => &mut tally.violations,
            Attack::Fragments => &mut tally.fragments,
            Attack::UnreadPings => &mut tally.unread_pings,
            Attack::IgnoredClose => &mut tally.ignored_closes,
            Attack::BehindClose => &mut tally.behind_closes,
            Attack::BadDeflate => &mut tally.bad_deflate,
            Attack::BadCommands => &mut tally.bad_commands,
            Attack::Parting => &mut tally.parting,
        } += 1;
    }

    /// Says more, if it has more to say.
    fn go_on(&mut self, scene: &mut Scene<'_>) {
        if self.attack.upgrades() {
            // Behind the Close, too.
            if self.stage == Stage::Frames || self.stage == Stage::Over && self.said {
                self.attack_frames(scene);
            }
            return;
        }
        let first = !std::mem::replace(&mut self.said, true);
        let (rng, out) = (&mut *scene.rng, &mut self.line.out);
        match self.attack {
            Attack::TrickledHead if first => out.extend_from_slice(b"GET /topics/h0 HTTP/1.1\r\nHost: s\r\nX: "),
            Attack::TrickledHead if rng.below(4) == 0 => out.push(b'x'),
            Attack::RandomHead if first => {
                let mut head = Self::upgrade(Attack::Violation).into_bytes();
                if rng.below(2) == 0 {
                    let at = rng.below(head.len() as u64) as usize;
                    head[at] = rng.next() as u8;
                } else {
                    head.iter_mut().for_each(|byte| *byte = rng.next() as u8);
                }
                out.extend_from_slice(&head);
            }
            Attack::LyingBody if first => {
                let rest: &[&str] = &[
                    "Content-Length: 1000\r\n\r\nten bytes.",
                    "Content-Length: 3\r\n\r\nten bytes.",
                    "Content-Length: 99999999\r\n\r\n",
                    "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
                    "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
                    "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
                    "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
                ];
                let rest = rest[rng.below(rest.len() as u64) as usize];
                let head = "POST /topics/h0 HTTP/1.1\r\nHost: s\r\nContent-Type: text/plain\r\n";
                out.extend_from_slice(format!("{head}{rest}").as_bytes());
            }
            Attack::Parting if first => out.extend_from_slice(b"GET /nothing HTTP/1.1\r\nHost: s\r\n\r\n"),
            Attack::UnreadPipeline => {
                out.extend_from_slice(b"GET /topics/h0?since=earliest HTTP/1.1\r\nHost: s\r\n\r\n");
                let post =
                    b"POST /topics/h0 HTTP/1.1\r\nHost: s\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi";
                out.extend_from_slice(post);
            }
            Attack::UnreadStream if first => {
                let head = b"GET /topics/h0?since=earliest HTTP/1.1\r\nHost: s\r\nAccept: text/event-stream\r\n\r\n";
                out.extend_from_slice(head);
            }
            Attack::ForgedTicket if rng.below(20) == 0 => {
                let session: String = (0..32).map(|_| char::from(b'0' + rng.below(10) as u8)).collect();
                let body = format!("{{\"session\":\"{session}\",\"node\":\"{}\",\"data\":\"{{}}\"}}", rng.next());
                let length = body.len() + usize::from(rng.below(8) == 0);
                let head = format!("POST /emulation HTTP/1.1\r\nHost: s\r\nContent-Length: {length}\r\n\r\n{body}");
                out.extend_from_slice(head.as_bytes());
            }
            _ => {}
        }
    }

    fn attack_frames(&mut self, scene: &mut Scene<'_>) {
        let first = !std::mem::replace(&mut self.said, true);
        if first {
            self.count(scene);
        }
        let (rng, out) = (&mut *scene.rng, &mut self.line.out);
        let mut text = |first, text: &[u8]| wire::put_frame(out, first, text);
        match self.attack {
            Attack::RandomFrames => {
                self.due = Due::Anything;
                let length = rng.below(40);
                out.extend((0..length).map(|_| rng.next() as u8));
            }
            Attack::Violation if first => {
                let (frame, code) = VIOLATIONS[rng.below(VIOLATIONS.len() as u64) as usize];
                if rng.below(2) == 0 {
                    text(0x89, b"before");
                }
                out.extend_from_slice(frame);
                self.due = Due::Code(code);
            }
            // It goes on as if nothing had happened.
            Attack::Violation if self.due != Due::Code(1009) => {
                let (frame, _) = VIOLATIONS[rng.below(VIOLATIONS.len() as u64) as usize];
                out.extend_from_slice(frame);
            }
            Attack::Fragments => {
                self.due = Due::Code(1009);
                text(if first { 0x01 } else { 0x00 }, &b"x".repeat(rng.below(300) as usize));
            }
            Attack::UnreadPings => {
                self.line.is_deaf = true;
                text(0x89, &b"p".repeat(rng.below(126) as usize));
            }
            // Where clients may not publish, it is closed for that.
            Attack::IgnoredClose => text(0x81, b"closed?"),
            Attack::BehindClose if first => {
                self.due = Due::Code(3333);
                text(0x88, &3333_u16.to_be_bytes());
                text(0x81, b"behind");
            }
            Attack::BehindClose => text([0x81, 0x89, 0x88][rng.below(3) as usize], &[]),
            Attack::BadDeflate if first => match (self.codec.is_compressed(), rng.below(2)) {
                (true, 0) => {
                    text(0xc2, &[0xff; 20]);
                    self.due = Due::Code(1007);
                }
                (true, _) => {
                    text(0xc2, &bomb(if rng.below(2) == 0 { 100_000 } else { 8_000_000 }));
                    self.due = Due::Code(1009);
                }
                _ => {
                    text(0xc2, b"nothing was agreed on");
                    self.due = Due::Code(1002);
                }
            },
            Attack::BadCommands => {
                let commands: [&[u8]; 4] =
                    [b"{}", b"{\"id\":1,\"connect\":{}}", b"{\"id\":", b"{\"id\":2,\"subscribe\":{}}"];
                text(0x81, commands[rng.below(4) as usize]);
            }
            _ => {}
        }
    }

    /// Takes one thing of what was read. Whether there was a whole one.
    fn hear(&mut self, scene: &mut Scene<'_>) -> bool {
        let input = &mut self.line.input;
        match self.stage {
            Stage::Out => false,
            Stage::Over => {
                assert!(
                    input.is_empty(),
                    "{:?}: {:?} came behind the end",
                    self.attack,
                    String::from_utf8_lossy(input)
                );
                false
            }
            Stage::Body => {
                input.clear();
                false
            }
            Stage::Http => {
                let Some(answer) = Answer::take(input, false) else { return false };
                self.answered = true;
                scene.truth.tally.timed_out += u64::from(answer.status == 408);
                self.stage = match answer.status {
                    101 => Stage::Frames,
                    200 if answer.field("content-length").is_none() => Stage::Body,
                    _ if answer.is_last() => Stage::Over,
                    200 | 204 | 400.. => Stage::Http,
                    status => panic!("{:?}: answered {status}", self.attack),
                };
                if answer.status == 101 {
                    self.codec = Codec::agreed(answer.field("sec-websocket-extensions"));
                }
                true
            }
            Stage::Frames => {
                let Some((opcode, payload)) = self.codec.take(input) else { return false };
                match opcode {
                    8 => self.closed(&payload, scene),
                    1 | 2 | 9 | 10 => {}
                    _ => panic!("{:?}: a frame with opcode {opcode}", self.attack),
                }
                true
            }
        }
    }

    fn closed(&mut self, payload: &[u8], scene: &mut Scene<'_>) {
        self.stage = Stage::Over;
        let code = if payload.is_empty() { 1005 } else { u16::from_be_bytes([payload[0], payload[1]]) };
        match self.due {
            Due::Code(due) if due == code => scene.truth.tally.closed_right += 1,
            Due::Anything => {}
            due => assert!(USUAL.contains(&code), "{:?}: closed with {code}, due was {due:?}", self.attack),
        }
    }
}
