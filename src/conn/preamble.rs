//! Whose connection it is: by the PROXY header in front of everything else, and by what each request's head says.

use super::handshake::Handshake;
use super::{Conn, Handler, Peer, Phase};
use crate::config::Rules;
use crate::error::Refused;
use crate::http::{HeadScan, Preamble};
use crate::time::Tick;

impl<T> Conn<T> {
    /// Takes input in `Preamble`. The header has its time together with the first head: from when the connection was
    /// accepted.
    pub(super) fn preamble_input(
        &mut self,
        input: &mut [u8],
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) {
        let Some(Handshake::Preamble { mut bytes, since }) = self.take_handshake() else {
            return self.read_preamble(input, self.last_seen, now, rules, output, handler);
        };
        bytes.extend_from_slice(input);
        self.read_preamble(&mut bytes, since, now, rules, output, handler);
    }

    /// Reads the header in front of all that has come.
    fn read_preamble(
        &mut self,
        bytes: &mut [u8],
        since: Tick,
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) {
        let (length, client) = match Preamble::read(bytes) {
            Ok(Some((length, Preamble::Connection))) => (length, self.peer),
            Ok(Some((length, Preamble::Client(address)))) => (length, address.into()),
            Ok(Some((length, Preamble::Unix))) => (length, Peer::UNIX),
            Ok(None) => return self.keep_handshake(Handshake::Preamble { bytes: bytes.to_vec(), since }),
            Err(refused) => return self.refuse(&refused.into(), false, output, handler),
        };
        if let Err(refused) = self.turn_out_to_be(client, handler) {
            return self.refuse(&refused.into(), false, output, handler);
        }
        self.set_phase(Phase::Head);
        self.last_seen = now;
        let rest = &mut bytes[length..];
        if rest.is_empty() {
            self.keep_handshake(Handshake::Head { bytes: Vec::new(), scan: HeadScan::default(), since });
        } else {
            self.first_requests(rest, since, now, rules, output, handler);
        }
    }

    /// The connection is somebody else's than was known: it counts for that address from now on. One that did not count may
    /// have to now, if its proxy is trusted no longer.
    pub(super) fn turn_out_to_be(&mut self, client: Peer, handler: &mut impl Handler<T>) -> Result<(), Refused> {
        if client == self.peer && self.is_counted() {
            return Ok(());
        }
        if self.is_counted() {
            handler.discount(self.peer);
            self.set_counted(false);
        }
        self.peer = client;
        let is_counted = handler.count(client)?;
        self.set_counted(is_counted);
        Ok(())
    }
}
