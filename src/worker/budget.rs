//! How many lines of the log a worker writes.

use crate::limits::LOG_LINES_PER_SECOND;
use crate::time::Millis;

/// Keeps a flood of refusals from becoming a flood of log lines: so many a second for each reason, so that one does not hide
/// another, and then a line that says how many were left out.
#[derive(Debug, Default)]
pub(super) struct LogBudget {
    second: u64,
    /// By reason, of this second. There are few, and none most of the time.
    lines: Vec<(&'static str, u32)>,
    /// Some were left out.
    is_over: bool,
}

impl LogBudget {
    /// Whether there may be one more line, which is counted. `reason` is the word that it names.
    pub(super) fn allows(&mut self, now: Millis, reason: &'static str) -> bool {
        self.settle(now);
        let at = self.lines.iter().position(|(known, _)| *known == reason).unwrap_or_else(|| {
            self.lines.push((reason, 0));
            self.lines.len() - 1
        });
        let lines = &mut self.lines[at].1;
        *lines = lines.saturating_add(1);
        self.is_over |= *lines > LOG_LINES_PER_SECOND;
        *lines <= LOG_LINES_PER_SECOND
    }

    /// Says what was left out, once the second is over.
    #[inline]
    pub(super) fn settle(&mut self, now: Millis) {
        let second = now.0 / 1000;
        if second == self.second || self.lines.is_empty() {
            self.second = second;
            return;
        }
        for (reason, left_out) in self.left_out() {
            log::info!(reason, left_out; "lines like these were left out");
        }
        self.lines.clear();
        (self.second, self.is_over) = (second, false);
    }

    fn left_out(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let over = self.lines.iter().filter(|(_, lines)| *lines > LOG_LINES_PER_SECOND);
        over.map(|(reason, lines)| (*reason, lines - LOG_LINES_PER_SECOND))
    }

    /// When there is something to be said although nothing else happens.
    pub(super) fn next(&self) -> Option<Millis> {
        self.is_over.then(|| Millis((self.second + 1) * 1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_reason_does_not_hide_another() {
        let mut budget = LogBudget::default();
        let now = Millis(5_000);
        let lines = (0..1000).filter(|_| budget.allows(now, "flood")).count();
        assert_eq!(lines, LOG_LINES_PER_SECOND as usize);
        assert!(budget.allows(now, "other"), "each has lines of its own");
        assert_eq!(budget.left_out().collect::<Vec<_>>(), [("flood", 1000 - LOG_LINES_PER_SECOND)]);
        assert_eq!(budget.next(), Some(Millis(6_000)), "it is said though nobody comes any more");
        budget.settle(Millis(5_999));
        assert!(!budget.allows(Millis(5_999), "flood"));
        budget.settle(Millis(6_000));
        assert_eq!((budget.left_out().count(), budget.next()), (0, None), "it has been said");
        assert!(budget.allows(Millis(6_000), "flood"));
    }
}
