//! Centrifugo's server API: `POST /api/METHOD`.

use super::{Answer, AnswerKind, Errand, Finish, Found, Request, Task};
use crate::adapter::centrifugo::api::{self, Answers, Command, Failure, Method, PublishRequest};
use crate::adapter::centrifugo::codes::ErrorCode;
use crate::adapter::centrifugo::glob::Glob;
use crate::error::Refused;
use crate::http::Response;
use crate::limits::{API_CHANNELS_MAX, API_LISTING_TASKS, API_TASKS_MAX};
use crate::topic::{Publication, TopicName};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// The prefix of the API's URLs.
const PREFIX: &str = "/api/";

/// Who may use the API.
#[derive(Clone, Default)]
pub(super) struct Access {
    /// Who has it; empty: nobody.
    pub(super) key: Box<[u8]>,
    /// Everybody.
    pub(super) insecure: bool,
}

impl std::fmt::Debug for Access {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let has_key = !self.key.is_empty();
        f.debug_struct("Access").field("has_key", &has_key).field("insecure", &self.insecure).finish()
    }
}

/// Where a command's results are, among all that was found.
enum Plan {
    Failed(Failure),
    /// One task.
    One(usize),
    /// A broadcast: a task each, but for those that are refused.
    Each(Vec<Result<usize, Failure>>),
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
pub(super) fn answer(access: &Access, has_history: bool, request: &Request<'_>) -> Option<Answer> {
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
    Some(match answer_read(method, has_history, request.body()) {
        Ok(answer) => answer,
        Err(error) => Response::detailed(Refused::BadMessage, &format!("send this method's JSON: {error}")).into(),
    })
}

fn answer_read(method: Method, has_history: bool, body: &[u8]) -> Result<Answer, serde_json::Error> {
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
        plans.add(command, has_history);
    }
    let Plans { plans, mut stages, .. } = plans;
    if parallel {
        stages = VecDeque::from([stages.into_iter().flatten().collect()]);
    }
    let finish: Finish = Box::new(move |mut found| {
        let mut answers = Answers::new(is_batch);
        for (name, plan) in names.into_iter().zip(plans) {
            let outcome = outcome(&mut answers, plan, &mut found, has_history);
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

    /// Whether a request has the key. `X-API-Key` counts before `Authorization`.
    fn lets_in(&self, request: &Request<'_>) -> bool {
        let given = match request.header("X-API-Key").filter(|given| !given.is_empty()) {
            Some(given) => Some(given),
            None => request.header("Authorization").and_then(|field| {
                let (scheme, given) = field.trim().split_once(' ')?;
                scheme.eq_ignore_ascii_case("apikey").then_some(given.trim())
            }),
        };
        self.insecure || given.is_some_and(|given| same(&self.key, given.as_bytes()))
    }
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    a.len() == b.len() && differences == 0
}

impl Plans {
    /// Plans what a command asks for, behind all others.
    fn add(&mut self, command: Command, has_history: bool) {
        let plan = self.plan(command, has_history).unwrap_or_else(Plan::Failed);
        self.plans.push(plan);
    }

    fn plan(&mut self, command: Command, has_history: bool) -> Result<Plan, Failure> {
        let kept = || match has_history {
            true => Ok(()),
            false => Err(Failure::new(ErrorCode::NotAvailable, "channels keep no history here")),
        };
        let task = match command {
            Command::Publish(mut request) => {
                let topic = api::topic(&request.channel)?;
                Task::Publish(topic, Arc::new(request.publication(has_history)?))
            }
            Command::Broadcast(request) => return self.broadcast(request, has_history),
            Command::History(request) => {
                let topic = api::topic(&request.channel)?;
                kept()?;
                Task::Read(topic, request.question())
            }
            Command::HistoryRemove(request) => {
                let topic = api::topic(&request.channel)?;
                kept()?;
                Task::RemoveHistory(topic)
            }
            Command::Presence(request) => Task::Presence(api::topic(&request.channel)?, true),
            Command::PresenceStats(request) => Task::Presence(api::topic(&request.channel)?, false),
            Command::Channels(request) if request.pattern.is_empty() => Task::Channels(Arc::new(|_| true)),
            Command::Channels(request) => {
                let bad = |error| Failure::new(ErrorCode::BadRequest, error);
                let glob = Glob::new(&request.pattern).map_err(bad)?;
                Task::Channels(Arc::new(move |topic: &TopicName| glob.matches(topic.as_str())))
            }
            Command::Info => Task::Census,
            Command::Later(_) => return Err(Failure::new(ErrorCode::NotAvailable, "this method is not served yet")),
            Command::Unknown => return Err(Failure::new(ErrorCode::MethodNotFound, "")),
        };
        let cost = if matches!(task, Task::Channels(_)) { API_LISTING_TASKS } else { 1 };
        self.pay(cost)?;
        self.tasks += 1;
        self.stages.push_back(vec![task]);
        Ok(Plan::One(self.tasks - 1))
    }

    /// The same publication to many channels, those that cannot be left out.
    fn broadcast(&mut self, mut request: PublishRequest, has_history: bool) -> Result<Plan, Failure> {
        let channels = std::mem::take(&mut request.channels);
        if channels.is_empty() {
            return Err(Failure::new(ErrorCode::BadRequest, "give `channels`, one at least"));
        }
        self.pay(channels.len())?;
        let publication: Arc<Publication> = Arc::new(request.publication(has_history)?);
        let mut stage = Vec::with_capacity(channels.len());
        let mut each = Vec::with_capacity(channels.len());
        for channel in channels {
            each.push(api::topic(&channel).map(|topic| {
                stage.push(Task::Publish(topic, Arc::clone(&publication)));
                self.tasks += 1;
                self.tasks - 1
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

/// A command's outcome, from what was found for it.
fn outcome(answers: &mut Answers, plan: Plan, found: &mut [Found], has_history: bool) -> Result<Vec<u8>, Failure> {
    let mut take =
        |at: usize| found.get_mut(at).map_or(Found::Waiting, |found| std::mem::replace(found, Found::Waiting));
    let published = |found| match found {
        Found::Published(cursor) => Ok(api::published(cursor, has_history)),
        Found::Refused(refused) => Err(refused.into()),
        _ => Err(Failure::new(ErrorCode::Internal, "")),
    };
    match plan {
        Plan::Failed(failure) => Err(failure),
        Plan::Each(each) => Ok(api::responses(each.into_iter().map(|at| published(take(at?))))),
        Plan::One(at) => match take(at) {
            Found::Read(resolved) => answers.history(&resolved),
            Found::Removed => Ok(b"{}".to_vec()),
            Found::Presence(presence, list) => Ok(api::presence(&presence, list)),
            Found::Refused(refused) => Err(refused.into()),
            Found::Channels(found) => Ok(api::channels(found)),
            Found::TooManyChannels => {
                let detail = format!("more than {API_CHANNELS_MAX} channels: give a narrower `pattern`");
                Err(Failure::new(ErrorCode::LimitExceeded, detail))
            }
            Found::Census(census) => Ok(api::info(node(), &census)),
            found => published(found),
        },
    }
}

/// The name of this process among others.
fn node() -> &'static str {
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
        plans.add(broadcast(API_TASKS_MAX + 1), true);
        plans.add(broadcast(API_TASKS_MAX - API_LISTING_TASKS), true);
        plans.add(listing(), true);
        plans.add(listing(), true);
        plans.add(broadcast(1), true);
        let is_failed: Vec<_> = plans.plans.iter().map(|plan| matches!(plan, Plan::Failed(_))).collect();
        assert_eq!(is_failed, [true, false, false, true, true]);
        assert_eq!((plans.tasks, plans.stages.len()), (API_TASKS_MAX - API_LISTING_TASKS + 1, 2));
    }

    #[test]
    fn what_a_broadcast_cannot_reach_is_left_out_and_said() {
        let mut plans = Plans::default();
        let body = br#"{"data":1,"channels":["a","with space","","b"]}"#;
        plans.add(Command::read(Method::Broadcast, body).unwrap(), true);
        let cursor = |text: &str| Found::Published(text.parse().unwrap());
        let mut found = [cursor("abcdefgh-1"), cursor("abcdefgh-2")];
        let outcome = outcome(&mut Answers::new(false), plans.plans.remove(0), &mut found, true).unwrap();
        let outcome = String::from_utf8(outcome).unwrap();
        let order: Vec<_> = outcome.split("},{").map(|response| response.contains("\"error\"")).collect();
        assert_eq!(order, [false, true, true, false], "{outcome}");
        assert!(outcome.contains("\"offset\":2"));
    }
}
