//! From wire to wire: what softphones and an XMPP server really send, through the codecs and the mappings, to what
//! the other side gets.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests; what fails there fails the test")]

use std::collections::BTreeSet;

use bytes::Bytes;
use isthmus_interwork::address::{Spelling, from_name_addr, from_request_uri};
use isthmus_interwork::content::ContentLimits;
use isthmus_interwork::error_map::{self, RequestKind, SipAnswer};
use isthmus_interwork::notification::{
    document_for_watcher, presence_from_document, presence_of_stanza, stanza_of_presence,
};
use isthmus_interwork::pager::{self, Arrival, Envelope, FromXmpp, Mode, ToXmpp};
use isthmus_interwork::{Dialect, thread};
use isthmus_model::{Address, BareAddress, EpochMillis};
use isthmus_sip::pidf::{Pidf, PidfLimits};
use isthmus_sip::{Limits, Message, Uri};
use isthmus_xmpp::Stanza;
use isthmus_xmpp::codec::{Limits as XmlLimits, StreamEncoder, StreamKind, read_element};

const NOW: EpochMillis = EpochMillis(1_741_079_702_120);

fn sip(text: &str) -> Message {
    Message::parse(Bytes::from(text.replace('\n', "\r\n")), &Limits::default()).unwrap()
}

fn stanza(xml: &str) -> Stanza {
    Stanza::read(read_element(xml.as_bytes(), &XmlLimits::COMPONENT).unwrap()).unwrap()
}

fn encoded(stanza: impl Into<Stanza>) -> String {
    let mut encoder = StreamEncoder::new(StreamKind::Component);
    encoder.stanza(&stanza.into()).unwrap();
    String::from_utf8(encoder.take().to_vec()).unwrap()
}

fn bare(jid: &str) -> BareAddress {
    BareAddress::from_jid(jid).unwrap()
}

/// The stanza that a MESSAGE outside of dialogs becomes.
fn delivered(request: &Message) -> String {
    let from = from_name_addr(&request.from_()).unwrap();
    let to = from_request_uri(request.request_uri()).unwrap();
    let arrival =
        Arrival { mode: Mode::Pager, from: &from, to: &to, id: "m1", thread: None, chat_states: false, now: NOW };
    match pager::to_xmpp(request, &arrival, &ContentLimits::default()) {
        Ok(ToXmpp::Stanza(stanza)) => encoded(stanza),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_of_softphones_arrive() {
    // I-27, I-30
    let pjsua = sip("MESSAGE sip:juliet@corp.example SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:25060;branch=z9hG4bK7a1
Via: SIP/2.0/UDP 127.0.0.1:25101;rport;branch=z9hG4bKPj5
Max-Forwards: 69
From: <sip:ana@partner.example>;tag=pj1
To: <sip:juliet@corp.example>
Call-ID: 9b2c
CSeq: 4711 MESSAGE
Accept: text/plain, application/im-iscomposing+xml
User-Agent: softphone
Content-Type: text/plain
Content-Length: 15

gr\u{fc}\u{df} <dich> &");
    assert_eq!(
        delivered(&pjsua),
        "<message from='ana@partner.example' to='juliet@corp.example' id='m1'><body>gr\u{fc}\u{df} &lt;dich&gt; \
         &amp;</body><thread>9b2c</thread></message>"
            .replace('\'', "\"")
    );
    let linphone = sip("MESSAGE sip:juliet@corp.example SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:25060;branch=z9hG4bK7a2
From: \"Carl\" <sip:Carl@partner.example;gr=urn:uuid:7c0f>;tag=l
To: sip:juliet@corp.example
Call-ID: x~1
CSeq: 20 MESSAGE
Date: Tue, 04 Mar 2025 09:15:00 GMT
Content-Type: text/plain;charset=ISO-8859-1
Content-Length: 2

hi");
    assert!(delivered(&linphone).starts_with("<message from=\"carl@partner.example/urn:uuid:7c0f\""));
}

#[test]
fn a_chat_stanza_of_prosody_becomes_a_request_that_can_be_read_back() {
    // I-30
    let xml = "<message xmlns='jabber:component:accept' type='chat' from='juliet@corp.example/home' \
               to='ana@partner.example' id='p7' xml:lang='en'><body>I&apos;ll be\n5 minutes late</body>\
               <active xmlns='http://jabber.org/protocol/chatstates'/><thread>e0ffe42b28561960</thread>\
               <request xmlns='urn:xmpp:receipts'/></message>";
    let xml = xml.replace("jabber:component:accept", "jabber:client");
    let Stanza::Message(message) = stanza(&xml) else { panic!() };
    let Ok(FromXmpp::Text(text)) = pager::from_xmpp(&message) else { panic!() };
    let call_id = thread::call_id_for(text.thread, |_| false, &mut || 1);
    let (from, to) = (Address::from_jid(message.from().unwrap()).unwrap(), bare(message.to().unwrap()));
    let spelling = Spelling::observe(&Uri::parse("sip:Ana@partner.example").unwrap(), &to);
    let request = pager::request(
        &text,
        &Envelope {
            dialect: Dialect::Standard,
            from: &from,
            to: &to,
            spelling: spelling.as_ref(),
            call_id: &call_id,
            from_tag: "t1",
            cseq: 1,
            sent_by_bytes: 15,
            max_bytes: 1300,
        },
    );
    assert_eq!(
        std::str::from_utf8(&request.unwrap()).unwrap(),
        "MESSAGE sip:Ana@partner.example SIP/2.0\r\nMax-Forwards: 70\r\n\
         From: <sip:juliet@corp.example;gr=home>;tag=t1\r\nTo: <sip:Ana@partner.example>\r\n\
         Call-ID: e0ffe42b28561960\r\nCSeq: 1 MESSAGE\r\nContent-Language: en\r\n\
         Content-Type: text/plain;charset=utf-8\r\nContent-Length: 22\r\n\r\nI'll be\n5 minutes late"
    );
}

#[test]
fn presence_of_prosody_becomes_a_document_and_a_document_presence() {
    // N-18, N-24, P-33
    let xml = "<presence xmlns='jabber:client' from='juliet@corp.example/home' to='ana@partner.example' xml:lang='en'>\
               <show>away</show><status>Busy - on the balcony</status><priority>5</priority>\
               <delay xmlns='urn:xmpp:delay' from='corp.example' stamp='2025-03-04T09:15:02Z'/></presence>";
    let Stanza::Presence(presence) = stanza(xml) else { panic!() };
    let state = presence_of_stanza(&presence, NOW).unwrap();
    let juliet = bare("juliet@corp.example");
    let document = document_for_watcher(Dialect::Microsoft, &juliet, std::slice::from_ref(&state), NOW);
    assert!(document.contains("<ep:activity>busy</ep:activity>"), "{document}");
    assert!(document.contains("<note xml:lang=\"en\">on the balcony</note>"), "{document}");

    // What a watcher of ours makes of it, and of the document that follows.
    let mut announced = BTreeSet::new();
    let parse = |xml: &str| Pidf::parse(xml.as_bytes(), &PidfLimits::default()).unwrap();
    let shown = presence_from_document(Dialect::Microsoft, &parse(&document), &mut announced, NOW);
    let stanzas: Vec<String> =
        shown.iter().map(|state| encoded(stanza_of_presence(&juliet, &bare("ana@partner.example"), state))).collect();
    assert_eq!(
        stanzas,
        ["<presence from=\"juliet@corp.example/0\" to=\"ana@partner.example\"><show>away</show>\
          <status xml:lang=\"en\">Busy - on the balcony</status></presence>"]
    );
    let offline = document_for_watcher(Dialect::Microsoft, &juliet, &[], NOW);
    let shown = presence_from_document(Dialect::Microsoft, &parse(&offline), &mut announced, NOW);
    assert_eq!(
        shown.iter().map(|s| encoded(stanza_of_presence(&juliet, &bare("ana@partner.example"), s))).collect::<String>(),
        "<presence from=\"juliet@corp.example/0\" to=\"ana@partner.example\" type=\"unavailable\"></presence>"
    );
}

#[test]
fn a_bounce_of_prosody_becomes_an_answer_and_a_refusal_an_error() {
    // E-01, E-03, E-08
    let bounce = stanza(
        "<message xmlns='jabber:client' type='error' from='nobody@corp.example' to='ana@partner.example' id='m1'>\
         <error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>Nobody here</text></error></message>",
    );
    let request = sip("MESSAGE sip:nobody@corp.example SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:25060;branch=z9hG4bK7a3
From: <sip:ana@partner.example>;tag=a
To: <sip:nobody@corp.example>
Call-ID: 1
CSeq: 1 MESSAGE
Content-Length: 0

");
    let answer = error_map::to_sip(bounce.error().unwrap(), bounce.from().unwrap(), RequestKind::Message);
    let bytes = answer.respond(&request, Some("t"), "gw.corp.example").unwrap();
    assert!(bytes.starts_with(b"SIP/2.0 480 Nobody here\r\n"), "{bytes:?}");

    let refused = SipAnswer::from(pager_refusal(&request)).respond(&request, Some("t"), "gw").unwrap();
    let refused = Message::parse(refused, &Limits::default()).unwrap();
    let Stanza::Message(sent) = stanza(
        "<message xmlns='jabber:client' type='chat' from='juliet@corp.example/home' to='ana@partner.example' id='p8'>\
         <body>x</body></message>",
    ) else {
        panic!()
    };
    let reply = Stanza::Message(sent).error_reply(error_map::to_xmpp(&refused)).unwrap();
    assert_eq!(
        encoded(reply),
        "<message from=\"ana@partner.example\" to=\"juliet@corp.example/home\" id=\"p8\" type=\"error\">\
         <error type=\"modify\"><not-acceptable xmlns=\"urn:ietf:params:xml:ns:xmpp-stanzas\"/>\
         <text xmlns=\"urn:ietf:params:xml:ns:xmpp-stanzas\">Unsupported Media Type</text></error></message>"
    );
}

fn pager_refusal(request: &Message) -> isthmus_interwork::content::ContentRefusal {
    let picture = sip(&format!(
        "MESSAGE {} SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:25060;branch=z9hG4bK7a4
From: <sip:ana@partner.example>;tag=a
To: <sip:nobody@corp.example>
Call-ID: 2
CSeq: 1 MESSAGE
Content-Type: image/png
Content-Length: 3

PNG",
        request.request_uri()
    ));
    let address = from_request_uri(request.request_uri()).unwrap();
    let arrival = Arrival {
        mode: Mode::Pager,
        from: &address,
        to: &address,
        id: "m2",
        thread: None,
        chat_states: false,
        now: NOW,
    };
    pager::to_xmpp(&picture, &arrival, &ContentLimits::default()).unwrap_err()
}
