//! What a fuzzer feeds: for each entry a property, of whatever bytes come, with an oracle beside it.
//!
//! `fuzz/` has a target for each, and a corpus that the unit tests here run through as well; `fuzz/README.md` says how.
//! An entry panics where the property does not hold.

mod events;
mod frames;
mod head;
mod inflate;
mod json;
mod negotiation;
mod proxies;
mod puff;
mod session;

pub use events::sse;
pub use frames::frames;
pub use head::head;
pub use inflate::inflate;
pub use json::json;
pub use negotiation::deflate;
pub use proxies::proxies;

use crate::mem::Rng;

/// The real workers in a simulated world, in the order that the bytes say: `worker::simulation` has what it promises.
pub fn simulation(data: &[u8]) {
    crate::worker::simulation::schedule(data);
}

/// The first `N` bytes as settings, zeros where there are fewer, and the rest.
fn settings<const N: usize>(data: &[u8]) -> ([u8; N], &[u8]) {
    let (first, rest) = data.split_at(data.len().min(N));
    let mut settings = [0; N];
    settings[..first.len()].copy_from_slice(first);
    (settings, rest)
}

/// Lengths of pieces, at most `most` and as random as `seed`: mostly short ones, for what there is.
fn cuts(seed: u8, most: usize) -> impl FnMut(usize) -> usize {
    let mut rng = Rng::new(seed.into());
    move |rest| {
        let most = if rng.below(4) == 0 { most } else { most.min(8 + rest / 64) };
        1 + rng.below(most as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::path::Path;

    const FILE_BYTES_MAX: usize = 4096;

    /// Runs an entry over its corpus.
    fn holds(name: &str, entry: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files = fs::read_dir(&corpus).expect("a corpus").map(|file| file.expect("a file").path());
        let mut files: Vec<_> = files.collect();
        files.sort();
        assert!(!files.is_empty(), "no files in {}", corpus.display());
        for file in files {
            let data = fs::read(&file).expect("a file of the corpus");
            assert!(data.len() <= FILE_BYTES_MAX, "{} has {} bytes: keep it short", file.display(), data.len());
            catch_unwind(AssertUnwindSafe(|| entry(&data))).unwrap_or_else(|panic| {
                eprintln!("{name} does not hold for {}", file.display());
                resume_unwind(panic)
            });
        }
    }

    #[test]
    fn heads_hold() {
        holds("head", super::head);
    }

    #[test]
    fn frames_hold() {
        holds("frames", super::frames);
    }

    #[test]
    fn negotiations_hold() {
        holds("deflate", super::deflate);
    }

    #[test]
    fn compressed_messages_hold() {
        holds("inflate", super::inflate);
    }

    #[test]
    fn event_streams_hold() {
        holds("sse", super::sse);
    }

    #[test]
    fn json_holds() {
        holds("json", super::json);
    }

    #[test]
    fn what_proxies_say_holds() {
        holds("proxies", super::proxies);
    }

    #[test]
    fn the_simulation_holds() {
        holds("simulation", super::simulation);
    }
}
