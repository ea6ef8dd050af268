//! Connections that only answer pings, which the engine does by itself.

use crate::engine::{Mode, Net};

#[derive(Debug)]
pub(crate) struct Idle;

impl Mode for Idle {
    type State = ();
    type Report = ();

    fn report(&mut self, _net: &mut Net<()>) {}
}
