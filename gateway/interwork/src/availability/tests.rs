use std::fmt::Write as _;

use isthmus_model::EpochMillis;
use isthmus_sip::pidf::{Pidf, PidfLimits};

use super::tables::{SipToXmpp, XmppToSip};
use super::*;
use crate::notification::{document_for_watcher, presence_from_document};

/// Makes one test for each row of a table, and one that no row is without.
macro_rules! rows {
    ($module:ident: $table:ident, $check:ident, $($name:ident),+ $(,)?) => {
        mod $module {
            use super::super::tables::$table;
            #[expect(non_camel_case_types, reason = "the variants number the tests and share their names")]
            enum Row { $($name),+ }
            $(
                #[test]
                fn $name() {
                    super::$check(&$table[Row::$name as usize]);
                }
            )+
            #[test]
            fn every_row_has_a_test() {
                assert_eq!([$(Row::$name as usize),+].len(), $table.len());
            }
        }
    };
}

// M-01
rows!(table_1: T1, sip_row_reaches_xmpp,
    row_1_available, row_2_busy, row_3_do_not_disturb, row_4_be_right_back, row_5_away, row_6_offline);
// M-02
rows!(table_2: T2, xmpp_row_reaches_sip, row_1_available, row_2_busy, row_3_do_not_disturb, row_4_offline);
// M-02
rows!(table_3: T3, xmpp_row_reaches_sip,
    row_1_available, row_2_away, row_3_extended_away, row_4_do_not_disturb, row_5_offline);
// M-01
rows!(table_4: T4, sip_row_reaches_xmpp,
    row_1_available, row_2_busy, row_3_do_not_disturb, row_4_be_right_back, row_5_away, row_6_offline);
// M-02
rows!(table_5: T5, xmpp_row_reaches_sip, row_1_available, row_2_busy, row_3_do_not_disturb, row_4_offline);
// M-02
rows!(table_6: T6, xmpp_row_reaches_sip,
    row_1_available, row_2_away, row_3_extended_away, row_4_do_not_disturb, row_5_offline);

/// A Microsoft document in one of the two shapes: the draft's activities, or those of RFC 4480.
fn microsoft_document(basic: &str, activity: Option<&str>, draft: bool, note: &str) -> Vec<u8> {
    let mut xml = String::from(
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:ep='urn:ietf:params:xml:ns:pidf:status:rpid-status' \
         xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' xmlns:rpid='urn:ietf:params:xml:ns:pidf:rpid' \
         entity='sip:dana@blue.example'><tuple id='t0'><status>",
    );
    write!(xml, "<basic>{basic}</basic>").unwrap();
    if let Some(activity) = activity.filter(|_| draft) {
        write!(xml, "<ep:activities><ep:activity>{activity}</ep:activity></ep:activities>").unwrap();
    }
    write!(xml, "</status>{note}</tuple>").unwrap();
    if let Some(activity) = activity.filter(|_| !draft) {
        write!(xml, "<dm:person id='p'><rpid:activities><rpid:{activity}/></rpid:activities></dm:person>").unwrap();
    }
    xml.push_str("</presence>");
    xml.into_bytes()
}

/// What an XMPP contact sees of a document that comes first.
fn shown(dialect: Dialect, body: &[u8]) -> ResourcePresence {
    let document = Pidf::parse(body, &PidfLimits::default()).unwrap();
    let all = presence_from_document(dialect, &document, &mut std::collections::BTreeSet::new(), EpochMillis(1));
    let [presence] = &all[..] else { panic!("{all:?}") };
    presence.clone()
}

fn sip_row_reaches_xmpp(row: &SipToXmpp) {
    assert_eq!(row.sip.number(), row.number, "{}", row.id);
    let (basic, activity) = match row.sip {
        SipCode::Available => ("open", None),
        SipCode::Busy | SipCode::Dnd => ("open", Some("busy")),
        SipCode::BeRightBack | SipCode::Away | SipCode::Idle => ("open", Some("away")),
        SipCode::Offline => ("closed", None),
    };
    for draft in [true, false] {
        let presence = shown(Dialect::Microsoft, &microsoft_document(basic, activity, draft, ""));
        is_exactly(&presence, row.xmpp, row.id);
    }
    // The number, which direct peers send, says the same but for the words that it adds.
    let by_number = to_xmpp(Dialect::Microsoft, classify_number(row.number), &[]);
    assert_eq!((by_number.available, by_number.show), (row.xmpp != XmppCode::Offline, row.xmpp.show()), "{}", row.id);
}

/// Compares with the wire form of a code: type, show and status text.
fn is_exactly(presence: &ResourcePresence, code: XmppCode, id: &str) {
    assert_eq!(presence.available, code != XmppCode::Offline, "{id}");
    assert_eq!(presence.show, code.show(), "{id}");
    let texts: Vec<&str> = presence.statuses.iter().map(|status| status.text.as_str()).collect();
    assert_eq!(texts, code.status().into_iter().collect::<Vec<_>>(), "{id}");
}

fn local(code: XmppCode) -> ResourcePresence {
    ResourcePresence {
        show: code.show(),
        statuses: code.status().map(LangText::plain).into_iter().collect(),
        ..ResourcePresence::new("home", code != XmppCode::Offline, EpochMillis(1))
    }
}

fn xmpp_row_reaches_sip(row: &XmppToSip) {
    let lee = isthmus_model::BareAddress::from_jid("lee@corp.example").unwrap();
    let xml = document_for_watcher(Dialect::Microsoft, &lee, &[local(row.xmpp)], EpochMillis(1));
    let (basic, word) = match row.sip {
        SipCode::Available => ("open", None),
        SipCode::Busy => ("open", Some("busy")),
        SipCode::Away => ("open", Some("away")),
        SipCode::Offline => ("closed", None),
        other => panic!("{other:?} is never sent"),
    };
    assert!(xml.contains(&format!("<basic>{basic}</basic>")), "{} {xml}", row.id);
    match word {
        Some(word) => {
            assert!(xml.contains(&format!("<ep:activity>{word}</ep:activity>")), "{} {xml}", row.id);
            assert!(xml.contains(&format!("<rpid:activities><rpid:{word}/></rpid:activities>")), "{} {xml}", row.id);
        }
        None => assert!(!xml.contains("activit"), "{} {xml}", row.id),
    }
    assert!(!xml.contains("show") && !xml.contains("<note"), "{} {xml}", row.id);
    assert_eq!(row.sip.number(), row.number, "{}", row.id);
}

fn open(words: &[&str]) -> Class {
    let activities: Vec<Activity> = words.iter().map(|word| Activity::new(word)).collect();
    classify(Some(Basic::Open), &activities.iter().collect::<Vec<_>>(), false)
}

#[test]
fn states_that_the_tables_leave_out_are_mapped_too() {
    assert_eq!(to_sip(&local(XmppCode::Chat)), SipCode::Available);
    assert_eq!(to_sip(&local(XmppCode::Idle)), SipCode::Away);
    assert_eq!(to_sip(&local(XmppCode::Meeting)), SipCode::Available);
    assert_eq!(to_sip(&local(XmppCode::MeetingAway)), SipCode::Away);
}

#[test]
fn both_forms_of_activities_are_understood() {
    // M-04
    for draft in [true, false] {
        let busy = shown(Dialect::Microsoft, &microsoft_document("open", Some("on-the-phone"), draft, ""));
        is_exactly(&busy, XmppCode::Busy, "on-the-phone");
    }
}

#[test]
fn show_in_the_document_wins_over_activities() {
    // M-05
    for dialect in [Dialect::Microsoft, Dialect::Standard] {
        let body = "<presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:r='urn:ietf:params:xml:ns:pidf:rpid'>\
            <tuple id='a'><status><basic>open</basic><show xmlns='jabber:client'>xa</show></status></tuple>\
            <person><r:activities><r:busy/></r:activities></person></presence>";
        is_exactly(&shown(dialect, body.as_bytes()), XmppCode::Xa, "show");
        let strange = body.replace(">xa<", ">gone<");
        assert_ne!(shown(dialect, strange.as_bytes()).show, Some(Show::Xa));
        let closed = body.replace(">open<", ">closed<");
        assert!(!shown(dialect, closed.as_bytes()).available);
    }
}

#[test]
fn state_numbers_are_classified_by_range() {
    // M-06
    for (first, last, class) in [
        (0, 4499, Class::Available),
        (4500, 5999, Class::Idle),
        (6000, 8999, Class::Busy),
        (9000, 11_999, Class::Dnd),
        (12_000, 14_999, Class::Brb),
        (15_000, 17_999, Class::Away),
        (18_000, u32::MAX, Class::Offline),
    ] {
        assert_eq!((classify_number(first), classify_number(last)), (class, class), "{first}");
    }
}

#[test]
fn unknown_activities_say_nothing_when_basic_is_open() {
    // M-07
    for words in [&[][..], &["juggling"], &["other", "unknown"], &["working"], &["permanent-absence"]] {
        assert_eq!(open(words), Class::Available, "{words:?}");
    }
    assert_eq!(classify(Some(Basic::Closed), &[&Activity::BUSY], false), Class::Offline);
    assert_eq!(classify(None, &[], false), Class::Offline);
    assert_eq!(classify(None, &[&Activity::new("juggling")], false), Class::Available);
}

#[test]
fn the_strongest_word_wins() {
    assert_eq!(open(&["away", "busy"]), Class::Busy);
    assert_eq!(open(&["busy", "In-Presentation"]), Class::Dnd);
    assert_eq!(open(&["away", "vacation"]), Class::Xa);
    assert_eq!(open(&["brb", "away"]), Class::Brb);
    assert_eq!(open(&["inactive", "dinner"]), Class::Away);
    assert_eq!(classify(Some(Basic::Open), &[], true), Class::Idle);
    assert_eq!(classify(Some(Basic::Open), &[&Activity::AWAY], true), Class::Away);
}

#[test]
fn the_standard_dialect_keeps_what_the_microsoft_one_joins() {
    // M-08
    for (word, standard, microsoft) in [
        ("busy", XmppCode::Dnd, XmppCode::Busy),
        ("dnd", XmppCode::Dnd, XmppCode::Busy),
        ("vacation", XmppCode::Xa, XmppCode::Away),
        ("holiday", XmppCode::Xa, XmppCode::Away),
        ("away", XmppCode::Away, XmppCode::Away),
        ("idle", XmppCode::Idle, XmppCode::Idle),
    ] {
        let body = microsoft_document("open", Some(word), true, "");
        is_exactly(&shown(Dialect::Standard, &body), standard, word);
        is_exactly(&shown(Dialect::Microsoft, &body), microsoft, word);
    }
}

#[test]
fn a_note_with_busy_keeps_the_word_before_it() {
    // M-09
    let text = |activity: &str, dialect, note: &str| {
        shown(dialect, &microsoft_document("open", Some(activity), true, note)).statuses
    };
    let note = "<note xml:lang='de'>am Tisch</note>";
    let lang = |text: &str| LangText { lang: Some("de".into()), text: text.to_owned() };
    assert_eq!(text("busy", Dialect::Microsoft, note), [lang("Busy - am Tisch")]);
    assert_eq!(text("busy", Dialect::Standard, note), [lang("am Tisch")]);
    assert_eq!(text("away", Dialect::Microsoft, note), [lang("am Tisch")]);
    assert_eq!(text("busy", Dialect::Microsoft, ""), [LangText { lang: Some("en".into()), text: "Busy".to_owned() }]);
    assert_eq!(text("busy", Dialect::Microsoft, "<note>busy - now</note>"), [LangText::plain("Busy - now")]);
    let back_soon = to_xmpp(Dialect::Microsoft, Class::Brb, &[]);
    assert_eq!(back_soon.statuses[0].text, "Be Right Back");
}

#[test]
fn words_that_repeat_the_state_are_no_notes_for_microsoft() {
    let notes = |show, text: &str, dialect| {
        let presence = ResourcePresence {
            show,
            statuses: vec![LangText::plain(text)],
            ..ResourcePresence::new("a", true, EpochMillis(1))
        };
        to_notes(dialect, &presence).into_iter().map(|note| note.text).collect::<Vec<_>>()
    };
    let away = Some(Show::Away);
    assert_eq!(notes(away, " busy - lunch ", Dialect::Microsoft), ["lunch"]);
    assert_eq!(notes(away, "BUSY", Dialect::Microsoft), [""; 0]);
    assert_eq!(notes(away, "Away", Dialect::Microsoft), [""; 0]);
    assert_eq!(notes(away, "Busybody", Dialect::Microsoft), ["Busybody"]);
    assert_eq!(notes(Some(Show::Dnd), "Busy", Dialect::Microsoft), [""; 0]);
    assert_eq!(notes(away, "Busy - lunch", Dialect::Standard), ["Busy - lunch"]);
    assert_eq!(notes(None, "Busy", Dialect::Microsoft), ["Busy"]);
}

#[test]
fn the_most_available_resource_is_chosen() {
    // M-10
    fn resource(name: &str, show: Option<Show>, priority: i8, since: u64) -> ResourcePresence {
        ResourcePresence { show, priority: Some(priority), ..ResourcePresence::new(name, true, EpochMillis(since)) }
    }
    let best = |list: &[ResourcePresence]| most_available(list).map(|presence| presence.resource.to_string());
    let mut list = vec![
        ResourcePresence::new("gone", false, EpochMillis(99)),
        resource("bot", Some(Show::Chat), -1, 9),
        resource("xa", Some(Show::Xa), 50, 9),
    ];
    assert_eq!(best(&list).as_deref(), Some("xa"));
    list.push(resource("away", Some(Show::Away), 0, 1));
    assert_eq!(best(&list).as_deref(), Some("away"));
    list.push(resource("dnd", Some(Show::Dnd), 0, 1));
    assert_eq!(best(&list).as_deref(), Some("dnd"));
    list.push(resource("chat", Some(Show::Chat), 1, 1));
    assert_eq!(best(&list).as_deref(), Some("chat"));
    list.push(resource("higher", None, 2, 1));
    assert_eq!(best(&list).as_deref(), Some("higher"));
    list.push(resource("newer", None, 2, 2));
    assert_eq!(best(&list).as_deref(), Some("newer"));
    assert_eq!(best(&list[..1]), None);
    let lee = isthmus_model::BareAddress::from_jid("lee@corp.example").unwrap();
    let shown = document_for_watcher(Dialect::Microsoft, &lee, &list[..5], EpochMillis(1));
    assert!(shown.contains("<rpid:busy/>") && shown.matches("<tuple").count() == 1, "{shown}");
}
