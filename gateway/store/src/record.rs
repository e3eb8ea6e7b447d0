//! A stored record, and the envelope that names the format of its payload.
//!
//! The store compares versions and counts time; it never looks into the bytes. The crate that owns a payload
//! wraps it with [`encode`], so that a later release can tell which format it finds, and one that finds a
//! format newer than it knows can say so in place of guessing. A payload of format `n` stays readable by the
//! release that writes format `n + 1`.

use bytes::{Bytes, BytesMut};
use isthmus_model::EpochMillis;

use crate::key::Kind;

/// One record as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Grows with every write of the key and is never used twice for it, not even after a deletion.
    pub version: u64,
    /// What the owner stored.
    pub bytes: Bytes,
    /// When the record disappears; `None` for a decision that stays.
    pub expires_at: Option<EpochMillis>,
}

/// The first octet of every envelope.
const MAGIC: u8 = b'I';
/// The version of the envelope itself.
const ENVELOPE: u8 = 1;
/// Magic, envelope version, kind, format (two octets, big-endian).
const HEADER: usize = 5;

/// The content of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What the payload is about.
    pub kind: Kind,
    /// The format of the payload, counted by its owner.
    pub format: u16,
    /// The payload.
    pub payload: Bytes,
}

/// Why bytes are no envelope that this release can open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Too short, or the first octet is wrong: something else wrote this key.
    #[error("record is not one of ours")]
    NotOurs,
    /// A newer release wrote the record.
    #[error("record has envelope version {found}, this release knows {ENVELOPE}")]
    NewerEnvelope {
        /// The version found.
        found: u8,
    },
    /// A newer release wrote a kind that this one does not know.
    #[error("record has unknown kind {code}")]
    UnknownKind {
        /// The code found.
        code: u8,
    },
    /// The record is of another kind than its key says.
    #[error("record is of kind {found:?}, expected {expected:?}")]
    WrongKind {
        /// The kind found.
        found: Kind,
        /// The kind asked for.
        expected: Kind,
    },
    /// A newer release wrote the payload.
    #[error("record has payload format {found}, this release knows up to {known}")]
    NewerFormat {
        /// The format found.
        found: u16,
        /// The newest format that the caller knows.
        known: u16,
    },
}

/// Wraps a payload.
pub fn encode(kind: Kind, format: u16, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + payload.len());
    out.extend_from_slice(&[MAGIC, ENVELOPE, kind.code()]);
    out.extend_from_slice(&format.to_be_bytes());
    out.extend_from_slice(payload);
    out.freeze()
}

/// Opens an envelope without copying the payload.
///
/// # Errors
///
/// Any [`EnvelopeError`] but `WrongKind` and `NewerFormat`.
pub fn decode(bytes: &Bytes) -> Result<Envelope, EnvelopeError> {
    let Some((&[magic, envelope, code, high, low], _)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(EnvelopeError::NotOurs);
    };
    if magic != MAGIC || envelope == 0 {
        return Err(EnvelopeError::NotOurs);
    }
    if envelope > ENVELOPE {
        return Err(EnvelopeError::NewerEnvelope { found: envelope });
    }
    let kind = Kind::from_code(code).ok_or(EnvelopeError::UnknownKind { code })?;
    Ok(Envelope { kind, format: u16::from_be_bytes([high, low]), payload: bytes.slice(HEADER..) })
}

/// Opens an envelope of a known kind whose format is at most `known`.
///
/// # Errors
///
/// Any [`EnvelopeError`].
pub fn decode_as(kind: Kind, known: u16, bytes: &Bytes) -> Result<Envelope, EnvelopeError> {
    let envelope = decode(bytes)?;
    if envelope.kind != kind {
        return Err(EnvelopeError::WrongKind { found: envelope.kind, expected: kind });
    }
    if envelope.format > known {
        return Err(EnvelopeError::NewerFormat { found: envelope.format, known });
    }
    Ok(envelope)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by version 0.1.0; must be readable for ever.
    const FROZEN: &[u8] = &[0x49, 0x01, 0x03, 0x01, 0x02, 0x82, 0x01, 0x63, b'l', b'e', b'e'];

    #[test]
    fn frozen_bytes_decode() {
        let bytes = Bytes::from_static(FROZEN);
        let envelope = decode_as(Kind::User, 0x0102, &bytes).unwrap();
        assert_eq!(envelope.format, 0x0102);
        assert_eq!(&envelope.payload[..], b"\x82\x01\x63lee");
        assert_eq!(encode(Kind::User, 0x0102, &envelope.payload), bytes);
    }

    #[test]
    fn what_is_newer_or_foreign_is_named_and_never_guessed_at() {
        let with = |at: usize, value: u8| {
            let mut bytes = FROZEN.to_vec();
            bytes[at] = value;
            Bytes::from(bytes)
        };
        assert_eq!(decode(&with(0, b'J')), Err(EnvelopeError::NotOurs));
        assert_eq!(decode(&with(1, 0)), Err(EnvelopeError::NotOurs));
        assert_eq!(decode(&with(1, 2)), Err(EnvelopeError::NewerEnvelope { found: 2 }));
        assert_eq!(decode(&with(2, 99)), Err(EnvelopeError::UnknownKind { code: 99 }));
        for end in 0..HEADER {
            assert_eq!(decode(&Bytes::from_static(&FROZEN[..end])), Err(EnvelopeError::NotOurs));
        }
        let bytes = Bytes::from_static(FROZEN);
        assert_eq!(
            decode_as(Kind::Auth, 9, &bytes),
            Err(EnvelopeError::WrongKind { found: Kind::User, expected: Kind::Auth })
        );
        assert_eq!(decode_as(Kind::User, 1, &bytes), Err(EnvelopeError::NewerFormat { found: 0x0102, known: 1 }));
        assert!(decode(&encode(Kind::Pair, 1, b"")).unwrap().payload.is_empty());
    }
}
