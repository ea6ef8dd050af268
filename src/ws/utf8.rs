//! UTF-8 across chunks (RFC 3629): a text message is refused at its first bad byte, wherever the chunks
//! were cut (RFC 6455, section 8.1).

/// What is known of a text whose chunks come one after the other: at most an unfinished character.
#[derive(Clone, Debug, Default)]
pub struct Utf8 {
    /// The first bytes of a character whose rest has not come. Invariant: some continuation makes it valid.
    unfinished: [u8; 4],
    length: u8,
}

/// The text holds a byte that no UTF-8 has in that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

impl Utf8 {
    /// Takes the next chunk; an error as soon as the text cannot become valid any more.
    pub fn push(&mut self, mut chunk: &[u8]) -> Result<(), Invalid> {
        while self.length > 0 {
            let Some((&next, rest)) = chunk.split_first() else {
                return Ok(());
            };
            self.unfinished[usize::from(self.length)] = next;
            self.length += 1;
            chunk = rest;
            match std::str::from_utf8(&self.unfinished[..usize::from(self.length)]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Invalid),
            }
        }
        let Err(error) = std::str::from_utf8(chunk) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(Invalid);
        }
        // The standard library says that the end could still be completed: one to three bytes.
        let tail = &chunk[error.valid_up_to()..];
        self.unfinished[..tail.len()].copy_from_slice(tail);
        self.length = tail.len() as u8;
        Ok(())
    }

    /// Whether the text so far ends with a whole character.
    pub fn is_whole(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 3-7 of the Unicode standard, a byte at a time: the index of the first bad byte, if there is one,
    /// and whether the text ends with a whole character.
    fn naive(bytes: &[u8]) -> (Option<usize>, bool) {
        let (mut low, mut high, mut left) = (0x80, 0xBF, 0);
        for (index, &byte) in bytes.iter().enumerate() {
            if left > 0 {
                if byte < low || byte > high {
                    return (Some(index), false);
                }
                (low, high, left) = (0x80, 0xBF, left - 1);
                continue;
            }
            (low, high, left) = match byte {
                0x00..=0x7F => (0x80, 0xBF, 0),
                0xC2..=0xDF => (0x80, 0xBF, 1),
                0xE0 => (0xA0, 0xBF, 2),
                0xED => (0x80, 0x9F, 2),
                0xE1..=0xEF => (0x80, 0xBF, 2),
                0xF0 => (0x90, 0xBF, 3),
                0xF1..=0xF3 => (0x80, 0xBF, 3),
                0xF4 => (0x80, 0x8F, 3),
                _ => return (Some(index), false),
            };
        }
        (None, left == 0)
    }

    /// The same, of our own: fed in two chunks cut at `cut`, then byte by byte.
    fn check(bytes: &[u8]) {
        let (bad, whole) = naive(bytes);
        for cut in 0..=bytes.len() {
            let mut utf8 = Utf8::default();
            let result = utf8.push(&bytes[..cut]).and_then(|()| utf8.push(&bytes[cut..]));
            assert_eq!(result.is_err(), bad.is_some(), "{bytes:x?} cut at {cut}");
            assert!(result.is_err() || utf8.is_whole() == whole, "{bytes:x?} cut at {cut}");
        }
        let mut utf8 = Utf8::default();
        let first_bad = bytes.iter().position(|&byte| utf8.push(&[byte]).is_err());
        assert_eq!(first_bad, bad, "{bytes:x?}");
    }

    #[test]
    fn agrees_with_the_naive_one_on_every_short_text_of_telling_bytes() {
        // One byte of each class and each edge of Table 3-7.
        let telling = [
            0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
            0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
        ];
        for a in telling {
            check(&[a]);
            for b in telling {
                check(&[a, b]);
                for c in telling {
                    check(&[a, b, c]);
                    check(&[b'x', a, b, c, 0x80]);
                    check(&[a, b, c, 0xBF, b'y']);
                }
            }
        }
    }

    #[test]
    fn every_character_passes_wherever_it_is_cut() {
        for character in
            ['\0', 'a', '\u{7f}', '\u{80}', 'ß', '\u{7ff}', '\u{800}', '€', '\u{ffff}', '\u{10000}', '😀', '\u{10ffff}']
        {
            check(format!("a{character}b").as_bytes());
        }
    }
}
