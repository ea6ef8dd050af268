//! An inflater as simple as can be (RFC 1951), which refuses what zlib refuses: the oracle for the fast one.

/// Most symbols of a code for lengths and literals, and for distances, that a block may announce (section 3.2.7).
const SYMBOLS_MAX: (usize, usize) = (286, 30);

/// Why it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Behind a final block.
    Final,
    /// The input ended, wherever that was.
    Input,
    /// It is not what DEFLATE makes.
    Invalid,
    /// There is more than `bytes_max`.
    TooBig,
}

/// What `input` says, and why it ends there.
pub(super) fn puff(input: &[u8], bytes_max: usize) -> (Vec<u8>, Stop) {
    let mut puff = Puff { input, bit: 0, out: Vec::new(), bytes_max };
    let stop = loop {
        match puff.block() {
            Ok(false) => {}
            Ok(true) => break Stop::Final,
            Err(stop) => break stop,
        }
    };
    (puff.out, stop)
}

struct Puff<'a> {
    input: &'a [u8],
    /// The next one, counted from the start.
    bit: usize,
    out: Vec<u8>,
    bytes_max: usize,
}

/// A canonical code: how many symbols have each length, and the symbols in the order of their codes.
struct Code {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Code {
    /// The code of these lengths, and how many codes of 15 bits are left over; negative if there are too many.
    fn new(lengths: &[u8]) -> (Self, i32) {
        let mut counts = [0; 16];
        lengths.iter().filter(|&&length| length > 0).for_each(|&length| counts[usize::from(length)] += 1);
        let mut symbols: Vec<u16> = (0..lengths.len() as u16).filter(|&at| lengths[usize::from(at)] > 0).collect();
        symbols.sort_by_key(|&at| (lengths[usize::from(at)], at));
        let mut left = 1;
        for &count in &counts[1..] {
            left = 2 * left - i32::from(count);
            if left < 0 {
                break;
            }
        }
        (Self { counts, symbols }, left)
    }
}

impl Puff<'_> {
    fn bits(&mut self, count: usize) -> Result<usize, Stop> {
        if self.bit + count > 8 * self.input.len() {
            return Err(Stop::Input);
        }
        let bit = |at: usize| usize::from(self.input[at / 8] >> (at % 8) & 1);
        let bits = (0..count).map(|n| bit(self.bit + n) << n).sum();
        self.bit += count;
        Ok(bits)
    }

    fn push(&mut self, byte: u8) -> Result<(), Stop> {
        self.out.push(byte);
        if self.out.len() > self.bytes_max { Err(Stop::TooBig) } else { Ok(()) }
    }

    /// Whether it was the final one.
    fn block(&mut self) -> Result<bool, Stop> {
        let is_final = self.bits(3)?;
        match is_final >> 1 {
            0 => self.stored()?,
            1 => {
                let length = |symbol| match symbol {
                    0..144 => 8,
                    144..256 => 9,
                    256..280 => 7,
                    _ => 8,
                };
                let lengths: Vec<u8> = (0..288).map(length).collect();
                self.symbols(&Code::new(&lengths).0, &Code::new(&[5; 32]).0)?;
            }
            2 => {
                let (lengths, distances) = self.codes()?;
                self.symbols(&lengths, &distances)?;
            }
            _ => return Err(Stop::Invalid),
        }
        Ok(is_final & 1 == 1)
    }

    fn stored(&mut self) -> Result<(), Stop> {
        self.bit = self.bit.next_multiple_of(8);
        let (length, complement) = {
            let both = self.bits(32)?;
            (both & 0xFFFF, both >> 16)
        };
        if length != !complement & 0xFFFF {
            return Err(Stop::Invalid);
        }
        for _ in 0..length {
            let byte = self.bits(8)? as u8;
            self.push(byte)?;
        }
        Ok(())
    }

    fn symbol(&mut self, code: &Code) -> Result<usize, Stop> {
        let (mut value, mut first, mut index) = (0_usize, 0_usize, 0_usize);
        // As zlib does, no more bits are waited for than the longest code has, or one where there is no code.
        let longest = code.counts.iter().rposition(|&count| count > 0).unwrap_or(0).max(1);
        for &count in &code.counts[1..=longest] {
            value |= self.bits(1)?;
            let count = usize::from(count);
            if value < first + count {
                return Ok(code.symbols[index + value - first].into());
            }
            index += count;
            first = (first + count) << 1;
            value <<= 1;
        }
        Err(Stop::Invalid)
    }

    /// The codes of a block that brings its own.
    fn codes(&mut self) -> Result<(Code, Code), Stop> {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let announced = self.bits(14)?;
        let (literals, distances, lengths) = (257 + (announced & 31), 1 + (announced >> 5 & 31), 4 + (announced >> 10));
        if literals > SYMBOLS_MAX.0 || distances > SYMBOLS_MAX.1 {
            return Err(Stop::Invalid);
        }
        let mut of_lengths = [0; 19];
        for &at in &ORDER[..lengths] {
            of_lengths[at] = self.bits(3)? as u8;
        }
        if of_lengths == [0; 19] {
            // zlib takes each length for 0, and misses the end of the block when it has them all.
            for _ in 0..literals + distances {
                self.bits(1)?;
            }
            return Err(Stop::Invalid);
        }
        let (code, left) = Code::new(&of_lengths);
        if left != 0 {
            return Err(Stop::Invalid);
        }
        let mut all = Vec::new();
        while all.len() < literals + distances {
            let (length, times) = match self.symbol(&code)? {
                16 => {
                    let times = 3 + self.bits(2)?;
                    (*all.last().ok_or(Stop::Invalid)?, times)
                }
                17 => (0, 3 + self.bits(3)?),
                18 => (0, 11 + self.bits(7)?),
                length => (length as u8, 1),
            };
            all.extend(std::iter::repeat_n(length, times));
        }
        if all.len() > literals + distances || all[256] == 0 {
            return Err(Stop::Invalid);
        }
        let [literals, distances] = [&all[..literals], &all[literals..]].map(|lengths| {
            let (code, left) = Code::new(lengths);
            // One code of one bit may stand alone; so may none at all.
            let is_short = lengths.iter().all(|&length| length < 2);
            (left == 0 || left > 0 && is_short).then_some(code).ok_or(Stop::Invalid)
        });
        Ok((literals?, distances?))
    }

    fn symbols(&mut self, literals: &Code, distances: &Code) -> Result<(), Stop> {
        loop {
            let symbol = self.symbol(literals)?;
            let length = match symbol {
                0..256 => {
                    self.push(symbol as u8)?;
                    continue;
                }
                256 => return Ok(()),
                257..265 => symbol - 254,
                265..285 => {
                    let extra = (symbol - 261) / 4;
                    (((symbol - 261) % 4 + 4) << extra) + 3 + self.bits(extra)?
                }
                285 => 258,
                _ => return Err(Stop::Invalid),
            };
            let distance = match self.symbol(distances)? {
                near @ 0..4 => near + 1,
                far @ 4..30 => {
                    let extra = far / 2 - 1;
                    ((far % 2 + 2) << extra) + 1 + self.bits(extra)?
                }
                _ => return Err(Stop::Invalid),
            };
            if distance > self.out.len() {
                return Err(Stop::Invalid);
            }
            for _ in 0..length {
                self.push(self.out[self.out.len() - distance])?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_zlib_made_is_read() {
        let text: Vec<u8> = (0..20_000_u32).flat_map(|n| (n % 977).to_string().into_bytes()).collect();
        for level in [0, 1, 6, 9] {
            let mut out = Vec::with_capacity(2 * text.len() + 1000);
            let mut compress = flate2::Compress::new(flate2::Compression::new(level), false);
            compress.compress_vec(&text, &mut out, flate2::FlushCompress::Finish).expect("a stream that is used right");
            assert_eq!(puff(&out, usize::MAX), (text.clone(), Stop::Final), "level {level}");
            assert_eq!(puff(&out[..out.len() - 9], usize::MAX).1, Stop::Input);
            assert_eq!(puff(&out, 5), (text[..6].to_vec(), Stop::TooBig));
        }
        assert_eq!(puff(b"\x07", 9).1, Stop::Invalid);
    }
}
