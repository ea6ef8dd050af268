//! Centrifugo's server API: `POST /api/METHOD`.

use super::{Answer, AnswerKind, Errand, Finish, Found, Request, Task, UserCall};
use crate::adapter::centrifugo::api::{self, Answers, Command, Failure, Method, PublishRequest};
use crate::adapter::centrifugo::codes::ErrorCode;
use crate::adapter::centrifugo::glob::Glob;
use crate::config::{Denied, RuleSet};
use crate::error::Refused;
use crate::http::Response;
use crate::limits::{API_CHANNELS_MAX, API_LISTING_TASKS, API_TASKS_MAX};
use crate::topic::{Publication, TopicName};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

/// The prefix of the API's URLs.
const PREFIX: &str = "/api/";

/// The keys by which an application's own server is known (`http_api.key`): in `X-API-Key`, or in
/// `Authorization: apikey KEY`. Cloning is cheap, and gives the same keys: what [`replace`](Self::replace) changes in one, all
/// have from the next request on.
#[derive(Clone, Default)]
pub struct ApiKey(Arc<RwLock<Vec<Box<[u8]>>>>);

impl std::fmt::Debug for ApiKey {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ApiKey").finish_non_exhaustive()
    }
}

impl ApiKey {
    /// A key. An empty one is none: nobody has it.
    pub fn new(key: impl Into<Vec<u8>>) -> Self {
        Self::default().or(key)
    }

    /// Another one, which counts as much: while applications change over from one to the other. An empty one is none.
    #[must_use]
    pub fn or(self, key: impl Into<Vec<u8>>) -> Self {
        let mut keys = self.keys().clone();
        keys.extend(Some(key.into().into_boxed_slice()).filter(|key| !key.is_empty()));
        Self(Arc::new(RwLock::new(keys)))
    }

    /// Takes the keys of another instead, for all clones of this.
    pub fn replace(&self, other: &Self) {
        let keys = other.keys().clone();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys().is_empty()
    }

    /// Whether a request has one of the keys, compared in a time that does not tell where they differ; `None`: it has none at
    /// all. `X-API-Key` counts before `Authorization`.
    pub fn is_in(&self, request: &Request<'_>) -> Option<bool> {
        let given = match request.header_values("X-API-Key").next().filter(|given| !given.is_empty()) {
            Some(given) => given,
            None => credentials(request.header_values("Authorization").next()?, "apikey")?,
        };
        Some(self.keys().iter().fold(false, |is_one, key| is_one | same(key, given)))
    }

    fn keys(&self) -> RwLockReadGuard<'_, Vec<Box<[u8]>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows the scheme, if it is this one (RFC 9110, section 11.4).
fn credentials<'a>(authorization: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (its_scheme, given) = authorization.split_at(authorization.iter().position(|&byte| byte == b' ')?);
    its_scheme.eq_ignore_ascii_case(scheme.as_bytes()).then(|| given.trim_ascii())
}

/// Who may use the API.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    pub(super) key: ApiKey,
    /// Everybody.
    pub(super) insecure: bool,
}

/// Where a command's results are, among all that was found.
enum Plan {
    Failed(Failure),
    /// One task.
    One(usize),
    /// A publication: its task, and whether its channel keeps it.
    Published(usize, bool),
    /// A broadcast: the same for each, but for those that are refused.
    Each(Vec<Result<(usize, bool), Failure>>),
}

/// A request's tasks, as they come together.
#[derive(Default)]
struct Plans {
    plans: Vec<Plan>,
    stages: VecDeque<Vec<Task>>,
    tasks: usize,
    /// Of [`API_TASKS_MAX`].
    cost: usize,
}

/// The answer to a request that is the API's; `None` for all others, and for all when the API is off.
pub(super) fn answer(access: &Access, request: &Request<'_>) -> Option<Answer> {
    let segment = request.path().strip_prefix(PREFIX).filter(|_| access.is_on())?;
    let Some(method) = Method::of(segment) else {
        return Some(Response::refuse(404, "there is no such method of the server API").into());
    };
    if request.method() != "POST" {
        return Some(Response::refuse(405, "use POST: the server API takes JSON").header("Allow", "POST").into());
    }
    if !access.lets_in(request) {
        return Some(Response::from(Refused::ApiKey).into());
    }
    Some(match answer_read(method, &request.rules.topics, request.body()) {
        Ok(answer) => answer,
        Err(error) => Response::detailed(Refused::BadMessage, &format!("send this method's JSON: {error}")).into(),
    })
}

fn answer_read(method: Method, rules: &Arc<RuleSet>, body: &[u8]) -> Result<Answer, serde_json::Error> {
    let (commands, parallel, is_batch) = match method {
        Method::Batch => {
            let (commands, parallel) = api::batch(body)?;
            (commands, parallel, true)
        }
        method => (vec![Command::read(method, body)?], false, false),
    };
    if commands.len() > API_TASKS_MAX {
        let detail = format!("send at most {API_TASKS_MAX} commands in a batch");
        return Ok(Response::detailed(Refused::BadMessage, &detail).into());
    }
    let mut plans = Plans::default();
    let mut names = Vec::with_capacity(commands.len());
    for command in commands {
        names.push(command.name());
        plans.add(command, rules);
    }
    let Plans { plans, mut stages, .. } = plans;
    if parallel {
        stages = VecDeque::from([stages.into_iter().flatten().collect()]);
    }
    let finish: Finish = Box::new(move |mut found| {
        let mut answers = Answers::new(is_batch);
        for (name, plan) in names.into_iter().zip(plans) {
            let outcome = outcome(&mut answers, plan, &mut found);
            answers.push(name, outcome);
        }
        Response::new(200).body("application/json", answers.finish())
    });
    Ok(Answer(AnswerKind::Errand(Errand { stages, finish })))
}

impl Access {
    fn is_on(&self) -> bool {
        self.insecure || !self.key.is_empty()
    }

    fn lets_in(&self, request: &Request<'_>) -> bool {
        self.insecure || self.key.is_in(request) == Some(true)
    }
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    a.len() == b.len() && differences == 0
}

impl Plans {
    /// Plans what a command asks for, behind all others.
    fn add(&mut self, command: Command, rules: &RuleSet) {
        let plan = self.plan(command, rules).unwrap_or_else(Plan::Failed);
        self.plans.push(plan);
    }

    fn plan(&mut self, command: Command, rules: &RuleSet) -> Result<Plan, Failure> {
        let kept = |topic: &TopicName| match rules.at(topic.as_str()).has_history() {
            true => Ok(()),
            false => Err(Failure::new(ErrorCode::NotAvailable, "the channel keeps no history")),
        };
        let mut publishes = None;
        let call = |call| Task::Call(UserCall(Arc::new(call)));
        let task = match command {
            Command::Publish(mut request) => {
                let topic = topic(&request.channel, rules)?;
                let has_history = rules.at(topic.as_str()).has_history();
                publishes = Some(has_history && !request.skip_history);
                Task::Publish(topic, Arc::new(request.publication()?))
            }
            Command::Broadcast(request) => return self.broadcast(request, rules),
            Command::History(request) => {
                let topic = topic(&request.channel, rules)?;
                kept(&topic)?;
                Task::Read(topic, request.question())
            }
            Command::HistoryRemove(request) => {
                let topic = topic(&request.channel, rules)?;
                kept(&topic)?;
                Task::RemoveHistory(topic)
            }
            Command::Presence(request) => Task::Presence(topic(&request.channel, rules)?, true),
            Command::PresenceStats(request) => Task::Presence(topic(&request.channel, rules)?, false),
            Command::Channels(request) if request.pattern.is_empty() => Task::Channels(Arc::new(|_| true)),
            Command::Channels(request) => {
                let bad = |error| Failure::new(ErrorCode::BadRequest, error);
                let glob = Glob::new(&request.pattern).map_err(bad)?;
                Task::Channels(Arc::new(move |topic: &TopicName| glob.matches(topic.as_str())))
            }
            Command::Info => Task::Census,
            Command::Disconnect(request) => call(request.call()?),
            Command::Unsubscribe(request) => call(request.call()?),
            Command::Subscribe(request) => {
                topic(&request.channel, rules)?;
                call(request.call()?)
            }
            Command::Refresh(request) => call(request.call()?),
            Command::Unknown => return Err(Failure::new(ErrorCode::MethodNotFound, "")),
        };
        let cost = if matches!(task, Task::Channels(_)) { API_LISTING_TASKS } else { 1 };
        self.pay(cost)?;
        self.tasks += 1;
        self.stages.push_back(vec![task]);
        let at = self.tasks - 1;
        Ok(publishes.map_or(Plan::One(at), |has_history| Plan::Published(at, has_history)))
    }

    /// The same publication to many channels, those that cannot be left out.
    fn broadcast(&mut self, mut request: PublishRequest, rules: &RuleSet) -> Result<Plan, Failure> {
        let channels = std::mem::take(&mut request.channels);
        if channels.is_empty() {
            return Err(Failure::new(ErrorCode::BadRequest, "give `channels`, one at least"));
        }
        self.pay(channels.len())?;
        let publication: Arc<Publication> = Arc::new(request.publication()?);
        let mut stage = Vec::with_capacity(channels.len());
        let mut each = Vec::with_capacity(channels.len());
        for channel in channels {
            each.push(topic(&channel, rules).map(|topic| {
                let has_history = rules.at(topic.as_str()).has_history() && !request.skip_history;
                stage.push(Task::Publish(topic, Arc::clone(&publication)));
                self.tasks += 1;
                (self.tasks - 1, has_history)
            }));
        }
        self.stages.push_back(stage);
        Ok(Plan::Each(each))
    }

    /// Counts what a command asks for, unless it is too much.
    fn pay(&mut self, cost: usize) -> Result<(), Failure> {
        if cost > API_TASKS_MAX - self.cost {
            let detail = format!(
                "one request reaches at most {API_TASKS_MAX} channels, and lists them {} times",
                API_TASKS_MAX / API_LISTING_TASKS
            );
            return Err(Failure::new(ErrorCode::LimitExceeded, detail));
        }
        self.cost += cost;
        Ok(())
    }
}

/// A channel's topic, if there are rules for it.
fn topic(channel: &str, rules: &RuleSet) -> Result<TopicName, Failure> {
    let topic = api::topic(channel)?;
    if topic.as_str().len() > rules.max_length {
        return Err(Failure::new(ErrorCode::BadRequest, format!("a channel has at most {} bytes", rules.max_length)));
    }
    match rules.of(channel) {
        Some(_) => Ok(topic),
        None => Err(Failure::new(ErrorCode::UnknownChannel, Denied::UnknownNamespace.to_string())),
    }
}

/// A command's outcome, from what was found for it.
fn outcome(answers: &mut Answers, plan: Plan, found: &mut [Found]) -> Result<Vec<u8>, Failure> {
    let mut take =
        |at: usize| found.get_mut(at).map_or(Found::Waiting, |found| std::mem::replace(found, Found::Waiting));
    let published = |found, has_history| match found {
        Found::Published(cursor) => Ok(api::published(cursor, has_history)),
        Found::Refused(refused) => Err(refused.into()),
        _ => Err(Failure::new(ErrorCode::Internal, "")),
    };
    match plan {
        Plan::Failed(failure) => Err(failure),
        Plan::Published(at, has_history) => published(take(at), has_history),
        Plan::Each(each) => Ok(api::responses(each.into_iter().map(|planned| {
            let (at, has_history) = planned?;
            published(take(at), has_history)
        }))),
        Plan::One(at) => match take(at) {
            Found::Read(resolved) => answers.history(&resolved),
            Found::Removed | Found::Called => Ok(b"{}".to_vec()),
            Found::Presence(presence, list) => Ok(api::presence(&presence, list)),
            Found::Refused(refused) => Err(refused.into()),
            Found::Channels(found) => Ok(api::channels(found)),
            Found::TooManyChannels => {
                let detail = format!("more than {API_CHANNELS_MAX} channels: give a narrower `pattern`");
                Err(Failure::new(ErrorCode::LimitExceeded, detail))
            }
            Found::Census(census) => Ok(api::info(node(), &census)),
            Found::Waiting | Found::Published(_) => Err(Failure::new(ErrorCode::Internal, "")),
        },
    }
}

/// The name of this process among others.
pub(super) fn node() -> &'static str {
    static NODE: OnceLock<String> = OnceLock::new();
    NODE.get_or_init(|| {
        let random = |n: u8| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), n);
        format!("{:016x}{:016x}", random(0), random(1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_or_it_is_not() {
        assert!(same(b"key", b"key") && same(b"", b""));
        for other in [&b""[..], b"ke", b"keys", b"Key", b"kez"] {
            assert!(!same(b"key", other) && !same(other, b"key"));
        }
    }

    #[test]
    fn one_request_asks_for_so_much_and_no_more() {
        let mut plans = Plans::default();
        let broadcast = |channels: usize| {
            let channels: Vec<_> = (0..channels).map(|number| format!("\"c{number}\"")).collect();
            let body = format!("{{\"data\":1,\"channels\":[{}]}}", channels.join(","));
            Command::read(Method::Broadcast, body.as_bytes()).unwrap()
        };
        let listing = || Command::read(Method::Channels, b"{}").unwrap();
        let rules = RuleSet::open();
        plans.add(broadcast(API_TASKS_MAX + 1), &rules);
        plans.add(broadcast(API_TASKS_MAX - API_LISTING_TASKS), &rules);
        plans.add(listing(), &rules);
        plans.add(listing(), &rules);
        plans.add(broadcast(1), &rules);
        let is_failed: Vec<_> = plans.plans.iter().map(|plan| matches!(plan, Plan::Failed(_))).collect();
        assert_eq!(is_failed, [true, false, false, true, true]);
        assert_eq!((plans.tasks, plans.stages.len()), (API_TASKS_MAX - API_LISTING_TASKS + 1, 2));
    }

    #[test]
    fn what_a_broadcast_cannot_reach_is_left_out_and_said() {
        let mut plans = Plans::default();
        let body = br#"{"data":1,"channels":["a","with space","","b"]}"#;
        plans.add(Command::read(Method::Broadcast, body).unwrap(), &RuleSet::open());
        let cursor = |text: &str| Found::Published(text.parse().unwrap());
        let mut found = [cursor("abcdefgh-1"), cursor("abcdefgh-2")];
        let outcome = outcome(&mut Answers::new(false), plans.plans.remove(0), &mut found).unwrap();
        let outcome = String::from_utf8(outcome).unwrap();
        let order: Vec<_> = outcome.split("},{").map(|response| response.contains("\"error\"")).collect();
        assert_eq!(order, [false, true, true, false], "{outcome}");
        assert!(outcome.contains("\"offset\":2"));
    }
}
