//! The name of an activity.

use std::borrow::Cow;
use std::fmt;

/// The name of an activity: a lower-case ASCII word that can be an XML name and a text alike.
///
/// Whatever a document says that is no such word reads as `other`, the activity of RFC 4480 for what it has
/// no word for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity(Cow<'static, str>);

impl Activity {
    /// `away`
    pub const AWAY: Self = Self(Cow::Borrowed("away"));
    /// `busy`
    pub const BUSY: Self = Self(Cow::Borrowed("busy"));
    /// `other`
    pub const OTHER: Self = Self(Cow::Borrowed("other"));

    /// Takes a name in any case, with blanks around it.
    pub fn new(name: &str) -> Self {
        let name = name.trim_ascii();
        let sound = name.len() <= 64
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !sound {
            return Self::OTHER;
        }
        Self(Cow::Owned(name.to_ascii_lowercase()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
