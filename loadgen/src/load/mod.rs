//! From the command line to the results, for each kind of load.

mod echoes;
mod fanouts;
mod moves;

use crate::cli::{Cli, Common, Idle, Load, Topics, Transport};
use crate::fanout::{Template, Values};
use crate::mode;
use crate::observe::listening_pids;
use crate::plan::{Plan, Share, Wants};
use crate::preflight::{Missing, check};
use crate::results::Results;
use crate::run::{self, Companions, Timing};
use std::io;

/// Each has an account of its own in every thread.
const TRANSPORTS_MAX: usize = 32;

/// Why there are no results.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The command line cannot be carried out.
    Usage(String),
    /// The machine does not allow it.
    Missing(Vec<Missing>),
    Broken(io::Error),
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Usage(text)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Runs what the command line says.
pub(crate) fn run(cli: &Cli) -> Result<Results, Stop> {
    check_transport(&cli.load)?;
    let mut results = match &cli.load {
        Load::Idle(args) => idle(args)?,
        Load::Echo(args) => echoes::echo(args)?,
        Load::Mixed(args) => echoes::mixed(args)?,
        Load::Fanout(args) => fanouts::fanout(args)?,
        Load::Slow(args) => fanouts::slow(args)?,
        Load::Churn(args) => moves::churn(args)?,
        Load::Storm(args) => moves::storm(args)?,
    };
    results.conclude();
    Ok(results)
}

/// Event streams and polls only receive, so they carry only loads that receive; and what Centrifugo's clients send is no
/// echo.
fn check_transport(load: &Load) -> Result<(), Stop> {
    let common = load.common();
    if common.transports.len() > TRANSPORTS_MAX {
        return Err(Stop::Usage(format!("--transport takes at most {TRANSPORTS_MAX} names")));
    }
    for &transport in &common.transports {
        let refuse = |why: &str| Err(Stop::Usage(format!("--transport {transport} {why}")));
        let is_centrifugo = transport.centrifugo().is_some();
        match load {
            Load::Slow(_) if transport == Transport::Poll => {
                return refuse(
                    "has no slow readers, since a poll is asked for when the last one was read: use ws or sse",
                );
            }
            Load::Echo(_) | Load::Mixed(_) if is_centrifugo => {
                return refuse("carries no echoes: this load speaks plain WebSocket, so leave --transport out");
            }
            Load::Echo(_) | Load::Churn(_) | Load::Storm(_) | Load::Mixed(_) if !transport.is_websocket() => {
                return refuse("is for idle, fanout and slow: this load speaks WebSocket, so leave --transport out");
            }
            _ => {}
        }
    }
    let centrifugo = common.transports.iter().filter(|transport| transport.centrifugo().is_some()).count();
    if centrifugo > 0 && centrifugo < common.transports.len() && !common.url.contains("{topic}") {
        return Err(Stop::Usage(
            "Centrifugo's clients subscribe to --topic, so the URL must name the same topic for the others: \
             say http://HOST:PORT/topics/{topic}"
                .into(),
        ));
    }
    Ok(())
}

/// The topics by name.
fn names(topics: &Topics) -> Result<Vec<String>, Stop> {
    if topics.count > 1 && !topics.template.contains("{n}") {
        return Err(Stop::Usage("--topic lacks {n}: several topics need names of their own".into()));
    }
    let template = Template::new(&topics.template);
    let named = |number| template.text(Values { number, ..Values::default() });
    Ok((0..u64::from(topics.count)).map(named).collect())
}

/// Plans, checks what the machine allows, and finds the server's processes.
fn prepare(common: &Common, wants: Wants<'_>) -> Result<(Plan, Vec<u32>), Stop> {
    let plan = Plan::new(common, wants)?;
    let missing = check(&plan, common.per_source);
    if !missing.is_empty() && !common.force {
        return Err(Stop::Missing(missing));
    }
    let pids = match (&common.pids[..], plan.target.is_local()) {
        ([], true) => listening_pids(plan.target.address),
        (pids, _) => pids.to_vec(),
    };
    Ok((plan, pids))
}

/// For loads that need no other threads.
fn alone() -> Companions<'static> {
    Box::new(|_, _| Vec::new())
}

/// A worker's part of a rate that is meant for all.
fn rate_of(total: f64, share: Share, plan: &Plan) -> f64 {
    total * share.connections as f64 / plan.connections as f64
}

fn idle(args: &Idle) -> Result<Results, Stop> {
    let mut common = args.common.clone();
    common.open_rate = common.open_rate.or(args.rate);
    let topics = names(&args.topics)?;
    let (plan, pids) = prepare(&common, Wants { topics: &topics, ..Wants::default() })?;
    let timing = Timing { measured: args.hold, ..Timing::default() };
    let run = run::drive(&plan, &common, timing, pids, |_| mode::idle::Idle, alone())?;
    Ok(Results::new("idle", &plan, &common, &run))
}
