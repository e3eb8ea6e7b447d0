//! Answers that follow from a request alone, for whoever serves it.

use crate::header::HeaderName;
use crate::message::Message;
use crate::method::Method;
use crate::status::StatusCode;
use crate::write::ResponseWriter;

/// The value of Allow: all methods that the gateway serves.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, MESSAGE, INFO, OPTIONS, SUBSCRIBE, NOTIFY";

/// The value of Allow-Events.
pub const ALLOW_EVENTS: &str = "presence";

/// The value of Accept in the answer to OPTIONS.
const ACCEPT: &str = "application/sdp, application/pidf+xml, text/plain";

/// Refuses a method that the gateway does not serve: 405 when it is known, 501 when it is not, both with Allow
/// (RFC 3261 §8.2.1); `None` when it is served.
pub fn refuse_method(request: &Message, to_tag: &str) -> Option<ResponseWriter> {
    let method = request.method();
    if ALLOW.split(", ").any(|served| served == method.as_str()) {
        return None;
    }
    let status =
        if matches!(method, Method::Other(_)) { StatusCode::NOT_IMPLEMENTED } else { StatusCode::METHOD_NOT_ALLOWED };
    let mut writer = ResponseWriter::for_request(request, status, None, Some(to_tag));
    writer.header(HeaderName::Allow, ALLOW);
    Some(writer)
}

/// Refuses a request that requires extensions, of which the gateway has none: 420 with Unsupported (RFC 3261 §8.2.2.3).
/// Proxy-Require is for proxies and is ignored, and so is Require in ACK and CANCEL.
pub fn refuse_require(request: &Message, to_tag: &str) -> Option<ResponseWriter> {
    request.require().next()?;
    if matches!(request.method(), Method::Ack | Method::Cancel) {
        return None;
    }
    let mut writer = ResponseWriter::for_request(request, StatusCode::BAD_EXTENSION, None, Some(to_tag));
    for tag in request.require() {
        writer.header(HeaderName::Unsupported, tag);
    }
    Some(writer)
}

/// Starts the answer to OPTIONS: 200 with Allow, Accept and Allow-Events (RFC 3261 §11.2, RFC 6665 §4.4.4).
pub fn answer_options(request: &Message, to_tag: &str) -> ResponseWriter {
    let mut writer = ResponseWriter::for_request(request, StatusCode::OK, None, Some(to_tag));
    writer
        .header(HeaderName::Allow, ALLOW)
        .header(HeaderName::Accept, ACCEPT)
        .header(HeaderName::AllowEvents, ALLOW_EVENTS);
    writer
}
