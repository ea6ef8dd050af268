//! Sessions of Centrifugo's protocol, in JSON, each with several channels: what is held against the server is that a
//! subscription goes on from where its reply says, message by message, and that what was missed is said.

use super::compressed::Codec;
use super::emulated::{Carrier, Heard, Posts, put_close};
use super::line::{Came, Line, Scene};
use super::truth::Truth;
use super::wire::{self, Answer, At, Payload, Shape};
use base64::engine::{Engine, general_purpose::STANDARD};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Out,
    Upgrading,
    Connecting,
    On,
    /// Only the end of the body may follow.
    Ending,
    /// Nothing may follow: a Close came.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscription {
    Off,
    /// With this command, from this position of its own, when this was acknowledged.
    Asked {
        id: u64,
        own: Option<At>,
        head: Option<At>,
    },
    On,
    /// It is told to end; what is under way may still come.
    Ending(u64),
}

#[derive(Debug)]
struct Channel {
    topic: usize,
    subscription: Subscription,
    /// What has been seen, also between subscriptions.
    position: Option<At>,
}

#[derive(Debug)]
pub(super) struct Session {
    name: usize,
    carrier: Carrier,
    line: Line,
    codec: Codec,
    posts: Posts,
    stage: Stage,
    channels: Vec<Channel>,
    commands: u64,
    next_ms: u64,
}

impl Session {
    pub(super) fn new(name: usize, carrier: Carrier, topics: impl Iterator<Item = usize>) -> Self {
        let channel = |topic| Channel { topic, subscription: Subscription::Off, position: None };
        let channels = topics.map(channel).collect();
        let (line, codec, posts) = (Line::default(), Codec::default(), Posts::default());
        Self { name, carrier, line, codec, posts, stage: Stage::Out, channels, commands: 0, next_ms: 0 }
    }

    fn who(&self) -> String {
        format!("session {} ({:?}, {:?})", self.name, self.carrier, self.channels)
    }

    pub(super) fn leave(&mut self, scene: &mut Scene<'_>) {
        self.line.leave(scene);
        self.posts.leave(scene);
        scene.truth.tally.inflated += std::mem::take(&mut self.codec.inflated);
        self.stage = Stage::Out;
        self.channels.iter_mut().for_each(|channel| channel.subscription = Subscription::Off);
    }

    /// Whether something happened.
    pub(super) fn step(&mut self, scene: &mut Scene<'_>) -> bool {
        if self.line.link.is_none() {
            let begins = !scene.calm && self.next_ms <= scene.now() && self.line.connect(scene);
            if begins {
                self.stage = Stage::Upgrading;
                let first = if self.carrier == Carrier::WebSocket { String::new() } else { self.connect(scene) };
                self.line.out.extend_from_slice(self.carrier.request(&first, scene).as_bytes());
            }
            return begins;
        }
        if self.stage == Stage::On && !scene.calm {
            self.act(scene);
        }
        let came = self.line.step(scene);
        if came != Came::Nothing {
            while self.take(scene) {}
        }
        let posted = self.posts.step(scene);
        if matches!(came, Came::End | Came::Reset) || posted.is_err() {
            self.leave(scene);
            self.next_ms = scene.now() + [0, 1, 10, 1000][scene.rng.below(4) as usize];
        }
        came != Came::Nothing || posted != Ok(false)
    }

    fn say(&mut self, commands: &str, scene: &mut Scene<'_>) {
        match self.carrier {
            Carrier::WebSocket => self.codec.put(&mut self.line.out, 1, commands.as_bytes(), scene.rng),
            Carrier::HttpStream | Carrier::Events => self.posts.say(commands),
        }
    }

    /// The first commands.
    fn connect(&mut self, scene: &mut Scene<'_>) -> String {
        let mut commands = vec![json!({"id": self.id(), "connect": {}}).to_string()];
        for index in 0..self.channels.len() {
            if scene.rng.below(2) == 0 {
                commands.push(self.subscribe(index, scene).to_string());
            }
        }
        commands.join("\n")
    }

    fn id(&mut self) -> u64 {
        self.commands += 1;
        self.commands
    }

    fn subscribe(&mut self, index: usize, scene: &mut Scene<'_>) -> Value {
        let id = self.id();
        let channel = &mut self.channels[index];
        let (own, head) = (channel.position, scene.truth.head(channel.topic));
        channel.subscription = Subscription::Asked { id, own, head };
        let mut request = json!({"channel": format!("t{}", channel.topic), "recoverable": true, "positioned": true});
        request["join_leave"] = (scene.rng.below(2) == 0).into();
        if let Some(own) = own {
            request["recover"] = true.into();
            request["epoch"] = String::from_utf8_lossy(&own.epoch).into();
            request["offset"] = own.offset.into();
        }
        json!({"id": id, "subscribe": request})
    }

    /// Now and then it subscribes, or ends that, or all.
    fn act(&mut self, scene: &mut Scene<'_>) {
        let index = scene.rng.below(self.channels.len() as u64) as usize;
        match (scene.rng.below(60), self.channels[index].subscription) {
            (0..20, Subscription::Off) => {
                let command = self.subscribe(index, scene);
                self.say(&command.to_string(), scene);
            }
            (0, Subscription::On) => {
                let id = self.id();
                self.channels[index].subscription = Subscription::Ending(id);
                let channel = format!("t{}", self.channels[index].topic);
                self.say(&json!({"id": id, "unsubscribe": {"channel": channel}}).to_string(), scene);
            }
            (1, _) if self.carrier == Carrier::WebSocket => put_close(&mut self.line.out),
            (2, _) if scene.rng.below(4) == 0 => self.leave(scene),
            _ => {}
        }
    }

    /// Takes one thing of what was read. Whether there was a whole one.
    fn take(&mut self, scene: &mut Scene<'_>) -> bool {
        match self.stage {
            Stage::Out => false,
            Stage::Over => {
                assert!(self.line.input.is_empty(), "{}: something came behind the end", self.who());
                false
            }
            Stage::Upgrading => {
                let Some(answer) = Answer::take(&mut self.line.input, false) else { return false };
                let is_websocket = self.carrier == Carrier::WebSocket;
                if matches!(answer.status, 503 | 408) || answer.body.starts_with("retry: ") {
                    scene.truth.tally.refused += 1;
                    self.stage = Stage::Over;
                    return false;
                }
                assert_eq!(answer.status, if is_websocket { 101 } else { 200 }, "{}: {}", self.who(), answer.body);
                self.codec = Codec::agreed(answer.field("sec-websocket-extensions"));
                scene.truth.tally.compressed += u64::from(self.codec.is_compressed());
                scene.truth.tally.takeover += u64::from(self.codec.keeps_context());
                self.stage = Stage::Connecting;
                if is_websocket {
                    let commands = self.connect(scene);
                    self.say(&commands, scene);
                }
                true
            }
            Stage::Connecting | Stage::On => {
                match self.carrier.take(&mut self.line.input, &mut self.codec) {
                    None => return false,
                    Some(Heard::Lines(lines)) => lines.iter().for_each(|line| self.line_came(line, scene)),
                    Some(Heard::Close(payload)) => {
                        self.closed(u16::from_be_bytes([payload[0], payload[1]]), scene);
                        wire::put_frame(&mut self.line.out, 0x88, &payload);
                    }
                    Some(Heard::End) => panic!("{}: it ended without a word", self.who()),
                }
                true
            }
            Stage::Ending => {
                let heard = self.carrier.take(&mut self.line.input, &mut self.codec);
                assert!(matches!(heard, None | Some(Heard::End)), "{}: {heard:?} came behind the end", self.who());
                if heard.is_some() {
                    self.stage = Stage::Over;
                }
                heard.is_some()
            }
        }
    }

    fn line_came(&mut self, line: &str, scene: &mut Scene<'_>) {
        let reply: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{}: {line}", self.who()));
        if line == "{}" {
            return self.say("{}", scene);
        }
        if reply["connect"].is_object() {
            assert_eq!(self.stage, Stage::Connecting, "{}: {line}", self.who());
            self.stage = Stage::On;
            if self.carrier != Carrier::WebSocket {
                scene.truth.tally.emulated += 1;
                self.posts.connected(&reply["connect"]);
            }
        } else if let Some(push) = reply.get("push") {
            self.push(push, scene);
        } else {
            self.replied(&reply, scene);
        }
    }

    fn channel(&mut self, name: &Value) -> usize {
        let topic: usize = name.as_str().and_then(|name| name[1..].parse().ok()).expect("a channel's name");
        self.channels.iter().position(|channel| channel.topic == topic).expect("a channel of its own")
    }

    fn push(&mut self, push: &Value, scene: &mut Scene<'_>) {
        if let Some(code) = push["disconnect"]["code"].as_u64() {
            assert_ne!(self.carrier, Carrier::WebSocket, "{}: {push}", self.who());
            self.closed(code as u16, scene);
            self.stage = Stage::Ending;
            return;
        }
        let (index, who) = (self.channel(&push["channel"]), self.who());
        let subscription = self.channels[index].subscription;
        if push["unsubscribe"].is_object() {
            assert_eq!((&push["unsubscribe"]["code"], scene.truth.may_skip()), (&2500.into(), true), "{who}: {push}");
            scene.truth.tally.lagged += 1;
            let position = self.channels[index].position.expect("it has begun");
            scene.truth.missed(self.channels[index].topic, position, &who);
            if subscription == Subscription::On {
                self.channels[index].subscription = Subscription::Off;
            }
            return;
        }
        let is_on = matches!(subscription, Subscription::On | Subscription::Ending(_));
        assert!(is_on, "{who}: this came outside of a subscription: {push}");
        if push["join"].is_object() || push["leave"].is_object() {
            scene.truth.tally.changes += 1;
        } else {
            self.message(index, &push["pub"], scene);
        }
    }

    /// The next message.
    fn message(&mut self, index: usize, publication: &Value, scene: &mut Scene<'_>) {
        let who = self.who();
        let channel = &mut self.channels[index];
        let position = channel.position.expect("a subscription has a position");
        let at = At { offset: publication["offset"].as_u64().expect("an offset"), ..position };
        assert_eq!(at.offset, position.offset + 1, "{who}: {at} came behind {position}");
        scene.truth.saw(channel.topic, at, &payload(&publication["data"]), scene.now());
        channel.position = Some(at);
    }

    fn replied(&mut self, reply: &Value, scene: &mut Scene<'_>) {
        let (id, who) = (reply["id"].as_u64().expect("an id"), self.who());
        let is_it = |channel: &Channel| match channel.subscription {
            Subscription::Asked { id: asked, .. } | Subscription::Ending(asked) => asked == id,
            Subscription::Off | Subscription::On => false,
        };
        let index = self.channels.iter().position(is_it).unwrap_or_else(|| panic!("{who}: nobody asked for {reply}"));
        let Subscription::Asked { own, head, .. } = self.channels[index].subscription else {
            assert!(reply["unsubscribe"].is_object(), "{who}: {reply}");
            self.channels[index].subscription = Subscription::Off;
            return;
        };
        if reply["error"].is_object() {
            assert_eq!(reply["error"]["code"], 106, "{who}: {reply}");
            scene.truth.tally.refused += 1;
            self.channels[index].subscription = Subscription::Off;
            return;
        }
        let result = &reply["subscribe"];
        let epoch = result["epoch"].as_str().and_then(|epoch| epoch.as_bytes().try_into().ok()).expect("an epoch");
        let at = At { epoch, offset: result["offset"].as_u64().unwrap_or(0) };
        self.began(index, (at, own, head), result["recovered"] == true, scene);
        self.channels[index].subscription = Subscription::On;
        for publication in result["publications"].as_array().into_iter().flatten() {
            self.message(index, publication, scene);
        }
    }

    /// A subscription begins at `at`; asked for from `own`, when `head` was acknowledged.
    fn began(
        &mut self,
        index: usize,
        (at, own, head): (At, Option<At>, Option<At>),
        recovered: bool,
        scene: &mut Scene<'_>,
    ) {
        let (who, topic) = (self.who(), self.channels[index].topic);
        scene.truth.tally.streams += 1;
        scene.truth.exists(topic, at, &who);
        match own {
            Some(own) if recovered => {
                scene.truth.tally.recovered += 1;
                assert_eq!(at, own, "{who}: recovered from elsewhere");
            }
            Some(own) => {
                scene.truth.tally.gaps += 1;
                scene.truth.reaches(at, head, &who);
                if own.epoch == at.epoch {
                    assert!(at.offset > own.offset, "{who}: a gap that leads back to {at}");
                    scene.truth.missed(topic, own, &who);
                } else {
                    assert!(scene.truth.may_change_epoch(), "{who}: a gap to another epoch, {at}");
                }
            }
            None => {
                assert!(!recovered, "{who}: nobody asked for that");
                scene.truth.reaches(at, head, &who);
            }
        }
        self.channels[index].position = Some(at);
    }

    fn closed(&mut self, code: u16, scene: &mut Scene<'_>) {
        match code {
            3008 => scene.truth.tally.lagged += 1,
            3011 => scene.truth.tally.aged += 1,
            // The answer to its own, the end of the server, no pong or no connect in time.
            1000 | 3001 | 3012 | 3502 => {}
            _ => panic!("{}: closed with {code}", self.who()),
        }
        self.stage = Stage::Over;
    }

    /// As for a reader.
    pub(super) fn check_caught_up(&self, heads: &[Option<At>], fresh: impl Fn(usize) -> bool, truth: &mut Truth) {
        if self.line.link.is_none() || matches!(self.stage, Stage::Ending | Stage::Over) {
            return;
        }
        let who = self.who();
        assert_eq!(self.stage, Stage::On, "{who}: was left in the middle");
        for channel in &self.channels {
            match (channel.subscription, channel.position) {
                (Subscription::Off, _) => {}
                (Subscription::On, Some(position)) => {
                    let behind = heads[channel.topic].is_some_and(|head| match head.epoch == position.epoch {
                        true => head.offset > position.offset,
                        false => fresh(channel.topic),
                    });
                    assert!(!behind, "{who}: left behind at {position}, the head is {:?}", heads[channel.topic]);
                    truth.tally.caught_up += 1;
                }
                (other, _) => panic!("{who}: was never answered: {other:?}"),
            }
        }
    }
}

/// What a publication's data says.
fn payload(data: &Value) -> Payload {
    match (data, data["base64"].as_str()) {
        (_, Some(bytes)) => (Shape::Bytes, STANDARD.decode(bytes).expect("base64")),
        (Value::String(text), _) => (Shape::Text, text.clone().into_bytes()),
        (json, _) => (Shape::Json, json.to_string().into_bytes()),
    }
}
