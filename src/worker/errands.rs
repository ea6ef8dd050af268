//! Errands: one request's questions to many topics' homes.
//!
//! ```text
//!   the connection's worker          homes
//!     run --- a Share each ------->  work, a slice a turn
//!                                      | the last to hand in
//!     gathered <---- Gathering --------'
//!       next stage, or the response
//! ```
//!
//! What is found lies in the [`Gathering`] that all shares point to. Nobody waits: a connection that is gone meanwhile is
//! not answered, and that is all.

use super::topics::TopicMail;
use super::{Envelope, Kernel, Worker};
use crate::error::Refused;
use crate::limits::{API_CHANNELS_MAX, CALLS_PER_TURN, ERRAND_TASKS_PER_TURN, SURVEY_LOOKS_MAX};
use crate::service::{ConnId, Errand, Filter, Finish, Found, Service, Task};
use crate::topic::{Census, TopicName};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An errand under way.
#[derive(Debug)]
pub(crate) struct Gathering {
    id: ConnId,
    state: Mutex<State>,
}

struct State {
    /// In the order of the tasks, up to the stage under way.
    found: Vec<Found>,
    /// Shares that are not handed in.
    outstanding: usize,
    stages: VecDeque<Vec<Task>>,
    finish: Option<Finish>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (found, outstanding) = (self.found.len(), self.outstanding);
        f.debug_struct("State").field("found", &found).field("outstanding", &outstanding).finish_non_exhaustive()
    }
}

impl Gathering {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deals the next stage out, to each worker its tasks in their order; none when there is no further stage.
    fn deal(self: &Arc<Self>, workers: usize) -> Vec<Option<Share>> {
        let mut state = self.state();
        let mut shares: Vec<Option<Share>> = (0..workers).map(|_| None).collect();
        while state.outstanding == 0
            && let Some(tasks) = state.stages.pop_front()
        {
            for task in tasks {
                let at = state.found.len();
                state.found.push(Found::Waiting);
                let mut give = |worker: usize, task| {
                    let share = shares[worker].get_or_insert_with(|| Share::new(self));
                    share.left.push_back((at, task));
                };
                match task.topic() {
                    Some(topic) => give(topic.home(workers), task),
                    None => (0..workers).for_each(|worker| give(worker, task.clone())),
                }
            }
            state.outstanding = shares.iter().flatten().count();
        }
        shares
    }
}

/// What one worker does for an errand's stage.
#[derive(Debug)]
pub(crate) struct Share {
    gathering: Arc<Gathering>,
    left: VecDeque<(usize, Task)>,
    found: Vec<(usize, Found)>,
    /// The listing under way: from where it goes on, and what it has.
    look: usize,
    channels: Vec<(TopicName, usize)>,
    /// The walk through a user's connections under way.
    #[cfg(feature = "centrifugo")]
    pub(super) walk: Option<u64>,
}

impl Share {
    fn new(gathering: &Arc<Gathering>) -> Self {
        let (left, found, channels) = (VecDeque::new(), Vec::new(), Vec::new());
        Self {
            gathering: Arc::clone(gathering),
            left,
            found,
            look: 0,
            channels,
            #[cfg(feature = "centrifugo")]
            walk: None,
        }
    }

    /// Adds what was found. Gives the gathering, if everything has been found now.
    fn hand_in(self) -> Option<Arc<Gathering>> {
        let Self { gathering, found, .. } = self;
        let mut state = gathering.state();
        for (at, found) in found {
            state.found[at].merge(found);
        }
        state.outstanding -= 1;
        let is_last = state.outstanding == 0;
        drop(state);
        is_last.then_some(gathering)
    }
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// Does what a request wants done; the connection waits.
    pub(super) fn run_errand(&mut self, id: ConnId, errand: Errand) {
        let Errand { stages, finish } = errand;
        let state = State { found: Vec::new(), outstanding: 0, stages, finish: Some(finish) };
        self.gathered(&Arc::new(Gathering { id, state: Mutex::new(state) }));
    }

    /// A stage is over: the next one begins, or the response is there.
    pub(super) fn gathered(&mut self, gathering: &Arc<Gathering>) {
        let mut is_over = true;
        for (worker, share) in gathering.deal(self.shared.ports.len()).into_iter().enumerate() {
            if let Some(share) = share {
                is_over = false;
                self.post_topic_mail(worker as u16, TopicMail::Share(share));
            }
        }
        if !is_over {
            return;
        }
        let mut state = gathering.state();
        let (found, finish) = (std::mem::take(&mut state.found), state.finish.take());
        drop(state);
        if let Some(finish) = finish {
            self.reply(gathering.id, &finish(found));
        }
    }

    /// Works on a share for a slice; the rest has its turn behind whatever mail is there.
    pub(super) fn work(&mut self, mut share: Share) {
        #[cfg_attr(not(feature = "centrifugo"), allow(unused_mut, reason = "only its calls count"))]
        let mut reached = 0;
        for _ in 0..ERRAND_TASKS_PER_TURN {
            if reached >= CALLS_PER_TURN {
                break;
            }
            let Some((at, task)) = share.left.pop_front() else {
                if let Some(gathering) = share.hand_in() {
                    self.post_topic_mail(gathering.id.worker, TopicMail::Gathered(gathering));
                }
                return;
            };
            let found = match task {
                Task::Publish(name, publication) => self
                    .publish_here(&name, Arc::unwrap_or_clone(publication))
                    .map_or(Found::Refused(Refused::TopicsFull), Found::Published),
                Task::Read(name, read) => {
                    let (now, rng) = (self.now.0, &mut self.rng);
                    let resolved = self.topics.resolve(&name, read, None, now, || rng.next());
                    resolved.map_or(Found::Refused(Refused::TopicsFull), Found::Read)
                }
                Task::RemoveHistory(name) => {
                    self.remove_history(&name);
                    Found::Removed
                }
                Task::Presence(name, _) if !self.rules.topics.at(name.as_str()).presence => {
                    Found::Refused(Refused::NoPresence)
                }
                Task::Presence(name, list) => Found::Presence(self.topics.presence(&name, list), list),
                Task::Census => Found::Census(Census {
                    clients: self.port().metrics.open(),
                    uptime_ms: self.now.0,
                    ..self.topics.census()
                }),
                Task::Channels(filter) => match self.list(&filter, &mut share) {
                    Some(found) => found,
                    None => {
                        share.left.push_front((at, Task::Channels(filter)));
                        break;
                    }
                },
                #[cfg(feature = "centrifugo")]
                Task::Call(call) => match self.call_some(&call, &mut share, &mut reached) {
                    Some(found) => found,
                    None => {
                        share.left.push_front((at, Task::Call(call)));
                        break;
                    }
                },
            };
            share.found.push((at, found));
        }
        self.post_topic_mail(self.index, TopicMail::Share(share));
    }

    /// Lists a slice of the topics that are listened to here; `None`: there are more.
    fn list(&mut self, filter: &Filter, share: &mut Share) -> Option<Found> {
        let channels = &mut share.channels;
        let next = self.topics.survey(share.look, SURVEY_LOOKS_MAX, |name, clients| {
            if channels.len() <= API_CHANNELS_MAX && filter(name) {
                channels.push((name.clone(), clients));
            }
        });
        if channels.len() > API_CHANNELS_MAX {
            (share.look, share.channels) = (0, Vec::new());
            return Some(Found::TooManyChannels);
        }
        share.look = next.unwrap_or(0);
        next.is_none().then(|| Found::Channels(std::mem::take(channels)))
    }

    /// Drops what is kept of a topic, here at its home and wherever somebody listens.
    fn remove_history(&mut self, name: &TopicName) {
        let Some(through) = self.topics.remove_history(name) else { return };
        for index in 0..self.topics.attached(name).len() {
            let worker = self.topics.attached(name)[index];
            self.topic_mail(worker, TopicMail::HistoryRemoved { name: name.clone(), through });
        }
    }

    /// Brings mail to a worker, to this one as to any other: not before the turn's next mail.
    fn post_topic_mail(&mut self, to: u16, mail: TopicMail<S::State>) {
        self.shared.ports[usize::from(to)].post(Envelope::Topic(Box::new(mail)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Response;
    use crate::topic::{Publication, Read, Since, Wanted};

    fn gathering(stages: Vec<Vec<Task>>) -> Arc<Gathering> {
        let finish: Finish = Box::new(|_| Response::new(200));
        let state = State { found: Vec::new(), outstanding: 0, stages: stages.into(), finish: Some(finish) };
        Arc::new(Gathering { id: ConnId { serial: 1, slot: 0, worker: 0 }, state: Mutex::new(state) })
    }

    fn publish(name: &str) -> Task {
        Task::Publish(TopicName::new(name).unwrap(), Arc::new(Publication::from("x")))
    }

    #[test]
    fn what_is_found_stands_in_the_order_of_the_tasks_whoever_is_first() {
        let names: Vec<String> = (0..20).map(|number| format!("t{number}")).collect();
        let read = Task::Read(TopicName::new("t0").unwrap(), Read::all(Wanted::Since(Since::Latest)));
        let stages = vec![names.iter().map(|name| publish(name)).collect(), Vec::new(), vec![Task::Census, read]];
        let gathering = gathering(stages);
        let mut shares: Vec<Share> = gathering.deal(4).into_iter().flatten().collect();
        assert_eq!((shares.len(), shares.iter().map(|share| share.left.len()).sum::<usize>()), (4, 20));
        assert!(gathering.deal(4).iter().all(Option::is_none), "one stage at a time");
        for mut share in shares.drain(..).rev() {
            for (at, task) in share.left.drain(..) {
                let name = task.topic().unwrap();
                assert_eq!(name.as_str(), names[at]);
                share.found.push((at, Found::Published(format!("abcdefgh-{at}").parse().unwrap())));
            }
            let last = share.hand_in().is_some();
            assert_eq!(last, gathering.state().outstanding == 0);
        }
        let offsets: Vec<_> = (gathering.state().found.iter())
            .map(|found| if let Found::Published(cursor) = found { cursor.offset } else { u64::MAX })
            .collect();
        assert_eq!(offsets, (0..20).collect::<Vec<_>>());
        // The empty stage is passed over; everybody is counted, and one worker is asked for more.
        let shares: Vec<Share> = gathering.deal(4).into_iter().flatten().collect();
        assert_eq!((shares.len(), shares.iter().map(|share| share.left.len()).sum::<usize>()), (4, 5));
        let mut last = None;
        for mut share in shares {
            let census = Census { clients: 2, subscriptions: 3, topics: 1, uptime_ms: 7 };
            share.found.push((20, Found::Census(census)));
            last = share.hand_in();
        }
        let gathering = last.expect("all have handed in");
        let sum = Census { clients: 8, subscriptions: 12, topics: 4, uptime_ms: 7 };
        assert!(matches!(gathering.state().found[20], Found::Census(census) if census == sum));
        assert!(gathering.deal(4).iter().all(Option::is_none), "that was all");
    }

    #[test]
    fn a_list_that_is_too_long_stays_so() {
        let name = TopicName::new("t").unwrap();
        let list = |length| Found::Channels(vec![(name.clone(), 1); length]);
        let mut found = Found::Waiting;
        found.merge(list(API_CHANNELS_MAX));
        assert!(matches!(&found, Found::Channels(channels) if channels.len() == API_CHANNELS_MAX));
        found.merge(list(1));
        found.merge(list(1));
        assert!(matches!(found, Found::TooManyChannels));
    }
}
