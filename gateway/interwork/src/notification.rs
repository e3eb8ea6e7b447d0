//! Presence documents and presence stanzas: PIDF on one side, [`ResourcePresence`] on the other.
//!
//! A document is complete state, so the SIP to XMPP direction compares it with the resources announced
//! before and takes back those that are gone. Whether a document or a stanza may be shown to somebody is
//! decided elsewhere; so is what a NOTIFY without a body means.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use compact_str::CompactString;
use isthmus_model::{BareAddress, EpochMillis, LangText, Priority, Resource, ResourcePresence};
use isthmus_sip::pidf::{Activity, Basic, Contact, Person, Pidf, SINGLE_TUPLE_ID, Tuple};
use isthmus_xmpp::payload::Delay;
use isthmus_xmpp::{Presence, PresenceType};

use crate::Dialect;
use crate::address::pres_uri;
use crate::availability;

/// Resource of a contact whose document names none.
const NAMELESS: &str = "sip";

/// Writes what a watcher gets to see of a local user.
///
/// The standard dialect gets a tuple for each available resource, the Microsoft dialect the most available
/// one alone. Without any available resource, it is the OFFLINE document. `timestamp` comes from
/// [`next_timestamp`].
pub fn document_for_watcher(
    dialect: Dialect,
    presentity: &BareAddress,
    resources: &[ResourcePresence],
    timestamp: EpochMillis,
) -> String {
    let Some(best) = availability::most_available(resources) else {
        return offline_document(dialect, presentity, timestamp);
    };
    let activity = availability::to_sip(best).activity();
    let person = activity.map(|activity| Person { activities: vec![activity], ..Person::default() });
    let mut tuples = Vec::new();
    match dialect {
        Dialect::Microsoft => {
            tuples.push(tuple(dialect, SINGLE_TUPLE_ID.to_owned(), presentity, best, timestamp));
        }
        Dialect::Standard => {
            let mut ids = BTreeSet::new();
            for presence in resources.iter().filter(|presence| presence.available) {
                let id = unique_id(&mut ids, &tuple_id(&presence.resource));
                tuples.push(tuple(dialect, id, presentity, presence, timestamp));
            }
        }
    }
    Pidf { entity: entity(dialect, presentity), tuples, person, ..Pidf::default() }.to_xml()
}

/// Writes the document that blocked watchers and watchers of an offline user get alike.
pub fn offline_document(dialect: Dialect, presentity: &BareAddress, timestamp: EpochMillis) -> String {
    Pidf::offline(entity(dialect, presentity), presentity.to_sip_uri(), timestamp).to_xml()
}

fn entity(dialect: Dialect, presentity: &BareAddress) -> String {
    match dialect {
        Dialect::Microsoft => presentity.to_sip_uri(),
        Dialect::Standard => pres_uri(presentity),
    }
}

fn tuple(
    dialect: Dialect,
    id: String,
    presentity: &BareAddress,
    presence: &ResourcePresence,
    timestamp: EpochMillis,
) -> Tuple {
    let standard = dialect == Dialect::Standard;
    let activity = availability::to_sip(presence).activity().filter(|_| !standard);
    Tuple {
        id,
        basic: Some(Basic::Open),
        show: presence.show.filter(|_| standard),
        activities: activity.into_iter().collect(),
        idle: false,
        contact: Some(Contact {
            uri: presentity.to_sip_uri(),
            priority: presence.priority.filter(|_| standard).and_then(contact_priority),
        }),
        notes: availability::to_notes(dialect, presence),
        timestamp: Some(timestamp),
    }
}

/// Chooses the timestamp of the next document about a presentity.
///
/// It is the time at which the newest state began, if its server says so and that is not yet told, otherwise
/// `now`; it is always later than `last`, the timestamp of the document before (RFC 3863 §4.1.7).
pub fn next_timestamp(last: Option<EpochMillis>, resources: &[ResourcePresence], now: EpochMillis) -> EpochMillis {
    let told = last.unwrap_or_default();
    let began = resources.iter().filter_map(|presence| presence.stamp).filter(|stamp| *stamp <= now).max();
    let at = began.filter(|stamp| *stamp > told).unwrap_or(now);
    at.max(EpochMillis(told.0.saturating_add(1)))
}

/// Maps a priority to thousandths of a contact priority; negative ones have no counterpart
/// (RFC 8048 §6.2).
pub fn contact_priority(priority: Priority) -> Option<u16> {
    u16::try_from(priority).ok().map(|priority| {
        // at most 127, so neither overflow nor loss
        u16::try_from(u32::from(priority) * 1000 / 127).unwrap_or(1000)
    })
}

/// Maps thousandths of a contact priority to a priority; the inverse of [`contact_priority`].
pub fn stanza_priority(thousandths: u16) -> Option<Priority> {
    Priority::try_from((u32::from(thousandths) * 127).div_ceil(1000)).ok()
}

/// Names the tuple of a resource: always the same name, and one that XML allows as an id.
///
/// What is no plain word is written in hexadecimal, up to 64 digits; of longer ones the last 16 digits are a
/// checksum of the whole, so that resources with a long common beginning keep different names.
pub fn tuple_id(resource: &str) -> String {
    if resource.is_empty() {
        return SINGLE_TUPLE_ID.to_owned();
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if resource.len() <= 64 && resource.bytes().all(plain) {
        return format!("ID-{resource}");
    }
    let mut id = String::from("IDx-");
    let whole = resource.len() <= 32;
    for b in resource.bytes().take(if whole { 32 } else { 24 }) {
        // writing to a String does not fail
        let _ = write!(id, "{b:02x}");
    }
    if !whole {
        let _ = write!(id, "{:016x}", checksum(resource));
    }
    id
}

/// FNV-1a of 64 bits.
fn checksum(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Makes an id unique within its document.
fn unique_id(used: &mut BTreeSet<String>, id: &str) -> String {
    let mut candidate = id.to_owned();
    let mut count = 1;
    while !used.insert(candidate.clone()) {
        count += 1;
        candidate = format!("{id}-{count}");
    }
    candidate
}

/// Maps the id of a tuple to the resource that it is shown as; the inverse of [`tuple_id`] where there is one.
pub fn resource_of(tuple_id: &str) -> CompactString {
    let name = match tuple_id.strip_prefix("IDx-") {
        Some(hex) => decode_hex(hex).unwrap_or_else(|| tuple_id.to_owned()),
        None => tuple_id.strip_prefix("ID-").unwrap_or(tuple_id).to_owned(),
    };
    match Resource::parse(&name) {
        Ok(resource) => CompactString::from(resource.as_str()),
        Err(_) if name.is_empty() => CompactString::from(NAMELESS),
        // no id, but a name that does not change
        Err(_) => CompactString::from(format!("{NAMELESS}-{:016x}", checksum(&name))),
    }
}

fn decode_hex(text: &str) -> Option<String> {
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16);
    let bytes: Option<Vec<u8>> = text
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| match *pair {
            [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
            _ => None,
        })
        .collect();
    String::from_utf8(bytes?).ok()
}

/// Reads what a contact's document says and compares it with what was announced before.
///
/// `announced` holds the resources that the local user sees as available, empty for the bare address, and is
/// brought up to date. The result says first what is available and then what is no longer, so that a contact
/// whose tuple only changed its name is not seen leaving. When nothing is available and nothing was announced,
/// it is one unavailable presence of the bare address.
pub fn presence_from_document(
    dialect: Dialect,
    document: &Pidf,
    announced: &mut BTreeSet<CompactString>,
    received: EpochMillis,
) -> Vec<ResourcePresence> {
    let mut available: Vec<ResourcePresence> = Vec::new();
    for tuple in document.tuples.iter().filter(|tuple| is_reachable_by_message(tuple)) {
        let presence = presence_of(dialect, document, tuple, received);
        if presence.available && !available.iter().any(|other| other.resource == presence.resource) {
            available.push(presence);
        }
    }
    let now: BTreeSet<CompactString> = available.iter().map(|presence| presence.resource.clone()).collect();
    let nothing_known = now.is_empty() && announced.is_empty();
    let gone = std::mem::replace(announced, now);
    let still = &*announced;
    available.extend(
        gone.iter()
            .filter(|resource| !still.contains(*resource))
            .map(|resource| ResourcePresence::new(resource, false, received)),
    );
    if nothing_known {
        available.push(ResourcePresence::new("", false, received));
    }
    available
}

/// Takes back everything that was announced, as when a subscription ends without a document.
pub fn withdraw(announced: &mut BTreeSet<CompactString>, received: EpochMillis) -> Vec<ResourcePresence> {
    presence_from_document(Dialect::Standard, &Pidf::default(), announced, received)
}

fn presence_of(dialect: Dialect, document: &Pidf, tuple: &Tuple, received: EpochMillis) -> ResourcePresence {
    let person = document.person.as_ref();
    let said: Vec<&Activity> =
        tuple.activities.iter().chain(person.iter().flat_map(|person| &person.activities)).collect();
    let idle = tuple.idle || person.is_some_and(|person| person.idle);
    let notes = [Some(&tuple.notes), person.map(|person| &person.notes), Some(&document.notes)]
        .into_iter()
        .flatten()
        .find(|notes| !notes.is_empty());
    let mut texts = Vec::new();
    for note in notes.into_iter().flatten() {
        if !texts.iter().any(|known: &LangText| known.lang == note.lang) {
            texts.push(note.clone());
        }
    }
    let closed = tuple.basic == Some(Basic::Closed);
    let shown = match tuple.show.filter(|_| !closed) {
        Some(show) => availability::Shown { available: true, show: Some(show), statuses: texts },
        None => availability::to_xmpp(dialect, availability::classify(tuple.basic, &said, idle), &texts),
    };
    ResourcePresence {
        resource: resource_of(&tuple.id),
        available: shown.available,
        show: shown.show,
        statuses: shown.statuses,
        priority: tuple.contact.as_ref().and_then(|contact| contact.priority).and_then(stanza_priority),
        stamp: tuple.timestamp,
        received,
    }
}

/// Reads the state that a local user's server tells: an available or unavailable presence. Others, and addresses
/// that cannot be, are `None`.
pub fn presence_of_stanza(stanza: &Presence, received: EpochMillis) -> Option<ResourcePresence> {
    let available = match stanza.kind {
        PresenceType::Available => true,
        PresenceType::Unavailable => false,
        _ => return None,
    };
    let resource = match isthmus_xmpp::jid::resource(stanza.from()?) {
        Some(resource) => CompactString::from(Resource::parse(resource).ok()?.as_str()),
        None => CompactString::default(),
    };
    Some(ResourcePresence {
        resource,
        available,
        // Some servers leave one on unavailable, where it means nothing.
        show: stanza.show.filter(|_| available),
        statuses: stanza.statuses.clone(),
        priority: stanza.priority.filter(|_| available),
        stamp: stanza.delay.as_ref().map(Delay::at),
        received,
    })
}

/// Writes the state of a contact's resource for the local user.
pub fn stanza_of_presence(contact: &BareAddress, local: &BareAddress, presence: &ResourcePresence) -> Presence {
    let kind = if presence.available { PresenceType::Available } else { PresenceType::Unavailable };
    let resource = Resource::parse(&presence.resource).ok();
    let from = contact.clone().with_resource(resource).to_jid();
    Presence {
        show: presence.show.filter(|_| presence.available),
        statuses: presence.statuses.clone(),
        priority: presence.priority.filter(|_| presence.available),
        ..Presence::new(kind, &from, &local.to_jid())
    }
}

/// True unless the tuple is for telephones, mail or other things that take no message.
fn is_reachable_by_message(tuple: &Tuple) -> bool {
    let Some(contact) = &tuple.contact else { return true };
    match contact.uri.split_once(':') {
        Some((scheme, _)) => ["sip", "sips", "im", "pres"].iter().any(|known| scheme.eq_ignore_ascii_case(known)),
        None => true,
    }
}
