//! What is asked of all topics, and what is done to all copies of one.

use super::{Home, Place, Topics};
use crate::metrics::Metrics;
use crate::topic::{Cursor, TopicName};

/// Sums over a worker's topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// Open connections.
    pub(crate) clients: u64,
    pub(crate) subscriptions: u64,
    /// Topics at home there that somebody listens to.
    pub(crate) topics: u64,
    /// How long the server has been there.
    pub(crate) uptime_ms: u64,
}

/// A topic at its home, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AtHome {
    /// What is kept.
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// The newest position; the offset is how many messages there were.
    pub(crate) head: Cursor,
    /// Workers whose connections listen.
    pub(crate) workers: usize,
}

impl AtHome {
    fn of(home: &Home) -> Self {
        let (messages, bytes) = home.log.kept();
        Self { messages, bytes, head: home.log.head(), workers: home.attached.len() }
    }
}

impl Topics {
    /// Subscriptions, and homes that somebody listens to.
    pub(crate) fn census(&self) -> Census {
        self.counts
    }

    /// Says what there is.
    pub(crate) fn note(&self, metrics: &Metrics) {
        metrics.homes.set(self.homes.len() as u64);
        metrics.subscriptions.set(self.counts.subscriptions);
        metrics.sweeping.set(self.sweeping.len() as u64);
        metrics.kept.set(self.kept.messages());
        metrics.kept_bytes.set(self.kept.bytes());
        metrics.copied.set(self.copied.messages());
    }

    /// Tells the topics that somebody here listens to, with how many do: a slice of at most `looks`, from a place on. Gives
    /// the place to go on from, unless this was the end.
    pub(crate) fn survey(&self, from: usize, looks: usize, mut tell: impl FnMut(&TopicName, usize)) -> Option<usize> {
        let end = from.saturating_add(looks).min(self.locals.capacity());
        for local in (from..end).filter_map(|topic| self.locals.get(topic)) {
            if !local.subscribers.is_empty() && local.name.beside().is_none() {
                tell(&local.name, local.subscribers.len());
            }
        }
        (end < self.locals.capacity()).then_some(end)
    }

    /// Tells the topics at home here, with what there is of them, as [`survey`](Self::survey) does. The round that they stand
    /// in turns meanwhile: a topic may be told twice or, rarely, not at all.
    pub(crate) fn survey_homes(
        &self,
        from: u64,
        looks: usize,
        mut tell: impl FnMut(&TopicName, AtHome),
    ) -> Option<u64> {
        let start = from.max(self.turned);
        let at = usize::try_from(start - self.turned).unwrap_or(usize::MAX).min(self.round.len());
        let end = at.saturating_add(looks).min(self.round.len());
        for name in self.round.range(at..end) {
            if let Some(home) = self.homes.get(name) {
                tell(name, AtHome::of(home));
            }
        }
        (end < self.round.len()).then_some(self.turned + end as u64)
    }

    /// What there is of a topic: how many listen here, and what its home is, if that is here.
    pub(crate) fn here(&self, name: &TopicName) -> (usize, Option<AtHome>) {
        let local = self.names.get(name).and_then(|&topic| self.locals.get(topic as usize));
        (local.map_or(0, |local| local.subscribers.len()), self.homes.get(name).map(AtHome::of))
    }

    /// How many messages a subscriber is behind the head.
    pub(crate) fn lag(&self, place: Place) -> u64 {
        let Some(local) = self.locals.get(place.topic as usize) else { return 0 };
        let head = local.copy.as_ref().map_or(0, |copy| copy.head().offset);
        local.subscribers.get(place.index as usize).map_or(0, |subscriber| head.saturating_sub(subscriber.cursor))
    }

    /// Drops what is kept of a topic at home here. Gives the position up to which that was, for those who are attached.
    pub(crate) fn remove_history(&mut self, name: &TopicName) -> Option<Cursor> {
        let home = self.homes.get_mut(name)?;
        home.log.clear();
        Some(home.log.head())
    }

    /// The home has dropped what it kept.
    pub(crate) fn history_removed(&mut self, name: &TopicName, through: Cursor) {
        let Some(&topic) = self.names.get(name) else { return };
        if let Some(copy) = &mut self.locals[topic as usize].copy {
            copy.remove(through);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{Encoding, Limits, Read, Retention, Since, Subscriber, Wanted};

    #[test]
    fn a_survey_finds_in_slices_who_is_listened_to() {
        let log = Limits { messages: 10, bytes: 1 << 20, age_ms: u64::MAX };
        let mut topics = Topics::new(Retention::uniform(log, 1000, 100));
        let names: Vec<_> = (0..10).map(|number| TopicName::new(&format!("t{number}")).unwrap()).collect();
        for (number, name) in names.iter().enumerate() {
            topics.asking(name);
            let read = Read::all(Wanted::Since(Since::Latest));
            let resolved = topics.resolve(name, read, Some(0), 0, || number as u64).unwrap();
            let topic = topics.answered(name, &resolved);
            for slot in 0..number as u32 {
                let subscriber = Subscriber { cursor: 0, slot, nth: 0, encoding: Encoding::Frame };
                topics.subscribe(topic, subscriber);
            }
        }
        topics.retire(topics.number(names[0].as_str()).unwrap());
        topics.detach(&names[0], 0);
        let (mut found, mut from, mut slices) = (Vec::new(), Some(0), 0);
        while let Some(at) = from {
            from = topics.survey(at, 3, |name, clients| found.push((name.clone(), clients)));
            slices += 1;
        }
        found.sort();
        assert_eq!(found, names.into_iter().enumerate().skip(1).map(|(n, name)| (name, n)).collect::<Vec<_>>());
        assert!(slices >= 4);
        assert_eq!(topics.census(), Census { subscriptions: 45, topics: 9, ..Census::default() });
    }

    #[test]
    fn where_history_was_removed_no_copy_starts_a_reader() {
        let log = Limits { messages: 10, bytes: 1 << 20, age_ms: u64::MAX };
        let retention = Retention::uniform(log, 1000, 100);
        let (mut home, mut worker) = (Topics::new(retention.clone()), Topics::new(retention));
        let name = TopicName::new("t").unwrap();
        worker.asking(&name);
        let resolved = home.resolve(&name, Read::all(Wanted::Since(Since::Latest)), Some(1), 0, || 1).unwrap();
        let topic = worker.answered(&name, &resolved);
        let publish = |home: &mut Topics, worker: &mut Topics| {
            let (cursor, message) = home.publish(&name, "x".into(), 0, || 1).unwrap();
            worker.append(&name, &message.unwrap(), 0);
            cursor
        };
        let cursors: Vec<_> = (0..3).map(|_| publish(&mut home, &mut worker)).collect();
        assert_eq!(worker.covering(&name, cursors[0]), Some(topic));
        let through = home.remove_history(&name).unwrap();
        assert_eq!(through, cursors[2]);
        worker.history_removed(&name, through);
        assert_eq!(worker.covering(&name, cursors[0]), None, "the home is to say that there is a gap");
        assert_eq!(worker.covering(&name, cursors[2]), Some(topic));
        let copy = worker.locals[topic as usize].copy.as_ref().unwrap();
        assert_eq!(copy.slice_after(cursors[0].offset).map(Iterator::count), Some(2), "who is on the way arrives");
        let read = Read::all(Wanted::Since(Since::At(cursors[0])));
        let resolved = home.resolve(&name, read, None, 0, || 1).unwrap();
        assert_eq!((resolved.start.gap.map(|gap| gap.resumed), resolved.messages.len()), (Some(through), 0));
        let next = publish(&mut home, &mut worker);
        assert_eq!((next.epoch, next.offset), (through.epoch, through.offset + 1));
        assert_eq!(home.remove_history(&TopicName::new("other").unwrap()), None);
    }
}
