//! One endpoint with its own clock, and a log of what it does when.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isthmus_sip::endpoint::{
    ClientTxId, Destination, Endpoint, EndpointConfig, Event, FlowId, Origin, Outgoing, Output, SentBy, ServerTxId,
    Source,
};
use isthmus_sip::{Limits, Message, ResponseWriter, StatusCode, Transport};

/// A message that left.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// Milliseconds since the start.
    pub(crate) at: u64,
    pub(crate) destination: Destination,
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

impl Sent {
    /// Method or status code.
    pub(crate) fn what(&self) -> &str {
        let first = self.text.lines().next().unwrap_or_default();
        first.strip_prefix("SIP/2.0 ").unwrap_or(first).split(' ').next().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.text.split("\r\n\r\n").next().unwrap_or_default().split("\r\n").skip(1);
        lines.filter_map(|line| line.split_once(": ")).filter(|(n, _)| *n == name).map(|(_, v)| v).collect()
    }

    pub(crate) fn message(&self) -> Message {
        parse(&self.text)
    }

    pub(crate) fn branch(&self) -> String {
        self.message().top_via().branch().unwrap().to_owned()
    }
}

pub(crate) struct Side {
    pub(crate) endpoint: Endpoint,
    start: Instant,
    now: Instant,
    pub(crate) sent: Vec<Sent>,
    pub(crate) events: Vec<(u64, Event)>,
}

pub(crate) fn parse(text: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap()
}

/// The number sequence that stands for randomness: different from call to call, the same from run to run.
pub(crate) fn entropy(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    }
}

pub(crate) fn config(name: &str) -> EndpointConfig {
    EndpointConfig {
        own_names: vec![SentBy::new(name, None)],
        pod: String::from("p1"),
        product: Some(String::from("Isthmus/0")),
        ..EndpointConfig::default()
    }
}

impl Side {
    pub(crate) fn new() -> Self {
        Self::with(config("fed.corp.example"))
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    pub(crate) fn with(config: EndpointConfig) -> Self {
        let start = Instant::now();
        let endpoint = Endpoint::new(config, Box::new(entropy(1)));
        Self { endpoint, start, now: start, sent: vec![], events: vec![] }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn at(&self) -> u64 {
        u64::try_from((self.now - self.start).as_millis()).unwrap()
    }

    pub(crate) fn drain(&mut self) {
        let at = self.at();
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { destination, bytes, origin } => {
                    let text = String::from_utf8(bytes.to_vec()).unwrap();
                    // whatever leaves is a message
                    parse(&text);
                    self.sent.push(Sent { at, destination, text, origin });
                }
                Output::Event(event) => self.events.push((at, event)),
            }
        }
    }

    /// Runs all timers up to `ms` since the start.
    pub(crate) fn run_to(&mut self, ms: u64) {
        let until = self.start + Duration::from_millis(ms);
        while let Some((at, _)) = self.endpoint.poll_timeout().filter(|(at, _)| *at <= until) {
            assert!(at >= self.now, "a timer of the past");
            self.now = at;
            self.endpoint.handle_timeout(at);
            self.drain();
        }
        self.now = until;
    }

    pub(crate) fn receive(&mut self, source: Source, text: &str) {
        self.endpoint.handle_message(self.now, source, parse(text));
        self.drain();
    }

    /// The transaction and message of the only new request.
    pub(crate) fn request(&mut self) -> (ServerTxId, Message) {
        let mut events = std::mem::take(&mut self.events);
        assert_eq!(events.len(), 1, "{events:?}");
        match events.pop() {
            Some((_, Event::Request { tx, message, .. })) => (tx, message),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn respond(&mut self, tx: ServerTxId, request: &Message, code: u16) {
        let response = answer(request, code);
        self.endpoint.respond(self.now, tx, response).unwrap();
        self.drain();
    }

    pub(crate) fn send(&mut self, outgoing: Outgoing) -> ClientTxId {
        let tx = self.endpoint.send_request(self.now, outgoing).unwrap();
        self.drain();
        tx
    }

    pub(crate) fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// What was sent when, as `what@ms`.
    pub(crate) fn log(&mut self) -> String {
        let log: Vec<_> = self.take_sent().iter().map(|sent| format!("{}@{}", sent.what(), sent.at)).collect();
        log.join(" ")
    }

    /// Responses, timeouts and failures since the last call, as `what@ms`.
    pub(crate) fn client_log(&mut self) -> String {
        let log: Vec<_> = std::mem::take(&mut self.events)
            .into_iter()
            .map(|(at, event)| match event {
                Event::Response { status, .. } => format!("{status}@{at}"),
                Event::Timeout { provisional_seen, .. } => format!("timeout({provisional_seen})@{at}"),
                Event::SendFailed { .. } => format!("failed@{at}"),
                other => panic!("{other:?}"),
            })
            .collect();
        log.join(" ")
    }
}

pub(crate) fn answer(request: &Message, code: u16) -> Bytes {
    let mut writer = ResponseWriter::for_request(request, StatusCode::new(code).unwrap(), None, Some("our-tag"));
    if request.method() == isthmus_sip::Method::Invite {
        writer.header(isthmus_sip::HeaderName::Contact, "<sip:fed.corp.example>");
    }
    writer.finish(b"").unwrap()
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The peer's address as a source over `transport`.
pub(crate) fn source(transport: Transport) -> Source {
    Source {
        flow: FlowId(7),
        transport,
        remote: address("192.0.2.20:5070"),
        local: address("192.0.2.10:5060"),
        takes_answers: true,
    }
}

pub(crate) fn udp() -> Source {
    source(Transport::Udp)
}

pub(crate) fn tls() -> Source {
    source(Transport::Tls)
}

/// A request of the peer.
pub(crate) fn request(method: &str, branch: &str) -> String {
    with_headers(method, branch, "Max-Forwards: 70\r\n")
}

pub(crate) fn with_headers(method: &str, branch: &str, headers: &str) -> String {
    format!(
        "{method} sip:lee@corp.example SIP/2.0\r\n\
         Via: SIP/2.0/UDP edge.partner.example:5062;branch={branch}\r\n\
         From: <sip:ana@partner.example>;tag=w91\r\n\
         To: <sip:lee@corp.example>\r\n\
         Call-ID: 9d1f\r\n\
         CSeq: 5 {method}\r\n\
         Contact: <sip:ana@edge.partner.example>\r\n\
         {headers}Content-Length: 0\r\n\r\n"
    )
}

/// A request of ours over `transport`.
pub(crate) fn outgoing(method: &str, transport: Transport) -> Outgoing {
    let request = format!(
        "{method} sip:ana@partner.example SIP/2.0\r\n\
         Max-Forwards: 70\r\n\
         Route: <sip:edge.partner.example;lr>\r\n\
         From: <sip:lee@corp.example>;tag=51aa\r\n\
         To: <sip:ana@partner.example>\r\n\
         Call-ID: 6b7f\r\n\
         CSeq: 3 {method}\r\n\
         Contact: <sip:lee@fed.corp.example>\r\n\
         Content-Length: 0\r\n\r\n"
    );
    Outgoing {
        request: Bytes::from(request),
        destination: Destination::from(source(transport)),
        sent_by: SentBy::new("fed.corp.example", Some(5061)),
        alias: false,
        correlation: 42,
    }
}

/// The peer's answer to a request of ours.
pub(crate) fn reply(sent: &Sent, code: u16, to_tag: &str) -> String {
    let request = sent.message();
    let writer = ResponseWriter::for_request(&request, StatusCode::new(code).unwrap(), None, Some(to_tag));
    String::from_utf8(writer.finish(b"").unwrap().to_vec()).unwrap()
}
