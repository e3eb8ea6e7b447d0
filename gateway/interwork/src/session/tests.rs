//! Whole sessions, told in wire texts. After each input the machine is made anew from its stored bytes.

mod callee;
mod caller;

use bytes::Bytes;
use isthmus_model::{Entropy, Now};
use isthmus_sip::{HeaderName, Limits, Method};

use super::*;
use crate::content::Received;

/// The machine with a clock and a counter in place of chance.
struct Lab {
    session: Session,
    now: Now,
    config: SessionConfig,
    count: u64,
    outputs: VecDeque<Output>,
    /// What the last request was for.
    last: Option<Purpose>,
}

#[expect(clippy::disallowed_methods, reason = "tests need some instant to start from")]
fn lab(dialect: Dialect) -> Lab {
    let contact = "<sip:lee@sip.corp.example:5061;transport=tls>".to_owned();
    let address = "192.0.2.10".parse().unwrap();
    Lab {
        session: Session::new(user("lee@corp.example"), user("ana@partner.example"), None),
        now: Now { instant: std::time::Instant::now(), epoch: EpochMillis(1_700_000_000_000) },
        config: SessionConfig::new(dialect, contact, address, 5061, "sip.corp.example".to_owned()),
        count: 0,
        outputs: VecDeque::new(),
        last: None,
    }
}

fn user(jid: &str) -> BareAddress {
    BareAddress::from_jid(jid).unwrap()
}

const OFFER: &str = "v=0\r\no=- 0 0 IN IP4 203.0.113.9\r\ns=session\r\nc=IN IP4 203.0.113.9\r\nt=0 0\r\n\
                     m=message 5060 sip null\r\na=accept-types:text/plain application/im-iscomposing+xml\r\n";

impl Lab {
    fn act<R>(&mut self, act: impl FnOnce(&mut Session, &mut Context<'_>) -> R) -> R {
        let count = &mut self.count;
        let mut entropy = || {
            *count += 1;
            *count << 32
        };
        let entropy: &mut dyn Entropy = &mut entropy;
        let done = act(&mut self.session, &mut Context { now: self.now, config: &self.config, entropy });
        while let Some(output) = self.session.poll_output() {
            self.outputs.push_back(output);
        }
        let record = SessionRecord::from_bytes(&self.session.record().to_bytes()).unwrap();
        assert_eq!(&record, self.session.record());
        assert_eq!(record.users(), Some((user("lee@corp.example"), user("ana@partner.example"))));
        self.session = Session::new(user("lee@corp.example"), user("ana@partner.example"), Some(record));
        done
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now.plus(Duration::from_secs(secs));
        let due = self.session.next_deadline(&self.config).is_some_and(|at| at <= self.now.epoch);
        if due {
            self.act(Session::handle_timeout);
        }
    }

    fn say(&mut self, id: &str, body: &str) {
        self.say_in(id, body, None);
    }

    fn say_in(&mut self, id: &str, body: &str, thread: Option<&str>) {
        self.stanza(id, |stanza| {
            stanza.thread = thread.map(Into::into);
            *stanza = stanza.clone().with_body(body);
        });
    }

    fn state(&mut self, state: ChatState) {
        self.stanza("state", |stanza| stanza.chat_state = Some(state));
    }

    fn stanza(&mut self, id: &str, change: impl FnOnce(&mut isthmus_xmpp::Message)) {
        let mut stanza =
            isthmus_xmpp::Message::new(MessageType::Chat, "lee@corp.example/desk", "ana@partner.example").with_id(id);
        change(&mut stanza);
        let message = OutgoingMessage::of(&stanza).unwrap().unwrap();
        self.act(|session, ctx| session.handle_stanza(ctx, message));
    }

    /// The next request, which must be of this method.
    fn sent(&mut self, method: Method<'_>) -> Message {
        match self.outputs.pop_front() {
            Some(Output::Request { request, purpose, .. }) => {
                self.last = Some(purpose);
                let request = parse_sent(&request);
                assert_eq!(request.method(), method);
                request
            }
            Some(Output::Ack { request, .. }) => {
                let request = parse_sent(&request);
                assert_eq!(request.method(), method);
                request
            }
            other => panic!("{method} expected: {other:?}"),
        }
    }

    fn told(&mut self) -> isthmus_xmpp::Message {
        match self.outputs.pop_front() {
            Some(Output::ToLocal(message)) => message,
            other => panic!("stanza expected: {other:?}"),
        }
    }

    /// A message of the user was refused outside of dialogs.
    fn refused_single(&mut self, id: &str, body: &str) {
        let stanza = isthmus_xmpp::Message::new(MessageType::Chat, "lee@corp.example/desk", "ana@partner.example");
        let message = OutgoingMessage::of(&stanza.with_id(id).with_body(body)).unwrap().unwrap();
        self.act(|session, ctx| session.handle_refused_single(ctx, message));
    }

    /// The next output must be this message, to be sent outside of dialogs.
    fn handed_over(&mut self, id: &str, body: &str) {
        match self.outputs.pop_front() {
            Some(Output::Pager(message)) => {
                assert_eq!((message.id.as_deref(), message.body.as_deref()), (Some(id), Some(body)));
            }
            other => panic!("{other:?}"),
        }
    }

    /// The next output must be this error for the message of this id.
    fn failed(&mut self, id: &str, condition: ErrorCondition, text: &str) {
        let message = self.told();
        assert_eq!(message.kind, MessageType::Error);
        assert_eq!((message.from(), message.to()), (Some("ana@partner.example"), Some("lee@corp.example/desk")));
        assert_eq!(message.id.as_deref(), Some(id));
        let error = message.error.unwrap();
        assert_eq!((error.condition, error.text.unwrap().text.as_str()), (condition, text));
    }

    #[track_caller]
    fn quiet(&self) {
        assert!(self.outputs.is_empty(), "{:?}", self.outputs);
    }

    /// A request of ours is answered; with the tag `far` unless the request has one.
    fn answer(&mut self, request: &Message, status: u16, headers: &str, body: &str) {
        self.answer_as("far", request, &format!("{status} Reason {status}"), headers, body);
    }

    fn answer_as(&mut self, tag: &str, request: &Message, status: &str, headers: &str, body: &str) {
        let response = response(tag, request, status, headers, body);
        let purpose = purpose(request);
        if response.status().unwrap().is_provisional() {
            self.act(|session, ctx| session.handle_provisional(ctx, &purpose));
        } else {
            self.act(|session, ctx| session.handle_outcome(ctx, &purpose, &Outcome::Answer(&response)));
        }
    }

    fn no_answer(&mut self, request: &Message) {
        let purpose = purpose(request);
        self.act(|session, ctx| session.handle_outcome(ctx, &purpose, &Outcome::Failed(LocalFailure::Timeout)));
    }

    /// The last request of ours was held back; gives what it was for.
    fn withdraw_last(&mut self) -> Purpose {
        let purpose = self.last.take().unwrap();
        self.act(|session, ctx| session.handle_withdrawn(ctx, &purpose, false));
        purpose
    }

    fn accept(&mut self, invite: &Message) {
        self.answer(invite, 200, "Contact: <sip:ana@edge.partner.example>\r\nContent-Type: application/sdp\r\n", OFFER);
        let ack = self.sent(Method::Ack);
        assert_eq!((ack.request_uri(), ack.cseq().number), ("sip:ana@edge.partner.example", 1));
        assert_eq!(ack.to().tag(), Some("far"));
    }

    /// A session that we opened, with nothing outstanding.
    fn up(&mut self) -> Message {
        self.say("m0", "hello");
        let invite = self.sent(Method::Invite);
        self.accept(&invite);
        let message = self.sent(Method::Message);
        self.answer(&message, 200, "", "");
        self.quiet();
        invite
    }

    fn invite_with(&mut self, call_id: &str, to_tag: &str, cseq: u32, headers: &str, body: &str) -> Message {
        let request = parse(&format!(
            "INVITE sip:lee@corp.example SIP/2.0\r\nVia: SIP/2.0/TLS edge.partner.example;branch=z9hG4bK{call_id}{cseq}\r\n\
             Record-Route: <sip:edge.partner.example;transport=tls;lr>\r\n\
             From: \"Ana\" <sip:ana@partner.example>;tag=w91;epid=01\r\nTo: <sip:lee@corp.example>{to_tag}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} INVITE\r\nContact: <sip:ana@inner.partner.example>\r\n\
             {headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let answer = self.act(|session, ctx| session.handle_invite(ctx, &request, true).unwrap());
        parse(std::str::from_utf8(&answer).unwrap())
    }

    fn invited(&mut self, headers: &str, body: &str) -> Message {
        let headers = format!("{headers}Content-Type: application/sdp\r\n");
        self.invite_with("call-in", "", 1, &headers, body)
    }

    fn ack(&mut self, ok: &Message, body: &str) {
        let headers = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let ack = inside(ok, "ACK", ok.cseq().number, headers, body);
        self.act(|session, ctx| session.handle_ack(ctx, &ack));
    }

    fn receive(&mut self, ours: &Message, cseq: u32, headers: &str, body: &str) -> Heard {
        let request = inside(ours, "MESSAGE", cseq, headers, body);
        match self.act(|session, ctx| session.check_message(ctx, &request, "s1", false)) {
            Ok(delivery) => Heard { stanza: Some(delivery.stanza), answer: None },
            Err(answer) => Heard { stanza: None, answer: Some(parse(std::str::from_utf8(&answer.unwrap()).unwrap())) },
        }
    }

    fn request(&mut self, ours: &Message, method: &str, cseq: u32, headers: &str, body: &str) -> Message {
        let request = inside(ours, method, cseq, headers, body);
        let answer = self.act(|session, ctx| match request.method() {
            Method::Bye => session.handle_bye(ctx, &request),
            Method::Info => session.handle_info(ctx, &request),
            _ => session.handle_other(ctx, &request),
        });
        parse(std::str::from_utf8(&answer.unwrap()).unwrap())
    }
}

/// A request of the peer in the dialog to which a message of ours, or an answer of ours, belongs.
fn inside(ours: &Message, method: &str, cseq: u32, headers: &str, body: &str) -> Message {
    let (tag, far) = match ours.status() {
        Some(_) => (ours.to().tag().unwrap(), ours.from_().tag().unwrap()),
        None => (ours.from_().tag().unwrap(), ours.to().tag().unwrap_or("far")),
    };
    parse(&format!(
        "{method} sip:lee@sip.corp.example:5061 SIP/2.0\r\nVia: SIP/2.0/TLS e.partner.example;branch=z9hG4bKi{cseq}\r\n\
         From: <sip:ana@partner.example>;tag={far}\r\nTo: <sip:lee@corp.example>;tag={tag}\r\n\
         Call-ID: {}\r\nCSeq: {cseq} {method}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        ours.call_id(),
        body.len()
    ))
}

/// What became of a MESSAGE of the peer.
struct Heard {
    stanza: Option<isthmus_xmpp::Message>,
    answer: Option<Message>,
}

impl Heard {
    fn unwrap(self) -> isthmus_xmpp::Message {
        self.stanza.unwrap()
    }

    fn unwrap_err(self) -> Message {
        self.answer.unwrap()
    }

    fn is_ok(&self) -> bool {
        self.stanza.is_some()
    }
}

fn purpose(request: &Message) -> Purpose {
    let local_tag = request.from_().tag().unwrap().to_owned();
    match request.method() {
        Method::Invite => Purpose::Invite { local_tag },
        Method::Bye => Purpose::Bye { local_tag },
        _ => Purpose::Message { local_tag, cseq: request.cseq().number, until: 0, stanza_id: None },
    }
}

fn parse(text: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap()
}

/// What the machine sends has no Via yet.
fn parse_sent(request: &Bytes) -> Message {
    let text = std::str::from_utf8(request).unwrap();
    let (line, rest) = text.split_once("\r\n").unwrap();
    parse(&format!("{line}\r\nVia: SIP/2.0/TLS sip.corp.example;branch=z9hG4bKx\r\n{rest}"))
}

fn response(tag: &str, request: &Message, status: &str, headers: &str, body: &str) -> Message {
    let from = request.header(HeaderName::From).unwrap();
    let to = request.header(HeaderName::To).unwrap();
    let to = if to.contains("tag=") { to.to_owned() } else { format!("{to};tag={tag}") };
    parse(&format!(
        "SIP/2.0 {status}\r\nVia: SIP/2.0/TLS sip.corp.example;branch=z9hG4bKx\r\nFrom: {from}\r\nTo: {to}\r\n\
         Call-ID: {}\r\nCSeq: {} {}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        request.call_id(),
        request.cseq().number,
        request.method(),
        body.len()
    ))
}

fn status(message: &Message) -> u16 {
    message.status().unwrap().code()
}

fn body(message: &Message) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

fn warning(message: &Message) -> u16 {
    message.warnings().next().unwrap().unwrap().code
}

/// A session with a message on its way; written by version 0.1.0, and the next release must read it.
const SESSION: &[u8] =
    b"\x8b\x82plee@corp.examplesana@partner.example\x81\x8a\x8dx 00000001000000000000000200000000x!ts3frq8vqv9mndr\
    7-0000000300000000cfarv<sip:lee@corp.example>x\x19<sip:ana@partner.example>x\x1csip:ana@edge.partner.example\
    \x80\x03\xf6\x01x-<sip:lee@sip.corp.example:5061;transport=tls>\xf4\x01\x82\x03\x80\x04\xf4\xf4\xf6\xf5\xf4\
    \x1b\x00\x00\x01\x8b\xcf\xe5h\x00\x83\x03\x1b\x00\x00\x01\x8b\xcf\xe6\x04@\x89bm1ulee@corp.example/desksana@\
    partner.examplefLunch?\xf6\xf6\xf6\xf4\xf4\x80ulee@corp.example/desk\xf4\xf6\xf6\xf6x 0000000100000000000000\
    0200000000\xf6\xf4";

#[test]
fn frozen_bytes_are_written_and_read() {
    let mut lab = lab(Dialect::Standard);
    lab.up();
    lab.say("m1", "Lunch?");
    let record = lab.session.record();
    assert_eq!(record.to_bytes().escape_ascii().to_string(), SESSION.escape_ascii().to_string());
    assert_eq!(SessionRecord::from_bytes(SESSION).as_ref().ok(), Some(record));
}
