//! What every statement counts: plain atomics, read when somebody scrapes.
//!
//! The recorder's own handles cost more than they seem to: a histogram keeps each sample until it is drained, which
//! came to a thousand instructions a statement, and a counter notes when it was last touched.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A counter.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds to it.
    pub fn increment(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram of times in seconds, with buckets that are known beforehand.
#[derive(Debug)]
pub struct Times<const N: usize> {
    /// Upper bounds, ascending; what is above the last counts in no bucket but in the sum and the count.
    bounds: [f64; N],
    counts: [AtomicU64; N],
    above: AtomicU64,
    nanoseconds: AtomicU64,
}

impl<const N: usize> Times<N> {
    pub(super) fn new(bounds: [f64; N]) -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, counts, above: AtomicU64::new(0), nanoseconds: AtomicU64::new(0) }
    }

    /// Notes a time.
    pub fn record(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = self.bounds.iter().position(|bound| seconds <= *bound);
        bucket.map_or(&self.above, |bucket| &self.counts[bucket]).fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Appends it in Prometheus' text format.
    pub(super) fn render(&self, page: &mut String, name: &str, help: &str) {
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} histogram\n");
        let mut upto = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            upto += count.load(Ordering::Relaxed);
            writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {upto}").expect("a String takes everything");
        }
        let count = upto + self.above.load(Ordering::Relaxed);
        let sum = self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}\n")
            .expect("a String takes everything");
        page.push_str(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_all_that_is_not_above_them() {
        let times = Times::new([0.001, 0.01]);
        for microseconds in [500, 1000, 2000, 500_000] {
            times.record(Duration::from_micros(microseconds));
        }
        let mut page = String::new();
        times.render(&mut page, "t", "help");
        for line in ["t_bucket{le=\"0.001\"} 2", "t_bucket{le=\"0.01\"} 3", "t_bucket{le=\"+Inf\"} 4", "t_count 4"] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
        assert!(page.contains("t_sum 0.5035\n"), "{page}");
    }
}
