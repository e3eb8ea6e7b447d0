//! Dates and times as both protocols write them: RFC 3339 (PIDF, CPIM), XEP-0082.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimePrinter;
use jiff::tz::Offset;

use crate::EpochMillis;

/// Reads a date and time with any offset. A missing offset counts as UTC, since older Microsoft servers and XEP-0091
/// (`20260131T12:00:00`) leave it out; of a fraction, three digits count. Times before 1970 and after 9999 are `None`.
pub fn parse(text: &str) -> Option<EpochMillis> {
    let text = text.trim_ascii();
    let at = text.parse::<Timestamp>().ok().or_else(|| {
        let civil: DateTime = text.contains(':').then(|| text.parse().ok()).flatten()?;
        Offset::UTC.to_timestamp(civil).ok()
    })?;
    u64::try_from(at.as_millisecond()).ok().map(EpochMillis)
}

/// Writes a point in time in UTC with capital `T` and `Z` and milliseconds (RFC 3863 §4.1.7); one after 9999, which the
/// format cannot say, is its last.
pub fn format(at: EpochMillis) -> String {
    let at = i64::try_from(at.0).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let mut text = String::with_capacity("2025-03-04T09:15:02.120Z".len());
    // A string takes everything.
    let _ = DateTimePrinter::new().precision(Some(3)).print_timestamp(&at.unwrap_or(Timestamp::MAX), &mut text);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert_eq!(format(EpochMillis(u64::MAX)).get(..11), Some("9999-12-30T"));
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
            "20240502T12:00:00",
        ] {
            assert_eq!(parse(text), noon, "{text}");
        }
        assert_eq!(parse("2024-05-02T12:00:00.1239999999Z"), None, "more digits than nanoseconds");
        assert_eq!(parse("2024-05-02T12:00:00.123999999Z"), noon.map(|t| EpochMillis(t.0 + 123)));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "now",
            "2024-05-02",
            "2024-13-02T12:00:00Z",
            "2024-05-00T12:00:00Z",
            "2024-02-30T12:00:00Z",
            "2024-05-02T24:00:00Z",
            "2024-05-02T12:00:00+2",
            "1969-12-31T23:59:59Z",
            "2024-05-02T12:00:00.x1Z",
            "2024-05-02T12:00:00.Z",
            "-999-05-02T12:00:00Z",
            "2024-05-02T12:00:00Ž",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_time_until_9999_survives_its_text(millis in 0..253_402_207_200_000_u64) {
            prop_assert_eq!(parse(&format(EpochMillis(millis))), Some(EpochMillis(millis)));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[-0-9TZ:.+\\[\\]a-z]{0,40}") {
            let _ = parse(&text);
        }
    }
}
