//! What a service sees on an ordinary day: most connections idle, some talk, and some come and go.

use crate::clock::Nanos;
use crate::engine::{Gone, Mode, Net};
use crate::mode::churn::{ChurnReport, HasPlace, Replacer};
use crate::mode::echo::{EchoReport, Echoes, Echoing, HasEchoing};
use crate::mode::roster::Place;

/// What a connection is, in either role.
#[derive(Debug, Default)]
pub(crate) struct Member {
    echoing: Echoing,
    place: Place,
}

impl HasEchoing for Member {
    fn echoing(&mut self) -> &mut Echoing {
        &mut self.echoing
    }
}

impl HasPlace for Member {
    fn place(&mut self) -> &mut Place {
        &mut self.place
    }
}

/// Those that talk are never replaced, so that every echo is accounted for; the others only idle, come and go.
#[derive(Debug)]
pub(crate) struct Mixed {
    pub(crate) echoes: Echoes,
    pub(crate) replacer: Replacer,
    /// Connections of this worker that are to talk; who opens first does.
    pub(crate) to_enlist: u64,
}

impl Mode for Mixed {
    type State = Member;
    type Report = (EchoReport, ChurnReport);

    fn opened(&mut self, net: &mut Net<Member>, slot: u32) {
        if self.to_enlist > 0 {
            self.to_enlist -= 1;
            self.echoes.enlist(net, slot);
        } else {
            self.replacer.enlist(net, slot);
        }
    }

    fn start(&mut self, net: &mut Net<Member>) {
        self.echoes.start(net);
        self.replacer.start(net);
    }

    fn message(&mut self, net: &mut Net<Member>, slot: u32, payload: &[u8]) {
        self.echoes.message(net, slot, payload);
    }

    fn gone(&mut self, net: &mut Net<Member>, _slot: u32, mut state: Member, _how: Gone) {
        self.echoes.dismiss(net, &mut state);
        self.replacer.dismiss(net, &mut state);
    }

    fn turn(&mut self, net: &mut Net<Member>) -> Option<Nanos> {
        match (self.echoes.turn(net), self.replacer.turn(net)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn stop(&mut self, net: &mut Net<Member>) {
        self.echoes.stop(net.now);
        self.replacer.stop(net);
    }

    fn is_drained(&self, net: &Net<Member>) -> bool {
        self.echoes.is_drained() && self.replacer.is_drained(net)
    }

    fn report(&mut self, _net: &mut Net<Member>) -> Self::Report {
        (self.echoes.report(), self.replacer.report())
    }
}
