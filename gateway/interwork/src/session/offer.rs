//! Session descriptions in requests and answers: where they are, whether they will do, what we say to them.

use std::borrow::Cow;

use isthmus_sip::sdp::{AnswerError, Description, Origin, Refusal, Session as Sdp};
use isthmus_sip::{HeaderName, MediaType, Message, ResponseWriter, StatusCode};

use super::SessionConfig;
use crate::chat_state::IS_COMPOSING_TYPE;

/// The media type of session descriptions.
pub(super) const SDP_TYPE: &str = "application/sdp";
/// The media type of invitations to conferences.
const CONFERENCE_TYPE: &str = "application/ms-conf-invite+xml";
/// What may be sent to us.
const ACCEPT_TYPES: [&str; 4] = ["text/plain", "text/html", "multipart/alternative", IS_COMPOSING_TYPE];
/// Parts of a multipart body that are looked at.
const MAX_PARTS: usize = 8;

/// Why an INVITE is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefuseInvite {
    /// 415: the body is no session description.
    ContentType,
    /// 400: it is a bad one.
    Malformed,
    /// 488: it offers nothing for us.
    Offer(Refusal),
    /// 488: it is an invitation to a group.
    Group,
    /// Another status without companions.
    Status(StatusCode),
}

impl From<Refusal> for RefuseInvite {
    fn from(refusal: Refusal) -> Self {
        Self::Offer(refusal)
    }
}

impl RefuseInvite {
    pub(super) fn answer(self, request: &Message, tag: &str, agent: &str) -> ResponseWriter {
        let status = match self {
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Offer(refusal) => refusal.status(),
            Self::Group => StatusCode::NOT_ACCEPTABLE_HERE,
            Self::Status(status) => status,
        };
        let mut writer = ResponseWriter::for_request(request, status, None, Some(tag));
        match self {
            Self::ContentType => {
                writer.header(HeaderName::Accept, SDP_TYPE);
            }
            Self::Offer(refusal) => {
                writer.warning(refusal.warning(), agent, &refusal.to_string());
            }
            Self::Group => {
                writer.warning(399, agent, "group chat not supported");
            }
            Self::Status(StatusCode::SERVICE_UNAVAILABLE) => {
                writer.display(HeaderName::RetryAfter, 30);
            }
            Self::Malformed | Self::Status(_) => {}
        }
        writer
    }
}

/// Tells whether an INVITE is for more than two (SIPE's observations of Microsoft clients).
pub(super) fn is_group(request: &Message) -> bool {
    let endpoints = request.headers_named("EndPoints").map(addresses).sum::<usize>();
    let triggered = request.headers_named("TriggeredInvite").any(|value| value.trim().eq_ignore_ascii_case("TRUE"));
    let conference = request.content_type().ok().flatten().is_some_and(|kind| kind.is(CONFERENCE_TYPE));
    endpoints > 2 || triggered || conference
}

/// Counts the addresses of a list; a display name may hold commas.
fn addresses(line: &str) -> usize {
    let mut quoted = false;
    1 + line
        .chars()
        .filter(|c| {
            quoted ^= *c == '"';
            *c == ',' && !quoted
        })
        .count()
}

/// Finds the session description of a message; `None` when it has no body.
pub(super) fn description_of(message: &Message) -> Result<Option<Vec<u8>>, RefuseInvite> {
    let body = message.body();
    if body.is_empty() {
        return Ok(None);
    }
    let kind = message.content_type().ok().flatten().ok_or(RefuseInvite::ContentType)?;
    if kind.is(SDP_TYPE) {
        return Ok(Some(body.to_vec()));
    }
    if !kind.is("multipart/alternative") && !kind.is("multipart/mixed") {
        return Err(RefuseInvite::ContentType);
    }
    let boundary = kind.boundary().filter(|boundary| !boundary.is_empty()).ok_or(RefuseInvite::Malformed)?;
    let text = std::str::from_utf8(&body).map_err(|_| RefuseInvite::Malformed)?;
    let delimiter = format!("\n--{boundary}");
    // The first delimiter may stand at the very start.
    let text: Cow<'_, str> = if text.starts_with("--") { format!("\n{text}").into() } else { text.into() };
    let mut parts = text.split(delimiter.as_str()).skip(1).take(MAX_PARTS);
    let found = parts.find_map(|part| {
        let (headers, content) = part.split_once("\r\n\r\n").or_else(|| part.split_once("\n\n"))?;
        let is_sdp = headers.lines().any(|line| {
            line.split_once(':').is_some_and(|(name, value)| {
                let is_type = name.trim().eq_ignore_ascii_case("content-type") || name.trim().eq_ignore_ascii_case("c");
                is_type && MediaType::parse(value.trim()).is_ok_and(|kind| kind.is(SDP_TYPE))
            })
        });
        is_sdp.then(|| content.as_bytes().to_vec())
    });
    found.map(Some).ok_or(RefuseInvite::ContentType)
}

/// What the peer says in a description that will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// It takes notices of typing.
    pub(super) takes_typing: bool,
}

/// Reads an offer or answer.
pub(super) fn read(sdp: &[u8], config: &SessionConfig) -> Result<Terms, RefuseInvite> {
    let session = parse(sdp, config)?;
    let (_, media) = session.message_media()?;
    Ok(Terms { takes_typing: media.accepts(IS_COMPOSING_TYPE) })
}

/// Tells whether a description refuses a stream of messages, which it names, by port 0.
pub(super) fn removes_messages(sdp: &[u8], config: &SessionConfig) -> bool {
    let removed = |media: &isthmus_sip::sdp::Media<'_>| {
        media.port == 0 && isthmus_sip::sdp::Media { port: 1, ..media.clone() }.is_message()
    };
    parse(sdp, config).is_ok_and(|session| session.media.iter().any(removed))
}

fn parse<'a>(sdp: &'a [u8], config: &SessionConfig) -> Result<Sdp<'a>, RefuseInvite> {
    Sdp::parse(sdp, &config.sdp).map_err(|_| RefuseInvite::Malformed)
}

/// Writes our offer; `None` when it cannot be written.
pub(super) fn offer(sdp_id: u64, config: &SessionConfig) -> Option<String> {
    ours(sdp_id, config).offer().ok()
}

/// Writes our answer to an offer; `uri` is the local user.
pub(super) fn answer(sdp: &[u8], sdp_id: u64, uri: &str, config: &SessionConfig) -> Result<String, RefuseInvite> {
    let session = parse(sdp, config)?;
    ours(sdp_id, config).answer(&session, uri).map_err(|error| match error {
        AnswerError::Refused(refusal) => refusal.into(),
        AnswerError::Write(_) => RefuseInvite::Status(StatusCode::SERVER_INTERNAL_ERROR),
    })
}

/// Writes our answer to an offer that has removed the messages: every stream is refused.
pub(super) fn farewell(sdp: &[u8], sdp_id: u64, config: &SessionConfig) -> Result<String, RefuseInvite> {
    use std::fmt::Write as _;
    let session = parse(sdp, config)?;
    let whole = offer(sdp_id, config).ok_or(RefuseInvite::Status(StatusCode::SERVER_INTERNAL_ERROR))?;
    let mut text = whole.split("m=").next().unwrap_or_default().to_owned();
    for media in &session.media {
        // writing to a String does not fail
        let _ = write!(text, "m={} 0 {} {}\r\n", media.name, media.proto, media.formats);
    }
    Ok(text)
}

/// The version never changes: neither do we.
fn ours(sdp_id: u64, config: &SessionConfig) -> Description<'static> {
    let origin = Origin { session_id: sdp_id, version: 1, address: config.sdp_address, port: config.sdp_port };
    Description { origin, accept_types: &ACCEPT_TYPES }
}
