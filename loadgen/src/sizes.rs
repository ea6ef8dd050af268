//! How long messages are.

use std::str::FromStr;
use throng::mem::Rng;

/// Longest message, in bytes.
const MAX: u32 = 16 * 1024 * 1024;

/// A distribution of message sizes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sizes {
    /// Each length from the first to the second, equally likely; both may be the same.
    Between(u32, u32),
    /// Lengths, each with the sum of its weight and those before it, which ends at 1.
    Weighted(Vec<(u32, f64)>),
}

impl Sizes {
    pub(crate) fn draw(&self, rng: &mut Rng) -> u32 {
        match self {
            Self::Between(least, most) if least == most => *least,
            Self::Between(least, most) => least + rng.below(u64::from(most - least) + 1) as u32,
            Self::Weighted(sizes) => {
                let at = rng.below(1 << 53) as f64 / (1_u64 << 53) as f64;
                sizes.iter().find(|(_, sum)| at < *sum).or(sizes.last()).map_or(0, |&(size, _)| size)
            }
        }
    }

    pub(crate) fn max(&self) -> u32 {
        match self {
            Self::Between(_, most) => *most,
            Self::Weighted(sizes) => sizes.iter().map(|&(size, _)| size).max().unwrap_or(0),
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = |text: &str| match text.trim().parse() {
            Ok(size) if size <= MAX => Ok(size),
            Ok(_) => Err(format!("`{text}` is more than 16 MiB")),
            Err(_) => Err(format!("`{text}` is not a number of bytes")),
        };
        if let Some((least, most)) = text.split_once("..") {
            let (least, most) = (size(least)?, size(most)?);
            return if least <= most { Ok(Self::Between(least, most)) } else { Err("the range is empty".into()) };
        }
        if !text.contains(':') {
            return size(text).map(|size| Self::Between(size, size));
        }
        let mut sizes = Vec::new();
        let mut sum = 0.0;
        for item in text.split(',') {
            let (bytes, weight) = item.split_once(':').ok_or_else(|| format!("`{item}` has no weight"))?;
            let weight: f64 = weight.trim().parse().map_err(|_| format!("`{weight}` is not a weight"))?;
            if !(weight > 0.0 && weight.is_finite()) {
                return Err(format!("`{weight}` is not a weight"));
            }
            sum += weight;
            sizes.push((size(bytes)?, sum));
        }
        sizes.iter_mut().for_each(|(_, part)| *part /= sum);
        Ok(Self::Weighted(sizes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_drawn_as_it_was_written() {
        let mut rng = Rng::new(3);
        let sizes: Sizes = "64:3,4096:1".parse().unwrap();
        let small = (0..10_000).filter(|_| sizes.draw(&mut rng) == 64).count();
        assert!((7300..7700).contains(&small), "{small}");
        let range: Sizes = "10..12".parse().unwrap();
        let mut seen = [0; 13];
        (0..300).for_each(|_| seen[range.draw(&mut rng) as usize] += 1);
        assert!(seen[10] > 50 && seen[11] > 50 && seen[12] > 50 && seen[..10] == [0; 10]);
        assert_eq!("7".parse(), Ok(Sizes::Between(7, 7)));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "x", "5..1", "64:0", "64:-1", "64:1,7", "99999999"] {
            assert!(bad.parse::<Sizes>().is_err(), "{bad}");
        }
    }
}
