//! SIP messages as far ends have logged them, cut into the few parts that scenarios look at.
//!
//! This reader is for logs of peers that we trust to have logged whole messages; it is no SIP parser.

use std::time::Duration;

/// One SIP message on the wire, seen by a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipMessage {
    /// Whether the peer received it; otherwise it sent it.
    pub received: bool,
    /// Time of day, when the peer's log has times.
    pub at: Option<Duration>,
    /// Request or status line.
    pub start: String,
    /// Header fields in order, names as written.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl SipMessage {
    /// Cuts one message; `None` when it does not start like SIP.
    pub fn parse(text: &str, received: bool, at: Option<Duration>) -> Option<Self> {
        let text = text.replace("\r\n", "\n");
        let text = text.trim_start_matches('\n');
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let start = lines.next()?.trim_end().to_owned();
        if !(start.starts_with("SIP/2.0 ") || start.ends_with(" SIP/2.0")) {
            return None;
        }
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Some(Self { received, at, start, headers, body: body.trim_end_matches('\n').to_owned() })
    }

    /// The method of a request.
    pub fn method(&self) -> Option<&str> {
        if self.start.starts_with("SIP/2.0") { None } else { self.start.split(' ').next() }
    }

    /// The Request-URI of a request.
    pub fn uri(&self) -> Option<&str> {
        self.method()?;
        self.start.split(' ').nth(1)
    }

    /// The status code of a response.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.split(' ').next()?.parse().ok()
    }

    /// The reason phrase of a response.
    pub fn reason(&self) -> Option<&str> {
        self.start.strip_prefix("SIP/2.0 ")?.split_once(' ').map(|(_, reason)| reason)
    }

    /// The first value of a header field, empty when absent.
    pub fn header<'a>(&'a self, name: &'a str) -> &'a str {
        self.all(name).next().unwrap_or_default()
    }

    /// All values of a header field, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether a header field is there.
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The number of the CSeq field.
    pub fn cseq(&self) -> u32 {
        self.header("CSeq").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default()
    }

    /// The method of the CSeq field.
    pub fn cseq_method(&self) -> &str {
        self.header("CSeq").split_whitespace().nth(1).unwrap_or_default()
    }

    /// The tag of From or To, empty when absent.
    pub fn tag<'a>(&'a self, header: &'a str) -> &'a str {
        self.header(header).split(';').find_map(|part| part.trim().strip_prefix("tag=")).unwrap_or_default()
    }

    /// The first word of Subscription-State: `active`, `pending` or `terminated`.
    pub fn subscription_state(&self) -> &str {
        self.header("Subscription-State").split(';').next().unwrap_or_default().trim()
    }

    /// Text between `<name ...>` and the next `<` of the body, of the first element of that local name.
    pub fn body_element<'a>(&'a self, name: &str) -> Option<&'a str> {
        self.body.split('<').skip(1).find_map(|piece| {
            let (tag, text) = piece.split_once('>')?;
            let full = tag.split([' ', '/', '\n', '\t']).next()?;
            let local = full.rsplit(':').next()?;
            (local == name).then_some(text)
        })
    }

    /// The PIDF basic status of the body.
    pub fn basic(&self) -> Option<&str> {
        self.body_element("basic")
    }
}

/// The requests of one method that were received, each once however often it was repeated.
pub fn requests_received<'a>(messages: &'a [SipMessage], method: &str) -> Vec<&'a SipMessage> {
    let mut found: Vec<&SipMessage> = Vec::new();
    for message in messages.iter().filter(|m| m.received && m.method() == Some(method)) {
        if !found.iter().any(|f| f.header("Via") == message.header("Via") && f.cseq() == message.cseq()) {
            found.push(message);
        }
    }
    found
}

/// Cuts baresip's trace (`-s`); `own_port` is where it listens.
pub fn parse_baresip(log: &str, own_port: u16) -> Vec<SipMessage> {
    let own = format!(":{own_port}");
    log.split("\u{1b}[36;1m#")
        .skip(1)
        .filter_map(|piece| {
            let (message, _) = piece.split_once("\u{1b}[;m")?;
            let (head, message) = message.trim_start().split_once('\n')?;
            let (_, to) = head.split_once(" -> ")?;
            SipMessage::parse(message, to.trim().ends_with(&own), None)
        })
        .collect()
}

/// Cuts the message file of SIPp (`-trace_msg`).
pub fn parse_sipp(log: &str) -> Vec<SipMessage> {
    log.split("\n-----------------------------------------------")
        .flat_map(|piece| piece.split_once('\n').into_iter())
        .filter_map(|(head, rest)| {
            let (kind, message) = rest.split_once('\n')?;
            let at = head.split_whitespace().next_back().and_then(time_of_day);
            SipMessage::parse(message, kind.contains("received"), at)
        })
        .collect()
}

fn time_of_day(text: &str) -> Option<Duration> {
    let mut parts = text.split(':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    Some(Duration::from_secs(hours * 3600 + minutes * 60) + Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sipp_log_gives_direction_time_and_parts() {
        let log = "----------------------------------------------- 2026-11-23 03:42:32.761232\n\
                   UDP message sent (242 bytes):\n\n\
                   MESSAGE sip:x@127.0.0.1:25200 SIP/2.0\r\nFrom: <sip:a@b>;tag=1\r\nCSeq: 7 MESSAGE\r\n\r\nh\u{e9}\r\n\n\
                   ----------------------------------------------- 2026-11-23 03:42:33.000000\n\
                   UDP message received [183] bytes :\n\nSIP/2.0 480 Not here now\r\nTo: <sip:x@b>\r\n\r\n\n";
        let seen = parse_sipp(log);
        assert_eq!(seen.len(), 2);
        assert!(!seen[0].received && seen[1].received);
        assert_eq!((seen[0].method(), seen[0].cseq(), seen[0].tag("from")), (Some("MESSAGE"), 7, "1"));
        assert_eq!(seen[0].body, "h\u{e9}");
        assert_eq!((seen[1].status(), seen[1].reason()), (Some(480), Some("Not here now")));
        assert_eq!(seen[1].at.map(|t| t.as_secs()), Some(3 * 3600 + 42 * 60 + 33));
    }

    #[test]
    fn a_baresip_trace_gives_direction_and_body() {
        let log = "ready\n\u{1b}[36;1m#\nUDP 127.0.0.1:1 -> 127.0.0.1:2\nNOTIFY sip:a@127.0.0.1:2 SIP/2.0\r\n\
                   Subscription-State: active;expires=600\r\n\r\n<presence><tuple><pp:basic>open</pp:basic></tuple>\
                   </presence>\n\u{1b}[;m\nother\n";
        let seen = parse_baresip(log, 2);
        assert_eq!(seen.len(), 1);
        assert!(seen[0].received);
        assert_eq!((seen[0].subscription_state(), seen[0].basic()), ("active", Some("open")));
    }
}
