//! Errands: what one request asks of many topics, answered by one response.

#![cfg_attr(not(feature = "centrifugo"), allow(dead_code, reason = "only its server API has errands"))]

#[cfg(feature = "centrifugo")]
use super::UserCall;
use crate::error::Refused;
use crate::http::Response;
use crate::limits::API_CHANNELS_MAX;
use crate::topic::{Census, Cursor, Presence, Publication, Read, Resolved, TopicName};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// Whether a topic is meant.
pub(crate) type Filter = Arc<dyn Fn(&TopicName) -> bool + Send + Sync>;

/// Makes the response of what was found, in the order of the tasks.
pub(crate) type Finish = Box<dyn FnOnce(Vec<Found>) -> Response + Send>;

/// What a request wants done.
pub(crate) struct Errand {
    /// One stage after another; what is in one stage is done at once.
    pub(crate) stages: VecDeque<Vec<Task>>,
    pub(crate) finish: Finish,
}

/// One thing to be done.
#[derive(Clone)]
pub(crate) enum Task {
    // By the topic's home.
    Publish(TopicName, Arc<Publication>),
    Read(TopicName, Read),
    /// The log keeps its position, and nothing else.
    RemoveHistory(TopicName),
    /// Who is there: with their names, or only how many.
    Presence(TopicName, bool),
    // By every worker.
    /// The topics that are listened to.
    Channels(Filter),
    Census,
    /// What is done with all connections of a user.
    #[cfg(feature = "centrifugo")]
    Call(UserCall),
}

impl Task {
    /// The topic whose home is asked; `None`: every worker is.
    pub(crate) fn topic(&self) -> Option<&TopicName> {
        match self {
            Self::Publish(topic, _) | Self::Read(topic, _) | Self::RemoveHistory(topic) | Self::Presence(topic, _) => {
                Some(topic)
            }
            Self::Channels(_) | Self::Census => None,
            #[cfg(feature = "centrifugo")]
            Self::Call(_) => None,
        }
    }
}

/// What came of a task.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing yet.
    Waiting,
    Published(Cursor),
    Read(Resolved),
    Removed,
    Presence(Presence, bool),
    /// With how many subscriptions; a topic may be there once for each worker.
    Channels(Vec<(TopicName, usize)>),
    TooManyChannels,
    Census(Census),
    /// All connections of a user have been reached.
    #[cfg(feature = "centrifugo")]
    Called,
    Refused(Refused),
}

impl Found {
    /// Takes what another worker found in.
    pub(crate) fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Channels(channels), Self::Channels(more)) => {
                channels.extend(more);
                if channels.len() > API_CHANNELS_MAX {
                    *self = Self::TooManyChannels;
                }
            }
            (Self::TooManyChannels, _) => {}
            (Self::Census(census), Self::Census(more)) => {
                census.clients += more.clients;
                census.subscriptions += more.subscriptions;
                census.topics += more.topics;
                census.uptime_ms = census.uptime_ms.max(more.uptime_ms);
            }
            (_, other) => *self = other,
        }
    }
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errand").field("stages", &self.stages).finish_non_exhaustive()
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish(..) => "Publish",
            Self::Read(..) => "Read",
            Self::RemoveHistory(_) => "RemoveHistory",
            Self::Presence(..) => "Presence",
            Self::Channels(_) => "Channels",
            Self::Census => "Census",
            #[cfg(feature = "centrifugo")]
            Self::Call(_) => "Call",
        })
    }
}
