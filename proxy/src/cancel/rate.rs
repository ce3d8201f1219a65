//! How many requests are taken: a bucket that fills with time, which is an argument.

use std::time::{Duration, Instant};

/// A bucket that holds one second's worth of requests.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// When it will be full again; `None` while it is.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes one request out, of `rate` a second; false when none is left.
    pub(crate) fn take(&mut self, now: Instant, rate: u32) -> bool {
        let each = Duration::from_secs(1) / rate.max(1);
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + each;
        let is_left = full_at.saturating_duration_since(now) <= Duration::from_secs(1);
        if is_left {
            self.full_at = Some(full_at);
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_comes_at_once_and_then_one_by_one() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        let mut taken =
            |after, tries: usize| (0..tries).filter(|_| bucket.take(now + Duration::from_millis(after), 10)).count();
        assert_eq!(taken(0, 100), 10);
        assert_eq!(taken(99, 5), 0);
        assert_eq!(taken(100, 5), 1);
        assert_eq!(taken(350, 5), 2);
        assert_eq!(taken(60_000, 100), 10, "no more than a second's worth is saved");
    }

    #[test]
    fn a_rate_that_a_reload_changes_counts_from_then_on() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        assert_eq!((0..100).filter(|_| bucket.take(now, 1)).count(), 1);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| bucket.take(later, 50)).count(), 50);
    }
}
