//! Errors that cross over: SIP responses to stanza errors, stanza errors to SIP responses, and what our own
//! failures look like on either side (interworking specification §5.9, RFC 7247 §7).
//!
//! Both directions are tables. What an answer must carry beside its status is part of [`SipAnswer`], so that
//! it cannot be forgotten.

mod tables;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use isthmus_model::Address;
use isthmus_sip::{Contact, HeaderName, Message, ResponseWriter, StatusCode, Uri, WriteError};
use isthmus_xmpp::{ErrorCondition, ErrorType, StanzaError};

use crate::address::{AddressRefusal, from_uri};
use crate::content::{self, ContentRefusal, clean};
use tables::{FROM_SIP, TO_SIP, both};

/// The methods that are understood, for Allow.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, MESSAGE, INFO, OPTIONS, SUBSCRIBE, NOTIFY";
/// The event packages that are understood, for Allow-Events.
pub const ALLOW_EVENTS: &str = "presence";

/// Seconds after which a peer is asked to come again when a local server cannot be reached or we are overloaded.
pub const RETRY_AFTER_SECS: u32 = 30;

/// The longest text that is carried across, in bytes.
const LONGEST_TEXT: usize = 256;

/// Maps the refusal of a request of ours.
pub fn to_xmpp(response: &Message) -> StanzaError {
    let status = response.status().unwrap_or(StatusCode::SERVER_INTERNAL_ERROR);
    let retry_after = response.retry_after().ok().flatten().map(|retry| retry.seconds);
    let contact = response.contact().ok().flatten().and_then(|contact| match contact {
        Contact::Address(address) => Some(address.uri_str()),
        Contact::Star => None,
    });
    status_to_xmpp(status, response.reason(), retry_after, contact)
}

/// Maps a final status with its Reason-Phrase, Retry-After and the URI of its Contact.
///
/// The text is the Reason-Phrase. Of the redirections, 301 names the new address and 410 never does.
pub fn status_to_xmpp(
    status: StatusCode,
    reason: &str,
    retry_after: Option<u32>,
    contact: Option<&str>,
) -> StanzaError {
    let code = status.code();
    let row = FROM_SIP.iter().find(|(first, last, ..)| (*first..=*last).contains(&code));
    let (condition, kind) = row.map_or((ErrorCondition::UndefinedCondition, ErrorType::Cancel), |row| (row.2, row.3));
    let later = condition == ErrorCondition::InternalServerError && retry_after.is_some();
    let mut error = StanzaError::new(condition).with_type(if later { ErrorType::Wait } else { kind });
    let moved = condition == ErrorCondition::Redirect || code == 301;
    if let Some(uri) = contact.filter(|_| moved).and_then(xmpp_uri) {
        error = error.with_uri(uri);
    }
    match short_text(reason) {
        Some(text) => error.with_text(text),
        None => error.with_text(status.reason().to_string()),
    }
}

/// A failure of our own on the way to a SIP peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LocalFailure {
    /// The peer's domain has no usable records.
    Dns,
    /// No connection with the peer's identity proved: TLS failed, or the certificate is another's.
    Identity,
    /// No connection at all.
    Connect,
    /// Nobody answered in time.
    Timeout,
}

/// Maps a failure of our own to the error that the local sender gets.
pub fn failure_to_xmpp(failure: LocalFailure) -> StanzaError {
    let (condition, kind, text) = match failure {
        LocalFailure::Dns => {
            (ErrorCondition::RemoteServerNotFound, ErrorType::Cancel, "No SIP server is known for the domain")
        }
        LocalFailure::Identity => {
            (ErrorCondition::RemoteServerTimeout, ErrorType::Cancel, "No trusted connection to the SIP server")
        }
        LocalFailure::Connect => (ErrorCondition::RemoteServerTimeout, ErrorType::Wait, "SIP server cannot be reached"),
        LocalFailure::Timeout => (ErrorCondition::RemoteServerTimeout, ErrorType::Wait, "SIP server did not answer"),
    };
    StanzaError::new(condition).with_type(kind).with_text(text)
}

/// The kind of request that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// INVITE.
    Invite,
    /// MESSAGE.
    Message,
    /// SUBSCRIBE.
    Subscribe,
}

/// An answer to a SIP request, with everything that its status makes mandatory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipAnswer {
    status: StatusCode,
    reason: Option<String>,
    contact: Option<String>,
    retry_after: Option<u32>,
    warning: Option<(u16, Cow<'static, str>)>,
    companion: Option<(HeaderName, Cow<'static, str>)>,
}

impl SipAnswer {
    /// Makes an answer. Allow, Accept, Allow-Events and Retry-After come with 405, 415, 489 and 503; 420 and 423 have
    /// makers of their own.
    pub fn new(status: StatusCode) -> Self {
        let companion = match status {
            StatusCode::METHOD_NOT_ALLOWED => Some((HeaderName::Allow, Cow::Borrowed(ALLOW))),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Some((HeaderName::Accept, Cow::Borrowed(content::ACCEPT))),
            StatusCode::BAD_EVENT => Some((HeaderName::AllowEvents, Cow::Borrowed(ALLOW_EVENTS))),
            _ => None,
        };
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECS);
        Self { status, reason: None, contact: None, retry_after, warning: None, companion }
    }

    /// Makes the refusal of extensions that a request requires (420).
    pub fn bad_extension<'a>(required: impl IntoIterator<Item = &'a str>) -> Self {
        let tags: Vec<&str> = required.into_iter().collect();
        let mut answer = Self::new(StatusCode::BAD_EXTENSION);
        answer.companion = Some((HeaderName::Unsupported, one_line(&tags.join(", ")).into()));
        answer
    }

    /// Makes the refusal of a lifetime that is too short (423).
    pub fn interval_too_brief(min_expires_secs: u32) -> Self {
        let mut answer = Self::new(StatusCode::INTERVAL_TOO_BRIEF);
        answer.companion = Some((HeaderName::MinExpires, min_expires_secs.to_string().into()));
        answer
    }

    /// Sets the Reason-Phrase; what cannot stand in one line is left out of it.
    #[must_use]
    pub fn with_reason(mut self, text: &str) -> Self {
        self.reason = short_text(text);
        self
    }

    /// Sets Retry-After, in seconds.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Sets a Warning: code and text.
    #[must_use]
    pub fn with_warning(mut self, code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        self.warning = Some((code, text.into()));
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The Reason-Phrase, when it is not the standard one.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The URI of Contact.
    pub fn contact(&self) -> Option<&str> {
        self.contact.as_deref()
    }

    /// Retry-After, in seconds.
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }

    /// The header that the status demands, beside Contact, Retry-After and Warning.
    pub fn companion(&self) -> Option<(HeaderName, &str)> {
        self.companion.as_ref().map(|(name, value)| (*name, value.as_ref()))
    }

    /// Writes the headers of this answer behind those that every answer copies. `agent` is our name in Warning.
    pub fn write_headers(&self, writer: &mut ResponseWriter, agent: &str) {
        if let Some(contact) = &self.contact {
            writer.display(HeaderName::Contact, format_args!("<{contact}>"));
        }
        if let Some(seconds) = self.retry_after {
            writer.display(HeaderName::RetryAfter, seconds);
        }
        if let Some((code, text)) = &self.warning {
            writer.warning(*code, agent, text);
        }
        if let Some((name, value)) = &self.companion {
            writer.header(*name, value);
        }
    }

    /// Writes the whole answer.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when `to_tag` or `agent` cannot be written.
    pub fn respond(&self, request: &Message, to_tag: Option<&str>, agent: &str) -> Result<Bytes, WriteError> {
        let mut writer = ResponseWriter::for_request(request, self.status, self.reason.as_deref(), to_tag);
        self.write_headers(&mut writer, agent);
        writer.finish(b"")
    }
}

impl From<AddressRefusal> for SipAnswer {
    fn from(refusal: AddressRefusal) -> Self {
        let answer = Self::new(refusal.status());
        match refusal.warning() {
            Some((code, text)) => answer.with_warning(code, text),
            None => answer,
        }
    }
}

impl From<ContentRefusal> for SipAnswer {
    fn from(refusal: ContentRefusal) -> Self {
        let mut answer = Self::new(refusal.status());
        answer.companion = refusal.companion().map(|(name, value)| (name, value.into()));
        answer
    }
}

/// Maps the error with which a local user's server or client answered what a SIP request became.
///
/// `erring` is the `from` of the error: an error of one device means less than one of the account.
pub fn to_sip(error: &StanzaError, erring: &str, request: RequestKind) -> SipAnswer {
    let row = TO_SIP.iter().find(|row| row.0 == error.condition);
    let by_jid = row.map_or(both(StatusCode::BAD_REQUEST), |row| match request {
        RequestKind::Invite => row.1,
        RequestKind::Message | RequestKind::Subscribe => row.2,
    });
    let status = if erring.contains('/') { by_jid.full } else { by_jid.bare };
    let contact = error.uri.as_deref().and_then(sip_uri);
    let status = match (error.condition, request) {
        (ErrorCondition::Gone, _) if contact.is_none() => StatusCode::GONE,
        // A 302 without an address would be no answer.
        (ErrorCondition::Redirect, _) if contact.is_none() => StatusCode::TEMPORARILY_UNAVAILABLE,
        (ErrorCondition::PolicyViolation, RequestKind::Message | RequestKind::Subscribe) if is_about_size(error) => {
            StatusCode::REQUEST_ENTITY_TOO_LARGE
        }
        // A server that may be found later is one that could not be asked for now.
        (ErrorCondition::RemoteServerNotFound, RequestKind::Invite) if error.kind == ErrorType::Wait => {
            StatusCode::REQUEST_TIMEOUT
        }
        (ErrorCondition::RemoteServerNotFound, _) if error.kind == ErrorType::Wait => StatusCode::SERVER_TIMEOUT,
        (ErrorCondition::ServiceUnavailable, RequestKind::Subscribe) => StatusCode::FORBIDDEN,
        _ => status,
    };
    let mut answer = SipAnswer::new(status);
    answer.contact = contact.filter(|_| status.class() == 3);
    if status == StatusCode::SERVER_INTERNAL_ERROR && error.kind == ErrorType::Wait {
        answer.retry_after = Some(RETRY_AFTER_SECS);
    }
    if status == StatusCode::NOT_ACCEPTABLE_HERE {
        answer = answer.with_warning(399, "Not acceptable to the recipient");
    }
    answer.reason = error.text.as_ref().and_then(|text| short_text(&text.text));
    answer
}

/// The answer while the local user's server cannot be reached.
pub fn no_link() -> SipAnswer {
    SipAnswer::new(StatusCode::TEMPORARILY_UNAVAILABLE).with_retry_after(RETRY_AFTER_SECS)
}

/// Tells whether a policy was violated by the size of what was sent.
fn is_about_size(error: &StanzaError) -> bool {
    let text = error.text.as_ref().map(|text| text.text.to_ascii_lowercase()).unwrap_or_default();
    ["size", "too large", "too big", "too long"].iter().any(|word| text.contains(word))
}

/// Makes a text one line of moderate length, `None` when nothing is left of it.
fn short_text(text: &str) -> Option<String> {
    let line = one_line(&clean(text));
    let mut end = line.len().min(LONGEST_TEXT);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let text = line.get(..end).unwrap_or("").trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Replaces line breaks by blanks and leaves out other control characters.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .filter_map(|c| match c {
            '\n' | '\r' | '\t' => Some(' '),
            _ if c.is_control() => None,
            _ => Some(c),
        })
        .collect()
}

/// Maps the URI of a Contact to the `xmpp:` URI under which local users reach that address (RFC 5122).
fn xmpp_uri(uri: &str) -> Option<String> {
    let address = from_uri(&Uri::parse(uri).ok()?).ok()?;
    let mut out = String::from("xmpp:");
    for byte in address.bare.to_jid().bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // writing to a String does not fail
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Some(out)
}

/// Maps an `xmpp:` or `sip:` URI of an error to the URI for a Contact.
fn sip_uri(uri: &str) -> Option<String> {
    if let Some(jid) = uri.strip_prefix("xmpp:") {
        let jid = jid.split(['?', '#']).next().unwrap_or(jid);
        let jid = isthmus_sip::uri::percent_decode(jid)?;
        return Address::from_jid(&jid).ok().map(|address| address.bare.to_sip_uri());
    }
    from_uri(&Uri::parse(uri).ok()?).ok().map(|address| address.bare.to_sip_uri())
}
