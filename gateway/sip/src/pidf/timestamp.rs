//! Date and time of RFC 3339, without a library and without a clock.

use isthmus_model::EpochMillis;

const DAY: i64 = 86_400;

/// The last second of the year 9999, the last that the format can say.
const LAST: u64 = 253_402_300_799;

/// Writes a point in time in UTC with capital `T` and `Z` and milliseconds (RFC 3863 §4.1.7).
pub fn format(at: EpochMillis) -> String {
    let secs = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    let (year, month, day) = civil_from_days(secs / DAY);
    let of_day = secs % DAY;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        at.0 % 1000
    )
}

/// Reads a date and time of RFC 3339 with any offset; a missing offset counts as UTC, since the formats of
/// older Microsoft servers leave it out. Times before 1970 and after 9999 are `None`.
pub fn parse(text: &str) -> Option<EpochMillis> {
    let text = text.trim_ascii();
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.split('-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (clock, offset) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => time.split_at_checked(at)?,
        None => (time, "Z"),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':');
    let (hour, minute, second) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    // 60 is a leap second
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let millis = fraction_millis(fraction)?;
    let secs = days_from_civil(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset_secs(offset)?;
    let secs = u64::try_from(secs).ok().filter(|secs| *secs <= LAST)?;
    Some(EpochMillis(secs * 1000 + millis))
}

/// Reads exactly `digits` digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Reads the digits after the point, of which three count.
fn fraction_millis(text: &str) -> Option<u64> {
    let mut millis = 0;
    let mut unit = 100;
    for b in text.bytes() {
        let digit = b.checked_sub(b'0').filter(|d| *d <= 9)?;
        millis += u64::from(digit) * unit;
        unit /= 10;
    }
    Some(millis)
}

fn offset_secs(text: &str) -> Option<i64> {
    let sign = match text.chars().next()? {
        'Z' | 'z' => return (text.len() == 1).then_some(0),
        '-' => -1,
        _ => 1,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    Some(sign * (number(hours, 2)? * 3600 + number(minutes, 2)? * 60))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from March, so that the leap
/// day is the last of its year.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates_are_read_and_written() {
        for (text, millis) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2000-02-29T23:59:59.999Z", 951_868_799_999),
            ("2025-03-04T09:15:02.120Z", 1_741_079_702_120),
            ("2100-03-01T00:00:00.000Z", 4_107_542_400_000),
        ] {
            assert_eq!(parse(text), Some(EpochMillis(millis)), "{text}");
            assert_eq!(format(EpochMillis(millis)), text);
        }
    }

    #[test]
    fn offsets_fractions_and_missing_offsets_are_read() {
        let noon = parse("2024-05-02T12:00:00Z");
        assert!(noon.is_some());
        for text in [
            "2024-05-02T14:00:00+02:00",
            "2024-05-02t06:30:00-05:30",
            " 2024-05-02T12:00:00.000 ",
            "2024-05-02T12:00:00",
        ] {
            assert_eq!(parse(text), noon, "{text}");
        }
        assert_eq!(parse("2024-05-02T12:00:00.1239999999999Z"), noon.map(|t| EpochMillis(t.0 + 123)));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "now",
            "2024-05-02",
            "2024-13-02T12:00:00Z",
            "2024-05-00T12:00:00Z",
            "2024-05-02T24:00:00Z",
            "2024-05-02T12:00:00+2",
            "2024-05-02T12:00Z",
            "1969-12-31T23:59:59Z",
            "2024-05-02T12:00:00.x1Z",
            "-999-05-02T12:00:00Z",
            "2024-05-02T12:00:00Ž",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
