//! SIGHUP: the file is read again, and what can change does.

use crate::access::{Access, Keys};
use crate::config::{Change, Fault, Settings, Snapshot, setting_of};
use crate::log::configure;
use crate::serve::{Bare, Front, Options, Site, service};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use throng::{Centrifugo, Drain, Handle, Mounted};

/// How long workers may take for new settings until that is worth a line.
const WORKERS_PATIENCE: Duration = Duration::from_secs(10);

/// What is said behind the faults.
const BEFORE_STAY: &str = "not reloaded: the settings before stay";

/// What a reload needs.
pub(crate) struct Reloader {
    options: Options,
    handle: Handle<Mounted<Bare>>,
    /// The keys, which the services have already.
    access: Access,
    /// What the server goes by: as it was told last, but for what only a start takes.
    running: Settings,
    /// The same as it is shown.
    told: Snapshot,
    drain: Drain,
}

impl Reloader {
    pub(crate) fn new(options: Options, settings: &Settings, access: Access, handle: Handle<Mounted<Bare>>) -> Self {
        let mut running = settings.clone();
        if !running.has_subscription_tokens {
            // Nobody fetches those.
            running.subscription_tokens.jwks_url.clear();
        }
        Self { options, handle, access, running, told: Snapshot::of(settings), drain: settings.drain() }
    }

    /// Reads everything again, and gives the server what it can take. Says what changed, what cannot, and what is wrong: then
    /// nothing is changed. Gives how the server is drained in the end.
    pub(crate) fn reload(&mut self) -> Drain {
        match self.options.load() {
            Ok(mut loaded) => {
                let asked = Snapshot::of(&loaded.settings);
                // What is safe on the addresses that the file has now need not be on those that the server has.
                loaded.settings.keep_of(&self.running);
                let faults = loaded.faults();
                for fault in &faults {
                    let why = "with what only a restart changes as it is";
                    log::error!("not reloaded: {} ({why})", loaded.explain(fault));
                }
                if faults.is_empty() {
                    self.take(asked, &loaded.settings);
                } else {
                    log::error!("{BEFORE_STAY}");
                }
            }
            Err(faults) => {
                faults.0.iter().for_each(|fault| log::error!("not reloaded: {fault}"));
                log::error!("{BEFORE_STAY}");
            }
        }
        self.drain
    }

    /// Takes these settings, which several together can be; `asked` is what the file wants of all.
    fn take(&mut self, mut asked: Snapshot, settings: &Settings) {
        let keys = match Keys::of(settings) {
            Ok(keys) => keys,
            Err(Fault { setting, what }) => return log::error!("not reloaded: `{setting}`: {what}"),
        };
        let untaken = match self.handle.reconfigure(settings.config()) {
            Ok(untaken) => untaken,
            Err(faults) => {
                for fault in faults {
                    log::error!("not reloaded: `{}`: {fault}", setting_of(fault.field()));
                }
                return;
            }
        };
        self.access.take(&keys);
        let (site, handle) = (Site::new(settings.clone(), self.access.clone()), self.handle.clone());
        let (taken, all_have) = channel();
        self.handle.update_services(move |running: &mut Centrifugo<Front>| {
            running.reconfigure(service(&site, handle.clone()));
            let _ = taken.send(());
        });
        // So that what is said below is so. The channel ends when the last worker has done it.
        loop {
            match all_have.recv_timeout(WORKERS_PATIENCE) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => log::warn!("a worker has not taken the new settings yet"),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        configure(settings.log_level, settings.log_format);
        let untaken: Vec<_> = untaken.into_iter().map(setting_of).collect();
        let changes = self.told.changes(&asked);
        let is_taken = |change: &&Change| change.is_live && !untaken.contains(&change.name);
        for change in changes.iter().filter(is_taken) {
            log::info!("reloaded: {change}");
        }
        for change in changes.iter().filter(|change| !is_taken(change)) {
            log::warn!("not reloaded: {change}: only a restart takes this");
            asked.keep(&change.name, &self.told);
        }
        if changes.is_empty() {
            log::info!("reloaded: nothing has changed");
        }
        (self.told, self.running, self.drain) = (asked, settings.clone(), settings.drain());
    }
}
