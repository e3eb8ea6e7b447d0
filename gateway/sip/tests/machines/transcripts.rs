//! Whole flows, compared byte for byte with `tests/transcripts`.
//!
//! After a wanted change run the tests with `ISTHMUS_UPDATE_TRANSCRIPTS=1` and read the difference.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use isthmus_model::EpochMillis;
use isthmus_sip::dialog::{Dialog, NewDialog};
use isthmus_sip::endpoint::Event;
use isthmus_sip::subscription::notifier::{NotifierConfig, NotifyStep, check_subscribe};
use isthmus_sip::subscription::subscriber::{check_notify, subscribe};
use isthmus_sip::subscription::{ExpiresLimits, Notifier, Subscriber};
use isthmus_sip::{Address, Message, Method, ResponseWriter, StatusCode, Transport};

use crate::pair::{Pair, Who};

fn compare(name: &str, title: &str, pair: &Pair) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(format!("{name}.txt"));
    let text = format!("# {title}\n\n{}", pair.transcript);
    if std::env::var_os("ISTHMUS_UPDATE_TRANSCRIPTS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{} differs; the flow is now:\n{text}", path.display());
}

fn half(method_target: &str, call_id: &str) -> Dialog {
    Dialog::half(&NewDialog {
        call_id,
        local_tag: "51aa90",
        local: Address::new("sip:lee@corp.example"),
        remote: Address::new("sip:ana@partner.example"),
        target: method_target,
        local_contact: "<sip:lee@fed.corp.example>",
        secure: false,
    })
}

fn event(pair: &mut Pair, who: Who) -> Event {
    let (_, at, event) = pair.run_to(1_000_000).expect("something happens");
    assert_eq!(at, who, "{event:?}");
    event
}

fn request(pair: &mut Pair, who: Who) -> (isthmus_sip::endpoint::ServerTxId, Message) {
    match event(pair, who) {
        Event::Request { tx, message, .. } => (tx, message),
        other => panic!("{other:?}"),
    }
}

fn response(pair: &mut Pair, who: Who) -> (isthmus_sip::endpoint::ClientTxId, Message) {
    match event(pair, who) {
        Event::Response { tx, message, .. } => (tx, message),
        other => panic!("{other:?}"),
    }
}

fn plain(request: &Message, code: u16) -> Bytes {
    ResponseWriter::for_request(request, StatusCode::new(code).unwrap(), None, Some("e2f7")).finish(b"").unwrap()
}

#[test]
fn a_lost_answer_is_given_again() {
    let mut pair = Pair::new(Transport::Udp, |n, _| n == 1);
    let mut dialog = half("sip:ana@partner.example", "6b7f0a51c2de");
    let mut writer = dialog.request(Method::Message);
    writer.header(isthmus_sip::HeaderName::ContentType, "text/plain;charset=utf-8");
    pair.send(Who::A, writer.finish(b"Lunch at a museum").unwrap());
    let (tx, message) = request(&mut pair, Who::B);
    assert_eq!(&message.body()[..], b"Lunch at a museum");
    pair.respond(Who::B, tx, plain(&message, 200));
    assert_eq!(response(&mut pair, Who::A).1.status(), Some(StatusCode::OK));
    assert!(pair.run_to(100_000).is_none());
    compare("message-lost-answer", "RFC 3261 §17.1.2, §17.2.2: over UDP the first answer to a MESSAGE is lost", &pair);
}

// I-23, S-20
#[test]
fn a_session_opens_and_ends_though_its_2xx_and_ack_are_lost() {
    let (mut answers, mut acks) = (0, 0);
    let mut pair = Pair::new(Transport::Udp, move |_, message| {
        let count = match (message.method(), message.is_request()) {
            (Method::Ack, _) => &mut acks,
            (Method::Invite, false) => &mut answers,
            _ => return false,
        };
        *count += 1;
        *count == 1
    });
    let mut a = half("sip:ana@partner.example", "6b7f0a51c2de");
    let invite = a.request(Method::Invite).finish(b"").unwrap();
    pair.send(Who::A, invite);
    let (tx, invite) = request(&mut pair, Who::B);
    let mut b = Dialog::uas(&invite, "e2f7", "<sip:ana@edge.partner.example>", false).unwrap();
    pair.respond(Who::B, tx, b.opening_answer(&invite, StatusCode::OK).finish(b"").unwrap());

    let (invite_tx, ok) = response(&mut pair, Who::A);
    a = a.confirmed_by(&ok).unwrap();
    let ack = pair.outgoing(Who::A, a.ack().finish(b"").unwrap(), 0);
    let now = pair.now;
    pair.endpoint(Who::A).send_ack(now, Some(invite_tx), &ack).unwrap();
    assert!(matches!(event(&mut pair, Who::B), Event::Ack { tx: Some(acknowledged), .. } if acknowledged == tx));

    for method in [Method::Message, Method::Bye] {
        pair.send(Who::A, a.request(method).finish(b"").unwrap());
        let (tx, message) = request(&mut pair, Who::B);
        assert!(b.matches_request(&message));
        b.accept_request(&message).unwrap();
        pair.respond(Who::B, tx, b.answer(&message, StatusCode::OK).finish(b"").unwrap());
        assert_eq!(response(&mut pair, Who::A).1.status(), Some(StatusCode::OK));
    }
    assert!(pair.run_to(200_000).is_none());
    compare(
        "session-lost-2xx-and-ack",
        "RFC 3261 §13, RFC 6026: over UDP the first 2xx to an INVITE and the first ACK are lost",
        &pair,
    );
}

// N-01, N-09, N-10, P-06
#[test]
fn a_subscription_lives_and_ends() {
    // the first 200 to the SUBSCRIBE is lost, so that the NOTIFY comes before it
    let mut pair = Pair::new(Transport::Udp, |n, _| n == 1);
    let clock = |pair: &Pair| EpochMillis(1_700_000_000_000 + pair.at());
    let timer_n = Duration::from_secs(32);
    let config = NotifierConfig::default();
    let mut a = half("sip:ana@partner.example", "0d6b3f2e5a1c41d8");
    let mut subscriber = Subscriber::new(clock(&pair), 3600, timer_n);
    pair.send(Who::A, subscribe(&mut a, subscriber.requested_secs()).unwrap());

    let (tx, message) = request(&mut pair, Who::B);
    let terms = check_subscribe(&message, &ExpiresLimits::default()).unwrap();
    let mut b = Dialog::uas(&message, "g44", "<sip:ana@edge.partner.example>", false).unwrap();
    let mut notifier = Notifier::new(clock(&pair), &terms, false);
    let mut writer = b.opening_answer(&message, StatusCode::OK);
    writer.expires(terms.granted_secs);
    pair.respond(Who::B, tx, writer.finish(b"").unwrap());
    assert_eq!(notifier.poll(clock(&pair), &config), NotifyStep::Send);
    let notify = notifier.notify(clock(&pair), &mut b, None).unwrap();
    pair.send(Who::B, notify);

    // the NOTIFY makes the dialog, though no 2xx has come
    let (tx, message) = request(&mut pair, Who::A);
    let state = check_notify(&message).unwrap();
    assert!(state.is("pending"));
    a = a.subscribed_by(&message).unwrap();
    subscriber.handle_notify(clock(&pair), &state, 0).unwrap();
    pair.respond(Who::A, tx, a.answer(&message, StatusCode::OK).finish(b"").unwrap());

    let answered = |pair: &mut Pair, notifier: &mut Notifier| {
        let (_, ok) = response(pair, Who::B);
        notifier.handle_outcome(clock(pair), ok.cseq().number, ok.status(), None);
    };
    answered(&mut pair, &mut notifier);
    let (_, ok) = response(&mut pair, Who::A);
    subscriber.handle_accepted(clock(&pair), ok.expires().unwrap(), 0);

    notifier.activate();
    assert_eq!(notifier.poll(clock(&pair), &config), NotifyStep::Send);
    let document = b"<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:ana@partner.example'/>";
    let notify = notifier.notify(clock(&pair), &mut b, Some(("application/pidf+xml", document))).unwrap();
    pair.send(Who::B, notify);
    let (tx, message) = request(&mut pair, Who::A);
    a.accept_request(&message).unwrap();
    subscriber.handle_notify(clock(&pair), &check_notify(&message).unwrap(), 0).unwrap();
    pair.respond(Who::A, tx, a.answer(&message, StatusCode::OK).finish(b"").unwrap());
    answered(&mut pair, &mut notifier);

    subscriber.start_closing(clock(&pair), timer_n);
    pair.send(Who::A, subscribe(&mut a, 0).unwrap());
    let (tx, message) = request(&mut pair, Who::B);
    b.accept_request(&message).unwrap();
    let terms = check_subscribe(&message, &ExpiresLimits::default()).unwrap();
    let mut writer = b.answer(&message, StatusCode::OK);
    writer.expires(terms.granted_secs);
    pair.respond(Who::B, tx, writer.finish(b"").unwrap());
    notifier.refresh(clock(&pair), terms.granted_secs);
    let notify = notifier.notify(clock(&pair), &mut b, None).unwrap();
    pair.send(Who::B, notify);
    assert_eq!(response(&mut pair, Who::A).1.status(), Some(StatusCode::OK));
    let (tx, message) = request(&mut pair, Who::A);
    a.accept_request(&message).unwrap();
    subscriber.handle_notify(clock(&pair), &check_notify(&message).unwrap(), 0).unwrap();
    pair.respond(Who::A, tx, a.answer(&message, StatusCode::OK).finish(b"").unwrap());
    answered(&mut pair, &mut notifier);
    assert!(pair.run_to(200_000).is_none());
    compare("subscription", "RFC 6665 §4: the NOTIFY outruns the 200; pending, active, ended by Expires 0", &pair);
}
