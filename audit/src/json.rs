//! JSON by hand, into a buffer that is reused: strings, integers, two decimals, times.

use std::time::{Duration, SystemTime};

/// Appends a JSON string with its quotes. Whatever stands in it, the line stays one line and one string: quotes,
/// backslashes and control characters are escaped; other characters pass as UTF-8.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// The inside of a JSON string.
pub(crate) fn escaped(out: &mut Vec<u8>, text: &str) {
    // Without a short cut, so that the compiler looks at 16 bytes at a time.
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.bytes().for_each(|byte| escape(out, byte));
    }
}

const fn plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0x7f
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ if plain(byte) => out.push(byte),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

pub(crate) fn integer(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A number with two decimals, `null` for what JSON has no number for.
pub(crate) fn two_decimals(out: &mut Vec<u8>, number: f32) {
    let hundredths = f64::from(number) * 100.0;
    if !(-1e15..1e15).contains(&hundredths) {
        return out.extend_from_slice(b"null");
    }
    if hundredths <= -0.5 {
        out.push(b'-');
    }
    hundredths_of(out, hundredths.abs().round() as u64);
}

/// A duration in µs with two decimals.
pub(crate) fn micros(out: &mut Vec<u8>, duration: Duration) {
    hundredths_of(out, duration.as_secs() * 100_000_000 + u64::from(duration.subsec_nanos()) / 10);
}

fn hundredths_of(out: &mut Vec<u8>, hundredths: u64) {
    integer(out, hundredths / 100);
    let rest = (hundredths % 100) as u8;
    out.extend_from_slice(&[b'.', b'0' + rest / 10, b'0' + rest % 10]);
}

/// RFC 3339 in UTC with microseconds and its quotes: `"2026-11-23T13:05:00.000000Z"`. A time before 1970 is written
/// as 1970: a clock that far off says nothing more.
pub(crate) fn time(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / 86_400);
    let second = (since.as_secs() % 86_400) as u32;
    let mut text = *b"\"0000-00-00T00:00:00.000000Z\"";
    digits(&mut text[1..5], year);
    digits(&mut text[6..8], month);
    digits(&mut text[9..11], day);
    digits(&mut text[12..14], second / 3600);
    digits(&mut text[15..17], second / 60 % 60);
    digits(&mut text[18..20], second % 60);
    digits(&mut text[21..27], since.subsec_micros());
    out.extend_from_slice(&text);
}

fn digits(out: &mut [u8], mut number: u32) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day counted from 1970-01-01, by Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn civil(days: u64) -> (u32, u32, u32) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn strings_survive_a_json_parser() {
        for text in ["", "plain", "a\"b\\c", "line\nfeed\r\t\0\x1f\x7f", "Zoë 🏥 \u{2028}"] {
            let json = written(|out| string(out, text));
            assert!(json.bytes().all(|byte| byte >= 0x20), "{json:?} is one line");
            assert_eq!(serde_json::from_str::<String>(&json).expect("valid"), text);
        }
    }

    #[test]
    fn numbers() {
        for (number, text) in [(0.0, "0.00"), (1.5, "1.50"), (123.456, "123.46"), (-2.25, "-2.25"), (-0.001, "0.00")] {
            assert_eq!(written(|out| two_decimals(out, number)), text);
        }
        for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            assert_eq!(written(|out| two_decimals(out, number)), "null");
        }
        assert_eq!(written(|out| micros(out, Duration::from_nanos(12_349))), "12.34");
        assert_eq!(written(|out| micros(out, Duration::from_secs(2))), "2000000.00");
    }

    #[test]
    fn times() {
        for (seconds, micros, text) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000001Z"),
            (1_795_439_100, 120_000, "2026-11-23T13:05:00.120000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
        ] {
            let moment = SystemTime::UNIX_EPOCH + Duration::new(seconds, micros * 1000);
            assert_eq!(written(|out| time(out, moment)), format!("\"{text}\""));
        }
    }
}
