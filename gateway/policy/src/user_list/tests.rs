use proptest::prelude::*;

use super::*;
use crate::fixtures::{domain, user};

const LIMIT: usize = 8;

fn entry(subject: &str, action: ListAction, source: Source) -> ListEntry {
    let subject = if subject.contains('@') { Subject::User(user(subject)) } else { Subject::Domain(domain(subject)) };
    ListEntry { subject, action, source, by: "lee@corp.example".to_owned(), created: EpochMillis(1_700_000_000_000) }
}

fn list(entries: &[(&str, ListAction, Source)]) -> UserList {
    let mut list = UserList::default();
    for (subject, action, source) in entries {
        assert_eq!(list.add(entry(subject, *action, *source), LIMIT), Ok(true));
    }
    list
}

fn action(list: &UserList, remote: &str, feature: Feature) -> Option<ListAction> {
    list.decide(&user(remote), feature).map(|entry| entry.action)
}

use Feature::{Message, Presence};
use ListAction::{Allow, Block};

#[test]
fn an_entry_for_the_user_goes_before_one_for_the_domain() {
    // L-10
    let allows = list(&[("partner.example", Block, Source::Admin), ("ana@partner.example", Allow, Source::Xmpp)]);
    assert_eq!(action(&allows, "ana@partner.example", Presence), Some(Allow));
    assert_eq!(action(&allows, "bob@partner.example", Presence), Some(Block));
    let blocks = list(&[("partner.example", Allow, Source::User), ("ana@partner.example", Block, Source::User)]);
    assert_eq!(action(&blocks, "ana@partner.example", Message), Some(Block));
    assert_eq!(action(&blocks, "bob@partner.example", Message), Some(Allow));
}

#[test]
fn block_goes_before_allow_at_the_same_level() {
    // L-10
    for (user_says, admin_says) in [(Allow, Block), (Block, Allow)] {
        let users =
            [("ana@partner.example", user_says, Source::User), ("ana@partner.example", admin_says, Source::Admin)];
        assert_eq!(action(&list(&users), "ana@partner.example", Presence), Some(Block));
        let domains = [("partner.example", user_says, Source::User), ("partner.example", admin_says, Source::Admin)];
        assert_eq!(action(&list(&domains), "ana@partner.example", Presence), Some(Block));
    }
}

#[test]
fn a_domain_entry_is_about_exactly_that_domain() {
    // L-11
    let list = list(&[("partner.example", Block, Source::User)]);
    for known in ["ana@partner.example", "zoe@partner.example"] {
        assert_eq!(action(&list, known, Message), Some(Block));
    }
    for other in ["ana@sub.partner.example", "ana@example", "ana@xpartner.example"] {
        assert_eq!(action(&list, other, Message), None, "{other}");
    }
    assert_eq!(list.decide_domain(&domain("partner.example"), Message).map(|e| e.action), Some(Block));
    assert_eq!(list.decide_domain(&domain("sub.partner.example"), Message), None);
}

#[test]
fn an_explicit_entry_goes_before_a_recorded_one() {
    let list = list(&[("ana@partner.example", Block, Source::Xmpp), ("ana@partner.example", Allow, Source::Admin)]);
    assert_eq!(list.entries().len(), 1, "the explicit entry replaced the recorded one");
    assert_eq!(action(&list, "ana@partner.example", Presence), Some(Allow));
    let mut list = list;
    // The user declines what the administrator allowed: both stay, the explicit one rules.
    assert_eq!(list.record(user("ana@partner.example"), Block, String::new(), EpochMillis(1), LIMIT), Ok(true));
    assert_eq!(list.entries().len(), 2);
    assert_eq!(action(&list, "ana@partner.example", Presence), Some(Allow));
}

#[test]
fn declining_presence_does_not_block_messages_but_an_explicit_block_does() {
    let recorded = list(&[("ana@partner.example", Block, Source::Xmpp)]);
    assert_eq!(action(&recorded, "ana@partner.example", Presence), Some(Block));
    for feature in [Message, Feature::GroupChat, Feature::Other] {
        assert_eq!(action(&recorded, "ana@partner.example", feature), None);
        let explicit = list(&[("ana@partner.example", Block, Source::User)]);
        assert_eq!(action(&explicit, "ana@partner.example", feature), Some(Block));
    }
    // With presence declined, what the list says of the domain still holds for messages.
    let both = list(&[("ana@partner.example", Block, Source::Xmpp), ("partner.example", Block, Source::User)]);
    assert_eq!(action(&both, "ana@partner.example", Message), Some(Block));
}

#[test]
fn a_refusal_replaces_the_users_own_allow_and_an_approval_weakens_no_block() {
    let ana = || user("ana@partner.example");
    let mut list = list(&[("ana@partner.example", Allow, Source::User)]);
    assert_eq!(list.record(ana(), Block, String::new(), EpochMillis(2), LIMIT), Ok(true));
    assert_eq!(list.entries().len(), 1);
    assert_eq!(action(&list, "ana@partner.example", Presence), Some(Block));
    assert_eq!(list.record(ana(), Block, String::new(), EpochMillis(3), LIMIT), Ok(false));
    assert_eq!(list.record(ana(), Allow, String::new(), EpochMillis(4), LIMIT), Ok(true));
    assert_eq!(action(&list, "ana@partner.example", Presence), Some(Allow));
    assert_eq!(list.add(entry("ana@partner.example", Block, Source::User), LIMIT), Ok(true));
    assert_eq!(list.record(ana(), Allow, String::new(), EpochMillis(5), LIMIT), Ok(false));
    assert_eq!(action(&list, "ana@partner.example", Presence), Some(Block));
}

#[test]
fn users_remove_their_entries_and_not_those_of_administrators() {
    let ana = Subject::User(user("ana@partner.example"));
    let mut list = list(&[("ana@partner.example", Block, Source::Admin), ("ana@partner.example", Block, Source::User)]);
    assert_eq!(list.remove(&ana, Source::User).len(), 1);
    assert_eq!(action(&list, "ana@partner.example", Message), Some(Block));
    assert_eq!(list.remove(&ana, Source::Admin).len(), 1);
    assert!(list.is_empty());
    assert!(list.remove(&ana, Source::Admin).is_empty());
}

#[test]
fn a_full_list_takes_replacements_and_nothing_new() {
    let mut list = UserList::default();
    for at in 0..LIMIT {
        let name = format!("u{at}@partner.example");
        assert_eq!(list.add(entry(&name, Allow, Source::User), LIMIT), Ok(true));
    }
    let full = Err(ListError::Full { limit: LIMIT });
    assert_eq!(list.add(entry("new@partner.example", Block, Source::User), LIMIT), full);
    assert_eq!(list.record(user("new@partner.example"), Block, String::new(), EpochMillis(1), LIMIT), full);
    assert_eq!(list.add(entry("u3@partner.example", Block, Source::User), LIMIT), Ok(true));
    assert_eq!(list.entries().len(), LIMIT);
}

/// Bytes as version 1 wrote them; every later release must read them the same.
const FROZEN: &[u8] = &[
    0xa2, 0x00, 0x01, 0x01, 0x82, // version 1, two entries
    0xa5, 0x00, 0x73, b'a', b'n', b'a', b'@', b'p', b'a', b'r', b't', b'n', b'e', b'r', b'.', b'e', b'x', b'a', b'm',
    b'p', b'l', b'e', 0x01, 0x01, 0x02, 0x02, 0x03, 0x61, b'x', 0x04, 0x1b, 0x00, 0x00, 0x01, 0x8b, 0xcf, 0xe5, 0x68,
    0x00, 0xa5, 0x00, 0x6c, b's', b'p', b'a', b'm', b'.', b'e', b'x', b'a', b'm', b'p', b'l', b'e', 0x01, 0x00, 0x02,
    0x00, 0x03, 0x60, 0x04, 0x07,
];

#[test]
fn lists_written_by_the_first_release_are_read_for_ever() {
    let expected = [
        ListEntry {
            subject: Subject::User(user("ana@partner.example")),
            action: Block,
            source: Source::Xmpp,
            by: "x".to_owned(),
            created: EpochMillis(1_700_000_000_000),
        },
        ListEntry {
            subject: Subject::Domain(domain("spam.example")),
            action: Allow,
            source: Source::User,
            by: String::new(),
            created: EpochMillis(7),
        },
    ];
    let list = UserList::decode(FROZEN).unwrap();
    assert_eq!(list.entries(), expected);
    assert_eq!(list.encode(), FROZEN);
}

#[test]
fn fields_of_a_later_release_are_skipped_and_a_later_version_is_refused() {
    // {0: 1, 1: [], 9: "new"}
    assert_eq!(UserList::decode(&[0xa3, 0x00, 0x01, 0x01, 0x80, 0x09, 0x63, b'n', b'e', b'w']), Ok(UserList::EMPTY));
    assert_eq!(UserList::decode(&[0xa2, 0x00, 0x02, 0x01, 0x80]), Err(ListDecodeError::Newer { found: 2 }));
    assert!(matches!(UserList::decode(&[0xff]), Err(ListDecodeError::Malformed(_))));
    assert!(matches!(UserList::decode(&[]), Err(ListDecodeError::Malformed(_))));
    let mut broken = FROZEN.to_vec();
    broken[8] = b'@';
    assert_eq!(UserList::decode(&broken), Err(ListDecodeError::Subject));
}

fn any_entry() -> impl Strategy<Value = ListEntry> {
    let subject = prop_oneof![
        "[a-d]@(a|b)\\.example".prop_map(|jid| Subject::User(user(&jid))),
        "(a|b|c)\\.example".prop_map(|name| Subject::Domain(domain(&name))),
    ];
    let sources = prop_oneof![Just(Source::User), Just(Source::Admin), Just(Source::Xmpp)];
    (subject, any::<bool>(), sources, any::<u64>()).prop_map(|(subject, block, source, created)| ListEntry {
        source: if matches!(subject, Subject::Domain(_)) && source == Source::Xmpp { Source::User } else { source },
        subject,
        action: if block { Block } else { Allow },
        by: "é".to_owned(),
        created: EpochMillis(created),
    })
}

proptest! {
    #[test]
    fn a_list_survives_being_stored(entries in proptest::collection::vec(any_entry(), 0..30)) {
        let mut list = UserList::default();
        for entry in entries {
            let _ = list.add(entry, LIMIT);
        }
        prop_assert!(list.entries().len() <= LIMIT);
        prop_assert_eq!(UserList::decode(&list.encode()), Ok(list));
    }

    #[test]
    fn the_order_of_entries_makes_no_difference(
        entries in proptest::collection::vec(any_entry(), 0..12).prop_shuffle(),
        remote in "[a-d]@(a|b)\\.example",
    ) {
        let explicit = |e: &&ListEntry| e.source != Source::Xmpp;
        let mut seen = std::collections::BTreeSet::new();
        let unique: Vec<ListEntry> = entries.iter().filter(explicit)
            .filter(|e| seen.insert((e.subject.clone(), e.source))).cloned().collect();
        let build = |entries: &mut dyn Iterator<Item = &ListEntry>| {
            let mut list = UserList::default();
            for entry in entries {
                list.add(entry.clone(), 100).unwrap();
            }
            list
        };
        let (one, two) = (build(&mut unique.iter()), build(&mut unique.iter().rev()));
        let remote = user(&remote);
        prop_assert_eq!(one.decide(&remote, Message), two.decide(&remote, Message));
        // The oracle: the user's entries, else the domain's; a block among them wins.
        let about = |subject: Subject| {
            let actions = unique.iter().filter(|e| e.subject == subject).map(|e| e.action);
            actions.max()
        };
        let expected = about(Subject::User(remote.clone())).or_else(|| about(Subject::Domain(remote.domain.clone())));
        prop_assert_eq!(one.decide(&remote, Message).map(|e| e.action), expected);
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = UserList::decode(&bytes);
    }
}
