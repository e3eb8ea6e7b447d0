//! Character sets of texts.

use std::borrow::Cow;

use super::ContentRefusal;

/// Decodes a text; without a character set it is UTF-8 (RFC 3428 §7 asks for nothing else).
///
/// # Errors
///
/// [`ContentRefusal::UnsupportedType`] for a set that is not known, [`ContentRefusal::Malformed`] when the bytes are no
/// text of that set.
pub(super) fn decode<'a>(bytes: &'a [u8], charset: Option<&str>) -> Result<Cow<'a, str>, ContentRefusal> {
    let name = charset.unwrap_or("utf-8").trim().to_ascii_lowercase();
    match name.as_str() {
        // Clients that say ASCII send UTF-8 just as well.
        "" | "utf-8" | "utf8" | "us-ascii" | "ascii" => utf_8(bytes),
        // A character of this set has the number of its byte.
        "iso-8859-1" | "iso8859-1" | "iso_8859-1" | "latin1" | "l1" => {
            Ok(bytes.iter().map(|b| char::from(*b)).collect::<String>().into())
        }
        "utf-16" => match bytes {
            [0xff, 0xfe, rest @ ..] => utf_16(rest, u16::from_le_bytes),
            [0xfe, 0xff, rest @ ..] => utf_16(rest, u16::from_be_bytes),
            _ => utf_16(bytes, u16::from_be_bytes),
        },
        "utf-16le" => utf_16(bytes.strip_prefix(&[0xff, 0xfe]).unwrap_or(bytes), u16::from_le_bytes),
        "utf-16be" => utf_16(bytes.strip_prefix(&[0xfe, 0xff]).unwrap_or(bytes), u16::from_be_bytes),
        _ => Err(ContentRefusal::UnsupportedType),
    }
}

fn utf_8(bytes: &[u8]) -> Result<Cow<'_, str>, ContentRefusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| ContentRefusal::Malformed)?;
    Ok(Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text)))
}

fn utf_16(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> Result<Cow<'_, str>, ContentRefusal> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(ContentRefusal::Malformed);
    }
    let units = pairs.iter().map(|pair| unit(*pair));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.map(Cow::Owned).map_err(|_| ContentRefusal::Malformed)
}
