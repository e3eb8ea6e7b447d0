//! What was learned about a peer domain, as it is stored for a day.

use minicbor::{Decode, Encode};

/// A way of sending messages that a peer refused as such (interworking specification §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Refuses {
    /// INVITE for messages.
    #[n(0)]
    Sessions,
    /// MESSAGE outside of dialogs.
    #[n(1)]
    SingleMessages,
}

/// Stored bytes that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error("what was learned about a peer cannot be read: {0}")]
pub struct PeerRecordError(#[from] minicbor::decode::Error);

/// What was learned about a peer domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct PeerRecord {
    /// The way of sending messages that it refused last.
    #[n(0)]
    pub refuses: Option<Refuses>,
}

impl PeerRecord {
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
    /// [`PeerRecordError`] when the bytes are of another kind or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PeerRecordError> {
        Ok(minicbor::decode(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_bytes_are_written_and_read() {
        for (refuses, frozen) in
            [(None, &b"\x80"[..]), (Some(Refuses::Sessions), b"\x81\x00"), (Some(Refuses::SingleMessages), b"\x81\x01")]
        {
            let record = PeerRecord { refuses };
            assert_eq!(record.to_bytes(), frozen);
            assert_eq!(PeerRecord::from_bytes(frozen).unwrap(), record);
        }
        assert!(PeerRecord::from_bytes(b"\x81\x07").is_err());
    }
}
