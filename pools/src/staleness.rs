//! How old the data of a replica is. No clock, no sockets.
//!
//! PostgreSQL's own `now() - pg_last_xact_replay_timestamp()` grows on an idle primary although nothing is missing. So
//! the positions that the primary was seen at are remembered with their times: a replica that has replayed a position
//! has everything that was committed up to the time it was seen. Both figures are upper bounds of the truth; the
//! smaller one holds.
//!
//! While the primary cannot be seen, the last position known of it is the measure: a replica that has replayed it, and
//! all that it received, is as fresh as anything that is left, and counts as current; another one grows older.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A position in the write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lsn(pub(crate) u64);

impl Lsn {
    /// PostgreSQL's text form, e.g. `16/B374D848`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let half = |digits: &str| u32::from_str_radix(digits, 16).ok();
        Some(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

/// So many sightings of the primary are remembered: 20 minutes at the default interval.
const SIGHTINGS: usize = 128;

/// Where the primary was seen, and when.
#[derive(Debug, Default)]
pub(crate) struct Sightings(VecDeque<(Instant, Lsn)>);

/// What a replica says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// Replayed up to here: what a query sees.
    pub(crate) replayed: Lsn,
    /// Received up to here, where it streams.
    pub(crate) received: Option<Lsn>,
    /// Age of the last transaction that it replayed.
    pub(crate) commit_age: Option<Duration>,
}

impl Sightings {
    /// The primary was at this position, at this time or later (so take the time before asking).
    pub(crate) fn saw(&mut self, at: Instant, lsn: Lsn) {
        // A position behind the last one: another history began, and the old sightings say nothing about it.
        if self.0.back().is_some_and(|&(_, last)| lsn < last) {
            self.0.clear();
        }
        if self.0.len() == SIGHTINGS {
            self.0.pop_front();
        }
        self.0.push_back((at, lsn));
    }

    /// At most how old the data of a replica in this position is; `Duration::MAX` when nothing can be said.
    pub(crate) fn staleness(&self, now: Instant, replica: &Position) -> Duration {
        let has_all_received = replica.received.is_none_or(|received| replica.replayed >= received);
        let has_all_seen = self.0.back().is_some_and(|&(_, last)| replica.replayed >= last);
        if has_all_received && has_all_seen {
            return Duration::ZERO;
        }
        let seen = self.0.iter().rev().find(|&&(_, lsn)| lsn <= replica.replayed);
        let since_seen = seen.map_or(Duration::MAX, |&(at, _)| now.saturating_duration_since(at));
        since_seen.min(replica.commit_age.unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Sightings at 0 s, 10 s and 20 s; the replica is asked at 25 s.
    fn staleness(replayed: u64, received: u64, commit_age: Option<u64>) -> Duration {
        let start = Instant::now();
        let mut sightings = Sightings::default();
        for (at, lsn) in [(0, 100), (10, 200), (20, 300)] {
            sightings.saw(start + seconds(at), Lsn(lsn));
        }
        let position = Position {
            replayed: Lsn(replayed),
            received: Some(Lsn(received)),
            commit_age: commit_age.map(Duration::from_secs),
        };
        sightings.staleness(start + seconds(25), &position)
    }

    #[test]
    fn an_idle_primary_makes_no_replica_old() {
        assert_eq!(staleness(300, 300, Some(86_400)), Duration::ZERO);
    }

    #[test]
    fn a_replica_is_as_old_as_the_last_sighting_that_it_reached() {
        assert_eq!(staleness(299, 299, None), seconds(15));
        assert_eq!(staleness(100, 300, None), seconds(25));
    }

    #[test]
    fn a_recent_commit_is_the_better_bound_under_load() {
        assert_eq!(staleness(350, 360, Some(1)), seconds(1));
        assert_eq!(staleness(350, 360, Some(60)), seconds(5));
    }

    #[test]
    fn a_replica_behind_all_that_is_remembered_cannot_be_judged() {
        assert_eq!(staleness(50, 300, None), Duration::MAX);
        assert_eq!(staleness(50, 300, Some(90)), seconds(90));
    }

    #[test]
    fn without_the_primary_a_replica_that_lags_grows_older() {
        let start = Instant::now();
        let mut sightings = Sightings::default();
        sightings.saw(start, Lsn(100));
        sightings.saw(start + seconds(10), Lsn(200));
        let behind = Position { replayed: Lsn(150), received: Some(Lsn(150)), commit_age: None };
        let current = Position { replayed: Lsn(200), received: Some(Lsn(200)), commit_age: None };
        assert_eq!(sightings.staleness(start + seconds(600), &behind), seconds(600));
        assert_eq!(sightings.staleness(start + seconds(600), &current), Duration::ZERO);
    }

    #[test]
    fn a_new_history_forgets_the_old() {
        let start = Instant::now();
        let mut sightings = Sightings::default();
        sightings.saw(start, Lsn(500));
        sightings.saw(start + seconds(10), Lsn(100));
        let replica = Position { replayed: Lsn(90), received: None, commit_age: None };
        assert_eq!(sightings.staleness(start + seconds(20), &replica), Duration::MAX);
    }

    #[test]
    fn positions_read_as_postgresql_writes_them() {
        assert_eq!(Lsn::parse("16/B374D848").unwrap(), Lsn(0x16_B374_D848));
        assert_eq!(Lsn::parse("0/0").unwrap(), Lsn(0));
        assert!(["", "16", "x/1", "1/", "1/123456789"].iter().all(|text| Lsn::parse(text).is_none()));
    }
}
