//! What differs between two configurations: what a reload says.

use super::Settings;
use super::show::{Shown, everything};
use std::collections::BTreeMap;

/// A setting that is not what it was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Its full name.
    pub(crate) name: String,
    /// As they are shown, which secrets are not; `None`: it was not there, or is not any more.
    before: Option<String>,
    after: Option<String>,
    /// Whether a running server takes it.
    pub(crate) is_live: bool,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, before, after, .. } = self;
        match (before, after) {
            (Some(before), Some(after)) if before == after => write!(f, "{name}: changed, not shown"),
            (Some(before), Some(after)) => write!(f, "{name}: {before} -> {after}"),
            (None, Some(after)) => write!(f, "{name}: {after}, new"),
            (_, None) => write!(f, "{name}: gone"),
        }
    }
}

/// All settings as they are shown, by name.
#[derive(Clone)]
pub(crate) struct Snapshot(BTreeMap<String, Shown>);

impl Snapshot {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self(everything(settings).into_iter().map(|shown| (shown.name.clone(), shown)).collect())
    }

    /// What is another way in `after`.
    pub(crate) fn changes(&self, after: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, new) in &after.0 {
            let old = self.0.get(name);
            if old.is_none_or(|old| old.compared != new.compared) {
                let (before, after) = (old.map(|old| old.said().to_owned()), Some(new.said().to_owned()));
                changes.push(Change { name: name.clone(), before, after, is_live: new.is_live });
            }
        }
        let gone = self.0.values().filter(|old| !after.0.contains_key(&old.name)).map(|old| Change {
            name: old.name.clone(),
            before: Some(old.said().to_owned()),
            after: None,
            is_live: old.is_live,
        });
        changes.extend(gone);
        changes
    }

    /// Leaves one as it is in another.
    pub(crate) fn keep(&mut self, name: &str, of: &Self) {
        if let Some(shown) = of.0.get(name) {
            self.0.insert(name.to_owned(), shown.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Secret;
    use throng::TopicRules;

    fn changes(before: &Settings, after: &Settings) -> Vec<Change> {
        Snapshot::of(before).changes(&Snapshot::of(after))
    }

    #[test]
    fn every_change_is_said_and_no_secret() {
        let before = Settings::default();
        let mut after = before.clone();
        assert_eq!(changes(&before, &after), []);
        after.server.workers = Some(3);
        after.api_key = Secret(b"hush".to_vec());
        after.server.topics = after.server.topics.namespace("rooms", TopicRules::default());
        let said: Vec<_> = changes(&before, &after).iter().map(ToString::to_string).collect();
        for line in [
            "http_api.key: none -> (hidden)",
            "throng.workers: one per core, more where client.connection_limit needs them -> 3",
            "channel.namespaces.rooms.presence: false, new",
        ] {
            assert!(said.iter().any(|one| one == line), "{line} in {said:?}");
        }
        assert!(!said.concat().contains("hush"));
        let mut changed = after.clone();
        changed.api_key = Secret(b"hush2".to_vec());
        let all = changes(&after, &changed);
        assert_eq!(all.len(), 1, "one secret in place of another is a change: {all:?}");
        assert!(all[0].is_live);
        assert_eq!(all[0].to_string(), "http_api.key: changed, not shown");
        assert_eq!(changes(&after, &before).iter().filter(|change| !change.is_live).count(), 1);
    }
}
