//! The kinds of load, each a small state machine on the engine.

pub(crate) mod churn;
pub(crate) mod echo;
pub(crate) mod idle;
pub(crate) mod mixed;
pub(crate) mod roster;
pub(crate) mod storm;
