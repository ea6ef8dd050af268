//! Who was at its limit: a saturated generator must not pass for a slow server.

use crate::timeline::Mark;
use serde::Serialize;

/// A thread that had the processor for this share of the time had no more to give.
const BUSY: f64 = 0.9;
/// A machine with less than this share of its processors idle is full.
const SPARE: f64 = 0.05;
/// Others that take more than this share of the processors make figures worthless.
const OTHERS: f64 = 0.15;
/// What lasts less than this many seconds cannot be judged: processor time is counted in hundredths of one.
const JUDGED_SECONDS: f64 = 0.5;

/// Processor time over some part of a run, in cores.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) seconds: f64,
    pub(crate) generator_cores: f64,
    pub(crate) busiest_thread: f64,
    pub(crate) server_cores: Option<f64>,
    pub(crate) idle_cores: f64,
    pub(crate) cores: f64,
}

impl Load {
    pub(crate) fn between(from: &Mark, to: &Mark) -> Self {
        let seconds = to.at.since(from.at).as_secs_f64().max(1e-9);
        let cores = from.machine.cores as f64;
        // From ratios of ticks, so that it never exceeds what there is.
        let total = to.machine.total_seconds - from.machine.total_seconds;
        let idle = to.machine.idle_seconds - from.machine.idle_seconds;
        let workers = from.workers_cpu.iter().zip(&to.workers_cpu).map(|(before, after)| after - before);
        Self {
            seconds,
            generator_cores: (to.own.cpu_seconds - from.own.cpu_seconds) / seconds,
            busiest_thread: workers.fold(0.0, f64::max) / seconds,
            server_cores: from.server.zip(to.server).map(|(b, a)| (a.cpu_seconds - b.cpu_seconds) / seconds),
            idle_cores: if total > 0.0 { idle / total * cores } else { 0.0 },
            cores,
        }
    }
}

impl Load {
    /// Cores that others had, as far as the server is known.
    fn others(&self) -> f64 {
        self.cores - self.idle_cores - self.generator_cores - self.server_cores.unwrap_or(0.0)
    }
}

/// What limited the figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    /// This program: a thread of it was busy all the time while processors stood idle.
    Generator,
    /// The machine: no processor was idle, and this program took more than the server.
    MachineByGenerator,
    /// The machine, most of which the server used.
    MachineByServer,
    /// The machine, and we do not know the server's part.
    Machine,
    /// The machine, by processes that have nothing to do with this.
    Others,
    /// Nothing was at its limit here: the load was what was asked for, or the server waited for itself.
    #[default]
    None,
}

/// The judgement, and the sentence that says it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Verdict {
    /// Of the measured part.
    pub(crate) measured: Limit,
    /// Of the opening.
    pub(crate) opening: Limit,
    pub(crate) text: String,
}

impl Verdict {
    pub(crate) fn of(measured: &Load, opening: &Load) -> Self {
        let limits = (limit(measured), limit(opening));
        let parts = [(measured, limits.0, "the load"), (opening, limits.1, "the opening")];
        let texts = parts.iter().filter(|(load, ..)| load.seconds >= JUDGED_SECONDS);
        let text = texts.map(|(load, limit, part)| text(load, *limit, part)).collect::<Vec<_>>().join(" ");
        Self { measured: limits.0, opening: limits.1, text }
    }
}

fn limit(load: &Load) -> Limit {
    if load.seconds < JUDGED_SECONDS {
        return Limit::None;
    }
    let others = load.others();
    let full = load.idle_cores < SPARE * load.cores;
    match load.server_cores {
        _ if !full && load.busiest_thread >= BUSY => Limit::Generator,
        Some(_) if others > OTHERS * load.cores => Limit::Others,
        _ if !full => Limit::None,
        None => Limit::Machine,
        Some(server) if server < load.generator_cores => Limit::MachineByGenerator,
        Some(_) => Limit::MachineByServer,
    }
}

fn text(load: &Load, limit: Limit, part: &str) -> String {
    let Load { generator_cores: generator, cores, .. } = load;
    let server = load.server_cores.unwrap_or(0.0);
    match limit {
        Limit::Generator => format!(
            "The generator was the bottleneck of {part}: one of its threads was busy {:.0} % of the time while \
             processors were idle. The server could do more.",
            load.busiest_thread * 100.0
        ),
        Limit::MachineByGenerator => format!(
            "The machine was full during {part}, and the generator took more of it ({generator:.2} of {cores:.0} \
             cores) than the server ({server:.2}): the server could do more with a machine of its own."
        ),
        Limit::MachineByServer => format!(
            "The machine was full during {part}: server {server:.2}, generator {generator:.2} of {cores:.0} cores."
        ),
        Limit::Machine => {
            format!("The machine was full during {part}: the generator had {generator:.2} of {cores:.0} cores.")
        }
        Limit::Others => format!(
            "Other processes had {:.2} of {cores:.0} cores during {part}: measure again on a quiet machine.",
            load.others()
        ),
        Limit::None => format!(
            "Nothing here was at its limit during {part}: generator {generator:.2}, idle {:.2} of {cores:.0} cores.",
            load.idle_cores
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_generator_is_named() {
        let idle = Load { seconds: 1.0, cores: 4.0, idle_cores: 3.0, generator_cores: 1.0, ..Load::default() };
        assert_eq!(limit(&idle), Limit::None);
        assert_eq!(limit(&Load { server_cores: Some(0.0), ..idle }), Limit::None);
        assert_eq!(limit(&Load { server_cores: Some(0.0), generator_cores: 0.1, ..idle }), Limit::Others);
        assert_eq!(limit(&Load { busiest_thread: 0.95, ..idle }), Limit::Generator);
        let full = Load { idle_cores: 0.1, generator_cores: 1.0, ..idle };
        assert_eq!(limit(&full), Limit::Machine);
        assert_eq!(limit(&Load { server_cores: Some(2.8), ..full }), Limit::MachineByServer);
        let mine = Load { generator_cores: 2.9, ..full };
        assert_eq!(limit(&Load { server_cores: Some(0.9), ..mine }), Limit::MachineByGenerator);
        assert_eq!(limit(&Load { server_cores: Some(0.5), ..full }), Limit::Others);
        assert_eq!(limit(&Load { seconds: 0.1, ..full }), Limit::None);
    }
}
