//! Other settings for a server that runs.

use super::Handle;
use crate::config::{Config, ConfigError};
use crate::http::Origins;
use crate::service::Service;
use crate::topic::Retention;
use crate::worker::{Envelope, Reload, Update};
use std::sync::{Arc, PoisonError};

impl<T> Handle<T> {
    /// Gives the server other settings, without closing a connection. Gives the fields of [`Config`] that differ and were not
    /// taken, since only a start takes them: where it listens, workers, the number of connections, descriptor tables, TCP
    /// keepalive and with it the times that it goes by, and whether addresses and memory are limited at all. Those stay as they
    /// were; all others hold from here on:
    ///
    /// - Limits, timeouts and rates hold for connections that are there, too. A timer that runs already fires when it was to;
    ///   what has come or waits already is not held against anybody until something is added to it.
    /// - Origins and the rules of topics are asked for each request and each command. What was decided stays: who subscribes
    ///   keeps its subscription, and a WebSocket that is open stays open.
    /// - Topics keep as much as the new rules say once they are used, or looked at for what has expired, which takes a minute.
    ///   What was published while a topic had no history does not become history. Where presence is switched on, those who
    ///   subscribed before are not known.
    /// - Compression holds for handshakes from here on; who has agreed on it gets messages as the new settings say.
    ///
    /// Each worker takes them in its own time, in order with whatever else comes from this thread.
    ///
    /// # Errors
    ///
    /// All that cannot be. Then nothing is changed.
    ///
    /// ```no_run
    /// # use throng::*;
    /// # fn example<S: Service>(server: &Running<S::State>, mut config: Config) {
    /// config.message_rate = 100;
    /// config.workers = Some(8);
    /// assert_eq!(server.handle().reconfigure(config), Ok(vec!["workers"]));
    /// # }
    /// ```
    pub fn reconfigure(&self, mut config: Config) -> Result<Vec<&'static str>, Vec<ConfigError>> {
        let faults = config.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        let untaken = config.keep_of(&told);
        let all = |error| vec![error];
        let rules = config.rules().map_err(all)?; // what is new may not go with what stays
        let origins = Arc::new(Origins::new(&config.origins).map_err(all)?.at(config.hosts));
        self.shared.limit(&config, &rules);
        let retention = Retention::of_worker(&rules.topics, config.topics_max, self.shared.ports.len());
        let reload = Arc::new(Reload { rules, origins, retention, accept_rate: config.accept_rate });
        self.shared.ports.iter().for_each(|port| port.post(Envelope::Reload(Arc::clone(&reload))));
        *told = config;
        Ok(untaken)
    }

    /// Has each worker's service changed, by its own thread between two callbacks: to give it other settings, say. `S` is
    /// the service that the server runs; with another one nothing is done but a line in the log.
    ///
    /// ```no_run
    /// # use throng::*;
    /// # fn example<S: Service>(server: &Running<Mounted<S::State>>) {
    /// server.handle().update_services(|service: &mut Centrifugo<S>| println!("{} has settings", std::any::type_name_of_val(service)));
    /// # }
    /// ```
    pub fn update_services<S: Service<State = T>>(&self, update: impl Fn(&mut S) + Send + Sync + 'static) {
        let update = Update(Arc::new(move |service| match service.downcast_mut::<S>() {
            Some(service) => update(service),
            None => log::error!("the server runs no {}: it was not changed", std::any::type_name::<S>()),
        }));
        self.shared.ports.iter().for_each(|port| port.post(Envelope::Update(update.clone())));
    }
}
