//! Durations and sizes as people write them: `30s`, `2m`, `1h30m`; `10KB`, `64MiB`.

use std::time::Duration;

/// What to write for a duration.
pub(crate) const DURATION: &str = r#"a duration such as "500ms", "30s", "2m" or "1h30m""#;
/// What to write for a size.
pub(crate) const SIZE: &str = r#"a size such as "10KB", "64MiB" or "1GiB""#;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// KB is 1000 bytes and KiB 1024, as the letters say; PostgreSQL's `kB` (1024) is not offered, because it says one
/// thing and means the other.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads a duration: one or more numbers, each with its unit.
///
/// # Errors
/// Says what is wrong when a number or unit is missing, a unit is unknown or repeated, or the sum does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("an empty text is not a duration".into());
    }
    let mut total: u64 = 0;
    let mut seen: Vec<&str> = Vec::new();
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit());
        let (unit, after) = split(after, |c| c.is_ascii_alphabetic());
        let millis = factor(text, number, unit, &DURATION_UNITS)?;
        if seen.contains(&unit) {
            return Err(format!("`{text}` has the unit `{unit}` twice"));
        }
        seen.push(unit);
        total = total.checked_add(millis).ok_or_else(|| format!("`{text}` is too long"))?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total))
}

/// Reads a size in bytes: a number with its unit.
///
/// # Errors
/// Says what is wrong when the number or unit is missing, the unit is unknown, or the size does not fit.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let (number, after) = split(trimmed, |c| c.is_ascii_digit());
    factor(text, number, after.trim_start(), &SIZE_UNITS)
}

fn factor(text: &str, number: &str, unit: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    if number.is_empty() {
        return Err(format!("`{text}` has no number where one was expected"));
    }
    if unit.is_empty() {
        return Err(format!("`{text}` has no unit behind {number}"));
    }
    let names = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("`{unit}` in `{text}` is not a unit; the units are {}", names()));
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor)).ok_or_else(|| format!("`{text}` is too large"))
}

fn split(text: &str, inside: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !inside(c)).unwrap_or(text.len()))
}

/// A duration as one would write it in the TOML: `1h30m`, `500ms`.
pub fn show_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    // Days are left out: "2h" and "336h" compare at a glance, "14d" does not.
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if millis >= size {
            text.push_str(&format!("{}{unit}", millis / size));
            millis %= size;
        }
    }
    text
}

/// A size as one would write it in the TOML, exactly: `64MiB`, `10KB`, `1234B`.
pub fn show_size(bytes: u64) -> String {
    for (unit, size) in SIZE_UNITS.iter().rev() {
        if bytes >= *size && bytes.is_multiple_of(*size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    "0B".into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1d", 86_400_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn durations_that_are_none_say_why() {
        for (text, why) in [
            ("", "empty"),
            ("30", "no unit behind 30"),
            ("s", "no number"),
            ("30x", "`x` in `30x` is not a unit"),
            ("1.5h", "no unit behind 1"),
            ("-1s", "no number"),
            ("1h2h", "twice"),
            ("99999999999999999999s", "too large"),
            ("30s!", "no number"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [("10KB", 10_000), ("64MiB", 64 << 20), ("1 GiB", 1 << 30), ("7B", 7)] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for (text, why) in [
            ("64mb", "not a unit"),
            ("64", "no unit"),
            ("MiB", "no number"),
            ("99999999999TiB", "too large"),
            ("1MiB2", "not a unit"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        for millis in [0, 1, 999, 1000, 61_000, 5_400_000, 90_061_001] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&show_duration(duration)).unwrap(), duration);
        }
        for bytes in [1, 999, 1000, 1024, 10_000, 64 << 20, 1 << 30, 1234] {
            assert_eq!(parse_size(&show_size(bytes)).unwrap(), bytes);
        }
        assert_eq!(show_size(64 << 20), "64MiB");
        assert_eq!(show_size(10_000), "10KB");
        assert_eq!(show_duration(Duration::from_secs(5400)), "1h30m");
    }
}
