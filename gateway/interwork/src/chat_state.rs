//! Who is typing: isComposing documents (RFC 3994) and KeyboardActivity on the SIP side, chat states (XEP-0085)
//! on the XMPP side. When such a notice may be sent at all is decided by the session.

use std::time::Duration;

use isthmus_sip::pidf::xml::Element;
use isthmus_sip::pidf::{XmlError, XmlLimits};
use isthmus_xmpp::payload::ChatState;

/// The media type of isComposing documents.
pub const IS_COMPOSING_TYPE: &str = "application/im-iscomposing+xml";
/// The media type in which Microsoft clients send KeyboardActivity, in INFO.
pub const KEYBOARD_ACTIVITY_TYPE: &str = "application/xml";
/// How long composing lasts when its sender does not say (RFC 3994 §3.3).
pub const DEFAULT_REFRESH: Duration = Duration::from_mins(2);
/// The longest that composing is believed without being said again.
const LONGEST_REFRESH: Duration = Duration::from_hours(1);

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

/// Maps a notice of the SIP side to the chat state that an XMPP client gets. Idle is `active`, or `paused` where
/// that is configured.
pub fn to_xmpp(typing: Typing, idle_as_paused: bool) -> ChatState {
    match typing {
        Typing::Active { .. } => ChatState::Composing,
        Typing::Idle if idle_as_paused => ChatState::Paused,
        Typing::Idle => ChatState::Active,
    }
}

/// Maps a chat state to whether the SIP side is told that somebody types; `None` for `gone`, which ends the
/// session instead.
pub fn to_sip(state: ChatState) -> Option<bool> {
    match state {
        ChatState::Composing => Some(true),
        ChatState::Active | ChatState::Paused | ChatState::Inactive => Some(false),
        ChatState::Gone => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composing(body: &str) -> Result<Typing, TypingError> {
        parse_is_composing(body.as_bytes(), &XmlLimits::default())
    }

    fn keyboard(body: &str) -> Result<Typing, TypingError> {
        parse_keyboard_activity(body.as_bytes(), &XmlLimits::default())
    }

    fn active(secs: u64) -> Typing {
        Typing::Active { refresh: Duration::from_secs(secs) }
    }

    #[test]
    fn typing_maps_to_chat_states_and_back() {
        // I-35
        let state = |body: &str| to_xmpp(composing(body).unwrap(), false);
        assert_eq!(
            state("<isComposing xmlns='urn:ietf:params:xml:ns:im-iscomposing'><state>active</state></isComposing>"),
            ChatState::Composing
        );
        assert_eq!(
            state("<isComposing xmlns='urn:ietf:params:xml:ns:im-iscomposing'><state>idle</state></isComposing>"),
            ChatState::Active
        );
        assert_eq!(to_xmpp(Typing::Idle, true), ChatState::Paused);
        assert_eq!(to_sip(ChatState::Composing), Some(true));
        for state in [ChatState::Active, ChatState::Paused, ChatState::Inactive] {
            assert_eq!(to_sip(state), Some(false), "{state:?}");
        }
        assert_eq!(to_sip(ChatState::Gone), None);
        assert_eq!(composing(&is_composing(true)), Ok(active(90)));
        assert_eq!(composing(&is_composing(false)), Ok(Typing::Idle));
        assert_eq!(keyboard(&keyboard_activity(true)), Ok(active(120)));
        assert_eq!(keyboard(&keyboard_activity(false)), Ok(Typing::Idle));
    }

    #[test]
    fn the_time_to_believe_it_is_the_senders_within_reason() {
        let refresh = |value: &str| composing(&format!("<isComposing><state>Active</state>{value}</isComposing>"));
        assert_eq!(refresh(""), Ok(active(120)));
        assert_eq!(refresh("<refresh>60</refresh>"), Ok(active(60)));
        assert_eq!(
            refresh("<lastactive>x</lastactive><contenttype>text/plain</contenttype><refresh> 75 </refresh>"),
            Ok(active(75))
        );
        assert_eq!(refresh("<refresh>0</refresh>"), Ok(active(120)));
        assert_eq!(refresh("<refresh>-1</refresh>"), Ok(active(120)));
        assert_eq!(refresh("<refresh>99999999999</refresh>"), Ok(active(3600)));
    }

    #[test]
    fn unknown_states_are_idle_and_other_documents_are_refused() {
        assert_eq!(composing("<isComposing><state>pondering</state></isComposing>"), Ok(Typing::Idle));
        assert_eq!(composing("<isComposing/>"), Ok(Typing::Idle));
        assert_eq!(composing("<KeyboardActivity/>"), Err(TypingError::Other));
        assert_eq!(keyboard("<KeyboardActivity><status status=\"type\"/></KeyboardActivity>"), Ok(active(120)));
        assert_eq!(keyboard("<KeyboardActivity><status status=\"nap\"/></KeyboardActivity>"), Ok(Typing::Idle));
        assert_eq!(keyboard("<isComposing/>"), Err(TypingError::Other));
        assert_eq!(composing("<!DOCTYPE x><isComposing/>"), Err(XmlError::Dtd.into()));
    }
}
