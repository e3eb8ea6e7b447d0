use isthmus_model::{LangText, Show, timestamp};
use isthmus_sip::pidf::PidfLimits;
use proptest::prelude::*;

use super::*;

const NOW: EpochMillis = EpochMillis(1_741_079_702_120);

fn lee() -> BareAddress {
    BareAddress::from_jid("lee@corp.example").unwrap()
}

fn online(resource: &str) -> ResourcePresence {
    ResourcePresence::new(resource, true, NOW)
}

fn text(lang: &str, text: &str) -> LangText {
    LangText { lang: Some(lang.into()), text: text.to_owned() }
}

fn parse(xml: &str) -> Pidf {
    Pidf::parse(xml.as_bytes(), &PidfLimits::default()).unwrap()
}

fn corpus(name: &str) -> Pidf {
    let path = format!("{}/../fuzz/corpus/pidf/{name}.xml", env!("CARGO_MANIFEST_DIR"));
    Pidf::parse(&std::fs::read(path).unwrap(), &PidfLimits::default()).unwrap()
}

fn first(dialect: Dialect, document: &Pidf) -> Vec<ResourcePresence> {
    presence_from_document(dialect, document, &mut BTreeSet::new(), NOW)
}

fn set(resources: &[&str]) -> BTreeSet<CompactString> {
    resources.iter().map(|resource| CompactString::from(*resource)).collect()
}

/// Name and availability of each presence, in order.
fn outline(presences: &[ResourcePresence]) -> Vec<(&str, bool)> {
    presences.iter().map(|presence| (presence.resource.as_str(), presence.available)).collect()
}

#[test]
fn the_standard_document_tells_each_available_resource() {
    // N-18, N-21, N-22
    let resources = [
        ResourcePresence {
            show: Some(Show::Dnd),
            statuses: vec![text("en", "writing"), text("de", "schreibt")],
            priority: Some(1),
            ..online("desk")
        },
        ResourcePresence::new("phone", false, NOW),
        ResourcePresence { show: Some(Show::Chat), priority: Some(-1), ..online("bücher & co") },
    ];
    let xml = document_for_watcher(Dialect::Standard, &lee(), &resources, NOW);
    assert_eq!(
        xml,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <presence xmlns=\"urn:ietf:params:xml:ns:pidf\" xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" \
         xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" entity=\"pres:lee@corp.example\">\
         <tuple id=\"ID-desk\"><status><basic>open</basic><show xmlns=\"jabber:client\">dnd</show></status>\
         <contact priority=\"0.007\">sip:lee@corp.example</contact>\
         <note xml:lang=\"en\">writing</note><note xml:lang=\"de\">schreibt</note>\
         <timestamp>2025-03-04T09:15:02.120Z</timestamp></tuple>\
         <tuple id=\"IDx-62c3bc63686572202620636f\"><status><basic>open</basic>\
         <show xmlns=\"jabber:client\">chat</show></status><contact>sip:lee@corp.example</contact>\
         <timestamp>2025-03-04T09:15:02.120Z</timestamp></tuple>\
         <dm:person id=\"ID-p\"><rpid:activities><rpid:busy/></rpid:activities></dm:person></presence>\n"
    );
}

#[test]
fn the_microsoft_document_has_exactly_one_tuple_and_no_show() {
    // N-21, N-22
    let resources = [
        ResourcePresence { show: Some(Show::Away), ..online("phone") },
        ResourcePresence {
            show: Some(Show::Dnd),
            statuses: vec![text("en", "Deep work")],
            priority: Some(5),
            ..online("desk")
        },
    ];
    let document = parse(&document_for_watcher(Dialect::Microsoft, &lee(), &resources, NOW));
    assert_eq!(document, corpus("emitted-microsoft-busy"));
    let xml = document_for_watcher(Dialect::Microsoft, &lee(), &resources, NOW);
    assert!(!xml.contains("priority") && !xml.contains("show"), "{xml}");
}

#[test]
fn nobody_available_gives_the_offline_document_whatever_was_said_last() {
    // N-18, M-11
    let left = ResourcePresence {
        statuses: vec![text("en", "bye")],
        show: Some(Show::Xa),
        ..ResourcePresence::new("a", false, NOW)
    };
    for dialect in [Dialect::Microsoft, Dialect::Standard] {
        let offline = offline_document(dialect, &lee(), NOW);
        assert_eq!(document_for_watcher(dialect, &lee(), std::slice::from_ref(&left), NOW), offline);
        assert_eq!(document_for_watcher(dialect, &lee(), &[], NOW), offline);
        assert!(offline.contains("<basic>closed</basic>"));
        assert!(!offline.contains("note") && !offline.contains("person") && !offline.contains("show"), "{offline}");
    }
    assert_eq!(parse(&offline_document(Dialect::Standard, &lee(), NOW)), corpus("emitted-offline"));
    assert!(offline_document(Dialect::Microsoft, &lee(), NOW).contains("entity=\"sip:lee@corp.example\""));
}

#[test]
fn priorities_map_both_ways_and_negative_ones_not_at_all() {
    // N-20
    for (priority, thousandths) in [(0, 0), (1, 7), (2, 15), (126, 992), (127, 1000)] {
        assert_eq!(contact_priority(priority), Some(thousandths));
    }
    for priority in 0..=127 {
        assert_eq!(contact_priority(priority).and_then(stanza_priority), Some(priority));
    }
    for priority in -128..0 {
        assert_eq!(contact_priority(priority), None);
    }
    let written = |priority| {
        let xml = document_for_watcher(Dialect::Standard, &lee(), &[ResourcePresence { priority, ..online("a") }], NOW);
        xml.split_once("<contact").unwrap().1.split_once('>').unwrap().0.to_owned()
    };
    assert_eq!(written(Some(0)), " priority=\"0\"");
    assert_eq!(written(Some(126)), " priority=\"0.992\"");
    assert_eq!(written(Some(127)), " priority=\"1\"");
    assert_eq!((written(Some(-1)), written(None)), (String::new(), String::new()));
}

#[test]
fn timestamps_of_one_presentity_strictly_increase() {
    // N-23
    let at = |stamp: u64| ResourcePresence { stamp: Some(EpochMillis(stamp)), ..online("a") };
    assert_eq!(next_timestamp(None, &[], NOW), NOW);
    assert_eq!(next_timestamp(Some(NOW), &[], NOW), EpochMillis(NOW.0 + 1));
    assert_eq!(next_timestamp(Some(EpochMillis(NOW.0 + 9)), &[], NOW), EpochMillis(NOW.0 + 10));
    // the server's own time when that is news, and not from the future
    assert_eq!(next_timestamp(Some(EpochMillis(5)), &[at(7), at(6)], NOW), EpochMillis(7));
    assert_eq!(next_timestamp(Some(EpochMillis(7)), &[at(7)], NOW), NOW);
    assert_eq!(next_timestamp(None, &[at(NOW.0 + 1000)], NOW), NOW);
    let written = document_for_watcher(Dialect::Standard, &lee(), &[at(7)], NOW);
    assert_eq!(parse(&written).tuples[0].timestamp, Some(NOW));
    assert!(written.contains(&timestamp::format(NOW)));
}

#[test]
fn ids_of_tuples_are_valid_unique_stable_and_lead_back() {
    // N-19
    let long = "x".repeat(70);
    let longer = format!("{long}y");
    let resources =
        ["home", "a b", "0", "", "ID-home", "x-41", "IDx-41", "Ж", &long, &longer, "9", "-", "home-2", "a\"<b"];
    let mut ids = BTreeSet::new();
    for resource in resources {
        let id = tuple_id(resource);
        assert_eq!(id, tuple_id(resource));
        assert!(is_ncname(&id), "{id}");
        let known = !ids.insert(id.clone());
        assert_eq!(known, resource.is_empty(), "{id} twice");
        if resource.len() <= 64 && !resource.is_empty() {
            assert_eq!(resource_of(&id), resource);
        }
    }
    assert_eq!(tuple_id("balcony"), "ID-balcony");
    assert_eq!(tuple_id("é"), "IDx-c3a9");
    // two that would share one id
    let xml = document_for_watcher(Dialect::Standard, &lee(), &[online("0"), online("")], NOW);
    let ids: Vec<String> = parse(&xml).tuples.into_iter().map(|tuple| tuple.id).collect();
    assert_eq!(ids, ["ID-0", "ID-0-2"]);
}

fn is_ncname(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && id.len() <= 68
}

#[test]
fn foreign_ids_become_resources_that_do_not_change() {
    for (id, resource) in
        [("t0", "t0"), ("ID-balcony", "balcony"), ("IDx-c3a9", "é"), ("IDx-zz", "IDx-zz"), ("", "sip"), ("ID-", "sip")]
    {
        assert_eq!(resource_of(id), resource);
    }
    let strange = resource_of("a\u{0}\u{7}b");
    assert!(strange.starts_with("sip-"), "{strange}");
    assert_eq!(strange, resource_of("a\u{0}\u{7}b"));
    assert!(Resource::parse(&resource_of(&"é".repeat(2000))).is_ok());
}

#[test]
fn a_document_is_shown_with_its_languages_and_priorities() {
    // N-24
    let mut announced = BTreeSet::new();
    let shown = presence_from_document(Dialect::Standard, &corpus("standard-show"), &mut announced, NOW);
    let [presence] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!((presence.resource.as_str(), presence.show, presence.priority), ("balcony", Some(Show::Xa), Some(126)));
    assert_eq!(presence.statuses, [text("en", "gone fishing"), text("de", "angeln")]);
    assert_eq!((presence.stamp, presence.received), (timestamp::parse("2025-03-04T09:15:02Z"), NOW));
    assert_eq!(announced, set(&["balcony"]));
    // and the other way
    let xml = document_for_watcher(Dialect::Standard, &lee(), &shown, NOW);
    assert_eq!(parse(&xml).tuples[0].notes, [text("en", "gone fishing"), text("de", "angeln")]);
}

#[test]
fn notes_of_the_person_and_of_the_whole_stand_in_for_those_of_the_tuple() {
    let status = |inside: &str| {
        let xml = format!(
            "<presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:d='urn:ietf:params:xml:ns:pidf:data-model'>{inside}</presence>"
        );
        first(Dialect::Standard, &parse(&xml))[0].statuses.iter().map(|s| s.text.clone()).collect::<Vec<_>>()
    };
    let tuple = "<tuple id='a'><status><basic>open</basic></status>";
    let person = "<d:person id='p'><d:note>person</d:note></d:person>";
    assert_eq!(status(&format!("{tuple}<note>own</note></tuple><note>whole</note>{person}")), ["own"]);
    assert_eq!(status(&format!("{tuple}</tuple><note>whole</note>{person}")), ["person"]);
    assert_eq!(status(&format!("{tuple}</tuple><note>whole</note>")), ["whole"]);
    assert_eq!(status(&format!("{tuple}<note>one</note><note>two</note></tuple>")), ["one"]);
}

#[test]
fn a_tuple_that_is_gone_takes_its_resource_offline() {
    // P-33
    let mut announced = set(&["old", "balcony"]);
    let shown = presence_from_document(Dialect::Standard, &corpus("standard-show"), &mut announced, NOW);
    assert_eq!(outline(&shown), [("balcony", true), ("old", false)]);
    assert_eq!(announced, set(&["balcony"]));
}

#[test]
fn a_document_with_nothing_open_takes_everything_offline() {
    for name in ["emitted-offline", "no-tuple", "softphone-unknown-basic", "phone-only"] {
        let mut announced = set(&["a", "b"]);
        let shown = presence_from_document(Dialect::Standard, &corpus(name), &mut announced, NOW);
        assert_eq!(outline(&shown), [("a", false), ("b", false)], "{name}");
        assert_eq!(
            outline(&presence_from_document(Dialect::Standard, &corpus(name), &mut announced, NOW)),
            [("", false)]
        );
    }
    let mut announced = set(&["a"]);
    assert_eq!(outline(&withdraw(&mut announced, NOW)), [("a", false)]);
    assert_eq!(announced, set(&[]));
}

#[test]
fn clumsy_documents_are_shown_as_well_as_they_can_be() {
    let shown = first(Dialect::Standard, &corpus("softphone-person-note"));
    assert_eq!((outline(&shown), shown[0].show), (vec![("pj2f1c", true)], Some(Show::Dnd)));
    assert_eq!(shown[0].statuses, [LangText::plain("Busy here")]);
    let shown = first(Dialect::Standard, &corpus("softphone-online-element"));
    assert_eq!((outline(&shown), shown[0].show, shown[0].priority), (vec![("qx1", true)], None, Some(102)));
    let twice = parse(
        "<presence xmlns='urn:ietf:params:xml:ns:pidf'><tuple id='a'><status><basic>closed</basic></status></tuple>\
         <tuple id='a'><status><basic>open</basic></status></tuple><tuple id='a'><status><basic>open</basic></status></tuple>\
         <tuple id='m'><status><basic>open</basic></status><contact>mailto:x@y</contact></tuple>\
         <tuple id='i'><status><basic>open</basic></status><contact>IM:x@y</contact></tuple></presence>",
    );
    assert_eq!(outline(&first(Dialect::Standard, &twice)), [("a", true), ("i", true)]);
}

#[test]
fn stanzas_and_states_of_resources_map_both_ways() {
    // N-18, N-24
    let state = ResourcePresence {
        show: Some(Show::Xa),
        statuses: vec![text("en", "gone"), text("de", "weg")],
        priority: Some(5),
        ..online("balcony")
    };
    let ana = BareAddress::from_jid("ana@bücher.example").unwrap();
    let stanza = stanza_of_presence(&ana, &lee(), &state);
    assert_eq!((stanza.from(), stanza.to()), (Some("ana@bücher.example/balcony"), Some("lee@corp.example")));
    assert_eq!(presence_of_stanza(&stanza, NOW), Some(state.clone()));
    let gone = stanza_of_presence(&ana, &lee(), &ResourcePresence { available: false, ..state });
    assert_eq!((gone.kind, gone.show, gone.priority), (PresenceType::Unavailable, None, None));
    let bare = stanza_of_presence(&ana, &lee(), &ResourcePresence::new("", false, NOW));
    assert_eq!(bare.from(), Some("ana@bücher.example"));
    let mut left_over =
        Presence { show: Some(Show::Away), ..Presence::new(PresenceType::Unavailable, "lee@corp.example/a", "x@y") };
    assert_eq!(presence_of_stanza(&left_over, NOW), Some(ResourcePresence::new("a", false, NOW)));
    left_over.delay = Some(Delay { from: None, stamp: isthmus_xmpp::payload::Stamp(EpochMillis(7)) });
    assert_eq!(presence_of_stanza(&left_over, NOW).and_then(|state| state.stamp), Some(EpochMillis(7)));
    for kind in [PresenceType::Subscribe, PresenceType::Probe, PresenceType::Error] {
        assert_eq!(presence_of_stanza(&Presence::new(kind, "lee@corp.example", "x@y"), NOW), None);
    }
}

proptest! {
    #[test]
    fn what_a_watcher_is_told_can_be_told_back(
        resources in prop::collection::btree_map("[a-zA-Z0-9 é/]{1,20}", (prop::sample::select(vec![None, Some(Show::Chat), Some(Show::Away), Some(Show::Xa), Some(Show::Dnd)]), prop::option::of(0_i8..=127), prop::option::of("[a-z]{1,9}")), 1..5),
    ) {
        let resources: Vec<ResourcePresence> = resources
            .into_iter()
            .map(|(name, (show, priority, status))| ResourcePresence {
                show,
                priority,
                statuses: status.map(LangText::plain).into_iter().collect(),
                stamp: Some(NOW),
                ..online(Resource::parse(&name).unwrap().as_str())
            })
            .collect();
        let document = parse(&document_for_watcher(Dialect::Standard, &lee(), &resources, NOW));
        let told = first(Dialect::Standard, &document);
        prop_assert_eq!(told.len(), resources.len());
        for (told, resource) in told.iter().zip(&resources) {
            prop_assert_eq!(&told.resource, &resource.resource);
            prop_assert_eq!(told.priority, resource.priority);
            prop_assert_eq!(&told.statuses, &resource.statuses);
            // plain availability has no element of its own, so there the person's activity speaks
            if resource.show.is_some() {
                prop_assert_eq!(told.show, resource.show);
            }
        }
    }
}
