use std::fmt::Write as _;

use isthmus_model::{EpochMillis, LangText, Show, timestamp};
use proptest::prelude::*;

use super::*;

const MICROSOFT_BUSY: &[u8] = include_bytes!("../../../fuzz/corpus/pidf/microsoft-busy.xml");
const MICROSOFT_UTF16: &[u8] = include_bytes!("../../../fuzz/corpus/pidf/microsoft-utf16-declared.xml");
const EMITTED_BUSY: &str = include_str!("../../../fuzz/corpus/pidf/emitted-microsoft-busy.xml");
const EMITTED_OFFLINE: &str = include_str!("../../../fuzz/corpus/pidf/emitted-offline.xml");
const STANDARD: &[u8] = include_bytes!("../../../fuzz/corpus/pidf/standard-show.xml");
const WILD: &[u8] = include_bytes!("../../../fuzz/corpus/pidf/wild-namespaces.xml");

fn parse(body: &[u8]) -> Pidf {
    Pidf::parse(body, &PidfLimits::default()).unwrap()
}

fn error(body: &[u8]) -> PidfError {
    Pidf::parse(body, &PidfLimits::default()).unwrap_err()
}

fn text(lang: Option<&str>, text: &str) -> LangText {
    LangText { lang: lang.map(Into::into), text: text.to_owned() }
}

fn names(activities: &[Activity]) -> Vec<&str> {
    activities.iter().map(Activity::as_str).collect()
}

/// Wraps `inside` into a document.
fn document(inside: &str) -> Vec<u8> {
    format!("<presence xmlns='{NS_PIDF}' xmlns:r='{NS_RPID}' entity='sip:x@y.example'>{inside}</presence>").into_bytes()
}

#[test]
fn the_microsoft_form_gives_the_activity_of_its_tuple() {
    let pidf = parse(MICROSOFT_BUSY);
    assert_eq!(pidf.entity, "sip:dana@blue.example");
    assert_eq!(pidf.display_name.as_deref(), Some("Dana Vale"));
    let [tuple] = &pidf.tuples[..] else { panic!("{pidf:?}") };
    assert_eq!((tuple.id.as_str(), tuple.basic), ("t0", Some(Basic::Open)));
    assert_eq!(names(&tuple.activities), ["busy"]);
    assert_eq!((&tuple.contact, &pidf.person), (&None, &None));
}

#[test]
fn utf_16_declared_on_utf_8_and_an_entity_without_scheme_are_read() {
    let pidf = parse(MICROSOFT_UTF16);
    assert_eq!(pidf.entity, "dana@blue.example");
    assert_eq!(names(&pidf.tuples[0].activities), ["away"]);
}

#[test]
fn the_standard_form_gives_show_notes_priority_and_person() {
    let pidf = parse(STANDARD);
    let tuple = &pidf.tuples[0];
    assert_eq!(tuple.show, Some(Show::Xa));
    assert_eq!(tuple.contact.as_ref().unwrap().priority, Some(992));
    assert_eq!(tuple.notes, [text(Some("en"), "gone fishing"), text(Some("de"), "angeln")]);
    assert_eq!(tuple.timestamp, timestamp::parse("2025-03-04T09:15:02Z"));
    assert_eq!(pidf.tuples[1].basic, Some(Basic::Closed));
    assert_eq!(pidf.notes, [text(None, "for all devices")]);
    let person = pidf.person.unwrap();
    assert_eq!(names(&person.activities), ["vacation"]);
    assert!(person.idle);
    assert_eq!(person.notes, [text(Some("fr"), "en vacances"), text(None, "on the lake")]);
}

#[test]
fn activities_are_found_in_every_namespace_and_place_that_peers_use() {
    let pidf = parse(WILD);
    assert_eq!(pidf.tuples[0].basic, Some(Basic::Open));
    assert_eq!(names(&pidf.tuples[0].activities), ["on-the-phone"]);
    assert_eq!(names(&pidf.person.unwrap().activities), ["dnd", "in-a-meeting"]);
}

#[test]
fn a_basic_status_that_pidf_does_not_know_is_none() {
    let pidf = parse(include_bytes!("../../../fuzz/corpus/pidf/softphone-unknown-basic.xml"));
    assert_eq!(pidf.tuples[0].basic, None);
    assert_eq!(pidf.person, Some(Person::default()));
}

#[test]
fn languages_are_inherited_and_can_be_taken_back() {
    let body = document(
        "<tuple id='a' xml:lang='de'><status><basic>open</basic></status><note>eins</note>\
         <note xml:lang='en-GB'>two</note><note xml:lang=''>3</note><note xml:lang='no way'>4</note></tuple>",
    );
    let langs: Vec<_> = parse(&body).tuples[0].notes.iter().map(|n| n.lang.clone()).collect();
    assert_eq!(langs, [Some("de".into()), Some("en-GB".into()), None, None]);
}

#[test]
fn priorities_outside_zero_to_one_are_left_out() {
    for (written, read) in [
        ("0", Some(0)),
        ("1", Some(1000)),
        ("1.000", Some(1000)),
        ("0.8", Some(800)),
        (".5", Some(500)),
        ("0.0079", Some(7)),
        ("1.0001", None),
        ("2", None),
        ("-0.5", None),
        ("65.536", None),
        ("", None),
        (".", None),
        ("0,5", None),
        ("NaN", None),
    ] {
        let body = document(&format!("<tuple id='a'><contact priority='{written}'>sip:a@b</contact></tuple>"));
        assert_eq!(parse(&body).tuples[0].contact.as_ref().unwrap().priority, read, "{written}");
    }
}

#[test]
fn declarations_of_types_and_entities_are_refused_unexpanded() {
    // T-15
    assert_eq!(error(include_bytes!("../../../fuzz/corpus/pidf/dtd.xml")), XmlError::Dtd.into());
    assert_eq!(error(include_bytes!("../../../fuzz/corpus/pidf/entity.xml")), XmlError::Entity.into());
    let after_root = [MICROSOFT_BUSY, b"<!DOCTYPE presence>"].concat();
    assert!(matches!(error(&after_root), PidfError::Xml(XmlError::Malformed(_))));
    let external = b"<!DOCTYPE presence SYSTEM 'file:///etc/passwd'><presence xmlns='urn:ietf:params:xml:ns:pidf'/>";
    assert_eq!(error(external), XmlError::Dtd.into());
    let behind_a_comment = b"<!-- --><!DOCTYPE x><presence xmlns='urn:ietf:params:xml:ns:pidf'/>";
    assert_eq!(error(behind_a_comment), XmlError::Dtd.into());
}

#[test]
fn what_is_no_document_is_refused_by_name() {
    let corpus =
        |name: &str| std::fs::read(format!("{}/../fuzz/corpus/pidf/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert_eq!(error(b""), XmlError::Incomplete.into());
    assert_eq!(error(b"<?xml version='1.0'"), XmlError::Incomplete.into());
    assert_eq!(error(&corpus("truncated.xml")), XmlError::Incomplete.into());
    assert_eq!(error(&corpus("invalid-utf8.xml")), XmlError::NotUtf8.into());
    assert_eq!(error(&corpus("utf16-bytes.xml")), XmlError::NotUtf8.into());
    assert_eq!(error(&corpus("not-pidf.xml")), PidfError::NotPidf);
    assert!(matches!(error(&corpus("processing-instruction.xml")), PidfError::Xml(XmlError::Malformed(_))));
    assert!(matches!(
        error(b"<presence xmlns='urn:ietf:params:xml:ns:pidf'/>x"),
        PidfError::Xml(XmlError::Malformed(_))
    ));
}

#[test]
fn every_bound_is_a_typed_outcome() {
    let limits = PidfLimits::default();
    let deep = |n: usize| document(&("<a>".repeat(n) + &"</a>".repeat(n)));
    assert!(Pidf::parse(&deep(31), &limits).is_ok());
    assert_eq!(error(&deep(32)), XmlError::TooDeep { limit: 32 }.into());
    let mut long = document("");
    long.resize(64 * 1024, b' ');
    assert!(Pidf::parse(&long, &limits).is_ok());
    long.push(b' ');
    assert_eq!(error(&long), XmlError::TooLarge { limit: 65_536 }.into());
    assert_eq!(error(&document(&"<a/>".repeat(4096))), XmlError::TooManyNodes { limit: 4096 }.into());
    assert_eq!(error(&document(&"<tuple/>".repeat(65))), PidfError::TooManyTuples { limit: 64 });
    assert_eq!(error(&document(&"<person/>".repeat(65))), PidfError::TooManyTuples { limit: 64 });
    assert_eq!(error(&document(&"<note>a</note>".repeat(17))), PidfError::TooManyNotes { limit: 16 });
    let mut many = String::new();
    for n in 0..33 {
        write!(many, "<r:a{n}/>").unwrap();
    }
    let many = document(&format!("<r:activities>{many}</r:activities>"));
    assert_eq!(error(&many), PidfError::TooManyActivities { limit: 32 });
}

/// Removes the blanks between elements and the line breaks between attributes.
fn squeeze(xml: &str) -> String {
    let lines: Vec<&str> = xml.lines().map(str::trim).collect();
    lines.join(" ").replace("> <", "><").trim().to_owned()
}

#[test]
fn the_microsoft_document_is_written_exactly_as_specified() {
    let pidf = Pidf {
        entity: "sip:lee@corp.example".to_owned(),
        tuples: vec![Tuple {
            id: SINGLE_TUPLE_ID.to_owned(),
            basic: Some(Basic::Open),
            activities: vec![Activity::BUSY],
            contact: Some(Contact { uri: "sip:lee@corp.example".to_owned(), priority: None }),
            notes: vec![text(Some("en"), "Deep work")],
            timestamp: timestamp::parse("2025-03-04T09:15:02.120Z"),
            ..Tuple::default()
        }],
        person: Some(Person { activities: vec![Activity::BUSY], ..Person::default() }),
        ..Pidf::default()
    };
    assert_eq!(squeeze(&pidf.to_xml()), squeeze(EMITTED_BUSY));
    assert_eq!(parse(EMITTED_BUSY.as_bytes()), pidf);
}

#[test]
fn the_offline_document_has_one_closed_tuple_and_neither_note_nor_person() {
    // M-11
    let at = timestamp::parse("2025-03-04T09:15:02.120Z").unwrap();
    let pidf = Pidf::offline("pres:lee@corp.example".to_owned(), "sip:lee@corp.example".to_owned(), at);
    let xml = pidf.to_xml();
    assert_eq!(squeeze(&xml), squeeze(EMITTED_OFFLINE));
    assert!(!xml.contains("note") && !xml.contains("person") && !xml.contains("show"), "{xml}");
}

#[test]
fn texts_cannot_break_out_of_their_place() {
    let evil = "]]> </note><basic>\u{0}\u{b}\u{fffe}\"'&lt;\r\n";
    let pidf = Pidf {
        entity: "sip:\"><x>@y\n".to_owned(),
        tuples: vec![Tuple {
            id: "a\"\tb".to_owned(),
            notes: vec![text(Some("x\"/>"), evil)],
            contact: Some(Contact { uri: "</contact>".to_owned(), priority: Some(1001) }),
            ..Tuple::default()
        }],
        notes: vec![text(None, evil)],
        display_name: Some("<&>".to_owned()),
        ..Pidf::default()
    };
    let read = parse(pidf.to_xml().as_bytes());
    assert_eq!(read.entity, "sip:\"><x>@y");
    assert_eq!(read.tuples[0].id, "a\"\tb");
    assert_eq!(read.tuples[0].basic, None);
    assert_eq!(read.tuples[0].contact, Some(Contact { uri: "</contact>".to_owned(), priority: None }));
    assert_eq!(read.tuples[0].notes, [text(None, "]]> </note><basic>\"'&lt;")]);
    assert_eq!(read.notes.len(), 1);
    assert_eq!(read.display_name.as_deref(), Some("<&>"));
}

#[test]
fn the_corpus_is_read_or_refused_and_what_is_read_is_written_back() {
    let folder = format!("{}/../fuzz/corpus/pidf", env!("CARGO_MANIFEST_DIR"));
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        fuzz(&std::fs::read(&path).unwrap());
        read += 1;
    }
    assert!(read >= 20, "{read}");
}

prop_compose! {
    fn notes()(list in prop::collection::vec((prop::option::of("[a-z]{2}(-[A-Z]{2})?"), "\\PC{1,12}"), 0..3)) -> Vec<LangText> {
        list.into_iter()
            .map(|(lang, text)| LangText { lang: lang.map(Into::into), text: text.trim().to_owned() })
            .filter(|note| !note.text.is_empty() && note.text.chars().all(xml::is_xml_char))
            .collect()
    }
}

prop_compose! {
    fn activities()(list in prop::collection::vec("[a-z][a-z0-9._-]{0,8}|note|activity|busy", 0..4)) -> Vec<Activity> {
        let mut activities: Vec<Activity> = Vec::new();
        for activity in list.iter().map(|name| Activity::new(name)) {
            if !activities.contains(&activity) {
                activities.push(activity);
            }
        }
        activities
    }
}

prop_compose! {
    fn tuples()(
        id in "[A-Za-z0-9._<&\"-]{0,8}",
        basic in prop::sample::select(vec![None, Some(Basic::Open), Some(Basic::Closed)]),
        show in prop::sample::select(vec![None, Some(Show::Chat), Some(Show::Away), Some(Show::Xa), Some(Show::Dnd)]),
        activities in activities(),
        idle in any::<bool>(),
        contact in prop::option::of(("[a-z:@&<]{0,9}", prop::option::of(0_u16..=1000))),
        notes in notes(),
        timestamp in prop::option::of(0..253_402_207_200_000_u64),
    ) -> Tuple {
        Tuple {
            id, basic, show, activities, idle, notes,
            contact: contact.map(|(uri, priority)| Contact { uri, priority }),
            timestamp: timestamp.map(EpochMillis),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        entity in "[a-z:@<>&\"]{0,12}",
        tuples in prop::collection::vec(tuples(), 0..4),
        person in prop::option::of((activities(), any::<bool>(), notes())),
        notes in notes(),
        display_name in prop::option::of("[a-zA-Zé<&]{1,9}"),
    ) {
        let person = person.map(|(activities, idle, notes)| Person { activities, idle, notes });
        let pidf = Pidf { entity, tuples, person, notes, display_name };
        prop_assert_eq!(Pidf::parse(pidf.to_xml().as_bytes(), &PidfLimits::default()), Ok(pidf));
    }

    #[test]
    fn random_changes_to_a_document_never_break_the_reader(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        base in prop::sample::select(vec![MICROSOFT_BUSY, STANDARD, WILD]),
    ) {
        let mut body = base.to_vec();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        fuzz(&body);
    }
}
