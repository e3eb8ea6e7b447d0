//! Durations as people write them in manifests: `90s`, `1h30m`, `500ms`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a duration looks like; hours are the largest unit.
pub(crate) const PATTERN: &str = "^([0-9]+(ms|s|m|h))+$";
/// Longest text of a duration.
pub(crate) const MAX_LENGTH: usize = 16;
/// Longest duration, ten years: far beyond any use, and safe to add to any clock.
const MAX_MILLIS: u64 = 10 * 365 * 24 * 3_600_000;

/// A span of time written as a string of numbers with the units `ms`, `s`, `m` and `h`, for example `1h30m`.
///
/// At most ten years; milliseconds are the resolution. It prints in its shortest form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(u64);

impl Duration {
    /// A duration of whole milliseconds, cut at ten years.
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis > MAX_MILLIS { MAX_MILLIS } else { millis })
    }

    /// A duration of whole seconds, cut at ten years.
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_millis(secs.saturating_mul(1000))
    }

    /// The duration for calculations.
    pub const fn get(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }

    /// Whole seconds, rounded down, as wire formats such as `Expires` want them.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// True for `0s`, which switches off what the duration governs where the field says so.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.get()
    }
}

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// The text is empty or longer than 16 characters.
    #[error("a duration has 1 to 16 characters")]
    Length,
    /// A number or one of the units is missing.
    #[error("a duration is written as numbers with the units ms, s, m or h, for example 1h30m")]
    Syntax,
    /// The sum is longer than ten years.
    #[error("a duration is at most ten years (87600h)")]
    TooLong,
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > MAX_LENGTH {
            return Err(ParseDurationError::Length);
        }
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(ParseDurationError::Syntax)?;
            let (number, tail) = rest.split_at(digits);
            if number.is_empty() {
                return Err(ParseDurationError::Syntax);
            }
            let (factor, tail) = if let Some(tail) = tail.strip_prefix("ms") {
                (1, tail)
            } else if let Some(tail) = tail.strip_prefix('s') {
                (1_000, tail)
            } else if let Some(tail) = tail.strip_prefix('m') {
                (60_000, tail)
            } else if let Some(tail) = tail.strip_prefix('h') {
                (3_600_000, tail)
            } else {
                return Err(ParseDurationError::Syntax);
            };
            // 16 digits always fit, so a failure here cannot be anything but syntax.
            let number: u64 = number.parse().map_err(|_| ParseDurationError::Syntax)?;
            total = number
                .checked_mul(factor)
                .and_then(|part| total.checked_add(part))
                .ok_or(ParseDurationError::TooLong)?;
            rest = tail;
        }
        if total > MAX_MILLIS {
            return Err(ParseDurationError::TooLong);
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (factor, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            let count = rest / factor;
            rest %= factor;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": MAX_LENGTH })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_their_parts() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1m1s1ms", 61_001),
            ("7200s", 7_200_000),
            ("168h", 604_800_000),
        ] {
            assert_eq!(text.parse::<Duration>(), Ok(Duration(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "s", "5x", "5 s", "-5s", "1.5s", "5s3", "٣s", "1d"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
        assert_eq!("99999999999999h".parse::<Duration>(), Err(ParseDurationError::TooLong));
        assert_eq!("999999999999999h".parse::<Duration>(), Err(ParseDurationError::TooLong));
        assert_eq!("1000000000000000s".parse::<Duration>(), Err(ParseDurationError::Length));
    }

    #[test]
    fn printing_and_parsing_agree() {
        for millis in [0, 1, 999, 1000, 60_000, 3_600_000, 5_400_000, 7_261_001, MAX_MILLIS] {
            let duration = Duration(millis);
            assert_eq!(duration.to_string().parse(), Ok(duration));
        }
    }
}
