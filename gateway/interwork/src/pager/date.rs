//! The Date header (RFC 3261 §20.17): `Sat, 13 Nov 2010 23:29:00 GMT`.

use std::time::UNIX_EPOCH;

use isthmus_model::EpochMillis;

/// Reads a date; `None` for what is none, and for dates before 1970.
pub(super) fn parse(text: &str) -> Option<EpochMillis> {
    let since = httpdate::parse_http_date(text.trim_ascii()).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok().map(EpochMillis)
}
