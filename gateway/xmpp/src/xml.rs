//! Text that XML can carry, and its escaping.

use std::borrow::Cow;

use bytes::{BufMut as _, BytesMut};

/// True if XML 1.0 allows the character (§2.2).
pub fn is_legal(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// True if XML can carry the whole text. One pass over bytes, since every message takes it.
pub fn is_legal_text(text: &str) -> bool {
    illegal_at(text.as_bytes()).is_none()
}

/// Leaves out the characters that XML cannot carry (control characters, U+FFFE, U+FFFF).
///
/// Human-readable text is treated so when it is written (interworking specification §5.8); identifiers are
/// refused instead.
pub fn drop_illegal(text: &str) -> Cow<'_, str> {
    if is_legal_text(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|c| is_legal(*c)).collect())
}

/// The place of the first byte of a character that XML cannot carry.
fn illegal_at(bytes: &[u8]) -> Option<usize> {
    bytes.iter().enumerate().find_map(|(at, byte)| {
        let bad = match byte {
            b'\t' | b'\n' | b'\r' => false,
            ..0x20 => true,
            // U+FFFE and U+FFFF are EF BF BE and EF BF BF
            0xef => matches!(bytes.get(at + 1..at + 3), Some([0xbf, 0xbe | 0xbf])),
            _ => false,
        };
        bad.then_some(at)
    })
}

/// Writes character data. The caller has made sure that it is legal.
pub(crate) fn escape_text(out: &mut BytesMut, text: &str) {
    escape(out, text, |byte| match byte {
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'&' => Some("&amp;"),
        // a bare carriage return would be read as a line feed (XML 1.0 §2.11)
        b'\r' => Some("&#xD;"),
        _ => None,
    });
}

/// Writes the inside of an attribute value in double quotes. The caller has made sure that it is legal.
pub(crate) fn escape_attribute(out: &mut BytesMut, text: &str) {
    escape(out, text, |byte| match byte {
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'&' => Some("&amp;"),
        b'"' => Some("&quot;"),
        // these would be read as spaces (XML 1.0 §3.3.3)
        b'\t' => Some("&#x9;"),
        b'\n' => Some("&#xA;"),
        b'\r' => Some("&#xD;"),
        _ => None,
    });
}

fn escape(out: &mut BytesMut, text: &str, replace: impl Fn(u8) -> Option<&'static str>) {
    let mut rest = text.as_bytes();
    out.reserve(rest.len());
    while let Some((at, replacement)) = rest.iter().enumerate().find_map(|(at, b)| replace(*b).map(|r| (at, r))) {
        let (plain, tail) = rest.split_at(at);
        out.put_slice(plain);
        out.put_slice(replacement.as_bytes());
        rest = tail.get(1..).unwrap_or_default();
    }
    out.put_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_carry_is_left_out_of_text() {
        assert_eq!(drop_illegal("a\0b\u{b}c\u{fffe}d\u{ffff}e\tf\r\n\u{feff}\u{fffd}"), "abcde\tf\r\n\u{feff}\u{fffd}");
        assert!(matches!(drop_illegal("plain \u{1f600}"), Cow::Borrowed(_)));
    }

    #[test]
    fn legality_by_bytes_agrees_with_legality_by_characters() {
        for c in (0..=0x11_000).filter_map(char::from_u32) {
            assert_eq!(is_legal_text(c.encode_utf8(&mut [0; 4])), is_legal(c), "{c:?}");
        }
    }

    #[test]
    fn escaping_leaves_no_markup() {
        let mut out = BytesMut::new();
        escape_text(&mut out, "<a>&\r\"'");
        escape_attribute(&mut out, "<a>&\r\n\t\"'");
        assert_eq!(&out[..], b"&lt;a&gt;&amp;&#xD;\"'&lt;a&gt;&amp;&#xD;&#xA;&#x9;&quot;'");
    }
}
