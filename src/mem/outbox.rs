//! What waits for a socket that is full.

use crate::limits::OUTPUT_KEEP_BYTES;
use std::mem;
use std::sync::Arc;

/// Bytes to be written, in order. Empty for almost every connection almost always: then it owns nothing.
#[derive(Debug, Default)]
pub struct Outbox {
    /// What is being written first, of others' bytes: a slow reader costs a reference, whatever it was sent.
    shared: Option<Arc<[u8]>>,
    /// Invariant: sent <= the length of `shared`, or of `bytes` without it; both are 0 when nothing waits.
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| shared.len()) + self.bytes.len() - self.sent
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is to be written next: all of it, unless something of others' comes first.
    pub fn pending(&self) -> &[u8] {
        &self.shared.as_deref().unwrap_or(&self.bytes)[self.sent..]
    }

    /// Takes over what `output` holds from `sent` on and leaves it empty. A large remainder moves without
    /// being copied; a small one gets a buffer of its size.
    pub fn keep(&mut self, output: &mut Vec<u8>, sent: usize) {
        if self.is_empty() && output.len() - sent >= OUTPUT_KEEP_BYTES {
            *self = Self { shared: None, bytes: mem::take(output), sent };
            return;
        }
        self.compact();
        self.bytes.extend_from_slice(&output[sent..]);
        output.clear();
    }

    /// Notes that `shared` is to be written from `sent` on, which is less than all of it. Only when nothing waits.
    pub fn share(&mut self, shared: Arc<[u8]>, sent: usize) {
        assert!(self.is_empty() && sent < shared.len());
        *self = Self { shared: Some(shared), bytes: Vec::new(), sent };
    }

    /// Notes that `count` bytes of [`pending`](Self::pending) were written.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.pending().len(), "more was written than there was");
        self.sent += count;
        if self.pending().is_empty() && self.shared.take().is_some() {
            self.sent = 0;
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

    #[test]
    fn bytes_leave_in_the_order_they_came_whatever_the_steps() {
        for seed in 0..200 {
            let (mut rng, mut outbox) = (Rng::new(seed), Outbox::default());
            let (mut came, mut left) = (0_usize, 0_usize);
            for _ in 0..200 {
                let length = if rng.below(20) == 0 { OUTPUT_KEEP_BYTES + 7 } else { rng.below(300) as usize };
                let mut output: Vec<u8> = (came..came + length).map(|n| n as u8).collect();
                let sent = rng.below(length as u64 + 1) as usize;
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
                let write = rng.below(outbox.pending().len() as u64 + 1) as usize;
                for &byte in &outbox.pending()[..write] {
                    assert_eq!(byte, left as u8, "seed {seed}");
                    left += 1;
                }
                outbox.advance(write);
                assert_eq!(outbox.len(), came - left);
            }
        }
    }
}
