//! Request methods.

use std::fmt;

macro_rules! methods {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// A request method; case matters (RFC 3261 §7.1). Unknown ones are kept.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Method<'a> {
            $($(#[$doc])* $variant,)*
            /// A method of another extension, as it was spelled.
            Other(&'a str),
        }

        impl<'a> Method<'a> {
            /// Reads a method name; every token is one.
            pub fn parse(text: &'a str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)*
                    _ if crate::wire::is_token(text) => Some(Self::Other(text)),
                    _ => None,
                }
            }

            /// The name as it is written.
            pub fn as_str(&self) -> &'a str {
                match *self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }
    };
}

methods! {
    /// RFC 3261.
    Ack = "ACK",
    /// RFC 3261.
    Bye = "BYE",
    /// Microsoft: a NOTIFY that is never answered.
    Benotify = "BENOTIFY",
    /// RFC 3261.
    Cancel = "CANCEL",
    /// RFC 6086.
    Info = "INFO",
    /// RFC 3261.
    Invite = "INVITE",
    /// RFC 3428.
    Message = "MESSAGE",
    /// RFC 6665.
    Notify = "NOTIFY",
    /// RFC 3261.
    Options = "OPTIONS",
    /// RFC 3262.
    Prack = "PRACK",
    /// RFC 3903.
    Publish = "PUBLISH",
    /// RFC 3515.
    Refer = "REFER",
    /// RFC 3261.
    Register = "REGISTER",
    /// Microsoft: requests to a home server.
    Service = "SERVICE",
    /// RFC 6665.
    Subscribe = "SUBSCRIBE",
    /// RFC 3311.
    Update = "UPDATE",
}

impl fmt::Display for Method<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
