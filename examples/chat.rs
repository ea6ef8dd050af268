//! A chat: rooms, names, and on joining what was said before. Each room is a topic.
//!
//!     cargo run --release --example chat
//!
//! Then open http://127.0.0.1:9003/ in two windows. The page says `join ROOM`, `join ROOM CURSOR` when it comes back after
//! its connection was lost, `leave ROOM`, and `say ROOM TEXT`; it gets JSON frames, each with its cursor and a line
//! `ROOM NAME TEXT`, and `joined ROOM` or `no: REASON` in between.

use std::time::Duration;
use throng::error::Refused;
use throng::{
    Accept, Answer, Connection, Cursor, Decision, Frames, Message, Request, Response, Server, Service, Since, TopicName,
};

struct Chat;

/// Whether it may be the name of somebody, or of a room.
fn is_name(word: &str) -> bool {
    (1..=20).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl Service for Chat {
    /// The name of whoever is there.
    type State = String;

    fn open(&mut self, request: &Request<'_>) -> Decision<String> {
        match request.query().and_then(|query| query.strip_prefix("name=")) {
            Some(name) if is_name(name) => Accept::new(name.to_owned()).into(),
            _ => Response::refuse(400, "say who you are: /chat?name=NAME, 1 to 20 letters and digits").into(),
        }
    }

    fn message(&mut self, connection: &mut Connection<'_, String>, message: Message<'_>) {
        let Message::Text(line) = message else { return connection.close(1003, "send text") };
        let mut words = line.splitn(3, ' ');
        let (verb, room, rest) = (words.next(), words.next().filter(|room| is_name(room)), words.next());
        let Some((room, Ok(topic))) = room.map(|room| (room, TopicName::new(&format!("chat:{room}")))) else {
            let _ = connection.send("no: a room's name is 1 to 20 letters and digits");
            return;
        };
        match (verb, rest) {
            (Some("join"), None) => connection.subscribe(&topic, Since::Earliest, Frames::Json),
            (Some("join"), Some(cursor)) => match cursor.parse() {
                Ok(cursor) => connection.subscribe(&topic, Since::At(cursor), Frames::Json),
                Err(error) => drop(connection.send(&*format!("no: {error}"))),
            },
            (Some("leave"), None) => connection.unsubscribe(&topic),
            (Some("say"), Some(text)) => {
                let line = format!("{room} {} {text}", connection.state());
                connection.publish(&topic, line);
            }
            _ => drop(connection.send("no: join ROOM [CURSOR], leave ROOM, or say ROOM TEXT")),
        }
    }

    fn subscribed(
        &mut self,
        connection: &mut Connection<'_, String>,
        topic: &TopicName,
        outcome: Result<Cursor, Refused>,
    ) {
        let _ = match outcome {
            Ok(_) => connection.send(&*format!("joined {}", topic.as_str().trim_start_matches("chat:"))),
            Err(refused) => connection.send(&*format!("no: {refused}")),
        };
    }

    fn request(&mut self, request: &Request<'_>) -> Answer {
        match request.path() {
            "/" => Response::new(200).body("text/html; charset=utf-8", include_str!("chat.html")).into(),
            _ => Response::refuse(404, "the chat is at /").into(),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9003".into());
    let server = Server::new().listen(address.parse()?).history(200, 256 * 1024, Duration::from_secs(3600));
    let running = server.start(|_| Chat)?;
    println!("open http://{}/", running.addresses()[0]);
    running.run_until_signal(Duration::from_secs(1))?;
    Ok(())
}
