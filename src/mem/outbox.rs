//! What waits for a socket that is full.

use crate::limits::OUTPUT_KEEP_BYTES;
use std::fmt::Debug;
use std::mem;
use std::sync::Arc;

/// Bytes in pieces that others hold too: they are put together as they are written.
pub trait Pieces: Debug {
    /// The piece with this number, counted from 0, which is not empty; `None` behind the last.
    fn piece(&self, number: usize) -> Option<&[u8]>;
    /// Bytes of memory that the list of them takes.
    fn list_bytes(&self) -> usize;
}

/// Bytes to be written, in order. Empty for almost every connection almost always: then it owns nothing.
#[derive(Debug, Default)]
pub struct Outbox {
    /// What is being written first, of others' bytes: a slow reader costs a reference, whatever it was sent.
    shared: Option<Arc<[u8]>>,
    /// Invariant: sent <= the length of `shared`, or of `bytes` without it; both are 0 when nothing waits.
    bytes: Vec<u8>,
    sent: usize,
    /// What comes behind that.
    later: Vec<Later>,
}

/// What others hold too, in pieces, and own bytes behind it.
#[derive(Debug)]
struct Later {
    pieces: Box<dyn Pieces>,
    /// The piece that is being written, and how much of it was.
    number: usize,
    sent: usize,
    /// Bytes of all pieces that are not written, which are some.
    left: usize,
    bytes: Vec<u8>,
}

impl Later {
    fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.sent;
        let pieces = (self.number..).map_while(|number| self.pieces.piece(number));
        pieces.map(move |piece| &piece[mem::take(&mut skip)..]).chain([&*self.bytes])
    }

    /// Notes that `count` bytes of the current piece were written.
    fn advance(&mut self, count: usize) {
        self.sent += count;
        self.left -= count;
        if self.pieces.piece(self.number).is_some_and(|piece| piece.len() == self.sent) {
            (self.number, self.sent) = (self.number + 1, 0);
        }
    }
}

impl Outbox {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        let later = self.later.iter().map(|later| later.left + later.bytes.len()).sum::<usize>();
        self.shared.as_ref().map_or(0, |shared| shared.len()) + self.bytes.len() - self.sent + later
    }

    /// Bytes of memory that it takes for itself, beside what is others' too.
    pub fn own_bytes(&self) -> usize {
        let own = |later: &Later| size_of::<Later>() + later.pieces.list_bytes() + later.bytes.capacity();
        // What was joined for it alone, or has nobody else left.
        let alone =
            self.shared.as_ref().filter(|shared| Arc::strong_count(shared) == 1).map_or(0, |shared| shared.len());
        alone + self.bytes.capacity() + self.later.iter().map(own).sum::<usize>()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.shared.is_none() && self.bytes.len() == self.sent && self.later.is_empty()
    }

    /// What waits, in its order: none is empty.
    fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let (shared, own) = match self.shared.as_deref() {
            Some(shared) => (&shared[self.sent..], &*self.bytes),
            None => (&[][..], &self.bytes[self.sent..]),
        };
        let later = self.later.iter().flat_map(Later::chunks);
        [shared, own].into_iter().chain(later).filter(|chunk| !chunk.is_empty())
    }

    /// What is to be written next: all of it, unless something of others' is in it.
    pub fn pending(&self) -> &[u8] {
        self.chunks().next().unwrap_or_default()
    }

    /// As [`pending`](Self::pending), with what follows if that is little: as much as `scratch` has room for.
    pub fn gather<'a>(&'a self, scratch: &'a mut [u8]) -> &'a [u8] {
        let first = self.pending();
        if first.len() == self.len() || first.len() >= scratch.len() / 4 {
            return first;
        }
        let mut filled = 0;
        for chunk in self.chunks() {
            let room = &mut scratch[filled..];
            let count = chunk.len().min(room.len());
            room[..count].copy_from_slice(&chunk[..count]);
            filled += count;
            if count < chunk.len() {
                break;
            }
        }
        &scratch[..filled]
    }

    /// Takes over what `output` holds from `sent` on and leaves it empty. A large remainder moves without
    /// being copied; a small one gets a buffer of its size.
    pub fn keep(&mut self, output: &mut Vec<u8>, sent: usize) {
        if self.is_empty() && output.len() - sent >= OUTPUT_KEEP_BYTES {
            *self = Self { bytes: mem::take(output), sent, ..Self::default() };
            return;
        }
        self.compact();
        let bytes = self.later.last_mut().map_or(&mut self.bytes, |later| &mut later.bytes);
        bytes.extend_from_slice(&output[sent..]);
        output.clear();
    }

    /// Notes that `shared` is to be written from `sent` on, which is less than all of it. Only when nothing waits.
    pub fn share(&mut self, shared: Arc<[u8]>, sent: usize) {
        assert!(self.is_empty() && sent < shared.len());
        *self = Self { shared: Some(shared), sent, ..Self::default() };
    }

    /// What waits ends in the bytes of `pieces`, or is the end of them: they are referred to instead of held. Bytes that are
    /// not the same stay as they are.
    pub fn refer(&mut self, pieces: impl Pieces + 'static) {
        let is_first = self.shared.is_none() && self.later.is_empty();
        let (own, from) = match self.later.last_mut() {
            Some(later) => (&mut later.bytes, 0),
            None => (&mut self.bytes, if is_first { self.sent } else { 0 }),
        };
        let all = || (0..).map_while(|number| pieces.piece(number));
        let total: usize = all().map(<[u8]>::len).sum();
        let left = total.min(own.len() - from);
        // What is written already was the beginning of what is first.
        let (mut number, mut sent) = (0, total - left);
        if left == 0 || sent > 0 && !is_first {
            return;
        }
        while let Some(piece) = pieces.piece(number).filter(|piece| piece.len() <= sent) {
            (number, sent) = (number + 1, sent - piece.len());
        }
        let (mut rest, mut skip) = (&own[own.len() - left..], sent);
        let is_same = all().skip(number).all(|piece| {
            let piece = &piece[mem::take(&mut skip)..];
            let (same, behind) = rest.split_at(piece.len());
            rest = behind;
            same == piece
        });
        if !is_same {
            return;
        }
        own.truncate(own.len() - left);
        own.shrink_to_fit();
        self.later.push(Later { pieces: Box::new(pieces), number, sent, left, bytes: Vec::new() });
        self.drop_written();
    }

    /// Notes that `count` of the bytes that wait were written.
    pub fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len(), "more was written than there was");
        while count > 0 {
            let step = count.min(self.pending().len());
            match (&self.shared, self.later.first_mut()) {
                (None, Some(later)) if self.sent == self.bytes.len() => later.advance(step),
                _ => self.sent += step,
            }
            count -= step;
            self.drop_written();
        }
    }

    /// Gives back what is written: the front of it is something that is not.
    fn drop_written(&mut self) {
        if self.shared.as_ref().is_some_and(|shared| shared.len() == self.sent) {
            (self.shared, self.sent) = (None, 0);
        }
        if self.shared.is_none() && self.sent == self.bytes.len() {
            (self.bytes, self.sent) = (Vec::new(), 0);
            if self.later.first().is_some_and(|later| later.left == 0) {
                self.bytes = self.later.remove(0).bytes;
            }
        }
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Drops what was written when it is the larger part: each byte is moved at most once on average.
    fn compact(&mut self) {
        if self.shared.is_none() && self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Rng;

    /// Bytes in pieces of different lengths.
    #[derive(Debug, Clone)]
    struct Cut(Arc<[Vec<u8>]>);

    impl Cut {
        fn new(bytes: &[u8], rng: &mut Rng) -> Self {
            let (mut pieces, mut rest) = (Vec::new(), bytes);
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(1 + rng.below(rest.len() as u64) as usize);
                pieces.push(piece.to_vec());
                rest = behind;
            }
            Self(pieces.into())
        }
    }

    impl Pieces for Cut {
        fn piece(&self, number: usize) -> Option<&[u8]> {
            self.0.get(number).map(|piece| &**piece)
        }

        fn list_bytes(&self) -> usize {
            size_of::<Self>()
        }
    }

    #[test]
    fn bytes_leave_in_the_order_they_came_whatever_the_steps() {
        for seed in 0..60 {
            let (mut rng, mut outbox) = (Rng::new(seed), Outbox::default());
            let (mut came, mut left, mut scratch) = (0_usize, 0_usize, [0; 400]);
            for _ in 0..200 {
                let length = if rng.below(50) == 0 { OUTPUT_KEEP_BYTES + 7 } else { rng.below(300) as usize };
                let mut output: Vec<u8> = (came..came + length).map(|n| n as u8).collect();
                let sent = rng.below(length as u64 + 1) as usize;
                // Some of it is others' too, from somewhere to its end.
                let pieces = Cut::new(&output[rng.below(length as u64 + 1) as usize..], &mut rng);
                if outbox.is_empty() && rng.below(2) == 0 && sent < length {
                    left += sent;
                    outbox.share(mem::take(&mut output).into(), sent);
                } else if outbox.is_empty() {
                    left += sent;
                    outbox.keep(&mut output, sent);
                } else {
                    outbox.keep(&mut output, 0);
                }
                assert!(output.is_empty());
                came += length;
                if rng.below(2) == 0 {
                    outbox.refer(pieces);
                }
                assert_eq!(outbox.len(), came - left);
                for _ in 0..rng.below(12) {
                    let pending = if rng.below(2) == 0 { outbox.pending() } else { outbox.gather(&mut scratch) };
                    let write = pending.len().min(rng.below(2 * pending.len() as u64 + 1) as usize);
                    let expected: Vec<u8> = (left..left + write).map(|n| n as u8).collect();
                    assert!(pending[..write] == expected, "seed {seed}");
                    left += write;
                    outbox.advance(write);
                    assert_eq!((outbox.len(), outbox.is_empty()), (came - left, came == left));
                }
            }
        }
    }

    #[test]
    fn what_others_hold_too_is_referred_to_and_let_go() {
        let body: Vec<u8> = (0..100_000_usize).map(|n| n as u8).collect();
        let pieces = Cut::new(&body, &mut Rng::new(1));
        let holders = || Arc::strong_count(&pieces.0);
        let mut outbox = Outbox::default();
        outbox.keep(&mut [&b"head"[..], &body].concat(), 0);
        outbox.refer(pieces.clone());
        assert_eq!((outbox.len(), holders()), (100_004, 2));
        assert!(outbox.own_bytes() < 500, "{}", outbox.own_bytes());
        outbox.advance(1004);
        // Of the next answer the socket has taken nothing.
        outbox.keep(&mut [&b"head"[..], &body].concat(), 0);
        outbox.refer(pieces.clone());
        assert_eq!((outbox.len(), holders()), (199_004, 3));
        outbox.advance(99_000);
        assert_eq!((outbox.len(), holders(), outbox.pending()), (100_004, 2, &b"head"[..]));
        outbox.advance(100_004);
        assert_eq!((outbox.len(), holders(), outbox.own_bytes()), (0, 1, 0));
    }

    #[test]
    fn what_is_something_else_is_not_referred_to() {
        let body = vec![7; 1000];
        let pieces = Cut::new(&body, &mut Rng::new(1));
        let mut outbox = Outbox::default();
        outbox.refer(pieces.clone());
        outbox.share([7; 1000].into(), 10);
        outbox.refer(pieces.clone());
        outbox.keep(&mut vec![7; 999], 0); // what is missing is not the end of what is shared
        outbox.refer(pieces.clone());
        outbox.keep(&mut b"other".to_vec(), 0);
        outbox.refer(pieces.clone());
        assert_eq!((outbox.len(), Arc::strong_count(&pieces.0)), (990 + 999 + 5, 1));
    }
}
