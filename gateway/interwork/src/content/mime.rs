//! Wrappings: multipart bodies (RFC 2046 §5.1) and CPIM (RFC 3862).

use super::{Body, ContentRefusal};

/// Bytes of one header line of a part; longer ones make the body malformed.
const HEADER_LINE: usize = 4096;
/// Header lines of one part.
const HEADER_LINES: usize = 64;

/// Takes a multipart body apart. What stands before the first and after the last boundary is passed over, and a
/// missing last boundary is forgiven.
///
/// # Errors
///
/// [`ContentRefusal::Malformed`] for a boundary that cannot be one or a part without its empty line,
/// [`ContentRefusal::TooLarge`] for more than `limit` parts.
pub(super) fn parts<'a>(bytes: &'a [u8], boundary: &str, limit: usize) -> Result<Vec<Body<'a>>, ContentRefusal> {
    if boundary.is_empty() || boundary.len() > 70 {
        return Err(ContentRefusal::Malformed);
    }
    let mut parts = Vec::new();
    // where the content of the open part begins
    let mut open: Option<usize> = None;
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let length = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |end| end + 1);
        let line = rest.get(..length).unwrap_or_default();
        if let Some(last) = delimiter(line, boundary) {
            if let Some(start) = open.take() {
                if parts.len() >= limit {
                    return Err(ContentRefusal::TooLarge);
                }
                parts.push(part(without_line_break(bytes.get(start..at).unwrap_or_default()))?);
            }
            if last {
                return Ok(parts);
            }
            open = Some(at + length);
        }
        at += length;
    }
    if let Some(start) = open {
        if parts.len() >= limit {
            return Err(ContentRefusal::TooLarge);
        }
        parts.push(part(bytes.get(start..).unwrap_or_default())?);
    }
    if parts.is_empty() { Err(ContentRefusal::Malformed) } else { Ok(parts) }
}

/// Recognises a line with the boundary; true for the last one.
fn delimiter(line: &[u8], boundary: &str) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary.as_bytes())?;
    match rest.trim_ascii() {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

/// The line break before a boundary belongs to the boundary.
fn without_line_break(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// Reads the headers of a part.
fn part(bytes: &[u8]) -> Result<Body<'_>, ContentRefusal> {
    let (headers, content) = headers(bytes)?;
    let mut body = Body { bytes: content, ..Body::default() };
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("Content-Type") {
            body.content_type = Some(value);
        } else if name.eq_ignore_ascii_case("Content-Encoding") {
            body.encoding = Some(value);
        } else if name.eq_ignore_ascii_case("Content-Language") {
            body.language = Some(value);
        } else if name.eq_ignore_ascii_case("Content-Transfer-Encoding") {
            // SIP carries bytes as they are (RFC 3261 §7.4.1), so anything else is as foreign as a compression.
            let plain = ["7bit", "8bit", "binary"].iter().any(|known| value.eq_ignore_ascii_case(known));
            if !plain {
                body.encoding = Some(value);
            }
        }
    }
    Ok(body)
}

/// What CPIM says around its content.
pub(super) struct Cpim<'a> {
    /// When the message was written.
    pub(super) date_time: Option<&'a str>,
    /// What it wraps.
    pub(super) content: Body<'a>,
}

/// Unwraps CPIM. Its addresses are not looked at: who sends is said by what carries it.
///
/// # Errors
///
/// [`ContentRefusal::Malformed`].
pub(super) fn cpim(bytes: &[u8]) -> Result<Cpim<'_>, ContentRefusal> {
    let (headers, content) = headers(bytes)?;
    let date_time = headers.iter().find(|(name, _)| *name == "DateTime").map(|(_, value)| *value);
    Ok(Cpim { date_time, content: part(content)? })
}

type Headers<'a> = Vec<(&'a str, &'a str)>;

/// Reads header lines up to the empty line, and gives what follows it. Folded lines are passed over, since no
/// header that is read here needs them.
fn headers(bytes: &[u8]) -> Result<(Headers<'_>, &[u8]), ContentRefusal> {
    let mut headers = Vec::new();
    let mut rest = bytes;
    loop {
        let end = rest.iter().take(HEADER_LINE).position(|b| *b == b'\n').ok_or(ContentRefusal::Malformed)?;
        let (line, tail) = rest.split_at_checked(end + 1).ok_or(ContentRefusal::Malformed)?;
        rest = tail;
        let line = std::str::from_utf8(line).map_err(|_| ContentRefusal::Malformed)?;
        if line.trim_ascii().is_empty() {
            return Ok((headers, rest));
        }
        if headers.len() >= HEADER_LINES {
            return Err(ContentRefusal::TooLarge);
        }
        if let Some((name, value)) = line.split_once(':').filter(|_| !line.starts_with([' ', '\t'])) {
            headers.push((name.trim_ascii(), value.trim_ascii()));
        }
    }
}
