//! Other settings for a worker that runs.

use super::accept::Pace;
use super::{Kernel, Shared, Worker};
use crate::config::{Config, Rules};
use crate::http::Origins;
use crate::service::Service;
use crate::topic::Retention;
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What a worker can be told while it runs.
#[derive(Debug)]
pub(crate) struct Reload {
    pub(crate) rules: Rules,
    pub(crate) origins: Arc<Origins>,
    pub(crate) retention: Retention,
    pub(crate) accept_rate: Option<u32>,
}

/// What is to be done to each worker's service.
#[derive(Clone)]
pub(crate) struct Update(pub(crate) Arc<Act>);

/// Takes the service, whichever it is.
pub(crate) type Act = dyn Fn(&mut dyn Any) + Send + Sync;

impl fmt::Debug for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Update")
    }
}

impl<T> Shared<T> {
    /// What all workers look at together follows other settings.
    pub(crate) fn limit(&self, config: &Config, rules: &Rules) {
        if let (Some(sources), Ok(Some(most))) = (&self.sources, config.per_address()) {
            sources.limit(most);
        }
        if let (Some(budget), Some(memory)) = (&self.budget, config.memory) {
            budget.limit(memory.bytes_max, rules.held_bytes_max());
        }
    }
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// Takes other settings. Connections find them at the next thing that they do; a timer that runs already fires when it
    /// was to, and what it does then is as they say.
    pub(super) fn reload(&mut self, told: &Reload) {
        let Reload { rules, origins, retention, accept_rate } = told;
        // Who has been told of others' coming and going is still to be freed from that.
        let any_join_leave = self.rules.any_join_leave || rules.any_join_leave;
        self.rules = Rules { any_join_leave, ping_phase: self.rules.ping_phase, ..rules.clone() };
        self.throttle.limit(&self.rules.rates);
        if self.drain.is_none() {
            self.accepting.limit(accept_rate.map(|rate| Pace::new(rate, self.shared.ports.len())));
        }
        self.origins = Arc::clone(origins);
        self.topics.retain_by(retention.clone());
    }

    /// Has the service take what it was told.
    pub(super) fn update(&mut self, update: &Update) {
        let service = AssertUnwindSafe(|| (update.0)(&mut self.service));
        if catch_unwind(service).is_err() {
            log::error!("worker {}: the service panicked as it was given other settings", self.index);
        }
    }
}
