//! What topics there are.
//!
//! The first of all are found in two steps, since a topic's subscribers are spread over the workers: each names those that have
//! most there, and then all say what they have of any that was named. What is listed is exact; a topic that is in no worker's
//! list may be missing, which needs more topics of nearly the same size than are listed.

use super::connections::silence;
use super::params::Params;
use super::text::{Fields, Value, list as listing, wants_table};
use super::{Asked, Desk};
use crate::http::Response;
use crate::service::Request;
use crate::topic::{AtHome, TopicName};
use crate::worker::{Found, Quest, TopicOrder};
use std::cmp::Reverse;
use std::collections::HashMap;

const ORDERS: [(&str, TopicOrder); 3] =
    [("subscribers", TopicOrder::Subscribers), ("messages", TopicOrder::Messages), ("bytes", TopicOrder::Bytes)];

struct Topic {
    name: TopicName,
    subscribers: usize,
    home: Option<(u16, AtHome)>,
}

/// `GET /topics`.
pub(super) fn list<T>(desk: &Desk<T>, request: &Request<'_>) -> Result<Response, Response> {
    let params = Params::read(request, &["sort", "limit", "prefix", "name", "format"])?;
    let (table, limit) = (wants_table(request, &params)?, params.limit()?);
    let order = params.word("sort", &ORDERS)?.unwrap_or(TopicOrder::Subscribers);
    let mut missing = Vec::new();
    let names = match params.topic("name")? {
        Some(name) => vec![name],
        None => {
            let prefix = params.boxed("prefix").unwrap_or_default();
            let Asked { found, silent } = desk.ask(Quest::Candidates { order, limit, prefix }, None);
            missing = silent;
            candidates(found, limit)
        }
    };
    let (mut topics, silent) = details(desk, names);
    missing.extend(silent.into_iter().filter(|worker| !missing.contains(worker)).collect::<Vec<_>>());
    topics.retain(|topic| topic.subscribers > 0 || topic.home.is_some());
    topics.sort_by_key(|topic| {
        let home = |of: fn(&AtHome) -> usize| topic.home.as_ref().map_or(0, |(_, home)| of(home));
        Reverse(match order {
            TopicOrder::Subscribers => topic.subscribers,
            TopicOrder::Messages => home(|home| home.messages),
            TopicOrder::Bytes => home(|home| home.bytes),
        })
    });
    let rows: Vec<Fields> = topics.iter().map(fields).collect();
    Ok(listing(table, "topics", &[("silent_workers", silence(&missing))], &rows))
}

/// The names with most in the sum of what was said.
fn candidates(found: Vec<(u16, Found)>, limit: usize) -> Vec<TopicName> {
    let mut sums: HashMap<TopicName, u64> = HashMap::new();
    for (_, found) in found {
        if let Found::Candidates(names) = found {
            names.into_iter().for_each(|(score, name)| *sums.entry(name).or_default() += score);
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|(name, score), (other, its)| its.cmp(score).then_with(|| name.cmp(other)));
    sums.into_iter().take(limit).map(|(name, _)| name).collect()
}

/// What all workers have of these.
fn details<T>(desk: &Desk<T>, names: Vec<TopicName>) -> (Vec<Topic>, Vec<u16>) {
    let topic = |name| Topic { name, subscribers: 0, home: None };
    let mut topics: Vec<Topic> = names.iter().cloned().map(topic).collect();
    let Asked { found, silent } = desk.ask(Quest::Topics(names), None);
    for (worker, found) in found {
        let Found::Topics(here) = found else { continue };
        for (topic, (subscribers, home)) in topics.iter_mut().zip(here) {
            topic.subscribers += subscribers;
            topic.home = topic.home.take().or(home.map(|home| (worker, home)));
        }
    }
    (topics, silent)
}

fn fields(topic: &Topic) -> Fields {
    let number = |of: &dyn Fn(u16, &AtHome) -> u64| {
        topic.home.as_ref().map_or(Value::Nothing, |(worker, home)| Value::Number(of(*worker, home)))
    };
    vec![
        ("name", Value::Text(topic.name.as_str().to_owned())),
        ("subscribers", Value::Number(topic.subscribers as u64)),
        ("messages", number(&|_, home| home.messages as u64)),
        ("bytes", number(&|_, home| home.bytes as u64)),
        ("published", number(&|_, home| home.head.offset)),
        ("cursor", topic.home.as_ref().map_or(Value::Nothing, |(_, home)| Value::Text(home.head.to_string()))),
        ("home", number(&|worker, _| u64::from(worker))),
        ("workers", number(&|_, home| home.workers as u64)),
    ]
}
