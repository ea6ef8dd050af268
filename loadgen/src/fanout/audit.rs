//! The account of one subscriber: every message of its topic is delivered, or missing for a known reason.

/// Sequence numbers that have not come although later ones have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hole {
    from: u32,
    to: u32,
    /// The server had said that something would be missing.
    announced: bool,
}

/// What a message was to its subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The next one, or one behind a hole.
    InOrder,
    /// It fills a hole: later ones had come before it.
    Late,
    /// It had come already.
    Duplicate,
}

/// What one subscriber has and lacks. Sixteen bytes while nothing is missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit {
    /// All before this have come, or lie in a hole.
    next: u32,
    /// The server has said that the next message will not follow the last one.
    gap_announced: bool,
    #[expect(clippy::box_collection, reason = "eight bytes instead of 24 in every subscriber")]
    holes: Option<Box<Vec<Hole>>>,
}

/// What is missing in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// In holes, and behind the last that came.
    pub(crate) unnoticed: u64,
    pub(crate) tail: u64,
    /// The same, with a word of the server's that something would be missing.
    pub(crate) announced: u64,
    pub(crate) tail_announced: u64,
}

impl Audit {
    pub(crate) fn take(&mut self, sequence: u32) -> Delivery {
        if sequence < self.next {
            return if self.fill(sequence) { Delivery::Late } else { Delivery::Duplicate };
        }
        if sequence > self.next {
            let hole = Hole { from: self.next, to: sequence, announced: self.gap_announced };
            self.holes.get_or_insert_default().push(hole);
        }
        self.gap_announced = false;
        self.next = sequence + 1;
        Delivery::InOrder
    }

    /// The server says that something will be missing.
    pub(crate) fn announce_gap(&mut self) {
        self.gap_announced = true;
    }

    fn fill(&mut self, sequence: u32) -> bool {
        let Some(holes) = &mut self.holes else { return false };
        let Some(index) = holes.iter().position(|hole| (hole.from..hole.to).contains(&sequence)) else { return false };
        let Hole { from, to, announced } = holes.swap_remove(index);
        let rest = [Hole { from, to: sequence, announced }, Hole { from: sequence + 1, to, announced }];
        holes.extend(rest.into_iter().filter(|hole| hole.from < hole.to));
        if holes.is_empty() {
            self.holes = None;
        }
        true
    }

    /// What is missing of `published` messages.
    pub(crate) fn missing(&self, published: u32) -> Missing {
        let mut missing = Missing::default();
        for hole in self.holes.iter().flat_map(|holes| holes.iter()) {
            let sum = if hole.announced { &mut missing.announced } else { &mut missing.unnoticed };
            *sum += u64::from(hole.to - hole.from);
        }
        let tail = if self.gap_announced { &mut missing.tail_announced } else { &mut missing.tail };
        *tail = u64::from(published.saturating_sub(self.next));
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Nanos;
    use crate::fanout::mark::{Mark, Marks};
    use crate::poll::Element;
    use std::collections::BTreeSet;
    use throng::client::EventStream;
    use throng::mem::Rng;

    /// Random deliveries beside a plain set.
    #[test]
    fn agrees_with_a_set() {
        for seed in 0..300 {
            let (mut rng, mut audit, mut set) = (Rng::new(seed), Audit::default(), BTreeSet::new());
            let published = 60;
            for _ in 0..rng.below(120) {
                let sequence = rng.below(u64::from(published)) as u32;
                let late = set.last().is_some_and(|&last| sequence < last);
                let expected = match (set.insert(sequence), late) {
                    (false, _) => Delivery::Duplicate,
                    (true, true) => Delivery::Late,
                    (true, false) => Delivery::InOrder,
                };
                assert_eq!(audit.take(sequence), expected, "seed {seed}");
            }
            let missing = audit.missing(published);
            assert_eq!(missing.unnoticed + missing.tail, u64::from(published) - set.len() as u64, "seed {seed}");
            let last = set.last().map_or(0, |last| last + 1);
            assert_eq!(missing.tail, u64::from(published - last), "seed {seed}");
        }
    }

    #[test]
    fn an_announced_gap_is_no_loss() {
        let mut audit = Audit::default();
        audit.take(0);
        audit.announce_gap();
        audit.take(10);
        audit.take(12);
        assert_eq!(audit.missing(15), Missing { unnoticed: 1, tail: 2, announced: 9, tail_announced: 0 });
        assert_eq!(audit.take(5), Delivery::Late);
        audit.announce_gap();
        assert_eq!(audit.missing(15), Missing { unnoticed: 1, tail: 0, announced: 8, tail_announced: 2 });
    }

    /// What one subscriber saw, as the parsers hand it to a load.
    #[derive(Debug, Default)]
    struct Account {
        audit: Audit,
        seen: Vec<Delivery>,
    }

    impl Account {
        fn message(&mut self, payload: &[u8]) {
            assert_eq!(Marks::default().each(payload, |mark| self.seen.push(self.audit.take(mark.sequence))), 1);
        }
    }

    fn payload(sequence: u32) -> String {
        let mut out = Vec::new();
        Mark { run: 1, topic: 2, sequence, due: Nanos(3) }.write_payload(&mut out, 60);
        String::from_utf8(out).unwrap()
    }

    /// Messages 0 1 3 3 2, a gap, 6, and the end, while 8 were published: one twice, one late, two missing that were
    /// announced, one missing at the end.
    const SENT: [Option<u32>; 7] = [Some(0), Some(1), Some(3), Some(3), Some(2), None, Some(6)];

    #[track_caller]
    fn assert_found(account: &Account) {
        use Delivery::{Duplicate, InOrder, Late};
        assert_eq!(account.seen, [InOrder, InOrder, InOrder, Duplicate, Late, InOrder]);
        assert_eq!(account.audit.missing(8), Missing { unnoticed: 0, tail: 1, announced: 2, tail_announced: 0 });
    }

    #[test]
    fn faults_in_an_event_stream_are_found_across_connections() {
        let block = |one: Option<u32>| match one {
            Some(sequence) => format!("id: e-{sequence}\ndata: {}\n\n", payload(sequence)),
            None => "event: gap\nid: e-5\ndata: {\"gap\":{}}\n\n".to_owned(),
        };
        for leave_at in 0..SENT.len() {
            let mut account = Account::default();
            for part in [&SENT[..leave_at], &SENT[leave_at..]] {
                // A block that was cut off does not count: the next connection brings it again.
                let text = part.iter().map(|&one| block(one)).collect::<String>() + "id: e-9\ndata: ~throng:cut";
                let mut stream = EventStream::default();
                for piece in text.as_bytes().chunks(7) {
                    stream.push(piece, |block| match block.event {
                        b"gap" => account.audit.announce_gap(),
                        _ => account.message(block.data.unwrap()),
                    });
                }
            }
            assert_found(&account);
        }
    }

    #[test]
    fn faults_in_polls_and_json_frames_are_found() {
        let element = |one: &Option<u32>| match one {
            Some(sequence) => format!("{{\"id\":\"e-{sequence}\",\"data\":\"{}\"}}", payload(*sequence)),
            None => r#"{"gap":{"since":"e-3","resumed":"e-5"}}"#.to_owned(),
        };
        let feed = |account: &mut Account, element: &Element<'_>| match element.gap {
            Some(_) => account.audit.announce_gap(),
            None => account.message(&element.payload()),
        };
        for polls in 1..SENT.len() {
            let mut account = Account::default();
            for part in SENT.chunks(polls) {
                let body = format!("[{}]\n", part.iter().map(element).collect::<Vec<_>>().join(","));
                Element::parse_all(body.as_bytes()).unwrap().iter().for_each(|one| feed(&mut account, one));
            }
            assert_found(&account);
        }
        let mut account = Account::default();
        SENT.iter().for_each(|one| feed(&mut account, &Element::parse(element(one).as_bytes()).unwrap()));
        assert_found(&account);
    }
}
