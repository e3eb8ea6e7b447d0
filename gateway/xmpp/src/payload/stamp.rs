//! Dates and times of XEP-0082.

use std::borrow::Cow;
use std::fmt;

use isthmus_model::{EpochMillis, timestamp};
use xso::{AsXmlText, FromXmlText};

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
        timestamp::parse(text).map(Self).ok_or(StampError)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = timestamp::format(self.0);
        match text.strip_suffix(".000Z") {
            Some(whole) => write!(f, "{whole}Z"),
            None => f.write_str(&text),
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
        assert_eq!(read("2024-02-29T00:00:00Z"), Ok(1_709_164_800_000));
        for wrong in [
            "",
            "2002-09-10",
            "2002-13-10T00:00:00Z",
            "2002-09-10T24:00:00Z",
            "2002-09-10T00:00:00.Z",
            "1969-12-31T23:59:59Z",
            "2002-09-10T00:00:00+2",
            "2002-09-10T00:00:00Zx",
        ] {
            assert_eq!(read(wrong), Err(StampError), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_time_until_9999_survives_its_text(millis in 0..253_402_207_200_000_u64) {
            let stamp = Stamp(EpochMillis(millis));
            prop_assert_eq!(Stamp::parse(&stamp.to_string()), Ok(stamp));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[-0-9TZ:.+]{0,30}") {
            let _ = Stamp::parse(&text);
        }
    }
}
