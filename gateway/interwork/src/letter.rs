//! A message that was accepted from a partner and is not confirmed by the local server yet, as it is kept.
//!
//! A MESSAGE that was answered 202 is ours to deliver. It waits in the store as the stanza that it became, and is sent
//! again with the same id until the server has confirmed it.

use std::time::Duration;

use isthmus_model::EpochMillis;
use isthmus_xmpp::codec::{EncodeError, Limits, StreamEncoder, StreamKind, read_element};
use isthmus_xmpp::payload::{Delay, Stamp};
use isthmus_xmpp::{Message, Stanza};
use minicbor::{Decode, Encode};

/// A message that is sent again so much later than it came says when that was (XEP-0203).
const LATE: Duration = Duration::from_secs(60);

/// Stored bytes that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LetterError {
    /// They are no letter, or damaged.
    #[error("stored letter cannot be read: {0}")]
    Record(#[from] minicbor::decode::Error),
    /// Its stanza is no message.
    #[error("stored letter holds no message")]
    Stanza,
}

/// An accepted message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Letter {
    /// The stanza as XML, without the namespace of a stream.
    #[cbor(n(0), with = "minicbor::bytes")]
    stanza: Vec<u8>,
    /// When it was accepted.
    #[n(1)]
    accepted_at: u64,
    /// It came inside a session, so its sender can be told when it fails after all.
    #[n(2)]
    in_session: bool,
}

impl Letter {
    /// Writes a stanza down.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for a stanza that could not be sent either.
    pub fn new(stanza: &Message, accepted_at: EpochMillis, in_session: bool) -> Result<Self, EncodeError> {
        let mut encoder = StreamEncoder::new(StreamKind::Client);
        encoder.message(stanza)?;
        Ok(Self { stanza: encoder.take().to_vec(), accepted_at: accepted_at.0, in_session })
    }

    /// Writes the record.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to a Vec cannot fail.
        let _ = minicbor::encode(self, &mut bytes);
        bytes
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`LetterError::Record`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LetterError> {
        Ok(minicbor::decode(bytes)?)
    }

    /// Tells whether the message came inside a session.
    pub fn in_session(&self) -> bool {
        self.in_session
    }

    /// Returns the stanza to send again, with the id that it had; a late one tells since when it waits.
    ///
    /// # Errors
    ///
    /// [`LetterError::Stanza`].
    pub fn stanza(&self, now: EpochMillis) -> Result<Message, LetterError> {
        let element = read_element(&self.stanza, &Limits::COMPONENT).map_err(|_| LetterError::Stanza)?;
        let Ok(Stanza::Message(mut message)) = Stanza::read(element) else { return Err(LetterError::Stanza) };
        let accepted_at = EpochMillis(self.accepted_at);
        if message.delay.is_none() && now.since(accepted_at) > LATE {
            message.delay = Some(Delay { from: None, stamp: Stamp(accepted_at) });
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use isthmus_xmpp::MessageType;

    use super::*;

    const CAME: EpochMillis = EpochMillis(1_700_000_000_000);

    fn message() -> Message {
        let mut message = Message::new(MessageType::Chat, "ana@partner.example", "lee@corp.example/desk")
            .with_id("i7")
            .with_body("Lunch <now> & \u{1f35c}?");
        message.thread = Some("call-1".into());
        message
    }

    #[test]
    fn a_letter_keeps_the_whole_stanza_and_its_id() {
        let letter = Letter::new(&message(), CAME, true).unwrap();
        let read = Letter::from_bytes(&letter.to_bytes()).unwrap();
        assert_eq!(read, letter);
        assert!(read.in_session());
        assert_eq!(read.stanza(CAME.plus(LATE)).unwrap(), message());
    }

    #[test]
    fn a_late_letter_says_since_when_it_waits() {
        let letter = Letter::new(&message(), CAME, false).unwrap();
        let stanza = letter.stanza(CAME.plus(Duration::from_secs(61))).unwrap();
        assert_eq!(stanza.delay.as_ref().map(|delay| delay.stamp), Some(Stamp(CAME)));
        assert_eq!(Message { delay: None, ..stanza }, message());
    }

    #[test]
    fn frozen_bytes_of_a_letter_are_read() {
        let frozen = b"\x83\x58\x3d<message from='a@p' to='l@c' id='i7'><body>x</body></message>\x19\x03\xe8\xf5";
        let letter = Letter::from_bytes(frozen).unwrap();
        assert_eq!((letter.accepted_at, letter.in_session), (1000, true));
        assert_eq!(letter.to_bytes(), frozen);
        let stanza = letter.stanza(EpochMillis(1000)).unwrap();
        assert_eq!((stanza.id.as_deref(), stanza.body().map(|body| body.text.as_str())), (Some("i7"), Some("x")));
    }

    #[test]
    fn what_is_no_letter_is_an_error() {
        assert!(matches!(Letter::from_bytes(b"\x01"), Err(LetterError::Record(_))));
        let letter = Letter { stanza: b"<presence/>".to_vec(), accepted_at: 0, in_session: false };
        assert!(matches!(letter.stanza(CAME), Err(LetterError::Stanza)));
    }
}
