//! Names of elements and attributes.

use std::fmt;
use std::ops::Deref;

use compact_str::CompactString;
use rxml::NcName;

/// A local name that is known to be one: it was read by the parser, or checked when this was compiled.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(CompactString);

impl Name {
    /// Makes a name of ASCII letters, digits, `-`, `_` and `.`; use it through [`name!`](crate::name).
    ///
    /// # Panics
    ///
    /// If it is no such name. In the macro that happens when the program is compiled.
    #[doc(hidden)]
    #[expect(clippy::indexing_slicing, reason = "the index is below the length, and this runs at compile time")]
    pub const fn literal(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty(), "a name is not empty");
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            let inside = byte.is_ascii_digit() || byte == b'-' || byte == b'.';
            assert!(byte.is_ascii_alphabetic() || byte == b'_' || (at > 0 && inside), "not a name");
            at += 1;
        }
        Self(CompactString::const_new(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as the parser's libraries have it.
    pub(super) fn to_ncname(&self) -> Result<NcName, rxml::Error> {
        Ok(NcName::try_from(self.as_str())?)
    }
}

impl From<&NcName> for Name {
    fn from(name: &NcName) -> Self {
        Self(CompactString::from(name.as_str()))
    }
}

impl From<&rxml::NcNameStr> for Name {
    fn from(name: &rxml::NcNameStr) -> Self {
        Self(CompactString::from(name.as_str()))
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Makes the [`Name`] of an element or attribute from a literal, checked when this is compiled.
///
/// ```
/// let name = isthmus_xmpp::name!("ping");
/// assert_eq!(name.as_str(), "ping");
/// ```
///
/// ```compile_fail
/// let name = isthmus_xmpp::name!("two words");
/// ```
#[macro_export]
macro_rules! name {
    ($name:literal) => {
        const { $crate::element::Name::literal($name) }
    };
}
