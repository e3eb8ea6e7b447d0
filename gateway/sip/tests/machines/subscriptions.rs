//! Subscriber and notifier (RFC 6665, interworking specification §2.2-2.7, §2.10).

use std::time::Duration;

use isthmus_model::EpochMillis;
use isthmus_sip::dialog::{Dialog, NewDialog};
use isthmus_sip::header::Tagged;
use isthmus_sip::subscription::notifier::{
    NotifierConfig, NotifyOutcome, NotifyStep, SubscribeTerms, check_subscribe, grant, next_timestamp,
};
use isthmus_sip::subscription::reason::TerminationReason;
use isthmus_sip::subscription::subscriber::{
    BadNotify, Notified, RefuseNotify, SubscribePhase, SubscriberDeadline, check_notify, refresh_delay, subscribe,
};
use isthmus_sip::subscription::{ExpiresLimits, Notifier, RefuseSubscribe, Subscriber};
use isthmus_sip::{Address, HeaderName, Message, StatusCode, SubscriptionState};

use crate::side::{parse, with_headers};

const T0: EpochMillis = EpochMillis(1_700_000_000_000);
const TIMER_N: Duration = Duration::from_secs(32);

fn at(secs: u64) -> EpochMillis {
    T0.plus(Duration::from_secs(secs))
}

fn state(text: &str) -> SubscriptionState<'_> {
    SubscriptionState(Tagged::parse(text).unwrap())
}

fn half() -> Dialog {
    Dialog::half(&NewDialog {
        call_id: "0d6b",
        local_tag: "7c1e",
        local: Address::new("sip:lee@corp.example"),
        remote: Address::new("sip:ana@partner.example"),
        target: "sip:ana@partner.example",
        local_contact: "<sip:lee@fed.corp.example>",
        secure: false,
    })
}

fn with_via(bytes: &[u8]) -> Message {
    let text = std::str::from_utf8(bytes).unwrap();
    parse(&text.replacen("\r\n", "\r\nVia: SIP/2.0/TLS fed.corp.example;branch=z9hG4bKours\r\n", 1))
}

// P-02, P-03, P-04
#[test]
fn a_subscribe_names_presence_and_pidf_and_nothing_else() {
    let message = with_via(&subscribe(&mut half(), 3600).unwrap());
    let all = |name| message.headers(name).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(all(HeaderName::Event), ["presence"]);
    assert_eq!(all(HeaderName::Accept), ["application/pidf+xml"]);
    assert_eq!(all(HeaderName::Supported), [] as [&str; 0]);
    assert_eq!(message.expires(), Ok(Some(3600)));
    assert!(message.contact().unwrap().is_some());
}

// P-17
#[test]
fn a_refresh_comes_before_the_end() {
    let secs = Duration::from_secs;
    for (granted, earliest, latest) in [
        (3600, 3600 - 300 - 180, 3600 - 300),
        (600, 600 - 60 - 30, 600 - 60),
        (300, 300 - 40 - 15, 300 - 40),
        (120, 120 - 40 - 6, 120 - 40),
        (119, 59, 60),
        (60, 30, 30),
        (86_400, 86_400 - 300 - 4320, 86_400 - 300),
    ] {
        assert_eq!(refresh_delay(granted, 0).as_secs(), latest.min(refresh_delay(granted, 0).as_secs()));
        for random in [0, 1, 12_345, 999_999_937, u64::MAX / 3, u64::MAX] {
            let delay = refresh_delay(granted, random);
            assert!(delay >= secs(earliest) && delay <= secs(latest), "{granted} {random}: {delay:?}");
            assert!(delay < secs(granted.into()));
        }
    }
    assert_ne!(refresh_delay(3600, 1), refresh_delay(3600, 100_000), "refreshes are spread");
    assert_eq!(refresh_delay(0, 7), Duration::ZERO);
    assert!(refresh_delay(u32::MAX, u64::MAX) > secs(4_000_000_000));
}

fn active() -> Subscriber {
    let mut subscriber = Subscriber::new(T0, 3600, TIMER_N);
    subscriber.handle_accepted(T0, Some(3600), 0);
    let first = subscriber.handle_notify(T0, &state("active;expires=3600"), 0).unwrap();
    assert_eq!(first, Notified::Active { first: true });
    subscriber
}

// P-17
#[test]
fn a_subscription_waits_for_its_refresh_then_its_expiry() {
    let mut subscriber = active();
    assert_eq!(subscriber.next_deadline(), Some((at(3300), SubscriberDeadline::Refresh)));
    assert_eq!(subscriber.handle_timeout(at(3299)), None);
    assert_eq!(subscriber.handle_timeout(at(3300)), Some(SubscriberDeadline::Refresh));
    subscriber.start_refresh(at(3300), TIMER_N);
    subscriber.handle_accepted(at(3300), Some(3600), 0);
    subscriber.handle_notify(at(3300), &state("active;expires=3600"), 0).unwrap();
    assert_eq!(subscriber.next_deadline(), Some((at(6600), SubscriberDeadline::Refresh)));
    assert_eq!(subscriber.expires_at(), Some(at(6900)));
}

#[test]
fn a_refresh_can_be_put_forward_and_never_back() {
    let mut subscriber = active();
    let (due, _) = subscriber.next_deadline().unwrap();
    assert!(subscriber.refresh_by(due.plus(Duration::from_secs(1))));
    assert_eq!(subscriber.next_deadline(), Some((due, SubscriberDeadline::Refresh)));
    assert!(subscriber.refresh_by(at(5)));
    assert_eq!(subscriber.next_deadline(), Some((at(5), SubscriberDeadline::Refresh)));
    subscriber.start_closing(at(5), TIMER_N);
    assert!(!subscriber.refresh_by(at(6)));
    assert!(!Subscriber::new(T0, 600, TIMER_N).refresh_by(at(5)));
}

// P-08
#[test]
fn without_notify_within_timer_n_it_is_over() {
    let mut subscriber = Subscriber::new(T0, 3600, TIMER_N);
    subscriber.handle_accepted(at(1), Some(3600), 0);
    let no_notify = SubscriberDeadline::NoNotify { during: SubscribePhase::Initial };
    assert_eq!(subscriber.next_deadline(), Some((at(32), no_notify)));
    assert_eq!(subscriber.handle_timeout(at(32)), Some(no_notify));
    assert_eq!(subscriber.handle_notify(at(33), &state("active;expires=9"), 0), Err(RefuseNotify::Over));
    assert_eq!(RefuseNotify::Over.status().code(), 481);
    assert_eq!(subscriber.next_deadline(), None);

    let mut subscriber = active();
    subscriber.start_refresh(at(3300), TIMER_N);
    subscriber.handle_accepted(at(3300), Some(3600), 0);
    let no_notify = SubscriberDeadline::NoNotify { during: SubscribePhase::Refresh };
    assert_eq!(subscriber.handle_timeout(at(3332)), Some(no_notify));
}

// P-18
#[test]
fn a_shorter_expires_moves_the_refresh_and_a_longer_one_does_not() {
    let mut subscriber = active();
    subscriber.handle_notify(at(10), &state("active;expires=600"), 0).unwrap();
    assert_eq!(subscriber.expires_at(), Some(at(610)));
    assert_eq!(subscriber.next_deadline(), Some((at(550), SubscriberDeadline::Refresh)));
    let mut subscriber = active();
    subscriber.handle_notify(at(10), &state("active;expires=999999"), 0).unwrap();
    assert_eq!(subscriber.expires_at(), Some(at(3600)));
    // NOTIFYs that say what is known do not push the refresh towards the end
    for secs in [3000, 3200, 3299] {
        subscriber.handle_notify(at(secs), &state(&format!("active;expires={}", 3600 - secs)), 0).unwrap();
        assert_eq!(subscriber.next_deadline(), Some((at(3300), SubscriberDeadline::Refresh)));
    }
    subscriber.handle_notify(at(3299), &state("active"), 0).unwrap();
    assert_eq!(subscriber.expires_at(), Some(at(3600)), "absent: what was granted stays");
}

#[test]
fn the_answer_grants_at_most_what_was_asked() {
    for (answered, secs) in [(Some(1800), 1800), (Some(7200), 3600), (None, 3600)] {
        let mut subscriber = Subscriber::new(T0, 3600, TIMER_N);
        subscriber.handle_accepted(T0, answered, 0);
        assert_eq!(subscriber.expires_at(), Some(at(secs)));
    }
}

// P-06
#[test]
fn a_notify_before_the_2xx_rules() {
    let mut subscriber = Subscriber::new(T0, 3600, TIMER_N);
    let notified = subscriber.handle_notify(T0, &state("active;expires=1200"), 0).unwrap();
    assert_eq!(notified, Notified::Active { first: true });
    subscriber.handle_accepted(at(1), Some(3600), 0);
    assert_eq!(subscriber.expires_at(), Some(at(1200)));
    assert_eq!(subscriber.next_deadline().unwrap().1, SubscriberDeadline::Refresh, "Timer N is satisfied");
    let mut subscriber = Subscriber::new(T0, 3600, TIMER_N);
    subscriber.handle_notify(T0, &state("pending"), 0).unwrap();
    subscriber.handle_accepted(at(1), Some(1800), 0);
    assert_eq!(subscriber.expires_at(), Some(at(1801)), "a NOTIFY without expires leaves it to the 2xx");
}

/// A NOTIFY that left before the peer saw the refresh says the old remainder.
#[test]
fn a_notify_that_crosses_the_refresh_does_not_cut_the_new_lifetime() {
    let mut subscriber = active();
    subscriber.start_refresh(at(3300), TIMER_N);
    subscriber.handle_notify(at(3300), &state("active;expires=300"), 0).unwrap();
    subscriber.handle_accepted(at(3301), Some(3600), 0);
    subscriber.handle_notify(at(3301), &state("active;expires=3600"), 0).unwrap();
    assert_eq!(subscriber.expires_at(), Some(at(6901)));
}

// P-19
#[test]
fn expires_on_terminated_is_ignored() {
    let mut subscriber = active();
    let ended = subscriber.handle_notify(at(1), &state("terminated;reason=rejected;expires=999"), 0).unwrap();
    assert!(matches!(ended, Notified::Terminated(ended) if ended.reason == TerminationReason::Rejected));
    assert_eq!((subscriber.expires_at(), subscriber.next_deadline()), (None, None));
}

#[test]
fn a_refresh_that_fails_for_now_is_tried_again_and_the_expiry_stays() {
    let mut subscriber = active();
    subscriber.start_refresh(at(3300), TIMER_N);
    subscriber.retry_refresh(at(3310), None);
    assert_eq!(
        subscriber.next_deadline(),
        Some((at(3382).plus(Duration::from_millis(500)), SubscriberDeadline::Refresh))
    );
    subscriber.start_refresh(at(3383), TIMER_N);
    subscriber.retry_refresh(at(3580), None);
    assert_eq!(subscriber.next_deadline(), Some((at(3600), SubscriberDeadline::Expired)), "no time for another");
    assert_eq!(subscriber.handle_timeout(at(3600)), Some(SubscriberDeadline::Expired));
    let mut subscriber = active();
    subscriber.keep_until_expiry();
    assert_eq!(subscriber.next_deadline(), Some((at(3600), SubscriberDeadline::Expired)));
}

#[test]
fn pending_and_active_tell_what_was_before() {
    let mut subscriber = Subscriber::new(T0, 3600, TIMER_N);
    let mut notify = |text| subscriber.handle_notify(T0, &state(text), 0).unwrap();
    assert_eq!(notify("pending;expires=3600"), Notified::Pending { was_active: false });
    assert_eq!(notify("Active;expires=3600"), Notified::Active { first: true });
    assert_eq!(notify("active;expires=3600"), Notified::Active { first: false });
    assert_eq!(notify("pending;expires=3600"), Notified::Pending { was_active: true });
    assert_eq!(subscriber.handle_notify(T0, &state("waiting"), 0), Err(RefuseNotify::UnknownState));
}

#[test]
fn our_own_end_waits_for_the_last_notify_and_nothing_follows() {
    let mut subscriber = active();
    subscriber.start_closing(at(5), TIMER_N);
    subscriber.handle_accepted(at(5), Some(0), 0);
    let no_notify = SubscriberDeadline::NoNotify { during: SubscribePhase::Closing };
    assert_eq!(subscriber.next_deadline(), Some((at(37), no_notify)));
    let ended = subscriber.handle_notify(at(6), &state("terminated;reason=timeout"), 0).unwrap();
    let Notified::Terminated(ended) = ended else { panic!("{ended:?}") };
    assert_eq!(ended.resubscribe, isthmus_sip::subscription::reason::Resubscribe::Never);
}

#[test]
fn a_notify_is_checked_for_event_state_and_type() {
    let notify = |headers: &str| check_notify(&parse(&with_headers("NOTIFY", "z9hG4bKa", headers))).map(|_| ());
    assert_eq!(notify("Event: presence\r\nSubscription-State: active\r\n"), Ok(()));
    assert_eq!(notify("o: presence;id=3\r\nSubscription-State: active\r\n"), Ok(()));
    for event in ["", "Event: Presence\r\n", "Event: presence.winfo\r\n", "Event: dialog\r\n"] {
        assert_eq!(notify(&format!("{event}Subscription-State: active\r\n")), Err(BadNotify::Event));
    }
    assert_eq!(BadNotify::Event.status().code(), 489);
    assert_eq!(notify("Event: presence\r\n"), Err(BadNotify::State));
    assert_eq!(notify("Event: presence\r\nSubscription-State: ;x\r\n"), Err(BadNotify::State));
    assert_eq!(BadNotify::State.status().code(), 400);
    let with_body = |media: &str| {
        let text =
            with_headers("NOTIFY", "z9hG4bKa", &format!("Event: presence\r\nSubscription-State: active\r\n{media}"));
        check_notify(&parse(&(text.replace("Content-Length: 0", "Content-Length: 1") + "x"))).map(|_| ())
    };
    assert_eq!(with_body("Content-Type: Application/PIDF+xml;charset=utf-8\r\n"), Ok(()));
    assert_eq!(with_body("Content-Type: text/plain\r\n"), Err(BadNotify::MediaType));
    assert_eq!(with_body(""), Err(BadNotify::MediaType));
}

#[test]
fn the_subscriber_s_record_survives_the_store() {
    let subscriber = active();
    let read: Subscriber = minicbor::decode(&minicbor::to_vec(&subscriber).unwrap()).unwrap();
    assert_eq!(read, subscriber);
}

// N-06, N-07
#[test]
fn lifetimes_are_granted_by_the_rules() {
    let limits = ExpiresLimits::default();
    for (requested, granted) in [
        (None, Ok(3600)),
        (Some(0), Ok(0)),
        (Some(60), Ok(60)),
        (Some(6300), Ok(6300)),
        (Some(7200), Ok(7200)),
        (Some(u32::MAX), Ok(7200)),
        (Some(59), Err(RefuseSubscribe::TooBrief { min_secs: 60 })),
        (Some(1), Err(RefuseSubscribe::TooBrief { min_secs: 60 })),
    ] {
        assert_eq!(grant(requested, &limits), granted, "{requested:?}");
    }
    let strict = ExpiresLimits { min_secs: 7000, max_secs: 7200 };
    assert_eq!(grant(Some(3600), &strict), Ok(3600), "an hour is never too brief");
    assert_eq!(grant(Some(3599), &strict), Err(RefuseSubscribe::TooBrief { min_secs: 3600 }));
    assert_eq!(RefuseSubscribe::TooBrief { min_secs: 60 }.status().code(), 423);
}

// N-05, N-06
#[test]
fn a_subscribe_is_checked_for_event_accept_and_expires() {
    let check = |headers: &str| {
        let message = parse(&with_headers("SUBSCRIBE", "z9hG4bKa", headers));
        check_subscribe(&message, &ExpiresLimits::default())
    };
    let terms = |granted_secs, id: Option<&str>| Ok(SubscribeTerms { granted_secs, event_id: id.map(str::to_owned) });
    assert_eq!(check("Event: presence\r\n"), terms(3600, None));
    assert_eq!(check("Event: presence;id=q7\r\nExpires: 0\r\n"), terms(0, Some("q7")));
    for event in ["", "Event: Presence\r\n", "Event: presence.winfo\r\n"] {
        assert_eq!(check(event), Err(RefuseSubscribe::BadEvent));
    }
    assert_eq!(RefuseSubscribe::BadEvent.status().code(), 489);
    for (accept, ok) in [
        ("application/pidf+xml", true),
        ("text/xml+msrtc.pidf, application/*;q=0.1", true),
        ("*/*", true),
        ("Application/PIDF+XML", true),
        ("text/plain, application/cpim-pidf+xml", false),
        ("text/*", false),
    ] {
        let checked = check(&format!("Event: presence\r\nAccept: {accept}\r\n"));
        assert_eq!(checked.is_ok(), ok, "{accept}");
        assert!(ok || checked == Err(RefuseSubscribe::NotAcceptable));
    }
    assert_eq!(RefuseSubscribe::NotAcceptable.status().code(), 406);
    assert_eq!(check("Event: presence\r\nExpires: soon\r\n"), Err(RefuseSubscribe::Malformed));
}

fn terms(granted_secs: u32) -> SubscribeTerms {
    SubscribeTerms { granted_secs, event_id: None }
}

fn config() -> NotifierConfig {
    NotifierConfig::default()
}

const OK: Option<StatusCode> = Some(StatusCode::OK);

/// Sends what is due and lets it be accepted.
fn tell(notifier: &mut Notifier, now: EpochMillis, cseq: u32) {
    assert_eq!(notifier.poll(now, &config()), NotifyStep::Send);
    notifier.sent(now, cseq);
    assert_eq!(notifier.poll(now, &config()), NotifyStep::Idle);
    assert_eq!(notifier.handle_outcome(now, cseq, OK, None), NotifyOutcome::Keep);
}

// N-01
#[test]
fn every_accepted_subscribe_makes_a_notify_due_at_once() {
    for allowed in [false, true] {
        let mut notifier = Notifier::new(T0, &terms(3600), allowed);
        tell(&mut notifier, T0, 1);
        assert_eq!(notifier.poll(T0, &config()), NotifyStep::Idle);
        notifier.refresh(at(1), 3600);
        tell(&mut notifier, at(1), 2);
        assert_eq!(notifier.expires_at(), at(3601));
    }
}

// N-09, N-10, N-30
#[test]
fn a_notify_mirrors_the_subscribe_and_carries_its_state() {
    let subscribe = parse(&with_headers("SUBSCRIBE", "z9hG4bKa", "Event: presence;id=q7\r\n"));
    let terms = check_subscribe(&subscribe, &ExpiresLimits::default()).unwrap();
    let mut dialog = Dialog::uas(&subscribe, "g44", "<sip:lee@fed.corp.example>", true).unwrap();
    let mut notifier = Notifier::new(T0, &terms, false);
    let mut next = |notifier: &mut Notifier, secs: u64, body| {
        let bytes = notifier.notify(at(secs), &mut dialog, body).unwrap();
        let message = with_via(&bytes);
        notifier.handle_outcome(at(secs), message.cseq().number, OK, None);
        message
    };
    let message = next(&mut notifier, 0, None);
    assert_eq!(message.request_uri(), "sip:ana@edge.partner.example");
    assert_eq!((message.from_().tag(), message.to().tag()), (Some("g44"), Some("w91")));
    assert_eq!(message.from_().uri_str(), "sip:lee@corp.example");
    assert_eq!(message.to().uri_str(), "sip:ana@partner.example");
    assert_eq!(message.header(HeaderName::Event), Some("presence;id=q7"));
    assert_eq!(message.header(HeaderName::SubscriptionState), Some("pending;expires=3600"));
    assert_eq!((message.body().len(), message.cseq().number), (0, 1));
    assert!(message.contact().unwrap().is_some());

    notifier.activate();
    let message = next(&mut notifier, 289, Some(("application/pidf+xml", b"<x/>")));
    assert_eq!(message.header(HeaderName::SubscriptionState), Some("active;expires=3311"));
    assert_eq!(message.header(HeaderName::ContentType), Some("application/pidf+xml"));
    assert_eq!((&message.body()[..], message.cseq().number), (&b"<x/>"[..], 2));

    notifier.terminate(TerminationReason::Giveup, Some(86_400));
    let message = next(&mut notifier, 300, None);
    assert_eq!(message.header(HeaderName::SubscriptionState), Some("terminated;reason=giveup;retry-after=86400"));
}

// N-25
#[test]
fn changes_are_five_seconds_apart_and_the_last_is_told() {
    let mut notifier = Notifier::new(T0, &terms(3600), true);
    tell(&mut notifier, T0, 1);
    for secs in [1, 2, 4] {
        notifier.changed();
        assert_eq!(notifier.poll(at(secs), &config()), NotifyStep::Wait(at(5)));
    }
    assert_eq!(notifier.next_deadline(at(4), &config()), Some(at(5)));
    tell(&mut notifier, at(5), 2);
    assert_eq!(notifier.poll(at(60), &config()), NotifyStep::Idle, "one NOTIFY for the burst");
    notifier.changed();
    tell(&mut notifier, at(60), 3);
}

// N-25
#[test]
fn refresh_decision_end_and_first_real_state_do_not_wait() {
    let begin = |allowed| {
        let mut notifier = Notifier::new(T0, &terms(3600), allowed);
        tell(&mut notifier, T0, 1);
        notifier
    };
    let mut notifier = begin(false);
    notifier.changed();
    assert_eq!(notifier.poll(at(9), &config()), NotifyStep::Idle, "pending tells nothing");
    notifier.activate();
    tell(&mut notifier, at(1), 2);
    let mut notifier = begin(true);
    notifier.must_notify();
    tell(&mut notifier, at(1), 2);
    notifier.refresh(at(2), 60);
    tell(&mut notifier, at(2), 3);
    notifier.changed();
    notifier.terminate(TerminationReason::Rejected, None);
    assert_eq!(notifier.poll(at(3), &config()), NotifyStep::Send);
}

// S-12
#[test]
fn one_notify_is_in_flight() {
    let mut notifier = Notifier::new(T0, &terms(3600), true);
    notifier.sent(T0, 1);
    notifier.changed();
    notifier.terminate(TerminationReason::Timeout, None);
    assert_eq!(notifier.poll(at(30), &config()), NotifyStep::Idle);
    assert_eq!(notifier.handle_outcome(at(31), 7, OK, None), NotifyOutcome::Keep);
    assert_eq!(notifier.poll(at(31), &config()), NotifyStep::Idle, "the answer to another NOTIFY does not count");
    assert_eq!(notifier.handle_outcome(at(31), 1, OK, None), NotifyOutcome::Keep);
    assert_eq!(notifier.poll(at(31), &config()), NotifyStep::Send);
    notifier.sent(at(31), 2);
    let last = notifier.handle_outcome(at(32), 2, Some(StatusCode::SERVICE_UNAVAILABLE), Some(9));
    assert_eq!(last, NotifyOutcome::Removed { alarm: false }, "the last NOTIFY ends it whatever comes");
}

#[test]
fn a_notify_whose_answer_is_still_awaited_is_not_sent_again() {
    let mut notifier = Notifier::new(T0, &terms(3600), true);
    notifier.await_answer_until(at(50));
    assert_eq!(notifier.in_flight(), None);
    notifier.sent(T0, 1);
    notifier.await_answer_until(at(30));
    assert_eq!(notifier.next_deadline(at(1), &config()), Some(at(36)));
    notifier.await_answer_until(at(41));
    assert!(!notifier.handle_timeout(at(40)));
    assert_eq!((notifier.in_flight(), notifier.poll(at(40), &config())), (Some(1), NotifyStep::Idle));
    notifier.handle_timeout(at(41));
    assert_eq!(notifier.poll(at(41), &config()), NotifyStep::Send);
}

// S-41
#[test]
fn a_refresh_of_which_nothing_was_heard_is_sent_once_more() {
    let mut subscriber = Subscriber::new(T0, 3600, TIMER_N);
    subscriber.handle_accepted(T0, Some(3600), 0);
    subscriber.handle_notify(T0, &state("active;expires=3600"), 0).unwrap();
    subscriber.start_refresh(at(3000), TIMER_N);
    let mut answered = subscriber.clone();
    assert_eq!(subscriber.handle_timeout(at(3032)), Some(SubscriberDeadline::Refresh));
    subscriber.start_refresh(at(3032), TIMER_N);
    assert_eq!(subscriber.handle_timeout(at(3063)), None);
    let silent = SubscriberDeadline::NoNotify { during: SubscribePhase::Refresh };
    assert_eq!(subscriber.handle_timeout(at(3064)), Some(silent));
    // One that was answered, and followed by no NOTIFY, ends it (RFC 6665 §4.1.2.4).
    answered.handle_accepted(at(3001), Some(3600), 0);
    assert_eq!(answered.handle_timeout(at(3032)), Some(silent));
}

// N-16, N-17
#[test]
fn outcomes_remove_or_keep_by_the_table() {
    let removing = [404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604, 401, 407];
    for code in (200..700).map(Some).chain([None]) {
        let mut notifier = Notifier::new(T0, &terms(3600), true);
        notifier.sent(T0, 1);
        let outcome = notifier.handle_outcome(at(1), 1, code.and_then(StatusCode::new), None);
        let removed = code.is_none_or(|code| removing.contains(&code));
        let alarm = matches!(code, Some(401 | 407));
        let expected = if removed { NotifyOutcome::Removed { alarm } } else { NotifyOutcome::Keep };
        assert_eq!(outcome, expected, "{code:?}");
        notifier.changed();
        assert_eq!(notifier.poll(at(9), &config()) == NotifyStep::Send, !removed, "{code:?}");
    }
}

// S-41
#[test]
fn a_notify_whose_sender_is_gone_is_sent_once_more_with_the_next_number() {
    let mut notifier = Notifier::new(T0, &terms(3600), true);
    let mut dialog = half();
    notifier.notify(T0, &mut dialog, None).unwrap();
    assert_eq!(notifier.in_flight(), Some(dialog.local_cseq()));
    // By its deadline at the latest, and its own process would have known 4 s earlier.
    let due = notifier.next_deadline(at(1), &config()).unwrap();
    assert_eq!(due, at(36));
    assert!(!notifier.handle_timeout(at(35)) && notifier.in_flight().is_some());
    assert!(!notifier.handle_timeout(due));
    assert_eq!(notifier.poll(due, &config()), NotifyStep::Send);
    let first = dialog.local_cseq();
    notifier.notify(due, &mut dialog, None).unwrap();
    assert_eq!(dialog.local_cseq(), first + 1);
    // An answer to the first one means nothing any more; silence about the second one ends the subscription.
    assert_eq!(notifier.handle_outcome(at(37), first, None, None), NotifyOutcome::Keep);
    assert_eq!(notifier.handle_outcome(at(68), first + 1, None, None), NotifyOutcome::Removed { alarm: false });
    // Whoever takes over from a dead process need not wait, and leaves alone what it sent itself.
    let mut notifier = Notifier::new(T0, &terms(3600), true);
    notifier.notify(at(10), &mut dialog, None).unwrap();
    notifier.handle_sender_gone(at(10));
    assert!(notifier.in_flight().is_some());
    notifier.handle_sender_gone(at(11));
    assert_eq!((notifier.in_flight(), notifier.poll(at(11), &config())), (None, NotifyStep::Send));
}

// N-17
#[test]
fn a_refused_state_is_told_again_after_retry_after_or_once_after_500() {
    let refused = |code, retry_after| {
        let mut notifier = Notifier::new(T0, &terms(3600), true);
        notifier.sent(T0, 1);
        notifier.handle_outcome(at(10), 1, StatusCode::new(code), retry_after);
        notifier
    };
    assert_eq!(refused(503, Some(20)).poll(at(10), &config()), NotifyStep::Wait(at(30)));
    assert_eq!(refused(503, None).poll(at(10), &config()), NotifyStep::Idle);
    let mut notifier = refused(500, None);
    assert_eq!(notifier.poll(at(10), &config()), NotifyStep::Wait(at(11)));
    assert_eq!(notifier.poll(at(11), &config()), NotifyStep::Send);
    notifier.sent(at(11), 2);
    notifier.handle_outcome(at(12), 2, StatusCode::new(500), None);
    assert_eq!(notifier.poll(at(20), &config()), NotifyStep::Idle, "once");
    notifier.changed();
    assert_eq!(notifier.poll(at(20), &config()), NotifyStep::Send);
}

// N-15
#[test]
fn a_lifetime_ends_by_expiry_by_expires_0_and_at_once_for_a_poll() {
    let timeout = "terminated;reason=timeout";
    let mut notifier = Notifier::new(T0, &terms(60), true);
    tell(&mut notifier, T0, 1);
    assert_eq!(notifier.next_deadline(T0, &config()), Some(at(60)));
    assert!(!notifier.handle_timeout(at(59)));
    assert!(notifier.handle_timeout(at(60)));
    assert!(!notifier.handle_timeout(at(60)));
    assert_eq!(notifier.subscription_state(at(60)).to_string(), timeout);
    assert_eq!(notifier.poll(at(60), &config()), NotifyStep::Send);

    let mut notifier = Notifier::new(T0, &terms(3600), true);
    tell(&mut notifier, T0, 1);
    notifier.refresh(at(1), 0);
    assert_eq!(notifier.subscription_state(at(1)).to_string(), timeout);

    let mut poll = Notifier::new(T0, &terms(0), false);
    assert_eq!(poll.subscription_state(T0).to_string(), timeout);
    assert_eq!(poll.poll(T0, &config()), NotifyStep::Send);
    poll.sent(T0, 1);
    assert_eq!(poll.handle_outcome(T0, 1, OK, None), NotifyOutcome::Removed { alarm: false });
    assert_eq!(poll.next_deadline(T0, &config()), None);
    poll.changed();
    poll.must_notify();
    assert_eq!(poll.poll(at(99), &config()), NotifyStep::Idle, "one NOTIFY");
}

// N-26
#[test]
fn two_subscriptions_of_one_watcher_live_apart() {
    let mut first = Notifier::new(T0, &terms(60), true);
    let mut second = Notifier::new(T0, &terms(3600), true);
    tell(&mut first, T0, 1);
    tell(&mut second, T0, 1);
    first.sent(at(1), 2);
    assert_eq!(first.handle_outcome(at(1), 2, StatusCode::new(481), None), NotifyOutcome::Removed { alarm: false });
    second.changed();
    assert_eq!(second.poll(at(5), &config()), NotifyStep::Send);
    assert!(!second.is_over());
}

#[test]
fn timestamps_strictly_increase() {
    let second = Duration::from_secs(1);
    let mut last = None;
    for now in [T0, T0, EpochMillis(T0.0 - 5000), at(60)] {
        let next = next_timestamp(last, now, second);
        assert!(last.is_none_or(|last: EpochMillis| next.secs() > last.secs()));
        last = Some(next);
    }
    assert_eq!(last, Some(at(60)));
}

#[test]
fn the_notifier_s_record_survives_the_store() {
    let mut notifier = Notifier::new(T0, &SubscribeTerms { granted_secs: 60, event_id: Some("q7".into()) }, true);
    notifier.sent(T0, 1);
    notifier.changed();
    for _ in 0..2 {
        let read: Notifier = minicbor::decode(&minicbor::to_vec(&notifier).unwrap()).unwrap();
        assert_eq!(read, notifier);
        notifier.terminate(TerminationReason::Probation, Some(5));
    }
}
