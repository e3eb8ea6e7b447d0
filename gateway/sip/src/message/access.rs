//! What can be asked of a [`Message`].

use std::net::SocketAddr;

use bytes::Bytes;

use super::{AddrSpans, Message, Span, Start};
use crate::header::{
    CSeq, Contact, Event, HeaderError, HeaderName, MediaType, NameAddr, Params, RetryAfter, SubscriptionState, Tagged,
    Via, Warning,
};
use crate::method::Method;
use crate::status::StatusCode;
use crate::uri::Host;
use crate::wire::{self, CommaList};

impl Message {
    /// The bytes as received, after unfolding and without line breaks in front.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    fn text(&self, span: Span) -> &str {
        // spans lie on ASCII characters
        self.head.get(span.range()).unwrap_or_default()
    }

    /// True for a request.
    pub fn is_request(&self) -> bool {
        matches!(self.start, Start::Request { .. })
    }

    /// The method: of the request line, or of CSeq in a response.
    pub fn method(&self) -> Method<'_> {
        self.cseq().method
    }

    /// The Request-URI as spelled; empty in a response.
    pub fn request_uri(&self) -> &str {
        match self.start {
            Start::Request { uri, .. } => self.text(uri),
            Start::Response { .. } => "",
        }
    }

    /// The status; `None` in a request.
    pub fn status(&self) -> Option<StatusCode> {
        match self.start {
            Start::Request { .. } => None,
            Start::Response { status, .. } => Some(status),
        }
    }

    /// The reason phrase; empty in a request.
    pub fn reason(&self) -> &str {
        match self.start {
            Start::Request { .. } => "",
            Start::Response { reason, .. } => self.text(reason),
        }
    }

    /// The body; shares the buffer.
    pub fn body(&self) -> Bytes {
        self.bytes.slice(self.body.range())
    }

    /// Where the message came from, once the receiver has said so.
    pub fn source(&self) -> Option<SocketAddr> {
        self.source
    }

    /// Notes where the message came from; a response written for it then carries `received` and `rport` in
    /// its top Via (RFC 3261 §18.2.1, RFC 3581 §4).
    pub fn set_source(&mut self, source: SocketAddr) {
        self.source = Some(source);
    }

    /// All header lines in order, as bytes.
    pub(crate) fn raw_lines(&self) -> impl Iterator<Item = (HeaderName, &[u8], &[u8])> {
        let part = |span: Span| self.head.as_bytes().get(span.range()).unwrap_or_default();
        self.entries.iter().map(move |e| (e.header, part(e.name), part(e.value)))
    }

    /// All header lines in order: name as spelled, value. Lines are not taken apart.
    pub fn lines(&self) -> impl Iterator<Item = (HeaderName, &str, &str)> {
        self.entries.iter().map(|e| (e.header, self.text(e.name), self.text(e.value)))
    }

    /// The values of the lines called `name`, in order, not taken apart.
    pub fn raw(&self, name: HeaderName) -> impl Iterator<Item = &str> + Clone {
        self.entries.iter().filter(move |e| e.header == name).map(|e| self.text(e.value))
    }

    /// The values of `name` over repeated lines and, where the grammar joins values by commas, inside of
    /// lines; empty values of such headers are left out.
    pub fn headers(&self, name: HeaderName) -> impl Iterator<Item = &str> + Clone {
        let list = name.is_list();
        self.raw(name).flat_map(move |value| {
            let whole = (!list).then_some(value);
            let parts = CommaList::new(if list { value } else { "" });
            whole.into_iter().chain(parts)
        })
    }

    /// The values of the lines called `name`, also of names that [`HeaderName`] does not know.
    pub fn headers_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + Clone {
        let known = HeaderName::parse(name);
        self.entries
            .iter()
            .filter(move |e| {
                e.header == known && (known != HeaderName::Other || self.text(e.name).eq_ignore_ascii_case(name))
            })
            .map(|e| self.text(e.value))
    }

    /// The first value of `name`.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        let list = name.is_list();
        self.raw(name).find_map(|value| if list { CommaList::new(value).next() } else { Some(value) })
    }

    /// The first Via.
    pub fn top_via(&self) -> Via<'_> {
        let spans = &self.top_via;
        let value = self.text(spans.value);
        let part = |part: Span| part.within(spans.value, value);
        let host_text = part(spans.host);
        Via {
            transport: part(spans.transport),
            sent_by: part(spans.sent_by),
            host_text,
            // it was read once already
            host: Host::parse(host_text).unwrap_or(Host::Name(host_text)),
            port: spans.port,
            params: Params::checked(part(spans.params)),
        }
    }

    /// The first Via as spelled.
    pub fn top_via_value(&self) -> &str {
        self.text(self.top_via.value)
    }

    /// All Via values, from the top.
    pub fn vias(&self) -> impl Iterator<Item = Result<Via<'_>, HeaderError>> {
        self.headers(HeaderName::Via).map(Via::parse)
    }

    fn address(&self, spans: AddrSpans) -> NameAddr<'_> {
        let value = self.text(spans.value);
        let part = |part: Span| part.within(spans.value, value);
        let params = Params::checked(part(spans.params));
        // a tag that is there is not empty
        let tag = Some(part(spans.tag)).filter(|tag| !tag.is_empty());
        NameAddr { display: part(spans.display), uri: part(spans.uri), params, tag }
    }

    /// From.
    pub fn from_(&self) -> NameAddr<'_> {
        self.address(self.from)
    }

    /// To.
    pub fn to(&self) -> NameAddr<'_> {
        self.address(self.to)
    }

    /// Call-ID; compares with case.
    pub fn call_id(&self) -> &str {
        self.text(self.call_id)
    }

    /// `CSeq`.
    pub fn cseq(&self) -> CSeq<'_> {
        let (number, method) = self.cseq;
        let method = self.text(method);
        CSeq { number, method: Method::parse(method).unwrap_or(Method::Other(method)) }
    }

    /// Reads the first value of `name`, if there is one.
    fn typed<'a, T>(
        &'a self,
        name: HeaderName,
        read: impl FnOnce(&'a str) -> Result<T, HeaderError>,
    ) -> Result<Option<T>, HeaderError> {
        self.header(name).map(read).transpose()
    }

    fn seconds(&self, name: HeaderName) -> Result<Option<u32>, HeaderError> {
        self.typed(name, |value| wire::delta_seconds(value).ok_or(HeaderError::Number))
    }

    /// The first Contact.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn contact(&self) -> Result<Option<Contact<'_>>, HeaderError> {
        self.typed(HeaderName::Contact, Contact::parse)
    }

    /// All Contact values.
    pub fn contacts(&self) -> impl Iterator<Item = Result<Contact<'_>, HeaderError>> {
        self.headers(HeaderName::Contact).map(Contact::parse)
    }

    /// Record-Route values in order.
    pub fn record_routes(&self) -> impl Iterator<Item = Result<NameAddr<'_>, HeaderError>> {
        self.headers(HeaderName::RecordRoute).map(NameAddr::parse)
    }

    /// Route values in order.
    pub fn routes(&self) -> impl Iterator<Item = Result<NameAddr<'_>, HeaderError>> {
        self.headers(HeaderName::Route).map(NameAddr::parse)
    }

    /// P-Asserted-Identity values.
    pub fn p_asserted_identity(&self) -> impl Iterator<Item = Result<NameAddr<'_>, HeaderError>> {
        self.headers(HeaderName::PAssertedIdentity).map(NameAddr::parse)
    }

    /// Max-Forwards; `None` when absent, which clumsy clients do.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Number`] above 255 (RFC 3261 §20.22).
    pub fn max_forwards(&self) -> Result<Option<u8>, HeaderError> {
        self.typed(HeaderName::MaxForwards, |value| wire::number(value).ok_or(HeaderError::Number))
    }

    /// Expires in seconds; more than 2^32-1 counts as 2^32-1.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Number`] when it is no number.
    pub fn expires(&self) -> Result<Option<u32>, HeaderError> {
        self.seconds(HeaderName::Expires)
    }

    /// Min-Expires in seconds.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Number`] when it is no number.
    pub fn min_expires(&self) -> Result<Option<u32>, HeaderError> {
        self.seconds(HeaderName::MinExpires)
    }

    /// Content-Length as written.
    ///
    /// # Errors
    ///
    /// Never in a parsed message; it was read once already.
    pub fn content_length(&self) -> Result<Option<usize>, HeaderError> {
        self.typed(HeaderName::ContentLength, |value| wire::number(value).ok_or(HeaderError::Number))
    }

    /// Retry-After.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn retry_after(&self) -> Result<Option<RetryAfter>, HeaderError> {
        self.typed(HeaderName::RetryAfter, RetryAfter::parse)
    }

    /// Event.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn event(&self) -> Result<Option<Event<'_>>, HeaderError> {
        self.typed(HeaderName::Event, |value| Tagged::parse(value).map(Event))
    }

    /// Subscription-State.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn subscription_state(&self) -> Result<Option<SubscriptionState<'_>>, HeaderError> {
        self.typed(HeaderName::SubscriptionState, |value| Tagged::parse(value).map(SubscriptionState))
    }

    /// Content-Type.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn content_type(&self) -> Result<Option<MediaType<'_>>, HeaderError> {
        self.typed(HeaderName::ContentType, MediaType::parse)
    }

    /// Accept values; none when the header is absent or empty.
    pub fn accept(&self) -> impl Iterator<Item = Result<MediaType<'_>, HeaderError>> {
        self.headers(HeaderName::Accept).map(MediaType::parse)
    }

    /// Option tags of Require.
    pub fn require(&self) -> impl Iterator<Item = &str> + Clone {
        self.headers(HeaderName::Require)
    }

    /// Option tags of Supported.
    pub fn supported(&self) -> impl Iterator<Item = &str> + Clone {
        self.headers(HeaderName::Supported)
    }

    /// Methods of Allow.
    pub fn allow(&self) -> impl Iterator<Item = &str> + Clone {
        self.headers(HeaderName::Allow)
    }

    /// Warning values.
    pub fn warnings(&self) -> impl Iterator<Item = Result<Warning<'_>, HeaderError>> {
        self.headers(HeaderName::Warning).map(Warning::parse)
    }

    /// `ms-diagnostics` and `ms-diagnostics-public` values: a code, and `reason`, `source` as parameters.
    pub fn diagnostics(&self) -> impl Iterator<Item = Result<Tagged<'_>, HeaderError>> {
        self.raw(HeaderName::MsDiagnostics).chain(self.raw(HeaderName::MsDiagnosticsPublic)).map(Tagged::parse)
    }
}

/// Two messages are equal when start line, headers with their order and values, and body are. Spelling of
/// names does not matter, nor does Content-Length, which follows from the body.
impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        fn lines(message: &Message) -> impl Iterator<Item = (HeaderName, &str, &str)> {
            message.lines().filter(|line| line.0 != HeaderName::ContentLength)
        }
        self.is_request() == other.is_request()
            && self.status() == other.status()
            && self.reason() == other.reason()
            && self.request_uri() == other.request_uri()
            && self.method() == other.method()
            && self.body() == other.body()
            && lines(self).count() == lines(other).count()
            && lines(self)
                .zip(lines(other))
                .all(|(a, b)| a.0 == b.0 && a.2 == b.2 && (a.0 != HeaderName::Other || a.1.eq_ignore_ascii_case(b.1)))
    }
}

impl Eq for Message {}
