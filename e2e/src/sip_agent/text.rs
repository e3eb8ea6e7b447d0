//! SIP as text: what is written, and the few parts that are read.

use crate::sip_trace::SipMessage;
use crate::xmpp_client::escape;

/// The rest of a request or answer after CSeq, without a body.
pub(super) const EMPTY: &str = "Content-Length: 0\r\n\r\n";

/// A plain text body with its header fields.
pub(super) fn plain(text: &str) -> String {
    format!("Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

/// A presence document: open, with the state as its note.
pub(super) fn document(aor: &str, note: &str) -> String {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
         entity=\"pres:{aor}\"><tuple id=\"t1\"><status><basic>open</basic></status>\
         <note xml:lang=\"en\">{}</note></tuple></presence>",
        escape(note)
    );
    format!("Content-Type: application/pidf+xml\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The answer to an offer of text, and the offer itself: both are the same four lines.
pub(super) fn sdp(address: std::net::SocketAddr) -> String {
    let ip = address.ip();
    let body = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=session\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=message 5060 sip null\r\n\
         a=accept-types:text/plain\r\n"
    );
    format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The branch of the topmost Via.
pub(super) fn branch(message: &SipMessage) -> &str {
    message.header("Via").split(';').find_map(|part| part.trim().strip_prefix("branch=")).unwrap_or_default()
}

/// `user@domain` of From or To.
pub(super) fn aor(value: &str) -> String {
    let Some((_, rest)) = value.split_once("sip:") else { return String::new() };
    rest.split(['>', ';', ' ', '?']).next().unwrap_or_default().to_owned()
}

/// The URI of a Contact, `fallback` when there is none.
pub(super) fn contact(message: &SipMessage, fallback: &str) -> String {
    let value = message.header("Contact");
    let inside = value.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(uri, _)| uri);
    inside.or_else(|| value.split(';').next().filter(|v| !v.is_empty())).unwrap_or(fallback).to_owned()
}

/// The head of an answer: status line and the fields that must be copied, with `tag` in To when the request has none.
pub(super) fn answer_head(request: &SipMessage, status: &str, tag: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for via in request.all("Via") {
        text.push_str(&format!("Via: {via}\r\n"));
    }
    for route in request.all("Record-Route") {
        text.push_str(&format!("Record-Route: {route}\r\n"));
    }
    let to = request.header("To");
    let to = if request.tag("To").is_empty() { format!("{to};tag={tag}") } else { to.to_owned() };
    text.push_str(&format!(
        "From: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\n",
        request.header("From"),
        request.header("Call-ID"),
        request.header("CSeq")
    ));
    text
}

/// An answer that was written for another branch, with the Via fields of this request.
pub(super) fn with_via_of(answer: &str, request: &SipMessage) -> String {
    let mut lines: Vec<String> = Vec::new();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    for line in head.split("\r\n").filter(|line| !line.starts_with("Via:")) {
        lines.push(line.to_owned());
        if lines.len() == 1 {
            lines.extend(request.all("Via").map(|via| format!("Via: {via}")));
        }
    }
    format!("{}\r\n\r\n{body}", lines.join("\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(via: &str) -> SipMessage {
        let text = format!(
            "MESSAGE sip:a@b SIP/2.0\r\nVia: {via}\r\nVia: SIP/2.0/UDP x;branch=z9hG4bKold\r\nFrom: <sip:j@c>;tag=1\r\n\
             To: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 3 MESSAGE\r\nContact: <sip:j@h:1;transport=udp>\r\n\r\nhi"
        );
        SipMessage::parse(&text, true, None).unwrap()
    }

    #[test]
    fn answers_copy_what_they_must_and_repeat_with_the_via_of_the_repetition() {
        let first = request("SIP/2.0/UDP h;branch=z9hG4bK1;rport");
        let answer = answer_head(&first, "200 OK", "t") + EMPTY;
        assert!(answer.contains("To: <sip:a@b>;tag=t\r\n") && answer.contains("branch=z9hG4bKold"));
        let again = with_via_of(&answer, &request("SIP/2.0/UDP h;branch=z9hG4bK2"));
        let again = SipMessage::parse(&again, true, None).unwrap();
        assert_eq!((branch(&again), again.all("Via").count(), again.tag("To")), ("z9hG4bK2", 2, "t"));
        assert_eq!((aor(again.header("From")).as_str(), again.cseq()), ("j@c", 3));
        assert_eq!(contact(&first, ""), "sip:j@h:1;transport=udp");
    }
}
