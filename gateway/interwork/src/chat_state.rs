//! Who is typing: isComposing documents (RFC 3994) and KeyboardActivity on the SIP side, chat states (XEP-0085)
//! on the XMPP side. When such a notice may be sent at all is decided by the session.

use std::time::Duration;

use isthmus_sip::pidf::xml::Element;
use isthmus_sip::pidf::{XmlError, XmlLimits};

/// The media type of isComposing documents.
pub const IS_COMPOSING_TYPE: &str = "application/im-iscomposing+xml";
/// The media type in which Microsoft clients send KeyboardActivity, in INFO.
pub const KEYBOARD_ACTIVITY_TYPE: &str = "application/xml";
/// How long composing lasts when its sender does not say (RFC 3994 §3.3).
pub const DEFAULT_REFRESH: Duration = Duration::from_secs(120);
/// The longest that composing is believed without being said again.
const LONGEST_REFRESH: Duration = Duration::from_secs(3600);

const NS_IS_COMPOSING: &str = "urn:ietf:params:xml:ns:im-iscomposing";

/// What a notice of the SIP side says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typing {
    /// Somebody types; unless it is said again, it is over after this time.
    Active {
        /// How long to believe it.
        refresh: Duration,
    },
    /// Nobody types.
    Idle,
}

/// Why a body is no notice of typing.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TypingError {
    /// The XML is refused.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// It is some other document.
    #[error("not a document about typing")]
    Other,
}

/// Reads an isComposing document. States that are not known count as idle (RFC 3994 §3.5).
///
/// # Errors
///
/// [`TypingError`].
pub fn parse_is_composing(body: &[u8], limits: &XmlLimits) -> Result<Typing, TypingError> {
    let root = Element::parse(body, limits)?;
    if root.name() != "isComposing" {
        return Err(TypingError::Other);
    }
    // Some clients leave the namespace out.
    let child = |name: &str| root.children().find(|child| child.name() == name);
    let state = child("state").map_or("", |state| state.text().trim());
    if !state.eq_ignore_ascii_case("active") {
        return Ok(Typing::Idle);
    }
    let refresh = child("refresh").and_then(|refresh| refresh.text().trim().parse().ok()).filter(|secs| *secs > 0);
    let refresh = refresh.map_or(DEFAULT_REFRESH, Duration::from_secs).min(LONGEST_REFRESH);
    Ok(Typing::Active { refresh })
}

/// Reads a KeyboardActivity document.
///
/// # Errors
///
/// [`TypingError`].
pub fn parse_keyboard_activity(body: &[u8], limits: &XmlLimits) -> Result<Typing, TypingError> {
    let root = Element::parse(body, limits)?;
    if root.name() != "KeyboardActivity" {
        return Err(TypingError::Other);
    }
    let status = root.children().find(|child| child.name() == "status").and_then(|status| status.attribute("status"));
    match status {
        Some(status) if status.eq_ignore_ascii_case("type") => Ok(Typing::Active { refresh: DEFAULT_REFRESH }),
        _ => Ok(Typing::Idle),
    }
}

/// Writes an isComposing document.
pub fn is_composing(typing: bool) -> String {
    let state = if typing { "<state>active</state><refresh>90</refresh>" } else { "<state>idle</state>" };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<isComposing xmlns=\"{NS_IS_COMPOSING}\">{state}</isComposing>\n"
    )
}

/// Writes a KeyboardActivity document.
pub fn keyboard_activity(typing: bool) -> String {
    let status = if typing { "type" } else { "idle" };
    format!("<?xml version=\"1.0\"?>\n<KeyboardActivity><status status=\"{status}\"/></KeyboardActivity>\n")
}
