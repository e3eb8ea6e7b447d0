//! Dialogs (RFC 3261 §12): what two sides keep in common, as a record that any process can go on with.
//!
//! A [`Dialog`] knows nothing of what it is used for. It is a plain value: methods change it or refuse, and
//! whoever owns it stores it before the message that the change is for leaves. Its texts come from messages that the
//! codec accepted, so their number and size are bounded by its [`crate::Limits`].

use minicbor::{Decode, Encode};

use crate::header::{Address, Contact, HeaderError, HeaderName, NameAddr};
use crate::message::Message;
use crate::method::Method;
use crate::status::StatusCode;
use crate::uri::{Host, Uri};
use crate::write::{RequestWriter, ResponseWriter};

/// How far a dialog is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum DialogState {
    /// Its first request was sent; there is no remote tag.
    #[n(0)]
    Half,
    /// Both sides know it.
    #[n(1)]
    Confirmed,
    /// It is over.
    #[n(2)]
    Terminated,
}

/// One dialog, or the half of one that waits for its other side.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Dialog {
    #[n(0)]
    call_id: String,
    #[n(1)]
    local_tag: String,
    /// Empty in a half-dialog, and for a peer of RFC 2543 that has none.
    #[n(2)]
    remote_tag: String,
    /// From of our requests without the tag parameter, as first spelled.
    #[n(3)]
    local: String,
    /// To of our requests, likewise.
    #[n(4)]
    remote: String,
    #[n(5)]
    remote_target: String,
    #[n(6)]
    route_set: Vec<String>,
    #[n(7)]
    local_cseq: u32,
    #[n(8)]
    remote_cseq: Option<u32>,
    /// Number of the last INVITE that we sent; its ACK has the same.
    #[n(9)]
    invite_cseq: Option<u32>,
    #[n(10)]
    local_contact: String,
    #[n(11)]
    secure: bool,
    #[n(12)]
    state: DialogState,
}

/// Why a message makes or completes no dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialogError {
    /// Contact is missing, `*`, or there are several: a request gets 400.
    #[error("no usable Contact")]
    Contact,
    /// Contact is no SIP URI: a request gets 400.
    #[error("Contact is no SIP URI")]
    ContactScheme,
    /// A Record-Route value cannot be read, or is no SIP URI: a request gets 400.
    #[error("bad Record-Route")]
    RecordRoute,
    /// There is no tag where the dialog needs one: a request gets 400.
    #[error("no tag of the peer")]
    Tag,
    /// The message belongs to another dialog.
    #[error("message is of another dialog")]
    Foreign,
}

impl From<HeaderError> for DialogError {
    fn from(_: HeaderError) -> Self {
        Self::Contact
    }
}

/// Why a request inside a dialog is not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefuseInDialog {
    /// Its CSeq is lower than that of an earlier one: 500 (RFC 3261 §12.2.2).
    #[error("CSeq is out of order")]
    OutOfOrder,
    /// Its CSeq is that of the last one: it is that request again, by another way.
    #[error("CSeq was used before")]
    Repeated,
    /// Its Contact cannot become the remote target: 400.
    #[error(transparent)]
    Target(DialogError),
}

impl RefuseInDialog {
    /// The status of the answer, where the transaction layer has not answered already.
    pub fn status(self) -> StatusCode {
        match self {
            Self::OutOfOrder => StatusCode::SERVER_INTERNAL_ERROR,
            Self::Repeated => StatusCode::LOOP_DETECTED,
            Self::Target(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// A dialog's next hop lies where the peer has no say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("next hop {uri} is not the peer's")]
pub struct ForeignNextHop {
    /// The route or target in question.
    pub uri: String,
}

/// What we say when we open a dialog.
#[derive(Debug, Clone, Copy)]
pub struct NewDialog<'a> {
    /// Call-ID, unique in space and time.
    pub call_id: &'a str,
    /// Our tag.
    pub local_tag: &'a str,
    /// Our address for From, without tag.
    pub local: Address<'a>,
    /// The peer's address for To, without tag.
    pub remote: Address<'a>,
    /// Request-URI of the first request.
    pub target: &'a str,
    /// Value of our Contact, with its angle brackets.
    pub local_contact: &'a str,
    /// The first request goes to a `sips:` URI over TLS.
    pub secure: bool,
}

impl Dialog {
    /// Begins a half-dialog for a request of ours; see [`Self::confirmed_by`] and [`Self::subscribed_by`].
    pub fn half(new: &NewDialog<'_>) -> Self {
        Self {
            call_id: new.call_id.to_owned(),
            local_tag: new.local_tag.to_owned(),
            remote_tag: String::new(),
            local: Address { tag: None, ..new.local }.to_string(),
            remote: Address { tag: None, ..new.remote }.to_string(),
            remote_target: new.target.to_owned(),
            route_set: Vec::new(),
            local_cseq: 0,
            remote_cseq: None,
            invite_cseq: None,
            local_contact: new.local_contact.to_owned(),
            secure: new.secure,
            state: DialogState::Half,
        }
    }

    /// Makes the dialog that a 2xx of ours to `request` opens (RFC 3261 §12.1.1).
    ///
    /// `secure` tells that the request came over TLS; with a `sips:` Request-URI it makes the dialog secure.
    ///
    /// # Errors
    ///
    /// When From has no tag, or Contact or Record-Route cannot be used.
    pub fn uas(request: &Message, local_tag: &str, local_contact: &str, tls: bool) -> Result<Self, DialogError> {
        let remote_tag = request.from_().tag().ok_or(DialogError::Tag)?;
        Ok(Self {
            call_id: request.call_id().to_owned(),
            local_tag: local_tag.to_owned(),
            remote_tag: remote_tag.to_owned(),
            local: without_tag(&request.to()),
            remote: without_tag(&request.from_()),
            remote_target: target_of(request)?.ok_or(DialogError::Contact)?,
            route_set: record_routes(request)?,
            local_cseq: 0,
            remote_cseq: Some(request.cseq().number),
            invite_cseq: None,
            local_contact: local_contact.to_owned(),
            secure: tls && request.request_uri().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:")),
            state: DialogState::Confirmed,
        })
    }

    /// Completes a half-dialog from the 2xx to its INVITE (RFC 3261 §12.1.2). A forked INVITE is completed once for
    /// each To tag.
    ///
    /// # Errors
    ///
    /// When the 2xx is of another dialog, has no To tag, or its Contact or Record-Route cannot be used.
    pub fn confirmed_by(&self, response: &Message) -> Result<Self, DialogError> {
        if response.call_id() != self.call_id || response.from_().tag() != Some(self.local_tag.as_str()) {
            return Err(DialogError::Foreign);
        }
        let mut route_set = record_routes(response)?;
        route_set.reverse();
        Ok(Self {
            remote_tag: response.to().tag().ok_or(DialogError::Tag)?.to_owned(),
            remote_target: target_of(response)?.ok_or(DialogError::Contact)?,
            route_set,
            state: DialogState::Confirmed,
            ..self.clone()
        })
    }

    /// Completes a half-dialog from the first NOTIFY of its subscription: route set in the order of that NOTIFY,
    /// target its Contact, remote tag its From tag (RFC 6665 §4.4.1).
    ///
    /// # Errors
    ///
    /// When the NOTIFY is of another dialog, has no From tag, or its Contact or Record-Route cannot be used.
    pub fn subscribed_by(&self, notify: &Message) -> Result<Self, DialogError> {
        if notify.call_id() != self.call_id || notify.to().tag() != Some(self.local_tag.as_str()) {
            return Err(DialogError::Foreign);
        }
        Ok(Self {
            remote_tag: notify.from_().tag().ok_or(DialogError::Tag)?.to_owned(),
            remote_target: target_of(notify)?.ok_or(DialogError::Contact)?,
            route_set: record_routes(notify)?,
            remote_cseq: Some(notify.cseq().number),
            state: DialogState::Confirmed,
            ..self.clone()
        })
    }

    /// Call-ID.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Our tag.
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// The peer's tag; empty in a half-dialog.
    pub fn remote_tag(&self) -> &str {
        &self.remote_tag
    }

    /// Our address as first spelled, without tag.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The peer's address as first spelled, without tag.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// Where the peer wants its requests: a URI.
    pub fn remote_target(&self) -> &str {
        &self.remote_target
    }

    /// The routes to the peer, as values of Route.
    pub fn route_set(&self) -> &[String] {
        &self.route_set
    }

    /// The value of our Contact.
    pub fn local_contact(&self) -> &str {
        &self.local_contact
    }

    /// Number of our last request; zero before the first.
    pub fn local_cseq(&self) -> u32 {
        self.local_cseq
    }

    /// The last request of ours never left: the next one has its number, so that the peer sees no gap. Nothing happens when another
    /// one was made since.
    pub fn take_back(&mut self, cseq: u32) {
        if self.local_cseq == cseq {
            self.local_cseq = cseq.saturating_sub(1);
        }
    }

    /// Number of the peer's last request.
    pub fn remote_cseq(&self) -> Option<u32> {
        self.remote_cseq
    }

    /// Number of our last INVITE.
    pub fn invite_cseq(&self) -> Option<u32> {
        self.invite_cseq
    }

    /// True if every hop must be secured (RFC 3261 §12.1.1).
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The state.
    pub fn state(&self) -> DialogState {
        self.state
    }

    /// Ends the dialog.
    pub fn terminate(&mut self) {
        self.state = DialogState::Terminated;
    }

    /// Compares with the names of a request from the peer: To tag is ours, From tag theirs. A half-dialog
    /// matches any remote tag.
    pub fn matches(&self, call_id: &str, local_tag: &str, remote_tag: Option<&str>) -> bool {
        self.call_id == call_id
            && self.local_tag == local_tag
            && (self.state == DialogState::Half || self.remote_tag == remote_tag.unwrap_or_default())
    }

    /// True if a request from the peer is of this dialog.
    pub fn matches_request(&self, request: &Message) -> bool {
        request.to().tag().is_some_and(|to| self.matches(request.call_id(), to, request.from_().tag()))
    }

    /// Takes a request of the peer: checks its CSeq and remembers it, and refreshes the target, never the route
    /// set. ACK and CANCEL have the CSeq of their INVITE and are not to be given here.
    ///
    /// # Errors
    ///
    /// See [`RefuseInDialog`]; the dialog is unchanged then.
    pub fn accept_request(&mut self, request: &Message) -> Result<(), RefuseInDialog> {
        let number = request.cseq().number;
        match self.remote_cseq {
            Some(last) if number < last => return Err(RefuseInDialog::OutOfOrder),
            Some(last) if number == last => return Err(RefuseInDialog::Repeated),
            _ => {}
        }
        self.refresh_target(request.method(), request).map_err(RefuseInDialog::Target)?;
        self.remote_cseq = Some(number);
        Ok(())
    }

    /// Takes a 2xx to a request of ours inside the dialog: it refreshes the target.
    ///
    /// # Errors
    ///
    /// When its Contact cannot be used; the dialog is unchanged then.
    pub fn accept_success(&mut self, response: &Message) -> Result<(), DialogError> {
        self.refresh_target(response.method(), response)
    }

    fn refresh_target(&mut self, method: Method<'_>, message: &Message) -> Result<(), DialogError> {
        if refreshes_target(method)
            && let Some(target) = target_of(message)?
        {
            self.remote_target = target;
        }
        Ok(())
    }

    /// The URI that decides where our next request goes: the first route, else the remote target.
    pub fn next_hop(&self) -> &str {
        let route = self.route_set.first().and_then(|route| NameAddr::parse(route).ok());
        route.map_or(self.remote_target.as_str(), |route| route.uri_str())
    }

    /// Checks that the next hop is the peer's own, so that a peer cannot point us at others (interworking
    /// specification §1.5). `allowed` knows the peer's accepted names.
    ///
    /// Routes behind the first one are the business of the first: an edge records inner servers that
    /// nobody outside knows.
    ///
    /// # Errors
    ///
    /// [`ForeignNextHop`] when `allowed` says no, or the URI names no host: the dialog is to be refused.
    pub fn check_next_hop(&self, allowed: impl FnOnce(Host<'_>) -> bool) -> Result<(), ForeignNextHop> {
        let uri = self.next_hop();
        let host = Uri::parse(uri).ok().and_then(|uri| uri.host());
        if host.is_some_and(allowed) { Ok(()) } else { Err(ForeignNextHop { uri: uri.to_owned() }) }
    }

    /// Starts the next request of ours and counts it: Request-URI, Route, Max-Forwards, From, To, Call-ID, `CSeq`, and
    /// Contact where the method refreshes the target. The endpoint adds Via.
    pub fn request(&mut self, method: Method<'_>) -> RequestWriter {
        self.local_cseq = self.local_cseq.saturating_add(1);
        if method == Method::Invite {
            self.invite_cseq = Some(self.local_cseq);
        }
        let mut writer = self.write(method, self.local_cseq);
        if refreshes_target(method) {
            writer.header(HeaderName::Contact, &self.local_contact);
        }
        writer
    }

    /// Starts the ACK of the 2xx to our last INVITE; it has that INVITE's number (RFC 3261 §13.2.2.4).
    pub fn ack(&self) -> RequestWriter {
        self.write(Method::Ack, self.invite_cseq.unwrap_or(self.local_cseq))
    }

    /// Starts the answer that opens the dialog: To has our tag, Record-Route is copied, Contact is ours.
    pub fn opening_answer(&self, request: &Message, status: StatusCode) -> ResponseWriter {
        let mut writer = ResponseWriter::for_request(request, status, None, Some(&self.local_tag));
        writer.record_routes_of(request).header(HeaderName::Contact, &self.local_contact);
        writer
    }

    /// Starts another answer to a request of the dialog; with Contact where a 2xx refreshes the target.
    pub fn answer(&self, request: &Message, status: StatusCode) -> ResponseWriter {
        let mut writer = ResponseWriter::for_request(request, status, None, Some(&self.local_tag));
        if status.is_success() && refreshes_target(request.method()) {
            writer.header(HeaderName::Contact, &self.local_contact);
        }
        writer
    }

    fn write(&self, method: Method<'_>, cseq: u32) -> RequestWriter {
        let (uri, routes, target) = self.path();
        let mut writer = RequestWriter::new(method, &uri);
        writer.max_forwards(70).routes(routes.iter().map(String::as_str));
        if let Some(target) = target {
            writer.routes([target.as_str()]);
        }
        writer
            .header(HeaderName::From, &tagged(&self.local, &self.local_tag))
            .header(HeaderName::To, &tagged(&self.remote, &self.remote_tag))
            .call_id(&self.call_id)
            .cseq(cseq, method);
        writer
    }

    /// Request-URI, Route, and what a strict router wants as the last Route (RFC 3261 §12.2.1.1).
    fn path(&self) -> (String, &[String], Option<String>) {
        let first = self.route_set.first().and_then(|route| NameAddr::parse(route).ok());
        match (first, self.route_set.split_first()) {
            (Some(first), Some((_, rest))) if !Uri::parse(first.uri_str()).is_ok_and(|uri| uri.is_loose_route()) => {
                (as_request_uri(first.uri_str()), rest, Some(format!("<{}>", self.remote_target)))
            }
            _ => (self.remote_target.clone(), &self.route_set, None),
        }
    }
}

/// Removes what a Request-URI may not have: headers and the method parameter (RFC 3261 §19.1.1).
fn as_request_uri(uri: &str) -> String {
    let uri = uri.split_once('?').map_or(uri, |(uri, _)| uri);
    let is_method = |param: &str| param.get(..7).is_some_and(|name| name.eq_ignore_ascii_case("method="));
    // a user part may hold semicolons; a parameter follows the host
    let host = uri.find('@').map_or(0, |at| at + 1);
    let (user, rest) = uri.split_at_checked(host).unwrap_or(("", uri));
    let rest: Vec<&str> = rest.split(';').filter(|param| !is_method(param)).collect();
    format!("{user}{}", rest.join(";"))
}

/// True if Contact in such requests and their 2xx moves the remote target (RFC 3261 §12.2, RFC 6665 §3, RFC 3311,
/// RFC 3515).
fn refreshes_target(method: Method<'_>) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer)
}

/// The one Contact of a message, if it has any.
fn target_of(message: &Message) -> Result<Option<String>, DialogError> {
    let mut contacts = message.contacts();
    let target = match contacts.next() {
        None => return Ok(None),
        Some(contact) => match contact? {
            Contact::Star => return Err(DialogError::Contact),
            Contact::Address(address) => address.uri_str().to_owned(),
        },
    };
    if contacts.next().is_some() {
        return Err(DialogError::Contact);
    }
    if has_sip_host(&target) { Ok(Some(target)) } else { Err(DialogError::ContactScheme) }
}

fn record_routes(message: &Message) -> Result<Vec<String>, DialogError> {
    message
        .headers(HeaderName::RecordRoute)
        .map(|route| match NameAddr::parse(route) {
            Ok(address) if has_sip_host(address.uri_str()) => Ok(route.to_owned()),
            _ => Err(DialogError::RecordRoute),
        })
        .collect()
}

fn has_sip_host(uri: &str) -> bool {
    use crate::uri::Scheme;
    Uri::parse(uri).is_ok_and(|uri| matches!(uri.scheme(), Scheme::Sip | Scheme::Sips) && uri.host().is_some())
}

/// An address as spelled, without its tag; in brackets, so that a tag can follow.
fn without_tag(address: &NameAddr<'_>) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    // the grammar allows an escaped NUL in a display name, and we never write one
    if !address.raw_display().is_empty() && !address.raw_display().contains('\0') {
        text.push_str(address.raw_display());
        text.push(' ');
    }
    // writing to a String does not fail
    let _ = write!(text, "<{}>", address.uri_str());
    for (name, value) in address.params().iter().filter(|(name, _)| !name.eq_ignore_ascii_case("tag")) {
        let _ = match value {
            Some(value) => write!(text, ";{name}={value}"),
            None => write!(text, ";{name}"),
        };
    }
    text
}

fn tagged(address: &str, tag: &str) -> String {
    if tag.is_empty() { address.to_owned() } else { format!("{address};tag={tag}") }
}
