//! What holds for all frames, over many random ones; a failure names its seed.

use super::super::codec::Format;
use super::super::protocol::*;
use super::super::push::{self, Published};
use super::{all, frame, read};
use crate::json;
use crate::mem::Rng;
use crate::topic::Kind;
use prost::Message as _;
use std::collections::BTreeMap;

const FORMATS: [Format; 2] = [Format::Json, Format::Protobuf];

/// Runs a property with numbered seeds.
fn holds(property: impl Fn(&mut Any)) {
    for seed in 0..500 {
        let mut any = Any { rng: Rng::new(seed), format: FORMATS[(seed % 2) as usize] };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| property(&mut any)));
        result.unwrap_or_else(|panic| {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic)
        });
    }
}

/// Random messages, about half of their fields empty.
struct Any {
    rng: Rng,
    format: Format,
}

impl Any {
    fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn number(&mut self) -> u64 {
        let bits = self.below(65) as u32;
        self.rng.next().checked_shr(64 - bits).unwrap_or(0)
    }

    fn string(&mut self) -> String {
        const CHARS: [char; 12] = ['a', 'Z', '0', ' ', '"', '\\', '\n', '\r', '\0', '\u{e9}', '\u{2028}', '\u{1f600}'];
        let len = self.below(2) * self.below(8);
        (0..len).map(|_| CHARS[self.below(CHARS.len() as u64) as usize]).collect()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.below(20);
        (0..len).map(|_| self.rng.next() as u8).collect()
    }

    /// What survives the format unchanged: JSON on one line, or anything.
    fn data(&mut self) -> Vec<u8> {
        match (self.format, self.below(4)) {
            (_, 0) => Vec::new(),
            (Format::Protobuf, _) => self.bytes(),
            (Format::Json, 1) => format!("{{\"a\": [{}, null]}}", self.number()).into_bytes(),
            (Format::Json, _) => serde_json::to_vec(&self.string()).unwrap(),
        }
    }

    fn map<T>(&mut self, mut value: impl FnMut(&mut Self) -> T) -> BTreeMap<String, T> {
        let len = self.below(2) * self.below(4);
        (0..len).map(|_| (self.string(), value(self))).collect()
    }

    fn subscribe(&mut self) -> SubscribeRequest {
        SubscribeRequest {
            channel: self.string(),
            token: self.string(),
            recover: self.flag(),
            epoch: self.string(),
            offset: self.number(),
            data: self.data(),
            positioned: self.flag(),
            recoverable: self.flag(),
            join_leave: self.flag(),
            delta: self.string(),
            tf: self.flag().then_some(Filter {}),
            flag: self.number() as i64,
            r#type: self.number() as i32,
        }
    }

    fn command(&mut self) -> Command {
        let channel = ChannelRequest { channel: self.string() };
        let request = match self.below(13) {
            0 => return Command::default(),
            1 => Request::Connect(ConnectRequest {
                token: self.string(),
                data: self.data(),
                subs: self.map(Self::subscribe),
                name: self.string(),
                version: self.string(),
                headers: self.map(Self::string),
            }),
            2 => Request::Subscribe(self.subscribe()),
            3 => Request::Unsubscribe(channel),
            4 => Request::Publish(PublishRequest { channel: channel.channel, data: self.data(), r#type: 1 }),
            5 => Request::Presence(channel),
            6 => Request::PresenceStats(channel),
            7 => Request::History(HistoryRequest {
                channel: channel.channel,
                limit: self.number() as i32,
                since: self.flag().then(|| StreamPosition { offset: self.number(), epoch: self.string() }),
                reverse: self.flag(),
            }),
            8 => Request::Ping(Empty {}),
            9 => Request::Send(Message { data: self.data() }),
            10 => Request::Rpc(RpcRequest { data: self.data(), method: self.string() }),
            11 => Request::Refresh(RefreshRequest { token: self.string() }),
            _ => Request::SubRefresh(SubRefreshRequest {
                channel: channel.channel,
                token: self.string(),
                r#type: self.number() as i32,
            }),
        };
        Command { id: self.number() as u32, request: Some(request) }
    }

    fn commands(&mut self) -> Vec<Command> {
        (0..1 + self.below(5)).map(|_| self.command()).collect()
    }

    fn info(&mut self) -> Option<ClientInfo> {
        let (conn_info, chan_info) = (self.bytes(), self.data());
        self.flag().then(|| ClientInfo { user: self.string(), client: self.string(), conn_info, chan_info })
    }

    fn publication(&mut self) -> Publication {
        Publication {
            data: self.bytes(),
            info: self.info(),
            offset: self.number(),
            tags: self.map(Self::string),
            time: self.number() as i64,
        }
    }

    fn reply(&mut self) -> Reply {
        let outcome = match self.below(6) {
            0 => return Reply::default(),
            1 => Outcome::Error(Error { code: 100, message: self.string(), temporary: self.flag() }),
            2 => Outcome::Push(Push { channel: self.string(), event: Some(Event::Pub(self.publication())) }),
            3 => Outcome::Subscribe(SubscribeResult {
                publications: (0..self.below(4)).map(|_| self.publication()).collect(),
                epoch: self.string(),
                offset: self.number(),
                data: self.data(),
                ..Default::default()
            }),
            4 => Outcome::Presence(PresenceResult { presence: self.map(|any| any.info().unwrap_or_default()) }),
            _ => Outcome::Publish(Empty {}),
        };
        Reply { id: self.number() as u32, outcome: Some(outcome) }
    }
}

/// As a client writes them.
fn written(format: Format, commands: &[Command]) -> Vec<u8> {
    match format {
        Format::Json => {
            let lines = commands.iter().map(|command| serde_json::to_string(command).unwrap());
            lines.collect::<Vec<_>>().join("\n").into_bytes()
        }
        Format::Protobuf => commands.iter().flat_map(Command::encode_length_delimited_to_vec).collect(),
    }
}

#[test]
fn commands_are_read_as_they_were_written() {
    holds(|any| {
        let commands = any.commands();
        assert_eq!(read(any.format, &written(any.format, &commands)), commands);
    });
}

#[test]
fn a_frame_cut_anywhere_gives_the_whole_commands_before_the_cut() {
    holds(|any| {
        let commands = any.commands();
        let bytes = written(any.format, &commands);
        for end in 0..bytes.len() {
            let found = all(any.format, &bytes[..end]);
            let whole: Vec<_> = found.iter().filter_map(|command| command.as_ref().ok()).collect();
            // A cut between two commands leaves an empty frame, or one that is whole: then nothing is wrong.
            let is_empty = end == 0 && whole == [&Command::default()];
            assert!(is_empty || whole.iter().zip(&commands).all(|(found, command)| *found == command), "{end}");
            assert!(found.iter().rev().skip(1).all(Result::is_ok), "nothing follows what is malformed");
        }
    });
}

#[test]
fn random_bytes_are_read_or_refused() {
    holds(|any| {
        let mut bytes = written(any.format, &any.commands());
        if !bytes.is_empty() {
            for _ in 0..1 + any.below(3) {
                let at = any.below(bytes.len() as u64) as usize;
                bytes[at] = any.rng.next() as u8;
            }
        }
        let random = any.bytes();
        for frame in [bytes, random] {
            for format in FORMATS {
                let found = all(format, &frame);
                assert!(found.len() <= frame.len() + 1);
                found.into_iter().filter_map(Result::err).for_each(|fault| assert!(!fault.to_string().is_empty()));
            }
        }
    });
}

#[test]
fn replies_are_lines_of_json_and_whole_in_protobuf() {
    holds(|any| {
        let replies: Vec<_> = (0..1 + any.below(5)).map(|_| any.reply()).collect();
        let lines = String::from_utf8(frame(Format::Json, &replies)).unwrap();
        assert!(!lines.contains('\r'));
        assert_eq!(lines.split('\n').count(), replies.len());
        lines.split('\n').for_each(|line| assert_eq!(json::validate(line.as_bytes()), Ok(()), "{line}"));
        let bytes = frame(Format::Protobuf, &replies);
        let mut rest = &bytes[..];
        replies.iter().for_each(|reply| assert_eq!(Reply::decode_length_delimited(&mut rest).as_ref(), Ok(reply)));
        assert!(rest.is_empty());
    });
}

#[test]
fn a_push_of_anything_is_one_line() {
    holds(|any| {
        let (kind, payload) = match any.below(3) {
            0 => (Kind::Bytes, any.bytes()),
            1 => (Kind::Text, any.string().into_bytes()),
            _ => (Kind::Json, format!("[\r\n{} ,\n{{ }}\r]\n", any.number()).into_bytes()),
        };
        let info = any.info();
        let published = Published { kind, payload: &payload, offset: any.number(), time_ms: 0, info, tags: None };
        let line = push::publication(Format::Json, &any.string(), &published);
        assert!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
        assert_eq!(json::validate(&line), Ok(()));
    });
}
