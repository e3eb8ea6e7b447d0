//! Percent escapes of the user part.

use std::borrow::Cow;

use crate::wire;

/// True if `text` holds only characters that may stand in a user part and complete escapes.
pub(super) fn valid(text: &str) -> bool {
    let mut rest = text;
    loop {
        rest = wire::after(rest, wire::run(rest, wire::USER));
        if rest.is_empty() {
            return true;
        }
        if pair(rest).is_none() {
            return false;
        }
        rest = wire::after(rest, 3);
    }
}

/// The octet that `%HH` at the front of `text` stands for.
pub(super) fn pair(text: &str) -> Option<u8> {
    let [b'%', high, low, ..] = *text.as_bytes() else {
        return None;
    };
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// Decodes every `%HH`; `None` when the octets are not UTF-8 or an escape is broken.
pub fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(byte) = rest.bytes().next() {
        if byte == b'%' {
            out.push(pair(rest)?);
            rest = wire::after(rest, 3);
        } else {
            let plain = rest.find('%').unwrap_or(rest.len());
            let (head, tail) = wire::split(rest, plain);
            out.extend_from_slice(head.as_bytes());
            rest = tail;
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// Writes `decoded` as a user part: every octet outside the `user` production is escaped with upper-case
/// hex (RFC 3261 §25.1, RFC 7247 §6.5).
pub fn percent_encode_user(decoded: &str) -> Cow<'_, str> {
    if wire::run(decoded, wire::USER_STRICT) == decoded.len() {
        return Cow::Borrowed(decoded);
    }
    let mut out = String::with_capacity(decoded.len() + 16);
    for byte in decoded.bytes() {
        if wire::is(byte, wire::USER_STRICT) {
            out.push(char::from(byte));
        } else {
            push_escape(&mut out, byte);
        }
    }
    Cow::Owned(out)
}

/// Appends `%HH`.
pub(super) fn push_escape(out: &mut String, byte: u8) {
    let digit = |d: u8| char::from_digit(u32::from(d), 16).map_or('0', |c| c.to_ascii_uppercase());
    out.push('%');
    out.push(digit(byte >> 4));
    out.push(digit(byte & 15));
}
