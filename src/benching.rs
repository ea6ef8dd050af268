//! What the micro-benchmarks (`benches/micro`) reach of the inside: compiled for them alone, with `--cfg throng_bench`.

use crate::config::RuleSet;
use crate::topic::{Cursor, Encoding, Publication, Read, Retention, Since, Subscriber, TopicName, Topics, Wanted};
use std::sync::Arc;

/// A topic at its home, on the one worker there is, with subscribers that keep up.
#[derive(Debug)]
pub struct Topic {
    topics: Topics,
    name: TopicName,
}

impl Topic {
    /// With so many subscribers, each of another connection.
    pub fn new(subscribers: usize) -> Self {
        let mut topics = Topics::new(Retention { rules: Arc::new(RuleSet::open()), homes_max: 10 });
        let name = TopicName::new("news").expect("a name");
        topics.asking(&name);
        let read = Read::all(Wanted::Since(Since::Latest));
        let resolved = topics.resolve(&name, read, Some(0), 0, || 1).expect("there is room");
        let topic = topics.answered(&name, &resolved);
        let Cursor { offset: cursor, .. } = resolved.head;
        for slot in 0..subscribers as u32 {
            topics.subscribe(topic, Subscriber { cursor, slot, nth: 0, encoding: Encoding::Frame });
        }
        Self { topics, name }
    }

    /// Publishes a text, at the home and to the worker's copy.
    pub fn publish(&mut self, payload: &[u8]) {
        let text = std::str::from_utf8(payload).expect("text");
        let (_, message) = self.topics.publish(&self.name, Publication::from(text), 0, || 1).expect("there is room");
        self.topics.append(&self.name, &message.expect("it is new"), 0);
    }

    /// Visits all subscribers, and hands each one's frames to `send`. How many that were.
    pub fn sweep(&mut self, mut send: impl FnMut(&[u8])) -> usize {
        let mut visited = 0;
        while let Some(place) = self.topics.next() {
            let local = &self.topics.locals[place.topic as usize];
            let copy = local.copy.as_ref().expect("the home has answered");
            copy.after(local.subscribers[place.index as usize].cursor)
                .for_each(|message| send(message.encoded(Encoding::Frame, None)));
            let head = copy.head().offset;
            self.topics.saw(place, head);
            visited += 1;
        }
        visited
    }
}
