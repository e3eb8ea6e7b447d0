//! Whole conversations of the pair machine, told in wire texts.

use bytes::Bytes;
use isthmus_model::{Entropy, Now, Show};
use isthmus_sip::Limits;

use super::*;

/// The machine with a clock and a counter in place of chance.
struct Lab {
    pair: Pair,
    now: Now,
    config: PairConfig,
    count: u64,
}

#[expect(clippy::disallowed_methods, reason = "tests need some instant to start from")]
fn lab(dialect: Dialect) -> Lab {
    let user = |jid| BareAddress::from_jid(jid).unwrap();
    Lab {
        pair: Pair::new(user("lee@corp.example"), user("ana@partner.example"), None, None),
        now: Now { instant: std::time::Instant::now(), epoch: EpochMillis(1_700_000_000_000) },
        config: PairConfig {
            dialect,
            contact: "<sip:lee@sip.corp.example:5061;transport=tls>".to_owned(),
            expires_ask_secs: 3600,
            expires: ExpiresLimits::default(),
            notifier: NotifierConfig::default(),
            deny_mode: DenyMode::Polite,
            pending_max: Duration::from_secs(7 * 24 * 3600),
            timer_n: Duration::from_secs(32),
            max_dialogs: 16,
            spelling: None,
        },
        count: 0,
    }
}

impl Lab {
    fn act<R>(&mut self, act: impl FnOnce(&mut Pair, &mut Context<'_>) -> R) -> R {
        let count = &mut self.count;
        let mut entropy = || {
            *count += 1;
            *count
        };
        let entropy: &mut dyn Entropy = &mut entropy;
        act(&mut self.pair, &mut Context { now: self.now, config: &self.config, entropy })
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now.plus(Duration::from_secs(secs));
        self.act(Pair::handle_timeout);
    }

    fn local(&mut self, event: FromLocal) {
        self.local_as(Access::Prompt, event);
    }

    fn local_as(&mut self, access: Access, event: FromLocal) {
        self.act(|pair, ctx| pair.handle_local(ctx, access, event));
    }

    /// Takes everything that is to be sent: requests as messages, presence as it is.
    fn drain(&mut self) -> (Vec<Message>, Vec<ToLocal>, Vec<bool>) {
        let (mut requests, mut presence, mut decisions) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(output) = self.pair.poll_output() {
            match output {
                Output::Request { request, purpose, .. } => {
                    let message = parse_sent(&request);
                    // Answer NOTIFYs at once, as a well-behaved watcher does.
                    if let Purpose::Notify { .. } = purpose {
                        let ok = response(&message, 200, "");
                        self.act(|pair, ctx| pair.handle_outcome(ctx, &purpose, &Outcome::Answer(&ok)));
                    }
                    requests.push(message);
                }
                Output::ToLocal(stanza) => presence.push(stanza),
                Output::Decided(allow) => decisions.push(allow),
                other => panic!("{other:?}"),
            }
        }
        (requests, presence, decisions)
    }

    fn subscribe(&mut self, access: Access, headers: &str) -> Message {
        let request = parse(&format!(
            "SUBSCRIBE sip:lee@corp.example SIP/2.0\r\nVia: SIP/2.0/TLS edge.partner.example;branch=z9hG4bK{}\r\n\
             From: \"Ana\" <sip:ana@partner.example>;tag=w91\r\nTo: <sip:lee@corp.example>\r\nCall-ID: 9d1f\r\n\
             CSeq: 1 SUBSCRIBE\r\nContact: <sip:ana@edge.partner.example>\r\n{headers}Content-Length: 0\r\n\r\n",
            self.count
        ));
        let answer = self.act(|pair, ctx| pair.handle_subscribe(ctx, access, &request, true).finish(b"").unwrap());
        parse(std::str::from_utf8(&answer).unwrap())
    }

    /// The watcher whose SUBSCRIBE got this answer watches no more.
    fn end_watch(&mut self, answer: &Message) {
        let end = parse(&format!(
            "SUBSCRIBE sip:lee@sip.corp.example SIP/2.0\r\nVia: SIP/2.0/TLS edge.partner.example;branch=z9hG4bKend\r\n\
             From: <sip:ana@partner.example>;tag=w91\r\nTo: <sip:lee@corp.example>;tag={}\r\nCall-ID: 9d1f\r\n\
             CSeq: 2 SUBSCRIBE\r\nContact: <sip:ana@edge.partner.example>\r\nEvent: presence\r\nExpires: 0\r\n\
             Content-Length: 0\r\n\r\n",
            answer.to().tag().unwrap()
        ));
        let answer = self.act(|pair, ctx| pair.handle_subscribe(ctx, Access::Allow, &end, true).finish(b"").unwrap());
        assert!(answer.starts_with(b"SIP/2.0 200"));
    }

    fn notify(&mut self, subscribe: &Message, cseq: u32, state: &str, body: &str) -> StatusCode {
        let content = if body.is_empty() { "" } else { "Content-Type: application/pidf+xml\r\n" };
        let request = parse(&format!(
            "NOTIFY sip:lee@sip.corp.example:5061 SIP/2.0\r\nVia: SIP/2.0/TLS e.partner.example;branch=z9hG4bKn{cseq}\r\n\
             From: <sip:ana@partner.example>;tag=far\r\nTo: <sip:lee@corp.example>;tag={}\r\nCall-ID: {}\r\n\
             CSeq: {cseq} NOTIFY\r\nContact: <sip:ana@e.partner.example>\r\nEvent: presence\r\n\
             Subscription-State: {state}\r\n{content}Content-Length: {}\r\n\r\n{body}",
            subscribe.from_().tag().unwrap(),
            subscribe.call_id(),
            body.len()
        ));
        let answer = self.act(|pair, ctx| pair.handle_notify(ctx, &request).finish(b"").unwrap());
        parse(std::str::from_utf8(&answer).unwrap()).status().unwrap()
    }

    fn outcome(&mut self, request: &Message, status: u16, headers: &str) {
        let answer = response(request, status, headers);
        let purpose = Purpose::Subscribe { local_tag: request.from_().tag().unwrap().to_owned() };
        self.act(|pair, ctx| pair.handle_outcome(ctx, &purpose, &Outcome::Answer(&answer)));
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

fn response(request: &Message, status: u16, headers: &str) -> Message {
    let from = request.header(isthmus_sip::HeaderName::From).unwrap();
    let to = request.header(isthmus_sip::HeaderName::To).unwrap();
    let to = if to.contains("tag=") { to.to_owned() } else { format!("{to};tag=far") };
    let method = request.method();
    parse(&format!(
        "SIP/2.0 {status} Whatever\r\nVia: SIP/2.0/TLS sip.corp.example;branch=z9hG4bKx\r\nFrom: {from}\r\nTo: {to}\r\n\
         Call-ID: {}\r\nCSeq: {} {}\r\n{headers}Content-Length: 0\r\n\r\n",
        request.call_id(),
        request.cseq().number,
        method.as_str(),
    ))
}

fn pidf(basic: &str) -> String {
    format!(
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:ana@partner.example'>\
         <tuple id='ID-desk'><status><basic>{basic}</basic></status></tuple></presence>"
    )
}

fn state(resource: &str, available: bool, show: Option<Show>) -> FromLocal {
    let mut state = ResourcePresence::new(resource, available, EpochMillis(1));
    state.show = show;
    FromLocal::State(state)
}

fn body(message: &Message) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

const PRESENCE: &str = "Event: presence\r\n";

// P-02, P-03, P-04, P-10
#[test]
fn a_contact_is_subscribed_and_its_first_active_notify_grants_and_shows() {
    let mut lab = lab(Dialect::Standard);
    lab.local(FromLocal::Subscribe);
    let (requests, presence, _) = lab.drain();
    let [subscribe] = &requests[..] else { panic!("{requests:?}") };
    assert!(presence.is_empty());
    let events: Vec<_> = subscribe.raw(isthmus_sip::HeaderName::Event).collect();
    assert_eq!(events, ["presence"]);
    assert_eq!(subscribe.header(isthmus_sip::HeaderName::Accept), Some("application/pidf+xml"));
    assert!(subscribe.header(isthmus_sip::HeaderName::Supported).is_none());
    lab.outcome(subscribe, 200, "Expires: 3600\r\n");
    assert_eq!(lab.notify(subscribe, 1, "active;expires=3600", &pidf("open")), StatusCode::OK);
    let (_, presence, _) = lab.drain();
    let [ToLocal::Subscribed, ToLocal::State(shown)] = &presence[..] else { panic!("{presence:?}") };
    assert!(shown.available && shown.resource == "desk");
}

// P-06, P-07, P-09
#[test]
fn a_pending_notify_says_nothing_even_before_the_202() {
    let mut lab = lab(Dialect::Standard);
    lab.local(FromLocal::Subscribe);
    let subscribe = lab.drain().0.remove(0);
    assert_eq!(lab.notify(&subscribe, 1, "pending;expires=3600", ""), StatusCode::OK);
    lab.outcome(&subscribe, 202, "Expires: 3600\r\n");
    let (requests, presence, _) = lab.drain();
    assert!(requests.is_empty() && presence.is_empty(), "{requests:?} {presence:?}");
    assert_eq!(lab.pair.subscription_state(), "pending");
}

// P-11, P-12
#[test]
fn a_notify_without_body_is_closed_at_first_and_no_news_later() {
    let mut lab = lab(Dialect::Standard);
    lab.local(FromLocal::Subscribe);
    let subscribe = lab.drain().0.remove(0);
    lab.notify(&subscribe, 1, "active;expires=600", "");
    let (_, presence, _) = lab.drain();
    let [ToLocal::Subscribed, ToLocal::State(shown)] = &presence[..] else { panic!("{presence:?}") };
    assert!(!shown.available);
    lab.notify(&subscribe, 2, "active;expires=600", &pidf("open"));
    assert_eq!(lab.drain().1.len(), 1);
    lab.notify(&subscribe, 3, "active;expires=600", "");
    assert!(lab.drain().1.is_empty());
}

// P-17, P-30
#[test]
fn a_subscription_is_refreshed_in_its_dialog_and_ended_on_removal() {
    let mut lab = lab(Dialect::Standard);
    lab.local(FromLocal::Subscribe);
    let subscribe = lab.drain().0.remove(0);
    lab.outcome(&subscribe, 200, "Expires: 600\r\n");
    lab.notify(&subscribe, 1, "active;expires=600", &pidf("open"));
    lab.drain();
    lab.wait(599);
    let (requests, ..) = lab.drain();
    let [refresh] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(refresh.call_id(), subscribe.call_id());
    assert_eq!(refresh.cseq().number, subscribe.cseq().number + 1);
    assert_eq!(refresh.to().tag(), Some("far"));
    lab.outcome(refresh, 200, "Expires: 600\r\n");
    lab.local(FromLocal::Unsubscribe);
    let (requests, presence, _) = lab.drain();
    assert_eq!(requests[0].expires().unwrap(), Some(0));
    assert!(presence.is_empty());
    lab.outcome(&requests[0], 200, "Expires: 0\r\n");
    assert_eq!(lab.drain().1, [ToLocal::Unsubscribed]);
}

// A short subscription would run out before Timer N is over.
#[test]
fn a_refresh_whose_sender_is_gone_is_sent_again_at_once_unless_its_notify_came() {
    let refreshed = |answered: bool, notified: bool, sent_before: bool| {
        let mut lab = lab(Dialect::Standard);
        lab.local(FromLocal::Subscribe);
        let subscribe = lab.drain().0.remove(0);
        lab.outcome(&subscribe, 200, "Expires: 75\r\n");
        lab.notify(&subscribe, 1, "active;expires=75", &pidf("open"));
        lab.drain();
        lab.wait(38);
        let refresh = lab.drain().0.remove(0);
        assert_eq!(refresh.cseq().number, subscribe.cseq().number + 1);
        if answered {
            lab.outcome(&refresh, 200, "Expires: 75\r\n");
        }
        if notified {
            lab.notify(&refresh, 2, "active;expires=75", &pidf("open"));
        }
        let now = lab.now.epoch;
        let since = if sent_before { now.plus(Duration::from_millis(1)) } else { now };
        lab.act(|pair, ctx| pair.handle_sender_gone(ctx, since));
        let again = lab.drain().0;
        for again in &again {
            assert_eq!((again.call_id(), again.cseq().number), (refresh.call_id(), refresh.cseq().number + 1));
        }
        again.len()
    };
    assert_eq!((refreshed(false, false, true), refreshed(true, false, true)), (1, 1));
    assert_eq!((refreshed(true, true, true), refreshed(false, false, false)), (0, 0));
}

// P-13, P-14, P-15
#[test]
fn a_dialog_is_ended_that_is_given_up_for_want_of_a_notify() {
    let mut lab = lab(Dialect::Standard);
    lab.local(FromLocal::Subscribe);
    let (sent, ..) = lab.drain();
    let subscribe = &sent[0];
    lab.outcome(subscribe, 200, "Expires: 3600\r\n");
    lab.notify(subscribe, 1, "active;expires=3600", &pidf("open"));
    lab.drain();
    lab.wait(3600 - 60);
    let (sent, ..) = lab.drain();
    lab.outcome(&sent[0], 200, "Expires: 3600\r\n");
    // No NOTIFY follows: the notifier has a subscription of which this side knows nothing any more.
    lab.wait(33);
    let (sent, ..) = lab.drain();
    let ended = sent.iter().find(|request| request.expires().ok().flatten() == Some(0)).expect("it is not ended");
    assert_eq!(ended.call_id(), subscribe.call_id());
    assert_eq!(ended.to().tag(), Some("far"));
    let mut next = Vec::new();
    for _ in 0..20 {
        lab.wait(60);
        next.extend(lab.drain().0);
    }
    assert!(!next.is_empty() && next.iter().all(|request| request.call_id() != subscribe.call_id()), "{next:?}");
}

#[test]
fn refusals_deny_retry_or_start_anew() {
    let mut denied = lab(Dialect::Standard);
    denied.local(FromLocal::Subscribe);
    let subscribe = denied.drain().0.remove(0);
    denied.outcome(&subscribe, 603, "");
    assert_eq!(denied.drain().1, [ToLocal::Unsubscribed]);
    denied.wait(7 * 24 * 3600);
    assert!(denied.drain().0.is_empty());

    let mut brief = lab(Dialect::Standard);
    brief.local(FromLocal::Subscribe);
    let subscribe = brief.drain().0.remove(0);
    brief.outcome(&subscribe, 423, "Min-Expires: 7200\r\n");
    let (requests, presence, _) = brief.drain();
    assert_eq!(requests[0].expires().unwrap(), Some(7200));
    assert!(presence.is_empty());

    let mut gone = lab(Dialect::Standard);
    gone.local(FromLocal::Subscribe);
    let subscribe = gone.drain().0.remove(0);
    gone.notify(&subscribe, 1, "active;expires=600", &pidf("open"));
    gone.drain();
    gone.wait(560);
    let refresh = gone.drain().0.remove(0);
    gone.outcome(&refresh, 481, "");
    let (requests, presence, _) = gone.drain();
    assert_ne!(requests[0].call_id(), subscribe.call_id());
    assert_ne!(requests[0].from_().tag(), subscribe.from_().tag());
    assert!(presence.is_empty());
}

// P-22, P-23, P-32
#[test]
fn the_end_of_a_subscription_shows_as_its_reason_says() {
    for (reason, told, again) in
        [("terminated;reason=rejected", vec![false, true], false), ("terminated;reason=timeout", vec![], true)]
    {
        let mut lab = lab(Dialect::Standard);
        lab.local(FromLocal::Subscribe);
        let subscribe = lab.drain().0.remove(0);
        lab.notify(&subscribe, 1, "active;expires=600", &pidf("open"));
        lab.drain();
        lab.notify(&subscribe, 2, reason, "");
        let (requests, presence, _) = lab.drain();
        assert_eq!(presence.iter().map(|p| *p == ToLocal::Unsubscribed).collect::<Vec<_>>(), told, "{presence:?}");
        assert_eq!(!requests.is_empty(), again);
    }
    let mut expired = lab(Dialect::Standard);
    expired.local(FromLocal::Subscribe);
    let subscribe = expired.drain().0.remove(0);
    expired.notify(&subscribe, 1, "active;expires=600", &pidf("open"));
    expired.drain();
    expired.wait(560);
    let refresh = expired.drain().0.remove(0);
    expired.outcome(&refresh, 500, "");
    expired.wait(41);
    let (_, presence, _) = expired.drain();
    assert!(matches!(&presence[..], [ToLocal::State(gone)] if !gone.available && gone.resource == "desk"));
}

// N-01, N-02, N-06, N-07, N-09, N-11, L-04, L-05
#[test]
fn an_unknown_watcher_is_pending_until_the_user_decides_and_prompted_once() {
    let mut lab = lab(Dialect::Standard);
    let answer = lab.subscribe(Access::Prompt, PRESENCE);
    assert_eq!(answer.status(), Some(StatusCode::OK));
    assert_eq!(answer.expires().unwrap(), Some(3600));
    let (requests, presence, _) = lab.drain();
    let [notify] = &requests[..] else { panic!("{requests:?}") };
    let told = notify.subscription_state().unwrap().unwrap();
    assert!(told.is("pending") && told.expires() == Some(3600));
    assert!(notify.body().is_empty());
    assert_eq!(presence, [ToLocal::Subscribe(Some("Ana".to_owned()))]);
    lab.wait(3000);
    lab.subscribe(Access::Prompt, PRESENCE);
    assert!(lab.drain().1.is_empty());
    // A new try asks again, but not on the same day.
    for (wait, asked) in [(24 * 3600 - 3001, 0), (1, 1), (24 * 3600 - 1, 0), (1, 1)] {
        lab.wait(wait);
        lab.drain();
        lab.subscribe(Access::Prompt, PRESENCE);
        let told = lab.drain().1;
        assert_eq!(told.iter().filter(|p| matches!(p, ToLocal::Subscribe(_))).count(), asked, "{told:?}");
    }
}

// N-10, N-12, N-18, N-22, L-06
#[test]
fn an_approval_brings_the_state_within_a_moment_and_is_recorded() {
    let mut lab = lab(Dialect::Standard);
    let answer = lab.subscribe(Access::Prompt, PRESENCE);
    lab.drain();
    lab.local(FromLocal::Subscribed);
    lab.local(state("home", true, Some(Show::Away)));
    let (requests, _, decisions) = lab.drain();
    assert_eq!(decisions, [true]);
    let [notify] = &requests[..] else { panic!("{requests:?}") };
    assert!(notify.subscription_state().unwrap().unwrap().is("active"));
    assert_eq!(notify.from_().tag(), answer.to().tag());
    assert_eq!(notify.to().tag(), Some("w91"));
    assert_eq!(notify.request_uri(), "sip:ana@edge.partner.example");
    let document = body(notify);
    assert!(document.contains("<basic>open</basic>") && document.contains("sip:lee@corp.example"), "{document}");
    // The decision is remembered even where no list is kept.
    lab.drain();
    let again = lab.subscribe(Access::Prompt, PRESENCE);
    assert_eq!(again.status(), Some(StatusCode::OK));
    let (requests, presence, _) = lab.drain();
    assert!(requests.iter().all(|r| r.subscription_state().unwrap().unwrap().is("active")));
    assert!(!presence.iter().any(|p| matches!(p, ToLocal::Subscribe(_))), "{presence:?}");
}

// N-25
#[test]
fn a_burst_of_changes_becomes_one_notify_with_the_last_state() {
    let mut lab = lab(Dialect::Standard);
    lab.subscribe(Access::Prompt, PRESENCE);
    lab.local(FromLocal::Subscribed);
    lab.local(state("home", true, None));
    lab.drain();
    for show in [Show::Away, Show::Xa, Show::Dnd] {
        lab.local(state("home", true, Some(show)));
    }
    assert!(lab.drain().0.is_empty());
    lab.wait(5);
    let (requests, ..) = lab.drain();
    let [notify] = &requests[..] else { panic!("{requests:?}") };
    assert!(body(notify).contains("dnd"), "{}", body(notify));
}

// L-07, L-08, L-09
#[test]
fn a_denied_watcher_sees_what_the_watcher_of_an_offline_user_sees() {
    let mut denied = lab(Dialect::Standard);
    denied.subscribe(Access::Prompt, PRESENCE);
    denied.drain();
    denied.local(FromLocal::Unsubscribed);
    let (refused, _, decisions) = denied.drain();
    assert_eq!(decisions, [false]);
    let mut offline = lab(Dialect::Standard);
    offline.subscribe(Access::Allow, PRESENCE);
    let (allowed, ..) = offline.drain();
    let without_time = |text: &str| {
        let (head, rest) = text.split_once("<timestamp>").unwrap();
        format!("{head}{}", rest.split_once("</timestamp>").unwrap().1)
    };
    assert_eq!(without_time(&body(&refused[0])), without_time(&body(&allowed[0])));
    assert_eq!(
        refused[0].header(isthmus_sip::HeaderName::SubscriptionState),
        allowed[0].header(isthmus_sip::HeaderName::SubscriptionState)
    );
    // What the user does from now on is no news to the denied watcher.
    denied.local(state("home", true, None));
    denied.wait(60);
    assert!(denied.drain().0.is_empty());
}

// N-13, N-14
#[test]
fn the_last_subscription_of_a_watcher_ends_closed_and_tells_the_user() {
    let mut lab = lab(Dialect::Standard);
    let answer = lab.subscribe(Access::Allow, PRESENCE);
    lab.drain();
    lab.end_watch(&answer);
    let (requests, presence, _) = lab.drain();
    let told = requests[0].header(isthmus_sip::HeaderName::SubscriptionState).unwrap();
    assert_eq!(told, "terminated;reason=timeout");
    assert!(body(&requests[0]).contains("<basic>closed</basic>"));
    assert!(matches!(&presence[..], [ToLocal::State(gone)] if !gone.available), "{presence:?}");
    assert!(lab.pair.is_idle());
}

// L-12
#[test]
fn a_denied_watcher_is_told_where_the_domain_says_so() {
    let mut lab = lab(Dialect::Standard);
    lab.config.deny_mode = DenyMode::Reject;
    lab.subscribe(Access::Prompt, PRESENCE);
    lab.drain();
    lab.local(FromLocal::Unsubscribed);
    let (requests, ..) = lab.drain();
    let told = requests[0].header(isthmus_sip::HeaderName::SubscriptionState).unwrap();
    assert_eq!(told, "terminated;reason=rejected");
}

// N-04, N-05, N-08, E-07
#[test]
fn a_subscribe_that_cannot_be_served_gets_its_companion_headers() {
    let mut lab = lab(Dialect::Standard);
    let winfo = lab.subscribe(Access::Prompt, "Event: presence.winfo\r\n");
    assert_eq!(winfo.status(), Some(StatusCode::BAD_EVENT));
    assert_eq!(winfo.header(isthmus_sip::HeaderName::AllowEvents), Some("presence"));
    let brief = lab.subscribe(Access::Prompt, "Event: presence\r\nExpires: 5\r\n");
    assert_eq!(brief.status(), Some(StatusCode::INTERVAL_TOO_BRIEF));
    assert_eq!(brief.min_expires().unwrap(), Some(60));
    let xpidf = lab.subscribe(Access::Prompt, "Event: presence\r\nAccept: application/xpidf+xml\r\n");
    assert_eq!(xpidf.status(), Some(StatusCode::NOT_ACCEPTABLE));
    assert!(lab.drain().0.is_empty());
    assert!(lab.pair.is_idle());
}

#[test]
fn records_survive_being_stored() {
    let mut lab = lab(Dialect::Standard);
    lab.subscribe(Access::Prompt, PRESENCE);
    lab.local(FromLocal::Subscribe);
    lab.drain();
    let record = PairRecord::from_bytes(&lab.pair.record().to_bytes()).unwrap();
    assert_eq!(&record, lab.pair.record());
    assert_eq!(AuthRecord::from_bytes(&lab.pair.auth().to_bytes()).unwrap(), *lab.pair.auth());
    let (local, remote) = record.users().unwrap();
    assert_eq!((local.to_jid().as_str(), remote.to_jid().as_str()), ("lee@corp.example", "ana@partner.example"));
    assert!(PairRecord::from_bytes(b"\xff\x00").is_err());
}

/// A pair whose users see one another; written by version 0.1.0, and the next release must read it.
const PAIR: &[u8] =
    b"\x90\x82\x8dx 00000000000000020000000000000003x!ts3frq8vqv9mndr7-0000000000000004cfarv<sip:lee@corp.example>\
    x\x19<sip:ana@partner.example>x\x19sip:ana@e.partner.example\x80\x01\x01\xf6x-<sip:lee@sip.corp.example:5061\
    ;transport=tls>\xf4\x01\x8b\x02\x19\x0e\x10\x19\x0e\x10\x1b\x00\x00\x01\x8b\xd0\x1cV\x80\x1b\x00\x00\x01\x8b\
    \xd0\x17\xc2\x9b\xf6\xf4\xf4\x1b\x00\x00\x01\x8b\xd0\x1cV\x80\xf4\xf4\xf6\x82\x00\xf4\x81\x87ddesk\xf5\xf6\
    \x80\xf6\xf6\x1b\x00\x00\x01\x8b\xcf\xe5h\x00\xf6\x1b\x00\x00\x01\x8b\xcf\xe5h\x00\x81\x86\x8dd9d1fx!ts3frq8\
    vqv9mndr7-0000000000000001cw91v<sip:lee@corp.example>x\x1f\"Ana\" <sip:ana@partner.example>x\x1csip:ana@edge\
    .partner.example\x80\x02\x01\xf6x-<sip:lee@sip.corp.example:5061;transport=tls>\xf4\x01\x88\x82\x01\x80\xf6\
    \x1b\x00\x00\x01\x8b\xd0\x1cV\x80\x00\x1b\x00\x00\x01\x8b\xcf\xe5h\x00\xf6\xf6\xf4\xf4\xf5\x1b\x00\x00\x01\
    \x8b\xcf\xe5h\x00\xf4\x81\x87ephone\xf5\x03\x80\xf6\xf6\x01\x1b\x00\x00\x01\x8b\xcf\xe5h\x00\x1b\x00\x00\x01\
    \x8b\xcf\xe5h\x00\xf6\xf6\xf6\x1b\x00\x00\x01\x8b\xcf\xe5h\x00\xf4\x82plee@corp.examplesana@partner.example";
const AUTH: &[u8] = b"\x82\x02\x82\x02\x80";

#[test]
fn frozen_bytes_are_written_and_read() {
    let mut lab = lab(Dialect::Standard);
    lab.subscribe(Access::Prompt, PRESENCE);
    lab.drain();
    lab.local(FromLocal::Subscribe);
    let subscribe = lab.drain().0.remove(0);
    lab.outcome(&subscribe, 200, "Expires: 3600\r\n");
    lab.notify(&subscribe, 1, "active;expires=3600", &pidf("open"));
    lab.local(FromLocal::Subscribed);
    lab.local(state("phone", true, Some(Show::Dnd)));
    lab.drain();
    for (bytes, frozen) in [(lab.pair.record().to_bytes(), PAIR), (lab.pair.auth().to_bytes(), AUTH)] {
        assert_eq!(bytes.escape_ascii().to_string(), frozen.escape_ascii().to_string());
    }
    assert_eq!(PairRecord::from_bytes(PAIR).as_ref().ok(), Some(lab.pair.record()));
    assert_eq!(AuthRecord::from_bytes(AUTH).as_ref().ok(), Some(lab.pair.auth()));
}

#[test]
fn who_watches_after_the_link_was_away_is_not_told_what_was_known_before() {
    let watch_again = |link_was_away: bool| {
        let mut lab = lab(Dialect::Standard);
        // The user has the contact too, so that the record stays while nobody watches.
        lab.local(FromLocal::Subscribe);
        let subscribe = lab.drain().0.remove(0);
        lab.outcome(&subscribe, 202, "Expires: 3600\r\n");
        let answer = lab.subscribe(Access::Allow, PRESENCE);
        lab.local(state("home", true, None));
        lab.drain();
        lab.end_watch(&answer);
        let last = lab.drain().0.remove(0);
        lab.outcome(&last, 200, "");
        if link_was_away {
            lab.act(Pair::handle_link_ready);
            lab.drain();
        }
        lab.subscribe(Access::Allow, PRESENCE);
        lab.drain().1.contains(&ToLocal::Probe)
    };
    assert!(!watch_again(false), "what came a moment ago needs no question");
    assert!(watch_again(true));
}

#[test]
fn a_link_that_is_up_again_asks_tells_and_subscribes_what_is_missing() {
    let mut lab = lab(Dialect::Standard);
    lab.act(Pair::handle_link_ready);
    assert!(lab.drain().0.is_empty() && lab.pair.is_idle());
    // The contact is awaited: there is nothing to tell yet, and no second subscription.
    lab.local(FromLocal::Subscribe);
    let subscribe = lab.drain().0.remove(0);
    lab.act(Pair::handle_link_ready);
    let (requests, presence, _) = lab.drain();
    assert!(requests.is_empty() && presence.is_empty(), "{presence:?}");
    // The contact is there; the user is watched by nobody.
    lab.outcome(&subscribe, 202, "Expires: 3600\r\n");
    assert_eq!(lab.notify(&subscribe, 1, "active;expires=3600", &pidf("open")), StatusCode::OK);
    let (_, shown, _) = lab.drain();
    lab.act(Pair::handle_link_ready);
    let (requests, presence, _) = lab.drain();
    assert!(requests.is_empty());
    assert!(matches!(&presence[..], [ToLocal::State(state)] if state.available), "{presence:?}");
    assert!(shown.contains(&presence[0]));
    // The contact went away; the watched user is asked once.
    assert_eq!(lab.notify(&subscribe, 2, "active;expires=3600", &pidf("closed")), StatusCode::OK);
    lab.subscribe(Access::Allow, "Event: presence\r\nExpires: 3600\r\n");
    lab.drain();
    lab.act(Pair::handle_link_ready);
    let (requests, presence, _) = lab.drain();
    assert!(requests.is_empty());
    assert!(
        matches!(&presence[..], [ToLocal::Probe, ToLocal::State(state)] if !state.available && state.resource.is_empty()),
        "{presence:?}"
    );
    // A denied watcher's user is not asked.
    lab.local(FromLocal::Unsubscribed);
    lab.drain();
    lab.act(Pair::handle_link_ready);
    assert!(!lab.drain().1.contains(&ToLocal::Probe));
    // The record was lost, the decisions were not.
    lab.pair = Pair::new(lab.pair.local().clone(), lab.pair.remote().clone(), Some(*lab.pair.auth()), None);
    lab.act(Pair::handle_link_ready);
    let (requests, _, _) = lab.drain();
    assert_eq!(requests.len(), 1);
    assert_ne!(requests[0].call_id(), subscribe.call_id());
    lab.act(Pair::handle_link_ready);
    assert!(lab.drain().0.is_empty());
}

/// A subscription that lives for 600 s, its refresh not sent by anybody.
fn unrefreshed(secs: u64) -> Lab {
    let mut lab = lab(Dialect::Standard);
    lab.local(FromLocal::Subscribe);
    let subscribe = lab.drain().0.remove(0);
    lab.outcome(&subscribe, 200, "Expires: 600\r\n");
    lab.notify(&subscribe, 1, "active;expires=600", &pidf("open"));
    lab.drain();
    lab.now = lab.now.plus(Duration::from_secs(secs));
    lab
}

// P-38
#[test]
fn a_refresh_that_is_late_can_be_put_off_and_not_beyond_the_end() {
    let lab = unrefreshed(0);
    let due = lab.pair.next_deadline(lab.now.epoch, &lab.config).unwrap();
    let until_due = due.since(lab.now.epoch).as_secs();
    for (late, is_late) in [(10, false), (16, true)] {
        let mut lab = unrefreshed(until_due + late);
        assert_eq!(lab.act(|pair, ctx| pair.is_late(ctx)), is_late);
    }
    for (wait, put_off) in [(5, 5), (3600, 600 - 10 - until_due - 16)] {
        let mut lab = unrefreshed(until_due + 16);
        let at = lab.now.epoch.plus(Duration::from_secs(wait));
        lab.act(|pair, ctx| pair.put_off(ctx, at));
        lab.wait(0);
        assert!(lab.drain().0.is_empty());
        assert!(!lab.act(|pair, ctx| pair.is_late(ctx)));
        lab.wait(put_off - 1);
        assert!(lab.drain().0.is_empty());
        lab.wait(2);
        let (requests, presence, _) = lab.drain();
        assert_eq!((requests.len(), presence.len()), (1, 0));
        assert_eq!(requests[0].to().tag(), Some("far"));
    }
}

#[test]
fn what_ran_out_meanwhile_is_shown_no_more_and_made_anew_at_its_turn() {
    let mut lab = unrefreshed(700);
    assert!(lab.act(|pair, ctx| pair.is_late(ctx)));
    let at = lab.now.epoch.plus(Duration::from_secs(20));
    lab.act(|pair, ctx| pair.put_off(ctx, at));
    lab.wait(0);
    let (requests, presence, _) = lab.drain();
    let [ToLocal::State(shown)] = &presence[..] else { panic!("{presence:?}") };
    assert!(requests.is_empty() && !shown.available, "{requests:?} {shown:?}");
    lab.wait(20);
    let (requests, ..) = lab.drain();
    assert!(requests.len() == 1 && requests[0].to().tag().is_none(), "{requests:?}");
}
