//! Dates and times of XEP-0082, without a library and without a clock.

use std::borrow::Cow;
use std::fmt;

use isthmus_model::EpochMillis;
use xso::{AsXmlText, FromXmlText};

const DAY: i64 = 86_400;
/// The last second of the year 9999, the last that the format can say.
const LAST_SECOND: i64 = 253_402_300_799;

/// A point in time as XMPP writes it, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub EpochMillis);

/// A text that is no date and time of XEP-0082 between 1970 and 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a date and time of XEP-0082")]
pub struct StampError;

impl Stamp {
    /// Reads today's form, with fractions and any offset, and the one of XEP-0091 (`20260131T12:00:00`).
    ///
    /// # Errors
    ///
    /// [`StampError`].
    pub fn parse(text: &str) -> Result<Self, StampError> {
        parse(text.trim_ascii().as_bytes()).map(Self).ok_or(StampError)
    }
}

fn parse(text: &[u8]) -> Option<EpochMillis> {
    let (year, rest) = digits(text, 4)?;
    let dashed = rest.first() == Some(&b'-');
    let (month, rest) = digits(rest.get(usize::from(dashed)..)?, 2)?;
    let rest = if dashed { rest.strip_prefix(b"-")? } else { rest };
    let (day, rest) = digits(rest, 2)?;
    let rest = rest.strip_prefix(b"T").or_else(|| rest.strip_prefix(b"t"))?;
    let (hour, rest) = digits(rest, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(b":")?, 2)?;
    let (second, rest) = digits(rest.strip_prefix(b":")?, 2)?;
    let (millis, rest) = fraction(rest)?;
    let offset = offset(rest)?;
    // 60 is a leap second
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    if !(0..=LAST_SECOND).contains(&seconds) {
        return None;
    }
    u64::try_from(seconds * 1000 + millis).ok().map(EpochMillis)
}

fn digits(text: &[u8], count: usize) -> Option<(i64, &[u8])> {
    let (number, rest) = text.split_at_checked(count)?;
    let value = number
        .iter()
        .try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))?;
    Some((value, rest))
}

/// Reads `.123`, of which three digits count.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = text.strip_prefix(b".") else { return Some((0, text)) };
    let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, rest) = rest.split_at_checked(count)?;
    let millis = (0..3).fold(0, |value, at| value * 10 + number.get(at).map_or(0, |digit| i64::from(digit - b'0')));
    (count > 0).then_some((millis, rest))
}

/// Reads the offset from UTC in seconds; none counts as UTC, as in XEP-0091.
fn offset(text: &[u8]) -> Option<i64> {
    let sign = match text.first() {
        None => return Some(0),
        Some(b'Z' | b'z') => return (text.len() == 1).then_some(0),
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return None,
    };
    let (hours, rest) = digits(text.get(1..)?, 2)?;
    let (minutes, rest) = digits(rest.strip_prefix(b":")?, 2)?;
    rest.is_empty().then_some(sign * (hours * 3600 + minutes * 60))
}

/// Days from 1970-01-01. Years begin in March here, so that the leap day is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

/// Year, month and day of a day counted from 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, of_year - (153 * from_march + 2) / 5 + 1)
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0.0 / 1000).unwrap_or(LAST_SECOND).min(LAST_SECOND);
        let (year, month, day) = date(seconds / DAY);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match self.0.0 % 1000 {
            0 => f.write_str("Z"),
            millis => write!(f, ".{millis:03}Z"),
        }
    }
}

impl FromXmlText for Stamp {
    fn from_xml_text(text: String) -> Result<Self, xso::error::Error> {
        Self::parse(&text).map_err(xso::error::Error::text_parse_error)
    }
}

impl AsXmlText for Stamp {
    fn as_xml_text(&self) -> Result<Cow<'_, str>, xso::error::Error> {
        Ok(Cow::Owned(self.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stamps_of_servers_are_read() {
        let read = |text| Stamp::parse(text).map(|stamp| stamp.0.0);
        assert_eq!(read("2002-09-10T23:08:25Z"), Ok(1_031_699_305_000));
        assert_eq!(read("2002-09-10T23:08:25.1239Z"), Ok(1_031_699_305_123));
        assert_eq!(read("2002-09-11T01:08:25+02:00"), Ok(1_031_699_305_000));
        assert_eq!(read("20020910T23:08:25"), Ok(1_031_699_305_000));
        assert_eq!(read("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(read("9999-12-31T23:59:59Z"), Ok(253_402_300_799_000));
        assert_eq!(read("2024-02-29T00:00:00Z"), Ok(1_709_164_800_000));
        for wrong in [
            "",
            "2002-09-10",
            "2002-13-10T00:00:00Z",
            "2002-09-10T24:00:00Z",
            "2002-09-10T00:00:00.Z",
            "1969-12-31T23:59:59Z",
            "2002-09-10T00:00:00+2",
            "2002-09-10 00:00:00Z",
            "2002-09-10T00:00:00Zx",
        ] {
            assert_eq!(read(wrong), Err(StampError), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_time_until_9999_survives_its_text(millis in 0..253_402_300_800_000_u64) {
            let stamp = Stamp(EpochMillis(millis));
            prop_assert_eq!(Stamp::parse(&stamp.to_string()), Ok(stamp));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[-0-9TZ:.+]{0,30}") {
            let _ = Stamp::parse(&text);
        }
    }
}
