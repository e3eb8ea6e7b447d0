//! A final answer that can be given again, to the same request by another way.

use bytes::Bytes;
use memchr::memchr_iter;

use crate::header::{HeaderName, NameAddr};
use crate::message::Message;
use crate::status::StatusCode;
use crate::wire;
use crate::write::{ResponseWriter, WriteError};

/// A final answer without what it copied from its request: a copy of the request brings that along, with its own Via
/// values, and gets the same answer with the same To tag (RFC 3261 §8.2.2.2, RFC 3263 §4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeatable<'a> {
    /// The status.
    pub status: StatusCode,
    /// The Reason-Phrase.
    pub reason: &'a str,
    /// The To tag.
    pub to_tag: Option<&'a str>,
    /// The other header lines in order: name as spelled, value.
    pub headers: Vec<(&'a str, &'a str)>,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Repeatable<'a> {
    /// Reads a whole response as [`ResponseWriter`] writes it; `None` for other bytes. Each answer that another process may have
    /// to repeat goes through here, so only what is kept is looked at, and once.
    pub fn of(response: &'a [u8]) -> Option<Self> {
        let (status_line, mut rest) = next_line(response)?;
        let (code, reason) = status_line.strip_prefix("SIP/2.0 ")?.split_once(' ')?;
        let (mut to_tag, mut headers) = (None, Vec::new());
        loop {
            let line;
            (line, rest) = next_line(rest)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            let value = wire::trim(value);
            match HeaderName::parse(name) {
                HeaderName::To => to_tag = Some(NameAddr::parse(value).ok()?.tag()),
                HeaderName::Via
                | HeaderName::From
                | HeaderName::CallId
                | HeaderName::CSeq
                | HeaderName::ContentLength => {}
                _ => headers.push((name, value)),
            }
        }
        Some(Self { status: StatusCode::new(code.parse().ok()?)?, reason, to_tag: to_tag?, headers, body: rest })
    }

    /// Writes the answer for a copy of the request.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when a part did not come from [`Self::of`] and cannot be written.
    pub fn answer(&self, request: &Message) -> Result<Bytes, WriteError> {
        let mut writer = ResponseWriter::for_request(request, self.status, Some(self.reason), self.to_tag);
        for (name, value) in &self.headers {
            writer.extension(name, value);
        }
        writer.finish(self.body)
    }
}

/// Splits after the first CRLF, and gives the line without it and the rest.
fn next_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = memchr_iter(b'\r', bytes).find(|end| bytes.get(end + 1) == Some(&b'\n'))?;
    Some((std::str::from_utf8(bytes.get(..end)?).ok()?, bytes.get(end + 2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn request(to: &str) -> Message {
        let text = format!(
            "MESSAGE sip:lee@corp.example SIP/2.0\r\nv: SIP/2.0/UDP a.example;branch=z9hG4bK1\r\n\
             Via: SIP/2.0/TCP b.example;branch=z9hG4bK2\r\nf: <sip:ana@partner.example>;tag=a\r\n{to}\r\n\
             Call-ID: c1\r\nCSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text), &Limits::default()).unwrap()
    }

    #[test]
    fn what_is_kept_is_what_a_parser_reads() {
        for to in [
            "To: <sip:lee@corp.example>",
            "t: \"Lee; tag=no: \u{e9}\" <sip:lee@corp.example;transport=tcp>",
            "To: <sip:lee@corp.example>\r\n ;x=y",
            "To: <sip:lee@corp.example>;tag=theirs",
        ] {
            let request = request(to);
            for (reason, headers, body) in [
                ("OK", vec![], ""),
                ("", vec![("Supported", ""), ("X-Odd", "a: b;tag=c")], "v=0\r\n\r\nmore"),
                ("Not \u{e9} here", vec![("Warning", "399 isthmus \"why\""), ("Warning", "399 isthmus \"too\"")], "x"),
            ] {
                let mut writer = ResponseWriter::for_request(&request, StatusCode::OK, Some(reason), Some("ours"));
                for (name, value) in &headers {
                    writer.extension(name, value);
                }
                let answer = writer.finish(body.as_bytes()).unwrap();
                let read = Message::parse(answer.clone(), &Limits::default()).unwrap();
                let kept = Repeatable::of(&answer).unwrap();
                assert_eq!(Some(kept.status), read.status());
                assert_eq!(kept.reason, read.reason());
                assert_eq!(kept.to_tag, read.to().tag());
                assert_eq!(kept.body, &read.body()[..]);
                assert_eq!(kept.headers, headers);
                assert_eq!(kept.answer(&request).unwrap(), answer);
            }
        }
        for other in [
            "",
            "SIP/2.0 200 OK\r\n\r\n",
            "MESSAGE sip:a@b SIP/2.0\r\nTo: x\r\n\r\n",
            "SIP/2.0 99 X\r\nTo: <sip:a@b>\r\n\r\n",
        ] {
            assert_eq!(Repeatable::of(other.as_bytes()), None, "{other}");
        }
    }
}
