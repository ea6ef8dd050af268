//! Publishes by POST on a connection that is kept, with and without an idempotency key.

use super::compressed::Codec;
use super::line::{Came, Line, Scene};
use super::wire::{Answer, Shape};
use std::collections::VecDeque;

/// For how long a publication is tried again, far below the time that keys are remembered for.
const RETRY_MS: u64 = 60_000;

#[derive(Clone, Copy, Debug)]
struct Post {
    publication: usize,
    keyed: bool,
    since_ms: u64,
    is_sent: bool,
}

#[derive(Debug, Default)]
pub(super) struct Publisher {
    line: Line,
    /// Sent and not answered, in order.
    sent: VecDeque<Post>,
    /// To be sent again.
    again: VecDeque<Post>,
}

impl Publisher {
    pub(super) fn is_idle(&self) -> bool {
        self.sent.is_empty() && self.again.is_empty()
    }

    pub(super) fn leave(&mut self, scene: &mut Scene<'_>) {
        self.line.leave(scene);
    }

    /// Publishes to this topic, and nothing else.
    pub(super) fn publish(&mut self, topic: usize, scene: &mut Scene<'_>) {
        let publication = scene.truth.publish(topic, scene.now(), scene.rng);
        let keyed = scene.rng.below(3) > 0;
        self.again.push_back(Post { publication, keyed, since_ms: scene.now(), is_sent: false });
    }

    /// Whether something happened.
    pub(super) fn step(&mut self, topics: usize, scene: &mut Scene<'_>) -> bool {
        if !scene.calm && self.again.is_empty() && self.sent.len() < 3 && scene.rng.below(3) == 0 {
            self.publish(scene.rng.below(topics as u64) as usize, scene);
        }
        if self.line.link.is_none() && (self.again.is_empty() || !self.line.connect(scene)) {
            return false;
        }
        while let Some(post) = self.again.pop_front() {
            self.send(post, scene);
        }
        match self.line.step(scene) {
            Came::Nothing => return false,
            Came::Something => {}
            Came::End | Came::Reset => {
                self.lost(scene);
                return true;
            }
        }
        while let Some(answer) = Answer::take(&mut self.line.input, false) {
            self.answered(&answer, scene);
        }
        true
    }

    fn send(&mut self, mut post: Post, scene: &mut Scene<'_>) {
        if std::mem::replace(&mut post.is_sent, true) {
            scene.truth.sent_again(post.publication);
        }
        let publication = scene.truth.publication(post.publication);
        let kind = match publication.shape {
            Shape::Json => "application/json",
            Shape::Text | Shape::Words => "text/plain",
            Shape::Bytes => "application/octet-stream",
        };
        let key = if post.keyed { format!("Idempotency-Key: k{}\r\n", post.publication) } else { String::new() };
        let (topic, length) = (publication.topic, publication.body.len());
        let head = format!(
            "POST /topics/t{topic} HTTP/1.1\r\nHost: s\r\nContent-Type: {kind}\r\n{key}Content-Length: {length}\r\n\r\n"
        );
        self.line.out.extend_from_slice(head.as_bytes());
        self.line.out.extend_from_slice(&publication.body);
        self.sent.push_back(post);
    }

    fn answered(&mut self, answer: &Answer, scene: &mut Scene<'_>) {
        // Before a request is whole, its connection can only be ended.
        let Some(post) = self.sent.pop_front() else {
            assert!(answer.is_last(), "nobody asked: {answer:?}");
            return;
        };
        match answer.status {
            200 => {
                let at = answer.cursor();
                assert_eq!(answer.body, format!("{{\"id\":\"{at}\"}}\n"));
                scene.truth.acknowledged(post.publication, at, scene.now());
                let repeat = post.keyed && !scene.calm && scene.rng.below(8) == 0;
                if repeat && scene.now() - post.since_ms < RETRY_MS {
                    scene.truth.tally.repeated += 1;
                    self.again.push_back(post);
                }
            }
            503 if answer.body.contains("all the topics it may have") => {
                if !post.keyed {
                    scene.truth.refused(post.publication);
                }
            }
            // It may have been taken all the same; what had no place was never read.
            503 | 408 => self.retry(post, scene),
            status => panic!("a publication was answered {status}: {}", answer.body),
        }
        if answer.is_last() {
            self.lost(scene);
        }
    }

    fn retry(&mut self, post: Post, scene: &Scene<'_>) {
        if post.keyed && !scene.calm && scene.now() - post.since_ms < RETRY_MS {
            self.again.push_back(post);
        }
    }

    /// The connection is gone: whether those under way were taken is not known.
    fn lost(&mut self, scene: &mut Scene<'_>) {
        self.line.leave(scene);
        for post in std::mem::take(&mut self.sent) {
            self.retry(post, scene);
        }
    }
}

/// What is published over a reader's own WebSocket is a frame without an answer.
pub(super) fn frame(topic: usize, scene: &mut Scene<'_>, codec: &mut Codec, out: &mut Vec<u8>) {
    let publication = scene.truth.publish(topic, scene.now(), scene.rng);
    let publication = scene.truth.publication_over_websocket(publication);
    let opcode = if publication.shape == Shape::Bytes { 2 } else { 1 };
    codec.put(out, opcode, &publication.body, scene.rng);
}
