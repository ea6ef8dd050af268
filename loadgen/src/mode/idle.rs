//! Connections that only answer pings, which the engine does by itself.

use crate::engine::{Mode, Net};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Idle;

impl Mode for Idle {
    type State = ();
    type Report = ();
    /// A pong has seconds. Clients elsewhere cost the server's machine no wakeup at all.
    const REST: Duration = Duration::from_millis(0);

    fn report(&mut self, _net: &mut Net<()>) {}
}
