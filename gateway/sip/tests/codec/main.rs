//! The codec as its users see it: torture messages, real clients' habits, hostile input, properties, the oracle.
#![expect(clippy::panic, reason = "a helper of a test fails the test")]

mod allocations;
mod answers;
mod clients;
mod corpus;
mod injection;
mod oracle;
mod properties;
mod sdp;
mod streams;
mod torture_invalid;
mod torture_valid;
mod uris;

use bytes::Bytes;
use isthmus_sip::{Limits, Message, ParseError};

/// A message written with plain line ends, the first one left out.
fn wire(text: &str) -> Bytes {
    Bytes::from(text.trim_start_matches('\n').replace('\n', "\r\n"))
}

fn parse(text: &str) -> Result<Message, ParseError> {
    Message::parse(wire(text), &Limits::default())
}

/// A small valid SUBSCRIBE with more header lines and a body.
fn subscribe(lines: &str, body: &str) -> Bytes {
    wire(&format!(
        "SUBSCRIBE sip:juliet@corp.example SIP/2.0\n\
         Via: SIP/2.0/TLS sip.partner.example:5061;branch=z9hG4bK77;rport\n\
         Max-Forwards: 70\n\
         From: <sip:ana@partner.example>;tag=88\n\
         To: <sip:juliet@corp.example>\n\
         Call-ID: 5512@partner.example\n\
         CSeq: 1 SUBSCRIBE\n\
         {lines}Content-Length: {}\n\n{body}",
        body.len()
    ))
}
