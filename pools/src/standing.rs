//! Up or down: when a node counts as one or the other. No clock, no sockets.

use std::time::Duration;

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not probed yet: not used.
    Unknown,
    /// In use.
    Up,
    /// Not used until enough probes in a row succeed.
    Down,
}

/// The longest wait after an observation that does not settle the matter yet.
const CONFIRM_AFTER: Duration = Duration::from_millis(500);

/// The first pause between probes of a node that is down; doubled up to the regular interval.
const RECHECK_AFTER: Duration = Duration::from_secs(1);

/// Counts successes and failures in a row.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    standing: Standing,
    unhealthy_after: u32,
    healthy_after: u32,
    failures: u32,
    successes: u32,
}

impl Tally {
    /// Down after so many failures in a row, up again after so many successes; a node that nothing is known of is up
    /// with its first success.
    pub(crate) fn new(unhealthy_after: u32, healthy_after: u32) -> Self {
        Self {
            standing: Standing::Unknown,
            unhealthy_after: unhealthy_after.max(1),
            healthy_after: healthy_after.max(1),
            failures: 0,
            successes: 0,
        }
    }

    pub(crate) fn set_thresholds(&mut self, unhealthy_after: u32, healthy_after: u32) {
        self.unhealthy_after = unhealthy_after.max(1);
        self.healthy_after = healthy_after.max(1);
    }

    #[cfg(test)]
    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The new standing, when this success changes it.
    pub(crate) fn success(&mut self) -> Option<Standing> {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        let enough = match self.standing {
            Standing::Unknown => true,
            Standing::Up => false,
            Standing::Down => self.successes >= self.healthy_after,
        };
        enough.then(|| self.becomes(Standing::Up))
    }

    /// The new standing, when this failure changes it.
    pub(crate) fn failure(&mut self) -> Option<Standing> {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        let enough = self.standing != Standing::Down && self.failures >= self.unhealthy_after;
        enough.then(|| self.becomes(Standing::Down))
    }

    /// How long until the next probe: the interval in a settled state, soon when the last observation spoke against
    /// the standing, and at growing pauses while the node is down.
    pub(crate) fn next_probe_after(&self, interval: Duration) -> Duration {
        match self.standing {
            Standing::Up if self.failures == 0 => interval,
            Standing::Down if self.successes == 0 => {
                let doublings = self.failures.saturating_sub(self.unhealthy_after).min(16);
                interval.min(RECHECK_AFTER * 2u32.pow(doublings))
            }
            _ => interval.min(CONFIRM_AFTER),
        }
    }

    fn becomes(&mut self, standing: Standing) -> Standing {
        self.standing = standing;
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_success_is_enough_for_a_new_node() {
        let mut tally = Tally::new(3, 2);
        assert_eq!(tally.standing(), Standing::Unknown);
        assert_eq!(tally.success(), Some(Standing::Up));
        assert_eq!(tally.success(), None);
        assert_eq!(tally.next_probe_after(INTERVAL), INTERVAL);
    }

    #[test]
    fn three_failures_in_a_row_are_needed_and_two_successes() {
        let mut tally = Tally::new(3, 2);
        tally.success();
        assert_eq!((tally.failure(), tally.failure()), (None, None));
        assert_eq!(tally.next_probe_after(INTERVAL), CONFIRM_AFTER);
        tally.success();
        assert_eq!((tally.failure(), tally.failure(), tally.failure()), (None, None, Some(Standing::Down)));
        assert_eq!(tally.failure(), None);
        assert_eq!(tally.success(), None);
        assert_eq!(tally.failure(), None);
        assert_eq!((tally.success(), tally.success()), (None, Some(Standing::Up)));
    }

    #[test]
    fn a_node_that_is_down_is_asked_less_and_less_often() {
        let mut tally = Tally::new(1, 2);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            tally.failure();
            pauses.push(tally.next_probe_after(INTERVAL).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
    }
}
