//! The Date header (RFC 3261 §20.17): `Sat, 13 Nov 2010 23:29:00 GMT` and nothing else.

use isthmus_model::EpochMillis;
use isthmus_sip::pidf::timestamp;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads a date; `None` for everything else.
pub(super) fn parse(text: &str) -> Option<EpochMillis> {
    let (_, date) = text.trim_ascii().split_once(", ")?;
    let mut words = date.split_ascii_whitespace();
    let (day, month, year, time, zone) = (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    if zone != "GMT" || words.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().position(|known| *known == month)? + 1;
    timestamp::parse(&format!("{year}-{month:02}-{day:0>2}T{time}Z"))
}
