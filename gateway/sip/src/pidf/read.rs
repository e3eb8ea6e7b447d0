//! Reading presence documents in the shapes that peers send.

use isthmus_model::{LangText, Show, timestamp};

use super::xml::Element;
use super::{
    Activity, Basic, Contact, NS_CIPID, NS_DATA_MODEL, NS_JABBER_CLIENT, NS_PIDF, NS_RPID, NS_RPID_STATUS, Person,
    Pidf, PidfError, PidfLimits, Tuple,
};

/// Namespaces in which activities and idleness were seen; the last three are no standard's.
const RPID_FAMILY: [&str; 5] = [
    NS_RPID,
    NS_RPID_STATUS,
    "urn:ietf:params:xml:ns:pidf:rpid:rpid-person",
    "urn:ietf:params:xml:ns:pidf:status:rpid",
    "urn:cisco:params:xml:ns:pidf:rpid",
];

impl Pidf {
    /// Reads a document.
    ///
    /// Elements and attributes that are not known are passed over (RFC 3863 §4.2.3), and what is missing
    /// stays missing. Activities are found in the tuple, in its status, in a person, in a person's status
    /// and at the top, in each of the namespaces that peers use.
    ///
    /// # Errors
    ///
    /// [`PidfError`].
    pub fn parse(body: &[u8], limits: &PidfLimits) -> Result<Self, PidfError> {
        let root = Element::parse(body, &limits.xml)?;
        if root.name() != "presence" || !is_pidf(&root) {
            return Err(PidfError::NotPidf);
        }
        let mut pidf =
            Self { entity: root.attribute("entity").unwrap_or("").trim_ascii().to_owned(), ..Self::default() };
        let mut top = State::default();
        let mut persons = 0;
        for child in root.children() {
            match child.name() {
                "tuple" if is_pidf(child) => {
                    check(pidf.tuples.len(), limits.tuples, |limit| PidfError::TooManyTuples { limit })?;
                    pidf.tuples.push(tuple(child, limits)?);
                }
                // The person is in another namespace with some peers, and there is only one kind of it.
                "person" => {
                    check(persons, limits.tuples, |limit| PidfError::TooManyTuples { limit })?;
                    persons += 1;
                    let mut state = State::default();
                    state.read(child, limits)?;
                    pidf.person.get_or_insert_default().join(state, limits)?;
                }
                "display-name" if child.namespace() == NS_CIPID => {
                    let name = child.text().trim();
                    if !name.is_empty() {
                        pidf.display_name = Some(name.to_owned());
                    }
                }
                _ => top.read_child(child, limits)?,
            }
        }
        pidf.notes = std::mem::take(&mut top.notes);
        if top.says_anything() {
            pidf.person.get_or_insert_default().join(top, limits)?;
        }
        Ok(pidf)
    }
}

impl Person {
    fn join(&mut self, state: State, limits: &PidfLimits) -> Result<(), PidfError> {
        for activity in state.activities {
            push_activity(&mut self.activities, activity, limits)?;
        }
        for note in state.notes.into_iter().chain(state.activity_notes) {
            push_note(&mut self.notes, note, limits)?;
        }
        self.idle |= state.idle;
        Ok(())
    }
}

fn is_pidf(element: &Element) -> bool {
    let namespace = element.namespace();
    namespace.strip_suffix(':').unwrap_or(namespace) == NS_PIDF
}

fn check(count: usize, limit: usize, error: impl FnOnce(usize) -> PidfError) -> Result<(), PidfError> {
    if count >= limit { Err(error(limit)) } else { Ok(()) }
}

fn push_activity(list: &mut Vec<Activity>, activity: Activity, limits: &PidfLimits) -> Result<(), PidfError> {
    if list.contains(&activity) {
        return Ok(());
    }
    check(list.len(), limits.activities, |limit| PidfError::TooManyActivities { limit })?;
    list.push(activity);
    Ok(())
}

fn push_note(list: &mut Vec<LangText>, note: LangText, limits: &PidfLimits) -> Result<(), PidfError> {
    check(list.len(), limits.notes, |limit| PidfError::TooManyNotes { limit })?;
    list.push(note);
    Ok(())
}

/// Reads a note; an empty one says nothing.
fn note(element: &Element) -> Option<LangText> {
    let text = element.text().trim();
    (!text.is_empty()).then(|| LangText { lang: element.lang().map(Into::into), text: text.to_owned() })
}

/// What tuples, persons and the document as a whole have in common.
#[derive(Default)]
struct State {
    activities: Vec<Activity>,
    idle: bool,
    notes: Vec<LangText>,
    /// Notes inside `activities`, which explain them (RFC 4480 §3.2).
    activity_notes: Vec<LangText>,
}

impl State {
    fn says_anything(&self) -> bool {
        self.idle || !self.activities.is_empty() || !self.activity_notes.is_empty()
    }

    fn read(&mut self, element: &Element, limits: &PidfLimits) -> Result<(), PidfError> {
        element.children().try_for_each(|child| self.read_child(child, limits))
    }

    fn read_child(&mut self, child: &Element, limits: &PidfLimits) -> Result<(), PidfError> {
        let namespace = child.namespace();
        let rpid = RPID_FAMILY.contains(&namespace);
        match child.name() {
            "note" if rpid || is_pidf(child) || namespace == NS_DATA_MODEL => {
                if let Some(note) = note(child) {
                    push_note(&mut self.notes, note, limits)?;
                }
            }
            "status" => {
                for inner in child.children().filter(|inner| inner.name() != "status") {
                    self.read_child(inner, limits)?;
                }
            }
            "activities" if rpid => self.activities(child, limits)?,
            "user-input" if rpid => self.idle |= child.text().trim().eq_ignore_ascii_case("idle"),
            "idle" if rpid => self.idle = true,
            // A vendor's state in words, beside the basic one.
            "extended" => push_activity(&mut self.activities, Activity::new(child.text()), limits)?,
            _ => {}
        }
        Ok(())
    }

    /// Reads both forms: an empty element named for the activity, and a text in `activity`.
    fn activities(&mut self, element: &Element, limits: &PidfLimits) -> Result<(), PidfError> {
        for child in element.children() {
            match child.name() {
                "note" => {
                    if let Some(note) = note(child) {
                        push_note(&mut self.activity_notes, note, limits)?;
                    }
                }
                "activity" => push_activity(&mut self.activities, Activity::new(child.text()), limits)?,
                name => push_activity(&mut self.activities, Activity::new(name), limits)?,
            }
        }
        Ok(())
    }
}

fn tuple(element: &Element, limits: &PidfLimits) -> Result<Tuple, PidfError> {
    let mut state = State::default();
    state.read(element, limits)?;
    let status = element.children().find(|child| child.name() == "status" && is_pidf(child));
    let child = |name: &str| element.children().find(|child| child.name() == name && is_pidf(child));
    let basic = status.and_then(|status| status.children().find(|child| child.name() == "basic" && is_pidf(child)));
    let mut notes = state.notes;
    if notes.is_empty() {
        notes = state.activity_notes;
    }
    Ok(Tuple {
        id: element.attribute("id").unwrap_or("").trim_ascii().to_owned(),
        basic: basic.and_then(|basic| match basic.text().trim_ascii() {
            text if text.eq_ignore_ascii_case("open") => Some(Basic::Open),
            text if text.eq_ignore_ascii_case("closed") => Some(Basic::Closed),
            _ => None,
        }),
        show: status
            .and_then(|status| status.child(NS_JABBER_CLIENT, "show"))
            .and_then(|show| Show::parse(show.text().trim_ascii())),
        activities: state.activities,
        idle: state.idle,
        contact: child("contact").map(|contact| Contact {
            uri: contact.text().trim_ascii().to_owned(),
            priority: contact.attribute("priority").and_then(thousandths),
        }),
        notes,
        timestamp: child("timestamp").and_then(|timestamp| timestamp::parse(timestamp.text())),
    })
}

/// Reads a number from 0 to 1, of which three decimals count (RFC 3863 §4.1.5).
fn thousandths(text: &str) -> Option<u16> {
    let text = text.trim_ascii();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.len() + fraction.len() == 0 || text.len() > 16 {
        return None;
    }
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u16 = if whole.is_empty() { 0 } else { whole.parse().ok().filter(|whole| *whole <= 1)? };
    let mut value = whole * 1000;
    let mut unit = 100;
    for b in fraction.bytes() {
        value += u16::from(b - b'0') * unit;
        unit /= 10;
    }
    let beyond = fraction.bytes().skip(3).any(|b| b != b'0');
    (value < 1000 || (value == 1000 && !beyond)).then_some(value)
}
