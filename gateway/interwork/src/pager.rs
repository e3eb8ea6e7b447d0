//! Messages: XMPP message stanzas to the text of SIP MESSAGE requests and back, and whole requests of pager mode
//! (RFC 3428, RFC 7572; interworking specification §5.5 and §5.8).
//!
//! What a stanza or a body says is decided here for sessions too; only the envelope differs.

mod date;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use isthmus_model::{Address, BareAddress, EpochMillis, LangText};
use isthmus_sip::pidf::xml::language;
use isthmus_sip::{HeaderName, Message, Method, RequestWriter, ResponseWriter, StatusCode, WriteError};
use isthmus_xmpp::payload::{ChatState, Delay, Stamp};
use isthmus_xmpp::{ErrorCondition, ErrorType, MessageType, StanzaError};

use crate::Dialect;
use crate::address::{Spelling, aor_uri, identity_uri};
use crate::chat_state::Typing;
use crate::content::{self, ContentLimits, ContentRefusal, OUTGOING_TYPE, Received};
use crate::error_map::one_line;
use crate::thread::thread_for;

/// The largest text that leaves in a session, in bytes.
pub const SESSION_TEXT_MAX: usize = 64 * 1024;

/// The longest subject that is sent, in bytes: a peer may close the connection, which all users share, over a header
/// block that is too large.
const SUBJECT_MAX: usize = 1024;

/// A wrapped text older than this is marked as delayed.
const NOTABLE_DELAY: Duration = Duration::from_mins(1);

/// Room for our Via beside the name in it: protocol, branch, rport.
const VIA_BYTES: usize = 96;

/// What a message stanza wants sent to a SIP user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromXmpp<'a> {
    /// A text.
    Text(OutgoingText<'a>),
    /// A chat state without a text.
    ChatState(ChatState),
    /// Nothing: an error, a headline, a stanza without text.
    Nothing,
}

/// A text on its way to a SIP user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutgoingText<'a> {
    /// The text.
    pub text: &'a str,
    /// Its language, as it was written.
    pub lang: Option<&'a str>,
    /// The subject.
    pub subject: Option<&'a str>,
    /// The thread.
    pub thread: Option<&'a str>,
}

/// Why a message of a local user does not go to a SIP user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageRefusal {
    /// Group chat, or an invitation to it, cannot reach SIP users.
    #[error("group chat with SIP users is not possible")]
    GroupChat,
    /// The message is encrypted; its body is only a note to clients that cannot read it.
    #[error("SIP users cannot read encrypted messages")]
    Encrypted,
    /// The request would exceed the bound.
    #[error("message is larger than {limit} bytes")]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
    /// Our own part of the request cannot be written.
    #[error("request cannot be written")]
    Unwritable(#[source] WriteError),
}

impl MessageRefusal {
    /// The error for the sender.
    pub fn stanza_error(&self) -> StanzaError {
        let (condition, kind) = match self {
            Self::GroupChat => (ErrorCondition::FeatureNotImplemented, ErrorType::Cancel),
            Self::Encrypted => (ErrorCondition::NotAcceptable, ErrorType::Modify),
            Self::TooLarge { .. } => (ErrorCondition::PolicyViolation, ErrorType::Modify),
            Self::Unwritable(_) => (ErrorCondition::InternalServerError, ErrorType::Cancel),
        };
        StanzaError::new(condition).with_type(kind).with_text(self.to_string())
    }
}

/// Reads what a message stanza wants sent to a SIP user.
///
/// # Errors
///
/// [`MessageRefusal::GroupChat`] or [`MessageRefusal::Encrypted`].
pub fn from_xmpp(stanza: &isthmus_xmpp::Message) -> Result<FromXmpp<'_>, MessageRefusal> {
    if matches!(stanza.kind, MessageType::Error | MessageType::Headline) {
        return Ok(FromXmpp::Nothing);
    }
    if stanza.group_chat().is_some() {
        return Err(MessageRefusal::GroupChat);
    }
    if stanza.encryption().is_some() {
        return Err(MessageRefusal::Encrypted);
    }
    let body = stanza.body().filter(|body| !body.text.is_empty());
    Ok(match (body, stanza.chat_state) {
        (Some(body), _) => FromXmpp::Text(OutgoingText {
            text: &body.text,
            lang: body.lang.as_deref(),
            subject: stanza.subject().map(|subject| subject.text.as_str()),
            thread: stanza.thread.as_deref(),
        }),
        (None, Some(state)) => FromXmpp::ChatState(state),
        (None, None) => FromXmpp::Nothing,
    })
}

impl OutgoingText<'_> {
    /// Checks the text against the bound of sessions.
    ///
    /// # Errors
    ///
    /// [`MessageRefusal::TooLarge`].
    pub fn check_session_size(&self) -> Result<(), MessageRefusal> {
        let limit = SESSION_TEXT_MAX;
        if self.text.len() > limit { Err(MessageRefusal::TooLarge { limit }) } else { Ok(()) }
    }

    /// Writes the headers that belong to the text. What cannot stand in a header is left out.
    pub fn write_headers(&self, writer: &mut RequestWriter) {
        let mut subject = self.subject.map(one_line).unwrap_or_default();
        subject.truncate(subject.floor_char_boundary(SUBJECT_MAX));
        if !subject.trim().is_empty() {
            writer.header(HeaderName::Subject, subject.trim());
        }
        if let Some(lang) = self.lang.and_then(language) {
            writer.header(HeaderName::ContentLanguage, &lang);
        }
        writer.header(HeaderName::ContentType, OUTGOING_TYPE);
    }
}

/// The envelope of a MESSAGE outside of dialogs.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The dialect of the peer.
    pub dialect: Dialect,
    /// The local sender.
    pub from: &'a Address,
    /// The remote recipient.
    pub to: &'a BareAddress,
    /// How the recipient's name is spelled, if that is remembered.
    pub spelling: Option<&'a Spelling>,
    /// The Call-ID, from [`crate::thread::call_id_for`].
    pub call_id: &'a str,
    /// A fresh tag.
    pub from_tag: &'a str,
    /// The number; it increases over the requests of one Call-ID.
    pub cseq: u32,
    /// Bytes of our name in Via, which the endpoint adds and which counts towards the size.
    pub sent_by_bytes: usize,
    /// The largest request (`pagerMaxBytes`): 1300 on UDP, where larger ones would be fragmented.
    pub max_bytes: usize,
}

/// Writes a MESSAGE outside of dialogs, without Via.
///
/// # Errors
///
/// [`MessageRefusal::TooLarge`] when the whole request is, [`MessageRefusal::Unwritable`] for an envelope that cannot
/// be written; the text always can.
pub fn request(text: &OutgoingText<'_>, envelope: &Envelope<'_>) -> Result<Bytes, MessageRefusal> {
    let to = aor_uri(envelope.to, envelope.spelling);
    let from = identity_uri(envelope.dialect, envelope.from);
    let mut writer = RequestWriter::new(Method::Message, &to);
    writer
        .max_forwards(70)
        .from(&isthmus_sip::Address::new(&from).with_tag(envelope.from_tag))
        .to(&isthmus_sip::Address::new(&to))
        .call_id(envelope.call_id)
        .cseq(envelope.cseq, Method::Message);
    text.write_headers(&mut writer);
    let request = writer.finish(text.text.as_bytes()).map_err(MessageRefusal::Unwritable)?;
    let limit = envelope.max_bytes;
    if request.len() + VIA_BYTES + envelope.sent_by_bytes > limit {
        return Err(MessageRefusal::TooLarge { limit });
    }
    Ok(request)
}

/// How a MESSAGE reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Outside of dialogs: the stanza has no type.
    Pager,
    /// In a session: the stanza is of type chat.
    Session,
}

/// What a received MESSAGE is about.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// How it came.
    pub mode: Mode,
    /// The sender.
    pub from: &'a Address,
    /// The recipient.
    pub to: &'a Address,
    /// The id of the stanza.
    pub id: &'a str,
    /// The thread stored for the Call-ID, if there is one.
    pub thread: Option<&'a str>,
    /// Whether the recipient's client has used chat states in this conversation.
    pub chat_states: bool,
    /// The time.
    pub now: EpochMillis,
}

/// What a received MESSAGE becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "stanzas are the common case")]
pub enum ToXmpp {
    /// A stanza for the recipient.
    Stanza(isthmus_xmpp::Message),
    /// A notice of typing.
    Typing(Typing),
    /// Nothing to be shown; the request is answered 200.
    Nothing,
}

/// Maps a received MESSAGE.
///
/// # Errors
///
/// [`ContentRefusal`], which is also a [`crate::error_map::SipAnswer`].
pub fn to_xmpp(request: &Message, arrival: &Arrival<'_>, limits: &ContentLimits) -> Result<ToXmpp, ContentRefusal> {
    let text = match content::read_message(request, limits)? {
        Received::Text(text) => text,
        Received::Typing(typing) => return Ok(ToXmpp::Typing(typing)),
        Received::Nothing => return Ok(ToXmpp::Nothing),
    };
    if has_expired(request, arrival.now) {
        return Ok(ToXmpp::Nothing);
    }
    let kind = match arrival.mode {
        Mode::Pager => MessageType::Normal,
        Mode::Session => MessageType::Chat,
    };
    let lang: Option<compact_str::CompactString> = text.lang.map(Into::into);
    let mut stanza = isthmus_xmpp::Message::new(kind, &arrival.from.to_jid(), &arrival.to.to_jid()).with_id(arrival.id);
    stanza.lang.clone_from(&lang);
    stanza.subjects = subject(request).map(|text| LangText { lang: lang.clone(), text }).into_iter().collect();
    stanza.bodies = vec![LangText { lang, text: text.text }];
    stanza.thread = thread_for(request.call_id(), arrival.thread).map(Into::into);
    stanza.chat_state = (arrival.chat_states && arrival.mode == Mode::Session).then_some(ChatState::Active);
    stanza.delay = text
        .written
        .filter(|written| arrival.now.since(*written) > NOTABLE_DELAY)
        .map(|written| Delay { from: None, stamp: Stamp(written) });
    Ok(ToXmpp::Stanza(stanza))
}

fn subject(request: &Message) -> Option<String> {
    let subject = request.header(HeaderName::Subject).map(one_line)?;
    let subject = content::clean(subject.trim());
    (!subject.is_empty()).then(|| subject.into_owned())
}

/// Tells whether the time for which the sender wanted the message delivered is over. Without a Date it counts
/// from now, so that it never is.
fn has_expired(request: &Message, now: EpochMillis) -> bool {
    let Ok(Some(seconds)) = request.expires() else { return false };
    let sent = request.header(HeaderName::Date).and_then(date::parse);
    sent.is_some_and(|sent| sent.plus(Duration::from_secs(seconds.into())) < now)
}

/// Writes the 2xx to a MESSAGE: 200 when it was delivered, 202 when it was only taken. It has neither Contact nor
/// body (RFC 3428 §7).
///
/// # Errors
///
/// [`WriteError`] when `to_tag` cannot be written.
pub fn accept(request: &Message, delivered: bool, to_tag: Option<&str>) -> Result<Bytes, WriteError> {
    let status = if delivered { StatusCode::OK } else { StatusCode::ACCEPTED };
    ResponseWriter::for_request(request, status, None, to_tag).finish(b"")
}
