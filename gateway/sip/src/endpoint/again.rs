//! A final answer that can be given again, to the same request by another way.

use bytes::Bytes;

use crate::header::HeaderName;
use crate::message::Message;
use crate::status::StatusCode;
use crate::transaction::client::own_message;
use crate::write::{ResponseWriter, WriteError};

/// A final answer without what it copied from its request: a copy of the request brings that along, with its own Via
/// values, and gets the same answer with the same To tag (RFC 3261 §8.2.2.2, RFC 3263 §4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeatable {
    /// The status.
    pub status: StatusCode,
    /// The Reason-Phrase.
    pub reason: String,
    /// The To tag.
    pub to_tag: Option<String>,
    /// The other header lines in order: name as spelled, value.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Repeatable {
    /// Reads a whole response of ours; `None` for other bytes.
    pub fn of(response: &Bytes) -> Option<Self> {
        let response = own_message(response.clone())?;
        let headers = response.lines().filter(|(header, ..)| {
            !matches!(
                header,
                HeaderName::Via
                    | HeaderName::From
                    | HeaderName::To
                    | HeaderName::CallId
                    | HeaderName::CSeq
                    | HeaderName::ContentLength
            )
        });
        Some(Self {
            status: response.status()?,
            reason: response.reason().to_owned(),
            to_tag: response.to().tag().map(str::to_owned),
            headers: headers.map(|(_, name, value)| (name.to_owned(), value.to_owned())).collect(),
            body: response.body(),
        })
    }

    /// Writes the answer for a copy of the request.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when a part did not come from [`Self::of`] and cannot be written.
    pub fn answer(&self, request: &Message) -> Result<Bytes, WriteError> {
        let mut writer = ResponseWriter::for_request(request, self.status, Some(&self.reason), self.to_tag.as_deref());
        for (name, value) in &self.headers {
            writer.extension(name, value);
        }
        writer.finish(&self.body)
    }
}
