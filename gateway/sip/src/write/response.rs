//! Responses to requests (RFC 3261 §8.2.6).

use std::fmt;
use std::net::SocketAddr;

use super::{ResponseWriter, WriteError};
use crate::header::{HeaderName, NameAddr, Via};
use crate::message::{Message, Partial};
use crate::status::StatusCode;
use crate::wire;

/// What a response copies.
struct Heads<'a> {
    from: &'a str,
    to: &'a str,
    call_id: &'a str,
    cseq: &'a str,
}

impl ResponseWriter {
    /// Starts with a status line; without `reason`, the standard phrase.
    pub fn new(status: StatusCode, reason: Option<&str>) -> Self {
        let mut writer = Self::start();
        writer.gate.display("status line", &format_args!("SIP/2.0 {status} "));
        match reason {
            Some(reason) => writer.gate.value("reason phrase", reason),
            None => writer.gate.display("status line", &status.reason()),
        }
        writer.gate.plain("\r\n");
        writer
    }

    /// Starts a response with Via, From, To, Call-ID and `CSeq` of `request`.
    ///
    /// The top Via gets `received` and `rport` when [`Message::set_source`] said where the request came from.
    /// `to_tag` is added to To unless it has a tag or the status is 100.
    pub fn for_request(request: &Message, status: StatusCode, reason: Option<&str>, to_tag: Option<&str>) -> Self {
        let mut writer = Self::new(status, reason);
        writer.vias(request.raw(HeaderName::Via), request.source());
        let first = |name| request.raw(name).next().unwrap_or_default();
        let heads = Heads {
            from: first(HeaderName::From),
            to: first(HeaderName::To),
            call_id: request.call_id(),
            cseq: first(HeaderName::CSeq),
        };
        writer.heads(&heads, status, to_tag);
        writer
    }

    /// Starts the refusal of a malformed request.
    pub fn for_partial(request: &Partial, status: StatusCode, reason: Option<&str>, to_tag: Option<&str>) -> Self {
        let mut writer = Self::new(status, reason);
        writer.vias(request.vias.iter().map(String::as_str), request.source());
        let Partial { from, to, call_id, cseq, .. } = request;
        writer.heads(&Heads { from, to, call_id, cseq }, status, to_tag);
        writer
    }

    /// Copies the Record-Route values of a request that opens a dialog, in order (RFC 3261 §12.1.1).
    pub fn record_routes_of(&mut self, request: &Message) -> &mut Self {
        self.copy(request, HeaderName::RecordRoute)
    }

    fn vias<'a>(&mut self, lines: impl Iterator<Item = &'a str>, source: Option<SocketAddr>) {
        let mut top = source;
        for line in lines {
            let Some(first) = wire::CommaList::new(line).next() else { continue };
            let Some(source) = top.take() else {
                self.header(HeaderName::Via, line);
                continue;
            };
            let Ok(via) = Via::parse(first) else {
                self.gate.fail(WriteError::Value("Via"));
                return;
            };
            // whatever follows the first value stays as it is
            let rest = first.as_ptr().addr().saturating_sub(line.as_ptr().addr()).saturating_add(first.len());
            let rest = wire::after(line, rest);
            let value = fmt::from_fn(|f| {
                via.write_received(source, f)?;
                f.write_str(rest)
            });
            self.display(HeaderName::Via, value);
        }
    }

    fn heads(&mut self, heads: &Heads<'_>, status: StatusCode, to_tag: Option<&str>) {
        self.peer_address(HeaderName::From, heads.from, None);
        let to_tag = to_tag.filter(|_| status != StatusCode::TRYING);
        self.peer_address(HeaderName::To, heads.to, to_tag);
        self.header(HeaderName::CallId, heads.call_id);
        self.header(HeaderName::CSeq, heads.cseq);
    }

    /// Copies From or To byte for byte and adds a tag where there is none. A display name with an escaped NUL,
    /// which the grammar allows and we never write, is left out.
    fn peer_address(&mut self, name: HeaderName, value: &str, tag: Option<&str>) {
        let parsed = NameAddr::parse(value).ok();
        let tag = tag.filter(|_| parsed.is_some_and(|address| address.params.find("tag").is_none()));
        if tag.is_some_and(|tag| !wire::is_token(tag)) {
            self.gate.fail(WriteError::Value("tag"));
        }
        let value = fmt::from_fn(|f| {
            match parsed {
                Some(address) if address.display.contains('\0') => {
                    write!(f, "{}", NameAddr { display: "", ..address })?;
                }
                _ => f.write_str(value)?,
            }
            tag.map_or(Ok(()), |tag| write!(f, ";tag={tag}"))
        });
        self.display(name, value);
    }
}
