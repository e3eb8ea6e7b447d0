//! Just enough of `v1` Secret for standalone mode. Values never appear in `Debug` output or errors.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use kube::core::ObjectMeta;
use serde::Deserialize;

/// A Secret document: keys with bytes.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Name and namespace.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Type, for example `kubernetes.io/tls`.
    #[serde(default, rename = "type")]
    pub type_: Option<String>,
    /// Values in base64.
    #[serde(default)]
    data: BTreeMap<String, ByteString>,
    /// Values as text; they win over `data`.
    #[serde(default)]
    string_data: BTreeMap<String, String>,
}

/// Why a document is no usable Secret. The text names the place, never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The document is not a `v1` Secret.
    #[error("the document is not a Secret of apiVersion v1")]
    NotASecret,
    /// The Secret has no name.
    #[error("metadata.name is missing. Name the Secret as other objects refer to it.")]
    NoName,
    /// A value is no text or no base64.
    #[error(
        "data or stringData of Secret {name} holds a value of the wrong form. \
         Write base64 text under data, plain text in quotes under stringData."
    )]
    BadValue {
        /// Name of the Secret.
        name: String,
    },
}

impl Secret {
    /// True when the document says that it is a `v1` Secret.
    pub fn recognises(document: &serde_json::Value) -> bool {
        let word = |field: &str| document.get(field).and_then(serde_json::Value::as_str);
        word("apiVersion") == Some("v1") && word("kind") == Some("Secret")
    }

    /// Reads a Secret document.
    pub fn parse(document: &serde_json::Value) -> Result<Self, SecretError> {
        if !Self::recognises(document) {
            return Err(SecretError::NotASecret);
        }
        let name = document.pointer("/metadata/name").and_then(serde_json::Value::as_str).ok_or(SecretError::NoName)?;
        // The parser's own message could quote the value, so it is dropped.
        Self::deserialize(document).map_err(|_| SecretError::BadValue { name: name.to_owned() })
    }

    /// Name of the Secret; empty only when it was made without one.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The bytes under a key.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        match self.string_data.get(key) {
            Some(text) => Some(text.as_bytes()),
            None => self.data.get(key).map(|bytes| bytes.0.as_slice()),
        }
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let mut keys: Vec<&str> = self.data.keys().chain(self.string_data.keys()).map(String::as_str).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name())
            .field("keys", &self.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms_of_values_are_read_and_text_wins() {
        let secret = Secret::parse(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"},
            "data": {"a": "aGVsbG8=", "b": "eA=="}, "stringData": {"b": "text"},
        }))
        .unwrap();
        assert_eq!(secret.get("a"), Some(b"hello".as_slice()));
        assert_eq!(secret.get("b"), Some(b"text".as_slice()));
        assert_eq!(secret.get("c"), None);
        assert_eq!(secret.keys().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn no_value_is_ever_printed() {
        let document = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "canary-1"},
        });
        assert!(!format!("{:?}", Secret::parse(&document).unwrap()).contains("canary"));
        let document = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "canary-%%%"},
        });
        let error = Secret::parse(&document).unwrap_err();
        assert_eq!(error, SecretError::BadValue { name: "s".into() });
        assert!(!error.to_string().contains("canary"));
    }
}
