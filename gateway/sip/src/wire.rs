//! Lexical rules of RFC 3261 §25.1 that the parsers share.
//!
//! Every function here takes text of any kind and never panics; positions it returns are at ASCII
//! characters, so slicing there is always on a character boundary.

use memchr::memchr;

/// Characters of `token`.
pub(crate) const TOKEN: u8 = 1;
/// Characters of the `user` production that stand for themselves, and `#`, which phones send bare.
pub(crate) const USER: u8 = 2;
/// Characters of a host name.
pub(crate) const HOST: u8 = 4;
/// Characters accepted in a parameter of a URI: all that can be seen but the delimiters. Signed
/// parameters of Access Edges carry base64 with `=`, which the grammar does not allow. An `@` is refused, since
/// a reader that splits at the last one would see another host.
pub(crate) const URI_PARAM: u8 = 8;
/// Characters accepted in an unquoted value of a header parameter.
pub(crate) const PARAM_VALUE: u8 = 16;
/// Characters of an unquoted display name; other letters than ASCII are common there.
pub(crate) const DISPLAY: u8 = 32;
/// Everything that can be seen, in ASCII.
pub(crate) const VISIBLE: u8 = 64;
/// Octets that `user` may hold unescaped by the grammar, exactly; used for writing.
pub(crate) const USER_STRICT: u8 = 128;

const fn contains(set: &[u8], byte: u8) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == byte {
            return true;
        }
        i += 1;
    }
    false
}

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "i is below 256")]
        let b = i as u8;
        let alphanum = b.is_ascii_alphanumeric();
        let mut class = 0;
        if alphanum || contains(b"-.!%*_+`'~", b) {
            class |= TOKEN | DISPLAY;
        }
        if alphanum || contains(b"-_.!~*'()&=+$,;?/", b) {
            class |= USER | USER_STRICT;
        }
        if b == b'#' {
            class |= USER;
        }
        if alphanum || contains(b"-._", b) {
            class |= HOST;
        }
        if b > b' ' && b < 0x7f {
            class |= VISIBLE;
            if !contains(b"<>\";?@", b) {
                class |= URI_PARAM;
            }
            if !contains(b"<>\";,", b) {
                class |= PARAM_VALUE;
            }
        }
        if b >= 0x80 {
            class |= DISPLAY | PARAM_VALUE;
        }
        if b == b' ' || b == b'\t' {
            class |= DISPLAY;
        }
        table[i] = class;
        i += 1;
    }
    table
}

static CLASSES: [u8; 256] = classes();

/// True if `byte` is of `class`.
#[inline]
pub(crate) fn is(byte: u8, class: u8) -> bool {
    // 256 entries for 256 values
    CLASSES[usize::from(byte)] & class != 0
}

/// Length of the longest prefix of `text` made of `class`.
#[inline]
pub(crate) fn run(text: &str, class: u8) -> usize {
    let bytes = text.as_bytes();
    bytes.iter().position(|&b| !is(b, class)).unwrap_or(bytes.len())
}

/// True if `text` is not empty and all of `class`.
#[inline]
pub(crate) fn all(text: &str, class: u8) -> bool {
    !text.is_empty() && text.bytes().all(|b| is(b, class))
}

/// True if `text` is a `token`.
pub(crate) fn is_token(text: &str) -> bool {
    all(text, TOKEN)
}

/// Splits at a position; past the end or inside a character gives everything and nothing.
#[inline]
pub(crate) fn split(text: &str, at: usize) -> (&str, &str) {
    text.split_at_checked(at).unwrap_or((text, ""))
}

/// Everything after the first `count` bytes.
#[inline]
pub(crate) fn after(text: &str, count: usize) -> &str {
    text.get(count..).unwrap_or("")
}

/// Where `byte`, an ASCII one, is first. For short texts, where a plain loop beats a vector search.
#[inline]
pub(crate) fn find(text: &str, byte: u8) -> Option<usize> {
    text.bytes().position(|b| b == byte)
}

/// Splits around the first `byte`, an ASCII one.
#[inline]
pub(crate) fn split_once(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = find(text, byte)?;
    Some((split(text, at).0, after(text, at + 1)))
}

/// Removes spaces and tabs at both ends.
#[inline]
pub(crate) fn trim(text: &str) -> &str {
    let text = trim_start(text);
    let mut bytes = text.as_bytes();
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    split(text, bytes.len()).0
}

/// Removes spaces and tabs at the front.
#[inline]
pub(crate) fn trim_start(text: &str) -> &str {
    let mut bytes = text.as_bytes();
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    if bytes.len() == text.len() { text } else { after(text, text.len() - bytes.len()) }
}

/// Length of the quoted string at the front of `text`, both quotes counted; `None` if it is not closed
/// or holds a line break.
pub(crate) fn quoted(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    if bytes.next()?.1 != b'"' {
        return None;
    }
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at + 1),
            b'\\' => {
                let (_, escaped) = bytes.next()?;
                if escaped == b'\r' || escaped == b'\n' {
                    return None;
                }
            }
            b'\r' | b'\n' | 0 => return None,
            _ => {}
        }
    }
    None
}

/// Reads a number made of digits only; `None` when there are none, others, or too many.
pub(crate) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Reads seconds; more than 2^32-1 counts as 2^32-1 (RFC 3261 §20.19 leaves larger values to us).
pub(crate) fn delta_seconds(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u32::MAX))
}

/// The values of a comma-joined header, trimmed, without empty ones; commas in quotes and in `<>` do
/// not separate.
#[derive(Debug, Clone)]
pub(crate) struct CommaList<'a> {
    rest: &'a str,
}

impl<'a> CommaList<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for CommaList<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        while !self.rest.is_empty() {
            let end = comma(self.rest);
            let value = trim(split(self.rest, end).0);
            self.rest = after(self.rest, end + 1);
            if !value.is_empty() {
                return Some(value);
            }
        }
        None
    }
}

/// Where the first separating comma is, or the length.
fn comma(text: &str) -> usize {
    if memchr(b',', text.as_bytes()).is_none() {
        return text.len();
    }
    let mut quotes = false;
    let mut angles = false;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if quotes => {
                bytes.next();
            }
            b'"' => quotes = !quotes,
            b'<' if !quotes => angles = true,
            b'>' if !quotes => angles = false,
            b',' if !quotes && !angles => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_and_angles_do_not_separate() {
        let text = r#""a, \" b" <sip:a,b@h>;x=",", <sip:c@h> ,, d"#;
        let values: Vec<_> = CommaList::new(text).collect();
        assert_eq!(values, [r#""a, \" b" <sip:a,b@h>;x=",""#, "<sip:c@h>", "d"]);
    }

    #[test]
    fn a_quoted_string_ends_at_its_own_quote() {
        assert_eq!(quoted(r#""a\"b" x"#), Some(6));
        assert_eq!(quoted(r#""a"#), None);
        assert_eq!(quoted("\"a\r\n\""), None);
        assert_eq!(quoted(r#""a\"#), None);
        assert_eq!(quoted("a"), None);
    }

    #[test]
    fn seconds_saturate_and_numbers_do_not() {
        assert_eq!(delta_seconds("99999999999999999999"), Some(u32::MAX));
        assert_eq!(delta_seconds("-1"), None);
        assert_eq!(number::<u32>("+1"), None);
        assert_eq!(number::<u16>("65536"), None);
    }
}
