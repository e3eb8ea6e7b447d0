//! Reading what scripts return.

use redis::Value;

use super::names::corrupt;
use crate::error::StoreError;

/// Parts of a reply, taken from the front.
#[derive(Default)]
pub(super) struct Parts(std::vec::IntoIter<Value>);

impl Parts {
    pub(super) fn of(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(parts) => Ok(Self(parts.into_iter())),
            _ => Err(odd()),
        }
    }

    /// The next part, whatever it is.
    pub(super) fn value(&mut self) -> Result<Value, StoreError> {
        self.0.next().ok_or_else(odd)
    }

    /// The word that a reply starts with.
    pub(super) fn word(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?).map_err(|_| odd())
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        match self.value()? {
            Value::Int(number) => u64::try_from(number).map_err(|_| odd()),
            _ => Err(odd()),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        self.optional()?.ok_or_else(odd)
    }

    pub(super) fn optional(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        // An absent last part is not sent at all.
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(Some(bytes)),
            Some(Value::SimpleString(text)) => Ok(Some(text.into_bytes())),
            Some(Value::Nil) | None => Ok(None),
            Some(_) => Err(odd()),
        }
    }

    pub(super) fn parts(&mut self) -> Result<Self, StoreError> {
        Self::of(self.value()?)
    }
}

impl From<Vec<Value>> for Parts {
    fn from(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }
}

impl Iterator for Parts {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.0.next()
    }
}

/// The error for a reply that no script of ours gives.
pub(super) fn odd() -> StoreError {
    corrupt("a script's reply", "something that no script of ours returns")
}
