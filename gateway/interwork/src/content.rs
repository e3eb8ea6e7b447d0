//! Bodies of SIP MESSAGE requests: what they say, in plain text, and which ones are refused.
//!
//! Text comes in several types, character sets and wrappings; one [`Received`] comes out. Nothing of a peer's
//! markup reaches an XMPP client. The other direction is text/plain in UTF-8 and nothing else
//! (interworking specification §5.8).

mod charset;
mod html;
mod mime;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use isthmus_model::{EpochMillis, timestamp};
use isthmus_sip::pidf::XmlLimits;
use isthmus_sip::pidf::xml::{is_xml_char, language};
use isthmus_sip::{HeaderName, MediaType, Message, StatusCode};

use crate::chat_state::{self, Typing};

/// The Accept header that goes with a refused type, and the types that are read.
pub const ACCEPT: &str = "text/plain, text/html, multipart/alternative, message/cpim, application/im-iscomposing+xml";

/// The type of everything that is sent.
pub const OUTGOING_TYPE: &str = "text/plain;charset=utf-8";

/// Bounds of received bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentLimits {
    /// Bytes of a body as it comes, and of its text as it goes on. Default 64 KiB, below what local XMPP servers
    /// take in one stanza.
    pub bytes: usize,
    /// Wrappings inside one another (multipart, CPIM). Default 4.
    pub depth: usize,
    /// Parts of one multipart body. Default 16.
    pub parts: usize,
}

impl Default for ContentLimits {
    fn default() -> Self {
        Self { bytes: 64 * 1024, depth: 4, parts: 16 }
    }
}

/// A body with the headers that say how to read it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Body<'a> {
    /// Content-Type; without one the body counts as plain text.
    pub content_type: Option<&'a str>,
    /// Content-Encoding.
    pub encoding: Option<&'a str>,
    /// Content-Language.
    pub language: Option<&'a str>,
    /// The body.
    pub bytes: &'a [u8],
}

/// What a body says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text for people.
    Text(Text),
    /// The sender types, or stopped to.
    Typing(Typing),
    /// Nothing that anybody needs to see: an empty text, a notice of delivery. It is answered 200.
    Nothing,
}

/// A text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The text, not blank, with line feeds as line breaks and without characters that XML cannot carry.
    pub text: String,
    /// Its language.
    pub lang: Option<String>,
    /// When it was written, if its wrapping says so.
    pub written: Option<EpochMillis>,
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentRefusal {
    /// A type, or a character set of a text, that is not read.
    #[error("content type is not supported")]
    UnsupportedType,
    /// A Content-Encoding.
    #[error("content encoding is not supported")]
    UnsupportedEncoding,
    /// The bytes are not what the headers promise.
    #[error("body does not match its type")]
    Malformed,
    /// More than [`ContentLimits::bytes`], or more wrappings or parts than allowed.
    #[error("body is too large")]
    TooLarge,
}

impl ContentRefusal {
    /// The status of the answer; 415 has companions, see [`Self::companion`].
    pub fn status(self) -> StatusCode {
        match self {
            Self::UnsupportedType | Self::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::MESSAGE_TOO_LARGE,
        }
    }

    /// The header that tells the sender what would be taken.
    pub fn companion(self) -> Option<(HeaderName, &'static str)> {
        match self {
            Self::UnsupportedType => Some((HeaderName::Accept, ACCEPT)),
            Self::UnsupportedEncoding => Some((HeaderName::AcceptEncoding, "identity")),
            Self::Malformed | Self::TooLarge => None,
        }
    }
}

/// Reads the body of a request.
///
/// # Errors
///
/// [`ContentRefusal`].
pub fn read_message(request: &Message, limits: &ContentLimits) -> Result<Received, ContentRefusal> {
    let bytes = request.body();
    let body = Body {
        content_type: request.header(HeaderName::ContentType),
        encoding: request.header(HeaderName::ContentEncoding),
        language: request.header(HeaderName::ContentLanguage),
        bytes: &bytes,
    };
    read(&body, limits)
}

/// Reads a body.
///
/// # Errors
///
/// [`ContentRefusal`].
pub fn read(body: &Body<'_>, limits: &ContentLimits) -> Result<Received, ContentRefusal> {
    if body.bytes.len() > limits.bytes {
        return Err(ContentRefusal::TooLarge);
    }
    read_at(body, limits, 0, None)
}

/// Reads a body inside of `depth` wrappings, the innermost of which says that it was written at `written`.
fn read_at(
    body: &Body<'_>,
    limits: &ContentLimits,
    depth: usize,
    written: Option<EpochMillis>,
) -> Result<Received, ContentRefusal> {
    if body.encoding.is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
        return Err(ContentRefusal::UnsupportedEncoding);
    }
    if depth > limits.depth {
        return Err(ContentRefusal::TooLarge);
    }
    let kind = MediaType::parse(body.content_type.unwrap_or("text/plain")).map_err(|_| ContentRefusal::Malformed)?;
    if kind.is("text/plain") {
        let text = charset::decode(body.bytes, kind.charset().as_deref())?;
        return text_of(&text, body.language, written, limits);
    }
    if kind.is("text/html") {
        let text = charset::decode(body.bytes, kind.charset().as_deref())?;
        return text_of(&html::to_plain(&text), body.language, written, limits);
    }
    if kind.is("multipart/alternative") {
        let boundary = kind.boundary().ok_or(ContentRefusal::Malformed)?;
        let parts = mime::parts(body.bytes, &boundary, limits.parts)?;
        return best_part(&parts, body, limits, depth, written);
    }
    if kind.is("message/cpim") {
        let wrapped = mime::cpim(body.bytes)?;
        let inner = Body { language: wrapped.content.language.or(body.language), ..wrapped.content };
        return read_at(&inner, limits, depth + 1, wrapped.date_time.and_then(timestamp::parse));
    }
    if kind.is(chat_state::IS_COMPOSING_TYPE) {
        let limits = XmlLimits { bytes: limits.bytes, ..XmlLimits::default() };
        return chat_state::parse_is_composing(body.bytes, &limits)
            .map(Received::Typing)
            .map_err(|_| ContentRefusal::Malformed);
    }
    // Notices of delivery are heard and not passed on.
    if kind.is("message/imdn+xml") || kind.is("application/ms-imdn+xml") {
        return Ok(Received::Nothing);
    }
    Err(ContentRefusal::UnsupportedType)
}

/// Reads the best of several renderings of one text: plain, then HTML, then whatever can be read.
fn best_part(
    parts: &[Body<'_>],
    whole: &Body<'_>,
    limits: &ContentLimits,
    depth: usize,
    written: Option<EpochMillis>,
) -> Result<Received, ContentRefusal> {
    let rank = |part: &Body<'_>| match MediaType::parse(part.content_type.unwrap_or("text/plain")) {
        Ok(kind) if kind.is("text/plain") => 0,
        Ok(kind) if kind.is("text/html") => 1,
        _ => 2,
    };
    let mut order: Vec<&Body<'_>> = parts.iter().collect();
    order.sort_by_key(|part| rank(part));
    let mut refusal = ContentRefusal::UnsupportedType;
    for part in order {
        let part = Body { language: part.language.or(whole.language), ..*part };
        match read_at(&part, limits, depth + 1, written) {
            Ok(received) => return Ok(received),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

fn text_of(
    text: &str,
    lang: Option<&str>,
    written: Option<EpochMillis>,
    limits: &ContentLimits,
) -> Result<Received, ContentRefusal> {
    let text = clean(text);
    if text.len() > limits.bytes {
        return Err(ContentRefusal::TooLarge);
    }
    if text.trim().is_empty() {
        return Ok(Received::Nothing);
    }
    // Content-Language may list several; a stanza has one.
    let lang = lang.and_then(|list| list.split(',').next()).and_then(language);
    Ok(Received::Text(Text { text: text.into_owned(), lang, written }))
}

/// Makes every line break a line feed and leaves out what XML cannot carry.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| c != '\r' && is_xml_char(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                out.push('\n');
            }
            _ if is_xml_char(c) => out.push(c),
            _ => {}
        }
    }
    Cow::Owned(out)
}
