//! `churn` and `storm`.

use super::{Stop, alone, names, prepare, rate_of};
use crate::cli::{Churn, Common, End, Storm};
use crate::mode::churn::{self, ChurnReport, Replacer};
use crate::mode::storm::{self, Round, StormClock, StormPlan};
use crate::plan::{Share, Wants};
use crate::results::{ChurnResults, Results, StormResults, StormRound};
use crate::run::{self, Timing};
use std::sync::Arc;
use std::time::Duration;

/// How long handshakes and closings may take that are under way when the load ends.
const DRAIN: Duration = Duration::from_secs(10);

/// Connections that may be closing while their successors are open: what a second's worth comes to, and never
/// more than there are.
pub(super) fn headroom(rate: f64, common: &Common) -> u64 {
    (rate.ceil() as u64 + 64).min(common.connections + 64)
}

pub(super) fn churn(args: &Churn) -> Result<Results, Stop> {
    let common = &args.common;
    let topics = names(&args.topics)?;
    let wants = Wants { headroom: headroom(args.rate, common), topics: &topics, ..Wants::default() };
    let (plan, pids) = prepare(common, wants)?;
    let timing = Timing { measured: args.duration, drain: DRAIN, ..Timing::default() };
    let by_reset = common.end == End::Reset;
    let mode_of = |share: Share| churn::Churn(Replacer::new(rate_of(args.rate, share, &plan), by_reset));
    let run = run::drive(&plan, common, timing, pids, mode_of, alone())?;
    let mut results = Results::new("churn", &plan, common, &run);
    results.churn = Some(churn_results(run.reports.iter(), args.rate, results.measured.seconds));
    Ok(results)
}

pub(super) fn churn_results<'a>(
    reports: impl Iterator<Item = &'a ChurnReport>,
    rate_wanted: f64,
    seconds: f64,
) -> ChurnResults {
    let (mut replaced, mut behind) = (0, 0);
    for report in reports {
        replaced += report.replaced;
        behind += report.behind;
    }
    ChurnResults { rate_wanted, replaced, replaced_per_second: replaced as f64 / seconds.max(1e-9), behind }
}

pub(super) fn storm(args: &Storm) -> Result<Results, Stop> {
    let common = &args.common;
    let topics = names(&args.topics)?;
    let (plan, pids) = prepare(common, Wants { topics: &topics, ..Wants::default() })?;
    let storm_plan = StormPlan {
        rounds: args.rounds,
        rest: args.rest,
        by_reset: common.end == End::Reset,
        backoff: args.backoff,
        backoff_max: args.backoff_max,
        round_timeout: args.round_timeout,
    };
    let at_most = (args.rest + args.round_timeout + Duration::from_secs(1)) * args.rounds;
    let timing = Timing { measured: at_most, until_done: true, drain: common.open_timeout, ..Timing::default() };
    let clock = Arc::new(StormClock::new(plan.workers.len(), args.rounds));
    let mode_of = |_| storm::Storm::new(storm_plan, Arc::clone(&clock));
    let run = run::drive(&plan, common, timing, pids, mode_of, alone())?;
    let mut results = Results::new("storm", &plan, common, &run);
    let rounds = (0..args.rounds as usize).filter_map(|index| round_results(&run.reports, index)).collect();
    results.storm = Some(StormResults { rounds });
    Ok(results)
}

/// Round `index` of all workers together.
fn round_results(reports: &[Vec<Round>], index: usize) -> Option<StormRound> {
    let mut sum: Option<Round> = None;
    for round in reports.iter().filter_map(|rounds| rounds.get(index)) {
        let sum = sum.get_or_insert_default();
        sum.dropped += round.dropped;
        sum.attempts += round.attempts;
        sum.back_us += &round.back_us;
    }
    let sum = sum?;
    let after = |quantile| sum.back_us.value_at_quantile(quantile) as f64 / 1e6;
    Some(StormRound {
        dropped: sum.dropped,
        came_back: sum.back_us.len(),
        attempts: sum.attempts,
        half_seconds: after(0.5),
        p99_seconds: after(0.99),
        last_seconds: sum.back_us.max() as f64 / 1e6,
    })
}
