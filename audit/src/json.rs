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
    if is_plain(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.bytes().for_each(|byte| escape(out, byte));
    }
}

/// Whether all bytes are [`plain`], asked of eight at a time: most strings here are two or three words long.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let special = words.iter().fold(0, |special, word| special | special_bytes(u64::from_le_bytes(*word)));
    match (special, rest.is_empty(), bytes.last_chunk::<8>()) {
        (0, true, _) => true,
        (0, false, Some(last)) => special_bytes(u64::from_le_bytes(*last)) == 0,
        (0, false, None) => rest.iter().all(|byte| plain(*byte)),
        _ => false,
    }
}

/// Not 0 where one of eight bytes is not [`plain`]. `hasless` and `haszero` of
/// <https://graphics.stanford.edu/~seander/bithacks.html>.
const fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    const fn has(word: u64, byte: u8) -> u64 {
        let zero = word ^ (ONES * byte as u64);
        zero.wrapping_sub(ONES) & !zero
    }
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | has(word, b'"') | has(word, b'\\') | has(word, 0x7f)) & HIGH
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
    hundredths_of(out, (hundredths.abs() + 0.5) as u64);
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

/// The beginning that all records have: `,"time":"2026-11-23T13:05:00.000000Z","instance":"…"`. Only the microseconds
/// are made anew while the second stays the same.
pub(crate) struct Head {
    second: Option<u64>,
    text: Vec<u8>,
}

impl Head {
    const DATE: usize = b",\"time\":\"".len();
    const MICROS: usize = Self::DATE + b"2026-11-23T13:05:00.".len();

    pub(crate) fn new(instance: &str) -> Self {
        let mut text = b",\"time\":\"0000-00-00T00:00:00.000000Z\",\"instance\":".to_vec();
        string(&mut text, instance);
        Self { second: None, text }
    }

    /// For a record of this time: RFC 3339 in UTC. A time before 1970 is written as 1970: a clock that far off says
    /// nothing more.
    pub(crate) fn at(&mut self, time: SystemTime) -> &[u8] {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            until_second(&mut self.text[Self::DATE..], since.as_secs());
        }
        digits(&mut self.text[Self::MICROS..Self::MICROS + 6], since.subsec_micros());
        &self.text
    }

    /// The time by itself.
    pub(crate) fn time(time: SystemTime) -> String {
        String::from_utf8_lossy(&Self::new("").at(time)[Self::DATE..Self::MICROS + b"000000Z".len()]).into_owned()
    }
}

/// Writes `2026-11-23T13:05:00` over the digits that stand there.
fn until_second(date: &mut [u8], seconds: u64) {
    let (year, month, day) = civil(seconds / 86_400);
    let second = (seconds % 86_400) as u32;
    digits(&mut date[0..4], year);
    digits(&mut date[5..7], month);
    digits(&mut date[8..10], day);
    digits(&mut date[11..13], second / 3600);
    digits(&mut date[14..16], second / 60 % 60);
    digits(&mut date[17..19], second % 60);
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
        for text in [
            "",
            "plain",
            "of eight",
            "longer, plain and with no quote",
            "the quote is among the last \"",
            "a\"b\\c",
            "line\nfeed\r\t\0\x1f\x7f",
            "Zoë 🏥 \u{2028}",
        ] {
            let json = written(|out| string(out, text));
            assert!(json.bytes().all(|byte| byte >= 0x20), "{json:?} is one line");
            assert_eq!(serde_json::from_str::<String>(&json).expect("valid"), text);
        }
    }

    #[test]
    fn every_special_byte_is_seen_wherever_it_stands() {
        for byte in 0..=255 {
            for (len, at) in [(3, 1), (8, 0), (8, 7), (13, 9), (13, 12), (24, 20)] {
                let mut bytes = vec![b'x'; len];
                bytes[at] = byte;
                assert_eq!(is_plain(&bytes), plain(byte), "byte {byte} at {at} of {len}");
            }
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
        let mut kept = Head::new("i");
        for (seconds, micros, text) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000001Z"),
            (951_782_400, 70, "2000-02-29T00:00:00.000070Z"),
            (1_795_439_100, 120_000, "2026-11-23T13:05:00.120000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
        ] {
            let moment = SystemTime::UNIX_EPOCH + Duration::new(seconds, micros * 1000);
            let expected = format!(",\"time\":\"{text}\",\"instance\":\"i\"");
            assert_eq!(String::from_utf8_lossy(Head::new("i").at(moment)), expected);
            assert_eq!(String::from_utf8_lossy(kept.at(moment)), expected);
        }
    }
}
