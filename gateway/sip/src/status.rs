//! Status codes and reason phrases: the only file that uses `rsip`.
//!
//! Its table names each code in camel case; the phrase is that name with spaces. A few names of that table
//! are wrong or cannot be turned into the phrase of the RFC; those are given here.

use std::fmt;

/// A status code, always from 100 to 699 (RFC 3261 §7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusCode(u16);

macro_rules! codes {
    ($($name:ident = $code:literal,)*) => {
        impl StatusCode {
            $(#[doc = concat!("Status ", stringify!($code), ".")] pub const $name: Self = Self($code);)*
        }
    };
}

codes! {
    TRYING = 100,
    RINGING = 180,
    SESSION_PROGRESS = 183,
    OK = 200,
    ACCEPTED = 202,
    MULTIPLE_CHOICES = 300,
    MOVED_PERMANENTLY = 301,
    MOVED_TEMPORARILY = 302,
    BAD_REQUEST = 400,
    UNAUTHORIZED = 401,
    FORBIDDEN = 403,
    NOT_FOUND = 404,
    METHOD_NOT_ALLOWED = 405,
    NOT_ACCEPTABLE = 406,
    PROXY_AUTHENTICATION_REQUIRED = 407,
    REQUEST_TIMEOUT = 408,
    GONE = 410,
    CONDITIONAL_REQUEST_FAILED = 412,
    REQUEST_ENTITY_TOO_LARGE = 413,
    REQUEST_URI_TOO_LONG = 414,
    UNSUPPORTED_MEDIA_TYPE = 415,
    UNSUPPORTED_URI_SCHEME = 416,
    BAD_EXTENSION = 420,
    INTERVAL_TOO_BRIEF = 423,
    TEMPORARILY_UNAVAILABLE = 480,
    CALL_DOES_NOT_EXIST = 481,
    LOOP_DETECTED = 482,
    TOO_MANY_HOPS = 483,
    BUSY_HERE = 486,
    REQUEST_TERMINATED = 487,
    NOT_ACCEPTABLE_HERE = 488,
    BAD_EVENT = 489,
    REQUEST_PENDING = 491,
    SERVER_INTERNAL_ERROR = 500,
    NOT_IMPLEMENTED = 501,
    BAD_GATEWAY = 502,
    SERVICE_UNAVAILABLE = 503,
    SERVER_TIMEOUT = 504,
    VERSION_NOT_SUPPORTED = 505,
    MESSAGE_TOO_LARGE = 513,
    BUSY_EVERYWHERE = 600,
    DECLINE = 603,
    DOES_NOT_EXIST_ANYWHERE = 604,
    NOT_ACCEPTABLE_ANYWHERE = 606,
}

impl StatusCode {
    /// Takes a number from 100 to 699.
    pub fn new(code: u16) -> Option<Self> {
        (100..700).contains(&code).then_some(Self(code))
    }

    /// The number.
    pub fn code(self) -> u16 {
        self.0
    }

    /// 1 for provisional, 2 for success, and so on to 6.
    pub fn class(self) -> u16 {
        self.0 / 100
    }

    /// True for 1xx.
    pub fn is_provisional(self) -> bool {
        self.class() == 1
    }

    /// True for everything but 1xx.
    pub fn is_final(self) -> bool {
        !self.is_provisional()
    }

    /// True for 2xx.
    pub fn is_success(self) -> bool {
        self.class() == 2
    }

    /// The standard reason phrase.
    pub fn reason(self) -> Reason {
        Reason(self)
    }
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The standard reason phrase of a code; formats without allocating.
#[derive(Debug, Clone, Copy)]
pub struct Reason(StatusCode);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fixed = match self.0.code() {
            // `rsip` calls 201 Accepted; SIP knows no 201, and 202 is RFC 6665's (now historic) Accepted.
            201 => Some("Success"),
            202 => Some("Accepted"),
            414 => Some("Request-URI Too Long"),
            416 => Some("Unsupported URI Scheme"),
            481 => Some("Call/Transaction Does Not Exist"),
            504 => Some("Server Time-out"),
            606 => Some("Not Acceptable"),
            _ => None,
        };
        if let Some(text) = fixed {
            return f.write_str(text);
        }
        match rsip::StatusCode::from(self.0.code()) {
            rsip::StatusCode::OK => f.write_str("OK"),
            rsip::StatusCode::Other(..) => f.write_str(match self.0.class() {
                1 => "Progress",
                2 => "Success",
                3 => "Redirection",
                4 => "Request Failure",
                5 => "Server Failure",
                _ => "Global Failure",
            }),
            known => fmt::write(&mut Spaced { out: f, previous: ' ', digits: true }, format_args!("{known}")),
        }
    }
}

/// Turns `404 NotFound` into `Not Found` while it is written.
struct Spaced<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    previous: char,
    digits: bool,
}

impl fmt::Write for Spaced<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.digits && (c.is_ascii_digit() || c == ' ') {
                continue;
            }
            self.digits = false;
            if c.is_ascii_uppercase() && self.previous != ' ' {
                self.out.write_str(" ")?;
            }
            self.previous = c;
            fmt::Write::write_char(self.out, c)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_phrases_are_those_of_the_rfcs() {
        for (code, phrase) in [
            (100, "Trying"),
            (180, "Ringing"),
            (200, "OK"),
            (202, "Accepted"),
            (400, "Bad Request"),
            (404, "Not Found"),
            (414, "Request-URI Too Long"),
            (481, "Call/Transaction Does Not Exist"),
            (489, "Bad Event"),
            (500, "Server Internal Error"),
            (505, "Version Not Supported"),
            (513, "Message Too Large"),
            (603, "Decline"),
            (606, "Not Acceptable"),
            (299, "Success"),
            (499, "Request Failure"),
        ] {
            assert_eq!(StatusCode(code).reason().to_string(), phrase, "{code}");
        }
    }

    #[test]
    fn codes_outside_the_six_classes_are_refused() {
        assert_eq!(StatusCode::new(99), None);
        assert_eq!(StatusCode::new(700), None);
        assert_eq!(StatusCode::new(100), Some(StatusCode::TRYING));
    }
}
