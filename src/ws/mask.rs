//! Masking (RFC 6455, section 5.3): XOR with a key of four bytes, over and over.
//!
//! The key is repeated to 32 bytes and the payload taken in blocks of that size, which the compiler turns
//! into vector instructions: no `unsafe`, no dispatch by processor, and faster than memory for anything
//! that does not lie in a cache.

/// Bytes taken at a time: two SSE or one AVX register.
const BLOCK: usize = 32;

/// Masks or unmasks `bytes` in place. `key` is the masking key as it stands in the frame, and `offset` how
/// many bytes of the payload came before these.
pub fn unmask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let key = rotated(key, offset);
    let mut wide = [0_u8; BLOCK];
    for (index, byte) in wide.iter_mut().enumerate() {
        *byte = key[index % 4];
    }
    let mut blocks = bytes.chunks_exact_mut(BLOCK);
    for block in &mut blocks {
        for (byte, mask) in block.iter_mut().zip(wide) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in blocks.into_remainder().iter_mut().zip(wide) {
        *byte ^= mask;
    }
}

/// The key that applies when `offset` bytes have gone before.
fn rotated(key: [u8; 4], offset: usize) -> [u8; 4] {
    std::array::from_fn(|index| key[(index + offset) % 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Rng;

    /// The sentence of the RFC: octet i is XORed with octet i modulo 4 of the key.
    fn naive(bytes: &mut [u8], key: [u8; 4], offset: usize) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte ^= key[(index + offset) % 4];
        }
    }

    #[test]
    fn agrees_with_the_naive_one_at_every_length_alignment_and_offset() {
        let mut rng = Rng::new(7);
        let original: Vec<u8> = (0..300).map(|_| rng.next() as u8).collect();
        for start in 0..9 {
            for length in 0..(original.len() - start) {
                let (key, offset) = ((rng.next() as u32).to_ne_bytes(), rng.below(9) as usize);
                let (mut fast, mut slow) = (original.clone(), original.clone());
                unmask(&mut fast[start..start + length], key, offset);
                naive(&mut slow[start..start + length], key, offset);
                assert_eq!(fast, slow, "start {start}, length {length}, offset {offset}");
            }
        }
    }
}
