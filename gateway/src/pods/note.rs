//! What processes of a realm tell each other.

use std::net::SocketAddr;

use bytes::Bytes;
use isthmus_sip::Transport;
use isthmus_store::record::EnvelopeError;
use isthmus_store::{Kind, record};
use minicbor::{Decode, Encode};

/// The newest format of a note that this release knows.
const FORMAT: u16 = 1;

/// Stored bytes that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The envelope is foreign or of a newer release.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The content is damaged or of a newer release.
    #[error("a note from another process cannot be read: {0}")]
    Content(#[from] minicbor::decode::Error),
}

/// How a message came to the process that its peer spoke to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Way {
    /// A datagram.
    #[n(0)]
    Udp,
    /// A stream in the clear.
    #[n(1)]
    Tcp,
    /// A stream over TLS.
    #[n(2)]
    Tls,
}

impl From<Transport> for Way {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp => Self::Tcp,
            Transport::Tls => Self::Tls,
        }
    }
}

impl From<Way> for Transport {
    fn from(way: Way) -> Self {
        match way {
            Way::Udp => Self::Udp,
            Way::Tcp => Self::Tcp,
            Way::Tls => Self::Tls,
        }
    }
}

/// A note from one process to another.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Note {
    /// A request that passed the entry checks, for the process that holds its pair's link.
    #[n(0)]
    Request {
        /// Who waits for the answer.
        #[n(0)]
        from: String,
        /// What the asker calls the request.
        #[n(1)]
        id: u64,
        /// The request as it came.
        #[cbor(n(2), with = "minicbor::bytes")]
        message: Vec<u8>,
        /// How it came.
        #[n(3)]
        way: Way,
        /// Where it came from.
        #[cbor(n(4), with = "address")]
        source: SocketAddr,
        /// A tag for answers outside of dialogs.
        #[n(5)]
        to_tag: String,
    },
    /// The answer to a request.
    #[n(1)]
    Answer {
        /// What its asker calls it.
        #[n(0)]
        id: u64,
        /// The whole response.
        #[cbor(n(1), with = "minicbor::bytes")]
        response: Vec<u8>,
    },
    /// The same request is being answered on another way; this one gets nothing.
    #[n(2)]
    Absorbed {
        /// What its asker calls it.
        #[n(0)]
        id: u64,
    },
    /// The link of a request's pair is not the reader's any more.
    #[n(3)]
    Elsewhere {
        /// What its asker calls it.
        #[n(0)]
        id: u64,
    },
    /// A response to a request of the reader's, by the branch of its Via.
    #[n(4)]
    Response {
        /// The response as it came.
        #[cbor(n(0), with = "minicbor::bytes")]
        message: Vec<u8>,
        /// How it came.
        #[n(1)]
        way: Way,
        /// Where it came from.
        #[cbor(n(2), with = "address")]
        source: SocketAddr,
    },
    /// The ACK of a 2xx, for the process that repeats that 2xx.
    #[n(5)]
    Acknowledged {
        /// The ACK as it came.
        #[cbor(n(0), with = "minicbor::bytes")]
        message: Vec<u8>,
    },
    /// An ACK of a session, for the process that holds its pair's link.
    #[n(6)]
    Ack {
        /// The ACK as it came.
        #[cbor(n(0), with = "minicbor::bytes")]
        message: Vec<u8>,
    },
    /// A 2xx of the writer's was never acknowledged; for the process that holds the pair's link.
    #[n(7)]
    NeverAcknowledged {
        /// Which session.
        #[n(0)]
        call_id: String,
        /// Our tag in it.
        #[n(1)]
        local_tag: String,
    },
    /// A due time of a pair, for the process that holds its link. The writer keeps the claim.
    #[n(8)]
    Due {
        /// The name of the record that the due time is about.
        #[n(0)]
        key: String,
    },
    /// A stanza for a local user, for the process that holds the link.
    #[n(9)]
    Stanza {
        /// The local domain.
        #[n(0)]
        local: String,
        /// The federated domain.
        #[n(1)]
        remote: String,
        /// The stanza as XML, without the namespace of a stream.
        #[cbor(n(2), with = "minicbor::bytes")]
        stanza: Vec<u8>,
    },
    /// A stanza of a local user, for the process that holds the link by now.
    #[n(10)]
    FromLocal {
        /// The local domain.
        #[n(0)]
        local: String,
        /// The federated domain.
        #[n(1)]
        remote: String,
        /// The stanza as XML, without the namespace of a stream.
        #[cbor(n(2), with = "minicbor::bytes")]
        stanza: Vec<u8>,
    },
    /// Letters wait in the store, for the process that holds the link.
    #[n(11)]
    Letters {
        /// The local domain.
        #[n(0)]
        local: String,
        /// The federated domain.
        #[n(1)]
        remote: String,
    },
}

impl Note {
    /// Writes the note.
    pub fn to_bytes(&self) -> Bytes {
        let mut payload = Vec::new();
        // Writing to a Vec cannot fail.
        let _ = minicbor::encode(self, &mut payload);
        record::encode(Kind::Other, FORMAT, &payload)
    }

    /// Reads a note.
    ///
    /// # Errors
    ///
    /// [`NoteError`]; a newer release may have written it.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, NoteError> {
        Ok(minicbor::decode(&record::decode_as(Kind::Other, FORMAT, bytes)?.payload)?)
    }

    /// Names the kind, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Request { .. } => "request",
            Self::Answer { .. } => "answer",
            Self::Absorbed { .. } => "absorbed",
            Self::Elsewhere { .. } => "elsewhere",
            Self::Response { .. } => "response",
            Self::Acknowledged { .. } => "acknowledged",
            Self::Ack { .. } => "ack",
            Self::NeverAcknowledged { .. } => "never_acknowledged",
            Self::Due { .. } => "due",
            Self::Stanza { .. } => "stanza",
            Self::FromLocal { .. } => "from_local",
            Self::Letters { .. } => "letters",
        }
    }
}

/// Socket addresses as text.
mod address {
    use std::net::SocketAddr;

    use minicbor::decode::Error;
    use minicbor::encode::Write;
    use minicbor::{Decoder, Encoder};

    pub(super) fn encode<C, W: Write>(
        address: &SocketAddr,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.str(&address.to_string())?;
        Ok(())
    }

    pub(super) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<SocketAddr, Error> {
        decoder.str()?.parse().map_err(|_| Error::message("no socket address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Note> {
        let source = SocketAddr::from(([192, 0, 2, 1], 5060));
        let message = b"x".to_vec();
        vec![
            Note::Request {
                from: "p".to_owned(),
                id: 7,
                message: message.clone(),
                way: Way::Tls,
                source,
                to_tag: "t".to_owned(),
            },
            Note::Answer { id: 7, response: message.clone() },
            Note::Absorbed { id: 7 },
            Note::Elsewhere { id: 7 },
            Note::Response { message: message.clone(), way: Way::Udp, source },
            Note::Acknowledged { message: message.clone() },
            Note::Ack { message: message.clone() },
            Note::NeverAcknowledged { call_id: "c".to_owned(), local_tag: "t".to_owned() },
            Note::Due { key: "k".to_owned() },
            Note::Stanza { local: "l".to_owned(), remote: "r".to_owned(), stanza: message.clone() },
            Note::FromLocal { local: "l".to_owned(), remote: "r".to_owned(), stanza: message },
            Note::Letters { local: "l".to_owned(), remote: "r".to_owned() },
        ]
    }

    /// Written by version 0.1.0; must be readable for ever.
    const FROZEN: [&str; 12] = [
        "490100000182008661700741788202806e3139322e302e322e313a353036306174",
        "4901000001820182074178",
        "490100000182028107",
        "490100000182038107",
        "490100000182048341788200806e3139322e302e322e313a35303630",
        "49010000018205814178",
        "49010000018206814178",
        "490100000182078261636174",
        "4901000001820881616b",
        "4901000001820983616c61724178",
        "4901000001820a83616c61724178",
        "4901000001820b82616c6172",
    ];

    #[test]
    fn frozen_bytes_decode() {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect::<String>();
        let now: Vec<String> = samples().iter().map(|note| hex(&note.to_bytes())).collect();
        assert_eq!(now, FROZEN);
        for note in samples() {
            assert_eq!(Note::from_bytes(&note.to_bytes()).unwrap(), note);
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let newer = record::encode(Kind::Other, FORMAT + 1, b"\x82\x02\x81\x07");
        let unknown = record::encode(Kind::Other, FORMAT, b"\x82\x18\x63\x80");
        for bytes in [newer, unknown, Bytes::from_static(b""), Bytes::from_static(b"I\x01\0\0\x01")] {
            assert!(Note::from_bytes(&bytes).is_err(), "{bytes:?}");
        }
    }
}
