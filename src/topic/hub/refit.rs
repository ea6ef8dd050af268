//! Other rules for topics that are there already.

use super::{Home, Local, Retention, TopicName, Topics};

impl Topics {
    /// From now on this is kept. Topics take it as they are used, or looked at for what has expired: a million of them at
    /// once would hold up whoever waits for this worker.
    pub(crate) fn retain_by(&mut self, retention: Retention) {
        self.retention = retention;
        self.ruling = self.ruling.wrapping_add(1);
    }
}

impl Home {
    /// Takes other rules, if there are some.
    #[inline]
    pub(super) fn follow(&mut self, ruling: u32, retention: &Retention, name: &TopicName) {
        if self.ruled != ruling {
            self.ruled = ruling;
            self.log.limit(retention.of(name));
        }
    }
}

impl Local {
    /// Takes other rules, if there are some.
    #[inline]
    pub(super) fn follow(&mut self, ruling: u32, retention: &Retention) {
        if self.ruled != ruling {
            self.ruled = ruling;
            if let Some(copy) = &mut self.copy {
                copy.limit(retention.of(&self.name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{Cursor, Limits, Publication, Read, Since, Start, Wanted};

    const MANY: Limits = Limits { messages: 100, bytes: 1 << 20, age_ms: 1_000_000 };
    const NONE: Limits = Limits { messages: 0, ..MANY };

    fn name() -> TopicName {
        TopicName::new("t").unwrap()
    }

    fn publish(topics: &mut Topics, times: u64) -> Cursor {
        let one = |topics: &mut Topics| topics.publish(&name(), Publication::from("x"), 0, || 7).unwrap().0;
        (1..times).for_each(|_| _ = one(topics));
        one(topics)
    }

    /// What somebody finds who comes back to a position.
    fn back_at(topics: &mut Topics, cursor: Cursor) -> Start {
        topics.resolve(&name(), Read::all(Wanted::Since(Since::At(cursor))), None, 0, || 7).unwrap().start
    }

    fn rule(topics: &mut Topics, limits: Limits) {
        topics.retain_by(Retention::uniform(limits, 1_000_000, 10));
    }

    #[test]
    fn a_topic_that_is_there_keeps_less_as_soon_as_it_is_used() {
        let mut topics = Topics::new(Retention::uniform(MANY, 1_000_000, 10));
        let fifth = publish(&mut topics, 5);
        publish(&mut topics, 15);
        assert!(back_at(&mut topics, fifth).gap.is_none());
        rule(&mut topics, Limits { messages: 10, ..MANY });
        let resumed = back_at(&mut topics, fifth).gap.expect("the first ten are gone").resumed;
        assert_eq!(resumed.offset, 10);
        rule(&mut topics, MANY);
        publish(&mut topics, 5);
        assert_eq!(topics.homes[&name()].log.oldest().offset, 10, "and more again from here on");
    }

    #[test]
    fn a_topic_that_nobody_uses_keeps_less_once_it_is_looked_at() {
        let mut topics = Topics::new(Retention::uniform(MANY, 1_000_000, 10));
        publish(&mut topics, 20);
        rule(&mut topics, Limits { messages: 3, ..MANY });
        assert_eq!(topics.kept.messages(), 20);
        topics.expire(1);
        assert_eq!(topics.kept.messages(), 3);
    }

    #[test]
    fn what_was_published_without_history_does_not_become_history() {
        let mut topics = Topics::new(Retention::uniform(NONE, 1_000_000, 10));
        let third = publish(&mut topics, 3);
        let last = publish(&mut topics, 2);
        rule(&mut topics, MANY);
        let gap = back_at(&mut topics, third).gap.expect("nothing of that was kept");
        assert_eq!(gap.resumed, last);
        publish(&mut topics, 2);
        assert!(back_at(&mut topics, last).gap.is_none(), "what comes from here on is");
        rule(&mut topics, NONE);
        assert!(back_at(&mut topics, last).gap.is_some());
    }
}
