//! The one way into the output buffer.

use std::fmt;

use bytes::Bytes;
use memchr::memchr3;

use super::WriteError;

/// Room that most messages need.
const CAPACITY: usize = 1024;

/// The output buffer. Values come in through [`Gate::value`] and [`Gate::display`], which refuse CR, LF and NUL;
/// [`Gate::plain`] takes what this crate wrote itself.
#[derive(Debug)]
pub(super) struct Gate {
    out: Vec<u8>,
    error: Option<WriteError>,
    /// The header being written, for the error.
    place: &'static str,
}

impl Default for Gate {
    fn default() -> Self {
        Self { out: Vec::with_capacity(CAPACITY), error: None, place: "message" }
    }
}

impl Gate {
    /// Keeps the first error.
    pub(super) fn fail(&mut self, error: WriteError) {
        self.error.get_or_insert(error);
    }

    /// Appends text of ours: names, separators, line breaks.
    pub(super) fn plain(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Appends a value.
    pub(super) fn value(&mut self, place: &'static str, text: &str) {
        self.bytes(place, text.as_bytes());
    }

    /// Appends a value that was read from a message.
    pub(super) fn bytes(&mut self, place: &'static str, bytes: &[u8]) {
        if memchr3(b'\r', b'\n', 0, bytes).is_some() {
            self.fail(WriteError::ControlCharacter(place));
            return;
        }
        self.out.extend_from_slice(bytes);
    }

    /// Appends a value that formats itself.
    pub(super) fn display(&mut self, place: &'static str, value: &dyn fmt::Display) {
        self.place = place;
        if fmt::write(self, format_args!("{value}")).is_err() {
            self.fail(WriteError::Value(place));
        }
    }

    /// Gives the message, or the first error.
    pub(super) fn finish(mut self, body: &[u8]) -> Result<Bytes, WriteError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.out.extend_from_slice(body);
        Ok(Bytes::from(self.out))
    }
}

impl fmt::Write for Gate {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.value(self.place, text);
        Ok(())
    }
}
