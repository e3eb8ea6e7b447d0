//! From bytes to a [`Message`].

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use memchr::{memchr, memchr_iter};

use super::{AddrSpans, Entries, Entry, Message, ParseError, ParseErrorKind as Kind, Partial, Span, Start, ViaSpans};
use crate::header::{CSeq, HeaderName, NameAddr, Via};
use crate::limits::Limits;
use crate::status::StatusCode;
use crate::uri::Uri;
use crate::wire;

impl Message {
    /// Reads one whole message: a datagram, or what the [`crate::Framer`] cut out of a stream.
    ///
    /// Line breaks in front are skipped. Without Content-Length the body is all that follows; with one, bytes
    /// after the body are dropped (RFC 3261 §18.3).
    ///
    /// # Errors
    ///
    /// [`ParseError`] says what is wrong, and carries a [`Partial`] when the request can be answered.
    pub fn parse(bytes: Bytes, limits: &Limits) -> Result<Self, ParseError> {
        let mut bytes = bytes;
        let breaks = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        if breaks > 0 {
            bytes = bytes.slice(breaks..);
        }
        match Lines::split(&bytes, limits) {
            Ok(lines) => Self::from_lines(bytes, lines, limits),
            Err(kind) => Err(ParseError::new(kind, &bytes, limits)),
        }
    }

    /// Reads a message whose lines were found already.
    pub(crate) fn from_lines(bytes: Bytes, mut lines: Lines, limits: &Limits) -> Result<Self, ParseError> {
        let bytes = if lines.folded { unfold(&bytes, &mut lines) } else { bytes };
        let head = bytes.slice(..lines.end.min(bytes.len()));
        let parsed = ByteString::try_from(head).map_err(|_| Kind::Utf8).and_then(|head| {
            let (start, heads) = read(&bytes, &head, &lines, limits)?;
            Ok((head, start, heads))
        });
        match parsed {
            Ok((head, start, heads)) => Ok(Self {
                head,
                start,
                entries: Arc::from(&lines.entries[..]),
                top_via: heads.via,
                from: heads.from,
                to: heads.to,
                call_id: heads.call_id,
                cseq: heads.cseq,
                body: heads.body,
                source: None,
                bytes,
            }),
            Err(kind) => Err(ParseError::new(kind, &bytes, limits)),
        }
    }
}

impl ParseError {
    /// Reads from `bytes` what an answer needs.
    pub(crate) fn new(kind: Kind, bytes: &[u8], limits: &Limits) -> Self {
        Self { kind, partial: Partial::salvage(bytes, limits).map(Box::new) }
    }
}

/// The lines of a header block.
#[derive(Debug)]
pub(crate) struct Lines {
    start: Span,
    entries: Entries,
    /// First byte of the body.
    pub(crate) end: usize,
    folded: bool,
}

impl Lines {
    /// Finds the lines. Values are trimmed, and folded ones still hold their line breaks.
    pub(crate) fn split(bytes: &[u8], limits: &Limits) -> Result<Self, Kind> {
        let mut lines = Self { start: Span::default(), entries: Entries::new(), end: 0, folded: false };
        let mut at = 0;
        let mut breaks = 0;
        loop {
            let end = line_end(bytes, at, limits)?;
            let line = bytes.get(at..end).unwrap_or_default();
            let next = end + 2;
            breaks += 1;
            if breaks == 1 {
                if line.is_empty() {
                    return Err(Kind::Empty);
                }
                lines.start = Span::new(at, end);
            } else if line.is_empty() {
                lines.end = next;
                check_controls(bytes.get(..next).unwrap_or_default(), breaks)?;
                return Ok(lines);
            } else if matches!(line.first(), Some(b' ' | b'\t')) {
                let last = lines.entries.last_mut().ok_or(Kind::HeaderLine)?;
                last.value.end = Span::new(at, end).end;
                lines.folded = true;
            } else {
                if lines.entries.len() >= limits.header_lines {
                    return Err(Kind::TooManyHeaders);
                }
                lines.entries.push(entry(line, at).ok_or(Kind::HeaderLine)?);
            }
            at = next;
        }
    }
}

/// What Content-Length says before the message is read.
pub(crate) enum Length {
    Missing,
    Bad,
    Is(usize),
}

impl Lines {
    /// Looks for Content-Length; two of them are bad even when they agree.
    pub(crate) fn content_length(&self, bytes: &[u8]) -> Length {
        let mut found = Length::Missing;
        for entry in self.entries.iter().filter(|e| e.header == HeaderName::ContentLength) {
            let value = bytes.get(entry.value.range()).and_then(|v| std::str::from_utf8(v).ok()).unwrap_or_default();
            found = match (found, wire::number(value.trim_ascii())) {
                (Length::Missing, Some(length)) => Length::Is(length),
                _ => return Length::Bad,
            };
        }
        found
    }
}

/// Where the line that starts at `at` ends; its CRLF follows.
fn line_end(bytes: &[u8], at: usize, limits: &Limits) -> Result<usize, Kind> {
    let window = bytes.get(..limits.header_block.min(bytes.len())).unwrap_or_default();
    let Some(offset) = memchr(b'\n', window.get(at..).unwrap_or_default()) else {
        let cut = window.len() < bytes.len();
        return Err(if cut { Kind::HeaderBlockTooLarge } else { Kind::Truncated });
    };
    match (at + offset).checked_sub(1) {
        Some(end) if end >= at && bytes.get(end) == Some(&b'\r') => Ok(end),
        _ => Err(Kind::ControlCharacter),
    }
}

/// Refuses a CR that is no part of the `breaks` line breaks of the header block, and a NUL that no backslash escapes; the
/// grammar has the escaped one as quoted-pair.
fn check_controls(block: &[u8], breaks: usize) -> Result<(), Kind> {
    let escaped = |at: usize| at.checked_sub(1).and_then(|before| block.get(before)) == Some(&b'\\');
    if memchr_iter(b'\r', block).count() == breaks && memchr_iter(0, block).all(escaped) {
        return Ok(());
    }
    Err(Kind::ControlCharacter)
}

/// Takes a header line apart. `at` is where it starts in the message.
fn entry(line: &[u8], at: usize) -> Option<Entry> {
    let name_end = line.iter().position(|&b| !wire::is(b, wire::TOKEN))?;
    let space = line.get(name_end..)?.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    if name_end == 0 || line.get(name_end + space) != Some(&b':') {
        return None;
    }
    let value = trim(line, name_end + space + 1, line.len());
    Some(Entry {
        header: HeaderName::of(line.get(..name_end)?),
        name: Span::new(at, at + name_end),
        value: Span::new(at + value.start, at + value.end),
    })
}

/// Moves both ends of a range over spaces and tabs.
fn trim(bytes: &[u8], mut start: usize, mut end: usize) -> Range<usize> {
    let blank = |at: usize| matches!(bytes.get(at), Some(b' ' | b'\t'));
    while start < end && blank(start) {
        start += 1;
    }
    while start < end && blank(end - 1) {
        end -= 1;
    }
    start..end
}

/// Copies the message with spaces in place of the line breaks inside of values; positions stay.
fn unfold(bytes: &Bytes, lines: &mut Lines) -> Bytes {
    let mut copy = bytes.to_vec();
    for entry in &mut lines.entries {
        for byte in copy.get_mut(entry.value.range()).unwrap_or_default() {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        let Range { start, end } = entry.value.range();
        let value = trim(&copy, start, end);
        entry.value = Span::new(value.start, value.end);
    }
    Bytes::from(copy)
}

struct Heads {
    via: ViaSpans,
    from: AddrSpans,
    to: AddrSpans,
    call_id: Span,
    cseq: (u32, Span),
    body: Span,
}

/// Reads the start line and the headers that every message has.
fn read(bytes: &[u8], block: &str, lines: &Lines, limits: &Limits) -> Result<(Start, Heads), Kind> {
    let text = |span: Span| block.get(span.range()).unwrap_or_default();

    let start = start_line(bytes, text(lines.start), limits)?;
    let mut seen = 0u128;
    let mut heads = Heads {
        via: ViaSpans::default(),
        from: AddrSpans::default(),
        to: AddrSpans::default(),
        call_id: Span::default(),
        cseq: (0, Span::default()),
        body: Span::default(),
    };
    let mut length = None;
    for entry in &lines.entries {
        let header = entry.header;
        if header.is_single() {
            if seen & header.bit() != 0 {
                return Err(Kind::Duplicate(header));
            }
            seen |= header.bit();
        } else if header != HeaderName::Via {
            continue;
        }
        let value = text(entry.value);
        let bad = Kind::Bad(header);
        // Answers repeat every Via, and no NUL is ever written: nobody could be answered.
        if header == HeaderName::Via && value.contains('\0') {
            return Err(Kind::ControlCharacter);
        }
        match header {
            HeaderName::Via if seen & header.bit() == 0 => {
                if let Some(first) = wire::CommaList::new(value).next() {
                    heads.via = via(bytes, first).ok_or(bad)?;
                    seen |= header.bit();
                }
            }
            HeaderName::From => heads.from = address(bytes, value).ok_or(bad)?,
            HeaderName::To => heads.to = address(bytes, value).ok_or(bad)?,
            HeaderName::CallId => heads.call_id = call_id(bytes, value).ok_or(bad)?,
            HeaderName::CSeq => {
                let cseq = CSeq::parse(value).map_err(|_| bad)?;
                // known methods are static text, so take the spelling from the value
                let end = entry.value.range().end;
                heads.cseq = (cseq.number, Span::new(end - cseq.method.as_str().len(), end));
            }
            HeaderName::ContentLength => length = Some(wire::number::<usize>(value).ok_or(bad)?),
            _ => {}
        }
    }
    for header in [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq] {
        if seen & header.bit() == 0 {
            return Err(Kind::Missing(header));
        }
    }
    if let Start::Request { method, .. } = start
        && text(method) != text(heads.cseq.1)
    {
        return Err(Kind::MethodMismatch);
    }
    let rest = bytes.len().saturating_sub(lines.end);
    let length = length.unwrap_or(rest);
    if length > limits.body {
        return Err(Kind::BodyTooLarge);
    }
    if length > rest {
        return Err(Kind::BodyTruncated);
    }
    heads.body = Span::new(lines.end, lines.end + length);
    Ok((start, heads))
}

fn start_line(bytes: &[u8], line: &str, limits: &Limits) -> Result<Start, Kind> {
    if line.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("SIP/")) {
        let (version, rest) = line.split_once(' ').ok_or(Kind::StartLine)?;
        check_version(version)?;
        // the space before an empty reason is there by the grammar, and is often left out
        let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let status = Some(code).filter(|c| c.len() == 3).and_then(wire::number).and_then(StatusCode::new);
        return Ok(Start::Response { status: status.ok_or(Kind::StartLine)?, reason: Span::of(bytes, reason) });
    }
    let (method, rest) = line.split_once(' ').ok_or(Kind::StartLine)?;
    let (uri, version) = rest.rsplit_once(' ').ok_or(Kind::StartLine)?;
    if !wire::is_token(method) {
        return Err(Kind::StartLine);
    }
    check_version(version)?;
    if uri.len() > limits.uri {
        return Err(Kind::UriTooLong);
    }
    Uri::parse(uri).map_err(|_| Kind::RequestUri)?;
    Ok(Start::Request { method: Span::of(bytes, method), uri: Span::of(bytes, uri) })
}

fn check_version(version: &str) -> Result<(), Kind> {
    if version.eq_ignore_ascii_case("SIP/2.0") {
        return Ok(());
    }
    let (name, number) = version.split_once('/').ok_or(Kind::StartLine)?;
    let (major, minor) = number.split_once('.').ok_or(Kind::StartLine)?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if name.eq_ignore_ascii_case("SIP") && digits(major) && digits(minor) {
        return Err(Kind::Version);
    }
    Err(Kind::StartLine)
}

fn via(bytes: &[u8], value: &str) -> Option<ViaSpans> {
    let via = Via::parse(value).ok()?;
    Some(ViaSpans {
        value: Span::of(bytes, value),
        transport: Span::of(bytes, via.transport),
        sent_by: Span::of(bytes, via.sent_by),
        host: Span::of(bytes, via.host_text),
        port: via.port,
        params: Span::of(bytes, via.params.as_str()),
    })
}

fn address(bytes: &[u8], value: &str) -> Option<AddrSpans> {
    let address = NameAddr::parse(value).ok()?;
    // A display name with an escaped NUL is left out of answers; the rest has to be repeated in them.
    let repeatable = ![address.uri, address.params.as_str()].iter().any(|part| part.contains('\0'));
    if !repeatable || address.tag.is_some_and(|tag| !wire::is_token(tag)) {
        return None;
    }
    let place = |text: &str| if text.is_empty() { Span::default() } else { Span::of(bytes, text) };
    Some(AddrSpans {
        value: place(value),
        display: place(address.display),
        uri: place(address.uri),
        params: place(address.params.as_str()),
        tag: address.tag.map(place).unwrap_or_default(),
    })
}

/// Accepts any text without white space; the grammar is a little narrower, but a Call-ID is only compared.
fn call_id(bytes: &[u8], value: &str) -> Option<Span> {
    wire::all(value, wire::VISIBLE).then(|| Span::of(bytes, value))
}
