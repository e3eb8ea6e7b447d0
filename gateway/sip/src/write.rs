//! Writers of requests and responses.
//!
//! Everything passes one gate that refuses CR, LF and NUL, so that no value can start a header of its own.
//! An error sticks: the writer goes on taking values and [`Writer::finish`] gives the first error instead of
//! a message. Content-Length is always the last header and always right.

mod gate;
mod response;

use std::fmt::{self, Write as _};
use std::marker::PhantomData;

use bytes::Bytes;

use crate::header::{Address, HeaderName, NameAddr, ViaSpec};
use crate::message::Message;
use crate::method::Method;
use crate::uri::Uri;
use crate::wire;
use gate::Gate;

/// Why nothing was written. It is always our own mistake, or a value that was not checked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A value holds CR, LF or NUL.
    #[error("line break or NUL in {0}")]
    ControlCharacter(&'static str),
    /// The parts of a typed value cannot be written as that value.
    #[error("value is no {0}")]
    Value(&'static str),
    /// A name that is no token, or is written by the writer itself.
    #[error("header name cannot be written")]
    Name,
    /// The Request-URI cannot be read back.
    #[error("bad Request-URI")]
    Uri,
    /// The method is no token.
    #[error("bad method")]
    Method,
}

/// Marks a writer of requests.
#[derive(Debug)]
pub enum Request {}

/// Marks a writer of responses.
#[derive(Debug)]
pub enum Response {}

/// Writes a request.
pub type RequestWriter = Writer<Request>;

/// Writes a response.
pub type ResponseWriter = Writer<Response>;

/// Writes one message into one buffer; headers come out in the order of the calls.
#[derive(Debug)]
pub struct Writer<K> {
    gate: Gate,
    kind: PhantomData<K>,
}

impl RequestWriter {
    /// Starts with the request line.
    pub fn new(method: Method<'_>, uri: &str) -> Self {
        let mut writer = Self::start();
        if !wire::is_token(method.as_str()) {
            writer.gate.fail(WriteError::Method);
        }
        if Uri::parse(uri).is_err() {
            writer.gate.fail(WriteError::Uri);
        }
        writer.request_line(method, uri);
        writer
    }

    fn request_line(&mut self, method: Method<'_>, uri: &str) {
        self.gate.value("method", method.as_str());
        self.gate.plain(" ");
        self.gate.value("Request-URI", uri);
        self.gate.plain(" SIP/2.0\r\n");
    }
}

impl<K> Writer<K> {
    fn start() -> Self {
        Self { gate: Gate::default(), kind: PhantomData }
    }

    /// Writes all header lines of a message but Content-Length, known names in their long form.
    fn lines_of(&mut self, message: &Message) {
        for (header, name, value) in message.raw_lines() {
            match header {
                HeaderName::ContentLength => continue,
                // a name that was read is a token
                HeaderName::Other => {
                    self.gate.bytes("extension header", name);
                    self.gate.plain(": ");
                }
                known => self.gate.plain(known.prefix()),
            }
            self.gate.bytes("copied header", value);
            self.gate.plain("\r\n");
        }
    }

    /// Writes a header with a value that is already text.
    pub fn header(&mut self, name: HeaderName, value: &str) -> &mut Self {
        if self.name(name) {
            self.gate.value(name.as_str(), value);
            self.gate.plain("\r\n");
        }
        self
    }

    /// Writes a header with a value that formats itself.
    pub fn display(&mut self, name: HeaderName, value: impl fmt::Display) -> &mut Self {
        if self.name(name) {
            self.gate.display(name.as_str(), &value);
            self.gate.plain("\r\n");
        }
        self
    }

    /// Writes a header that [`HeaderName`] does not know.
    pub fn extension(&mut self, name: &str, value: &str) -> &mut Self {
        match HeaderName::parse(name) {
            HeaderName::Other if wire::is_token(name) => {
                self.gate.plain(name);
                self.gate.plain(": ");
                self.gate.value("extension header", value);
                self.gate.plain("\r\n");
            }
            HeaderName::Other => self.gate.fail(WriteError::Name),
            known => return self.header(known, value),
        }
        self
    }

    /// Copies all lines of a header from a message, unchanged and in order.
    pub fn copy(&mut self, message: &Message, name: HeaderName) -> &mut Self {
        for value in message.raw(name) {
            self.header(name, value);
        }
        self
    }

    /// Writes name and colon; false when the name cannot be written here.
    fn name(&mut self, name: HeaderName) -> bool {
        if matches!(name, HeaderName::Other | HeaderName::ContentLength) {
            self.gate.fail(WriteError::Name);
            return false;
        }
        self.gate.plain(name.prefix());
        true
    }

    fn checked(&mut self, name: HeaderName, sound: bool, value: impl fmt::Display) -> &mut Self {
        if !sound {
            self.gate.fail(WriteError::Value(name.as_str()));
        }
        self.display(name, value)
    }

    /// Via of our own.
    pub fn via(&mut self, via: &ViaSpec<'_>) -> &mut Self {
        self.checked(HeaderName::Via, via.is_sound(), via)
    }

    /// From.
    pub fn from(&mut self, address: &Address<'_>) -> &mut Self {
        self.address(HeaderName::From, address)
    }

    /// To.
    pub fn to(&mut self, address: &Address<'_>) -> &mut Self {
        self.address(HeaderName::To, address)
    }

    /// Contact.
    pub fn contact(&mut self, address: &Address<'_>) -> &mut Self {
        self.address(HeaderName::Contact, address)
    }

    /// Any header whose value is one address: Contact, P-Asserted-Identity, Refer-To.
    pub fn address(&mut self, name: HeaderName, address: &Address<'_>) -> &mut Self {
        self.checked(name, address.is_sound(), address)
    }

    /// Any header whose value is an address that was read from a message.
    pub fn name_addr(&mut self, name: HeaderName, address: &NameAddr<'_>) -> &mut Self {
        self.display(name, address)
    }

    /// Route values, one line each, in order and byte for byte.
    pub fn routes<'a>(&mut self, routes: impl IntoIterator<Item = &'a str>) -> &mut Self {
        for route in routes {
            let sound = NameAddr::parse(route).is_ok();
            self.checked(HeaderName::Route, sound, route);
        }
        self
    }

    /// Call-ID.
    pub fn call_id(&mut self, call_id: &str) -> &mut Self {
        self.checked(HeaderName::CallId, wire::all(call_id, wire::VISIBLE), call_id)
    }

    /// `CSeq`; the number stays below 2^31.
    pub fn cseq(&mut self, number: u32, method: Method<'_>) -> &mut Self {
        let sound = number < 1 << 31 && wire::is_token(method.as_str());
        self.checked(HeaderName::CSeq, sound, format_args!("{number} {method}"))
    }

    /// Max-Forwards.
    pub fn max_forwards(&mut self, hops: u8) -> &mut Self {
        self.display(HeaderName::MaxForwards, hops)
    }

    /// Expires, in seconds.
    pub fn expires(&mut self, seconds: u32) -> &mut Self {
        self.display(HeaderName::Expires, seconds)
    }

    /// Warning, with a quoted text (RFC 3261 §20.43).
    pub fn warning(&mut self, code: u16, agent: &str, text: &str) -> &mut Self {
        let sound = (100..1000).contains(&code) && !agent.is_empty() && !agent.contains([' ', '\t', ',', '"']);
        let quoted = fmt::from_fn(|f| {
            write!(f, "{code} {agent} ")?;
            crate::header::write_display(f, text)
        });
        self.checked(HeaderName::Warning, sound, quoted)
    }

    /// Ends the message; `body` goes behind Content-Length.
    ///
    /// # Errors
    ///
    /// The first thing that could not be written.
    pub fn finish(mut self, body: &[u8]) -> Result<Bytes, WriteError> {
        // the gate takes any number of digits
        let _ = write!(self.gate, "Content-Length: {}", body.len());
        self.gate.plain("\r\n\r\n");
        self.gate.finish(body)
    }
}

impl Message {
    /// Writes the message anew, with the long names of known headers, Content-Length last.
    ///
    /// # Errors
    ///
    /// [`WriteError::ControlCharacter`] when a value holds an escaped NUL, which we never write.
    pub fn rewrite(&self) -> Result<Bytes, WriteError> {
        if let Some(status) = self.status() {
            let mut writer = ResponseWriter::new(status, Some(self.reason()));
            writer.lines_of(self);
            return writer.finish(&self.body());
        }
        // both were read from this message, so they need no other check
        let mut writer = RequestWriter::start();
        writer.request_line(self.method(), self.request_uri());
        writer.lines_of(self);
        writer.finish(&self.body())
    }
}
