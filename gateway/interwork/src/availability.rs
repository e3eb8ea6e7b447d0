//! Availability: activities and basic status on the SIP side, show and status text on the XMPP side.
//!
//! The rules are tables: which words mean which [`Class`], what a class becomes on the XMPP side, which
//! [`SipCode`] each [`XmppCode`] becomes. [`tables`] has the vendor's own tables, which the rules must
//! reproduce row by row (interworking specification §4).

pub mod tables;
#[cfg(test)]
mod tests;

use isthmus_model::{LangText, ResourcePresence, Show};
use isthmus_sip::pidf::{Activity, Basic};

use crate::Dialect;

/// The text that says busy to clients that know no such state, always in English.
pub const BUSY: &str = "Busy";
/// The text that says idle.
pub const IDLE: &str = "Idle";
/// The text that says that somebody is back soon.
pub const BE_RIGHT_BACK: &str = "Be Right Back";

/// What a received document says, in the order in which words of several classes are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Cannot be reached.
    Offline,
    /// Does not want to be disturbed.
    Dnd,
    /// Busy.
    Busy,
    /// Back soon.
    Brb,
    /// Away for long.
    Xa,
    /// Away.
    Away,
    /// Inactive.
    Idle,
    /// Can be reached, and nothing more is said.
    Available,
}

/// The words of each class; the first class that has one of a document's words wins. Words that are not
/// here say nothing.
const WORDS: [(Class, &[&str]); 6] = [
    (
        Class::Dnd,
        &["do-not-disturb", "dnd", "urgent-interruptions-only", "in-presentation", "presentation", "performance"],
    ),
    (
        Class::Busy,
        &[
            "busy",
            "busyidle",
            "on-the-phone",
            "meeting",
            "in-a-meeting",
            "in-a-conference",
            "appointment",
            "steering",
            "worship",
        ],
    ),
    (Class::Brb, &["be-right-back", "brb"]),
    (Class::Xa, &["vacation", "holiday", "travel", "sleeping", "out-of-office", "off-work", "extended-away"]),
    (Class::Away, &["away", "lunch", "out-to-lunch", "meal", "breakfast", "dinner", "in-transit"]),
    (Class::Idle, &["idle", "inactive"]),
];

/// Where the range of each class begins among Microsoft's state numbers.
const NUMBERS: [(u32, Class); 7] = [
    (18_000, Class::Offline),
    (15_000, Class::Away),
    (12_000, Class::Brb),
    (9000, Class::Dnd),
    (6000, Class::Busy),
    (4500, Class::Idle),
    (0, Class::Available),
];

/// What each class becomes on the XMPP side: class, Microsoft dialect, standard dialect.
const TO_XMPP: [(Class, XmppCode, XmppCode); 8] = [
    (Class::Available, XmppCode::Available, XmppCode::Available),
    (Class::Busy, XmppCode::Busy, XmppCode::Dnd),
    (Class::Dnd, XmppCode::Busy, XmppCode::Dnd),
    (Class::Brb, XmppCode::Away, XmppCode::Away),
    (Class::Away, XmppCode::Away, XmppCode::Away),
    (Class::Xa, XmppCode::Away, XmppCode::Xa),
    (Class::Idle, XmppCode::Idle, XmppCode::Idle),
    (Class::Offline, XmppCode::Offline, XmppCode::Offline),
];

/// What each XMPP state becomes on the SIP side, in both dialects; the standard one adds the show itself.
const TO_SIP: [(XmppCode, SipCode); 10] = [
    (XmppCode::Available, SipCode::Available),
    (XmppCode::Chat, SipCode::Available),
    (XmppCode::Meeting, SipCode::Available),
    (XmppCode::Dnd, SipCode::Busy),
    (XmppCode::Busy, SipCode::Busy),
    (XmppCode::Away, SipCode::Away),
    (XmppCode::MeetingAway, SipCode::Away),
    (XmppCode::Idle, SipCode::Away),
    (XmppCode::Xa, SipCode::Away),
    (XmppCode::Offline, SipCode::Offline),
];

/// The states of the XMPP side that the vendor's tables tell apart (interworking specification §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XmppCode {
    /// X-AVL: neither show nor type.
    Available,
    /// X-CHT: show chat.
    Chat,
    /// X-AWY: show away.
    Away,
    /// X-XA: show xa.
    Xa,
    /// X-DND: show dnd.
    Dnd,
    /// X-BSY: show away with the text "Busy".
    Busy,
    /// X-IDL: show away with the text "Idle".
    Idle,
    /// X-MTA: the text "In a meeting" without show.
    Meeting,
    /// X-MTW: show away with the text "In a meeting".
    MeetingAway,
    /// X-OFF: type unavailable.
    Offline,
}

impl XmppCode {
    /// The show of this state.
    pub fn show(self) -> Option<Show> {
        match self {
            Self::Available | Self::Meeting | Self::Offline => None,
            Self::Chat => Some(Show::Chat),
            Self::Away | Self::Busy | Self::Idle | Self::MeetingAway => Some(Show::Away),
            Self::Xa => Some(Show::Xa),
            Self::Dnd => Some(Show::Dnd),
        }
    }

    /// The status text that belongs to this state.
    pub fn status(self) -> Option<&'static str> {
        match self {
            Self::Busy => Some(BUSY),
            Self::Idle => Some(IDLE),
            Self::Meeting | Self::MeetingAway => Some("In a meeting"),
            Self::Available | Self::Chat | Self::Away | Self::Xa | Self::Dnd | Self::Offline => None,
        }
    }

    /// Recognises the state of a resource. Of the texts only "Busy", alone or before a note, is told apart,
    /// since no other text changes what SIP watchers see.
    pub fn of(presence: &ResourcePresence) -> Self {
        if !presence.available {
            return Self::Offline;
        }
        match presence.show {
            None => Self::Available,
            Some(Show::Chat) => Self::Chat,
            Some(Show::Xa) => Self::Xa,
            Some(Show::Dnd) => Self::Dnd,
            Some(Show::Away) if presence.statuses.iter().any(|status| busy_note(&status.text).is_some()) => Self::Busy,
            Some(Show::Away) => Self::Away,
        }
    }
}

/// The states of the SIP side (interworking specification §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SipCode {
    /// S-AVL
    Available,
    /// S-BSY
    Busy,
    /// S-DND, which is received only.
    Dnd,
    /// S-BRB, which is received only.
    BeRightBack,
    /// S-AWY
    Away,
    /// S-IDL, which is received only.
    Idle,
    /// S-OFF
    Offline,
}

impl SipCode {
    /// The basic status.
    pub fn basic(self) -> Basic {
        if self == Self::Offline { Basic::Closed } else { Basic::Open }
    }

    /// The activity.
    pub fn activity(self) -> Option<Activity> {
        match self {
            Self::Busy | Self::Dnd => Some(Activity::BUSY),
            Self::BeRightBack | Self::Away | Self::Idle => Some(Activity::AWAY),
            Self::Available | Self::Offline => None,
        }
    }

    /// The state number that Microsoft clients publish for this state.
    pub fn number(self) -> u32 {
        match self {
            Self::Available => 3500,
            Self::Idle => 5000,
            Self::Busy => 6500,
            Self::Dnd => 9500,
            Self::BeRightBack => 12_500,
            Self::Away => 15_500,
            Self::Offline => 18_500,
        }
    }
}

/// Classifies what a tuple and its person say together.
///
/// Without a readable basic status, a document that names an activity is about somebody who can be reached.
pub fn classify(basic: Option<Basic>, activities: &[&Activity], idle: bool) -> Class {
    match basic {
        Some(Basic::Closed) => return Class::Offline,
        None if activities.is_empty() => return Class::Offline,
        None | Some(Basic::Open) => {}
    }
    let said = |words: &[&str]| activities.iter().any(|activity| words.contains(&activity.as_str()));
    match WORDS.iter().find(|(_, words)| said(words)) {
        Some((class, _)) => *class,
        None if idle => Class::Idle,
        None => Class::Available,
    }
}

/// Classifies a state number of Microsoft's own formats.
pub fn classify_number(number: u32) -> Class {
    NUMBERS.iter().find(|(start, _)| number >= *start).map_or(Class::Available, |(_, class)| *class)
}

/// What an XMPP contact shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Whether the resource can be reached.
    pub available: bool,
    /// The show.
    pub show: Option<Show>,
    /// The status texts, one per language.
    pub statuses: Vec<LangText>,
}

/// Maps a class and the notes of a document to what XMPP contacts see.
pub fn to_xmpp(dialect: Dialect, class: Class, notes: &[LangText]) -> Shown {
    let code = TO_XMPP.iter().find(|row| row.0 == class).map_or(XmppCode::Available, |row| match dialect {
        Dialect::Microsoft => row.1,
        Dialect::Standard => row.2,
    });
    let own_word = match (class, dialect) {
        (Class::Brb, Dialect::Microsoft) => Some(BE_RIGHT_BACK),
        _ => code.status(),
    };
    let statuses = match (code, notes) {
        (XmppCode::Offline, _) => Vec::new(),
        (_, []) => own_word.map(english).into_iter().collect(),
        (XmppCode::Busy, notes) => notes.iter().map(with_busy).collect(),
        (_, notes) => notes.to_vec(),
    };
    Shown { available: code != XmppCode::Offline, show: code.show(), statuses }
}

/// Maps the state of a resource to the SIP side.
pub fn to_sip(presence: &ResourcePresence) -> SipCode {
    let code = XmppCode::of(presence);
    TO_SIP.iter().find(|row| row.0 == code).map_or(SipCode::Available, |row| row.1)
}

/// Maps the status texts of a resource to notes. In the Microsoft dialect the words that repeat the state
/// are left out, since its clients show the state in words of their own.
pub fn to_notes(dialect: Dialect, presence: &ResourcePresence) -> Vec<LangText> {
    let code = to_sip(presence);
    if code == SipCode::Offline {
        return Vec::new();
    }
    let note = |text: &str| match (dialect, code) {
        (Dialect::Microsoft, SipCode::Busy) => busy_note(text).unwrap_or(text).to_owned(),
        (Dialect::Microsoft, SipCode::Away) if text.trim().eq_ignore_ascii_case("away") => String::new(),
        _ => text.to_owned(),
    };
    let mut notes: Vec<LangText> = Vec::new();
    for status in &presence.statuses {
        let text = note(&status.text);
        let known = notes.iter().any(|note| note.lang == status.lang);
        if !known && !text.trim().is_empty() {
            notes.push(LangText { lang: status.lang.clone(), text });
        }
    }
    notes
}

/// Chooses the resource that watchers see where there is room for one.
///
/// A resource with negative priority, which gets no messages, comes after all others. Then the order is that
/// of Microsoft's state numbers: available, busy or not to be disturbed, away, away for long; then the higher
/// priority, then the more recent state.
pub fn most_available(resources: &[ResourcePresence]) -> Option<&ResourcePresence> {
    resources.iter().filter(|presence| presence.available).min_by_key(|presence| {
        let priority = presence.priority.unwrap_or(0);
        let since = presence.stamp.unwrap_or(presence.received);
        (
            priority < 0,
            to_sip(presence).number(),
            presence.show == Some(Show::Xa),
            std::cmp::Reverse(priority),
            std::cmp::Reverse(since),
        )
    })
}

fn english(text: &str) -> LangText {
    LangText { lang: Some("en".into()), text: text.to_owned() }
}

/// Puts the word before a note, unless the note already says it.
fn with_busy(note: &LangText) -> LangText {
    let text = match busy_note(&note.text) {
        Some("") => BUSY.to_owned(),
        Some(rest) => format!("{BUSY} - {rest}"),
        None => format!("{BUSY} - {}", note.text),
    };
    LangText { lang: note.lang.clone(), text }
}

/// Reads "Busy" and "Busy - note": gives the note, empty for the word alone, `None` for other texts.
fn busy_note(text: &str) -> Option<&str> {
    let text = text.trim();
    let (word, rest) = text.split_at_checked(BUSY.len())?;
    if !word.eq_ignore_ascii_case(BUSY) {
        return None;
    }
    match rest.trim_start() {
        "" => Some(""),
        dashed if dashed.len() < rest.len() => {
            dashed.strip_prefix('-').filter(|note| note.is_empty() || note.starts_with(' ')).map(str::trim)
        }
        _ => None,
    }
}
