//! What is left of a malformed request.

use std::net::SocketAddr;

use crate::header::{HeaderName, Via};
use crate::limits::Limits;
use crate::method::Method;

/// The headers of a malformed request that an answer copies. It exists only when all of them could be
/// read, and never for an ACK or a response, which nobody answers.
#[derive(Debug, Clone)]
pub struct Partial {
    pub(crate) vias: Vec<String>,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) call_id: String,
    pub(crate) cseq: String,
    method: String,
    source: Option<SocketAddr>,
}

impl Partial {
    /// Looks for the headers line by line. The size is bounded by the limit of the header block.
    pub(super) fn salvage(bytes: &[u8], limits: &Limits) -> Option<Self> {
        let block = bytes.get(..limits.header_block.min(bytes.len()))?;
        let mut lines = block.split_inclusive(|&b| b == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
        let mut lines = lines.by_ref().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let first = lines.by_ref().find(|line| !line.is_empty())?;
        let method = first.split(|&b| b == b' ' || b == b'\t').next()?;
        let method = Method::parse(std::str::from_utf8(method).ok()?)?;
        if method == Method::Ack || first.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"SIP/")) {
            return None;
        }
        let mut found = Self {
            vias: Vec::new(),
            from: String::new(),
            to: String::new(),
            call_id: String::new(),
            cseq: String::new(),
            method: method.as_str().to_owned(),
            source: None,
        };
        // header and value of the line before, which a folded line goes on
        let mut open: Option<(HeaderName, String)> = None;
        for line in lines.take(limits.header_lines.saturating_mul(2)) {
            let text = std::str::from_utf8(line).unwrap_or("");
            if text.starts_with([' ', '\t']) {
                if let Some((_, value)) = &mut open {
                    value.push(' ');
                    value.push_str(text.trim_ascii());
                }
                continue;
            }
            if let Some((name, value)) = open.take() {
                found.keep(name, value);
            }
            if line.is_empty() {
                break;
            }
            open = text
                .split_once(':')
                .map(|(name, value)| (HeaderName::parse(name.trim_ascii()), value.trim_ascii().to_owned()));
        }
        if let Some((name, value)) = open {
            found.keep(name, value);
        }
        let complete = [&found.from, &found.to, &found.call_id, &found.cseq].into_iter().all(|v| !v.is_empty());
        let routable = found.vias.first().is_some_and(|via| first_via(via).is_some());
        (complete && routable).then_some(found)
    }

    /// Keeps the first value of each header, if it can be written again.
    fn keep(&mut self, name: HeaderName, value: String) {
        if value.contains(['\r', '\n', '\0']) {
            return;
        }
        let slot = match name {
            HeaderName::Via => return self.vias.push(value),
            HeaderName::From => &mut self.from,
            HeaderName::To => &mut self.to,
            HeaderName::CallId => &mut self.call_id,
            HeaderName::CSeq => &mut self.cseq,
            _ => return,
        };
        if slot.is_empty() {
            *slot = value;
        }
    }

    /// The method of the request line.
    pub fn method(&self) -> Method<'_> {
        Method::parse(&self.method).unwrap_or(Method::Other(&self.method))
    }

    /// The first Via, which says where the answer goes; `None` never happens in a partial that was handed out.
    pub fn top_via(&self) -> Option<Via<'_>> {
        self.vias.first().and_then(|via| first_via(via))
    }

    /// Where the request came from, once the receiver has said so.
    pub fn source(&self) -> Option<SocketAddr> {
        self.source
    }

    /// Notes where the request came from, as [`crate::Message::set_source`].
    pub fn set_source(&mut self, source: SocketAddr) {
        self.source = Some(source);
    }
}

fn first_via(line: &str) -> Option<Via<'_>> {
    crate::wire::CommaList::new(line).next().and_then(|value| Via::parse(value).ok())
}
