//! `echo` and `mixed`.

use super::{Stop, alone, moves, prepare, rate_of};
use crate::cli::{Echo, End, Mixed};
use crate::mode::echo::{self, EchoPlan, EchoReport, Echoes};
use crate::mode::{churn, mixed};
use crate::plan::{Share, Wants};
use crate::results::{EchoResults, Quantiles, Results};
use crate::run::{self, Timing};
use std::time::Duration;
use throng::ws::Opcode;

/// How long answers may take that are owed when the load ends.
const DRAIN: Duration = Duration::from_secs(10);

pub(super) fn echo(args: &Echo) -> Result<Results, Stop> {
    let common = &args.common;
    let (plan, pids) = prepare(common, Wants { nodelay: true, ..Wants::default() })?;
    let timing = Timing { warmup: args.warmup, measured: args.duration, drain: DRAIN, ..Timing::default() };
    let echo_plan = EchoPlan {
        sizes: args.size.clone(),
        opcode: if args.binary { Opcode::Binary } else { Opcode::Text },
        pattern: echo::pattern(args.size.max()),
        inflight: args.inflight,
        rate: args.rate,
        warmup: args.warmup,
    };
    let mode_of = |share: Share| {
        let rate = args.rate.map(|rate| rate_of(rate, share, &plan));
        echo::Echo(Echoes::new(EchoPlan { rate, ..echo_plan.clone() }))
    };
    let run = run::drive(&plan, common, timing, pids, mode_of, alone())?;
    let mut results = Results::new("echo", &plan, common, &run);
    results.echo = Some(results_of(run.reports.iter(), args.rate, results.measured.seconds));
    Ok(results)
}

pub(super) fn mixed(args: &Mixed) -> Result<Results, Stop> {
    let common = &args.common;
    let headroom = moves::headroom(args.churn, common);
    let (plan, pids) = prepare(common, Wants { nodelay: true, headroom, ..Wants::default() })?;
    let active_of = |share: Share| ((share.connections as f64 * args.active).round() as u64).min(share.connections);
    let active: u64 = plan.workers.iter().map(|&share| active_of(share)).sum();
    let pattern = echo::pattern(args.size.max());
    let mode_of = |share: Share| {
        let rate = args.rate * active_of(share) as f64 / active.max(1) as f64;
        let echo_plan = EchoPlan {
            sizes: args.size.clone(),
            opcode: Opcode::Text,
            pattern: pattern.clone(),
            inflight: 1,
            rate: Some(rate.max(f64::MIN_POSITIVE)),
            warmup: Duration::ZERO,
        };
        mixed::Mixed {
            echoes: Echoes::new(echo_plan),
            replacer: churn::Replacer::new(rate_of(args.churn, share, &plan), common.end == End::Reset),
            to_enlist: active_of(share),
        }
    };
    let timing = Timing { measured: args.duration, drain: DRAIN, ..Timing::default() };
    let run = run::drive(&plan, common, timing, pids, mode_of, alone())?;
    let mut results = Results::new("mixed", &plan, common, &run);
    let seconds = results.measured.seconds;
    results.echo = Some(results_of(run.reports.iter().map(|(echo, _)| echo), Some(args.rate), seconds));
    results.churn = Some(moves::churn_results(run.reports.iter().map(|(_, churn)| churn), args.churn, seconds));
    Ok(results)
}

fn results_of<'a>(reports: impl Iterator<Item = &'a EchoReport>, rate: Option<f64>, seconds: f64) -> EchoResults {
    let mut sum = EchoReport::default();
    reports.for_each(|report| sum.merge(report));
    EchoResults {
        r#loop: if rate.is_some() { "open" } else { "closed" },
        rate_wanted: rate,
        answered_per_second: sum.answered as f64 / seconds.max(1e-9),
        sent: sum.sent,
        answered: sum.answered,
        missing: sum.missing,
        wrong: sum.wrong,
        unasked: sum.unasked,
        unsent: sum.unsent,
        latency_us: Quantiles::of(&sum.latency_ns, 1000.0),
        late_us: rate.map(|_| Quantiles::of(&sum.late_ns, 1000.0)),
    }
}
