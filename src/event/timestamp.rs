//! Times as the format writes them: UTC, microseconds, 27 bytes.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};

/// A moment in UTC, in whole microseconds, between the years 0 and 9999.
///
/// Its text form is RFC 3339 with exactly six fractional digits and `Z`, so that texts sort as the moments do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text or moment is no [`Timestamp`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time of the form 2026-11-24T05:37:00.000000Z between the years 0 and 9999")]
pub struct TimestampError(String);

const MICROS_MIN: i64 = -62_167_219_200_000_000; // 0000-01-01T00:00:00Z
const MICROS_MAX: i64 = 253_402_300_799_999_999; // 9999-12-31T23:59:59.999999Z

impl Timestamp {
    /// Bytes of its text form.
    pub const TEXT_BYTES: usize = 27;
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// From microseconds since 1970; what lies outside the years 0 to 9999 is cut to them.
    pub const fn from_micros(micros: i64) -> Timestamp {
        if micros < MICROS_MIN {
            Timestamp(MICROS_MIN)
        } else if micros > MICROS_MAX {
            Timestamp(MICROS_MAX)
        } else {
            Timestamp(micros)
        }
    }

    /// Microseconds since 1970.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970 in 48 bits, as ids carry them; earlier moments give 0.
    pub const fn id_millis(self) -> u64 {
        if self.0 < 0 { 0 } else { (self.0 / 1000) as u64 & 0xffff_ffff_ffff }
    }

    /// Reads any RFC 3339 time, or one without an offset (taken as UTC); digits past microseconds are cut.
    pub fn parse_lenient(text: &str) -> Option<Timestamp> {
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Timestamp::checked(time.timestamp_micros());
        }
        let naive = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
            .or_else(|_| chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
            .ok()?;
        Timestamp::checked(naive.and_utc().timestamp_micros())
    }

    fn checked(micros: i64) -> Option<Timestamp> {
        (MICROS_MIN..=MICROS_MAX).contains(&micros).then_some(Timestamp(micros))
    }

    /// Appends its text form.
    pub fn push_to(self, out: &mut Vec<u8>) {
        fn pair(number: u32) -> [u8; 2] {
            [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
        }
        let time = DateTime::<Utc>::from_timestamp_micros(self.0).unwrap_or_default();
        let (year, micros) = (time.year().unsigned_abs(), time.nanosecond() / 1000);
        let [[y1, y2], [y3, y4]] = [pair(year / 100), pair(year)];
        let [[o1, o2], [d1, d2]] = [pair(time.month()), pair(time.day())];
        let [[h1, h2], [m1, m2], [s1, s2]] = [pair(time.hour()), pair(time.minute()), pair(time.second())];
        let [[a, b], [c, d], [e, f]] = [pair(micros / 10_000), pair(micros / 100), pair(micros)];
        let (date, clock) = ([y1, y2, y3, y4, b'-', o1, o2, b'-', d1, d2, b'T'], [h1, h2, b':', m1, m2, b':', s1, s2, b'.']);
        out.extend_from_slice(&date);
        out.extend_from_slice(&clock);
        out.extend_from_slice(&[a, b, c, d, e, f, b'Z']);
    }

    /// Reads its text form, and nothing else.
    pub(crate) fn parse_exact(text: &[u8]) -> Option<Timestamp> {
        fn number(digits: &[u8]) -> Option<u32> {
            digits.iter().try_fold(0u32, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0')))
        }
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
        if text.len() != Timestamp::TEXT_BYTES || marks.iter().any(|(at, mark)| text.get(*at) != Some(mark)) {
            return None;
        }
        let part = |from: usize, to: usize| number(text.get(from..to)?);
        NaiveDate::from_ymd_opt(i32::try_from(part(0, 4)?).ok()?, part(5, 7)?, part(8, 10)?)?
            .and_hms_micro_opt(part(11, 13)?, part(14, 16)?, part(17, 19)?, part(20, 26)?)
            .map(|time| Timestamp(time.and_utc().timestamp_micros()))
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Timestamp {
        Timestamp::from_micros(time.timestamp_micros())
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(time: Timestamp) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(time.0).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(Timestamp::TEXT_BYTES);
        self.push_to(&mut text);
        f.pad(&String::from_utf8_lossy(&text))
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Timestamp, TimestampError> {
        Timestamp::parse_exact(text.as_bytes()).ok_or_else(|| TimestampError(text.chars().take(80).collect()))
    }
}

super::ids::as_text!(Timestamp);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn texts_go_there_and_back() {
        for text in [
            "2026-11-24T05:37:00.000120Z",
            "0000-01-01T00:00:00.000000Z",
            "9999-12-31T23:59:59.999999Z",
            "1969-12-31T23:59:59.999999Z",
            "2024-02-29T00:00:00.000001Z",
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
        for text in
            ["2023-02-29T00:00:00.000001Z", "2026-11-24T05:37:60.000120Z", "2026-11-24T05:37:00.00012Z", "", "+026-11-24T05:37:00.000120Z"]
        {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
