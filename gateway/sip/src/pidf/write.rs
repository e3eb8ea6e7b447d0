//! Writing presence documents.

use std::fmt::Write as _;

use isthmus_model::{LangText, timestamp};

use super::xml::{push_attribute, push_text};
use super::{
    Activity, Basic, NS_CIPID, NS_DATA_MODEL, NS_JABBER_CLIENT, NS_PIDF, NS_RPID, NS_RPID_STATUS, Person, Pidf, Tuple,
};

impl Pidf {
    /// Writes the document, in the child order of RFC 3863 §4.1 with the person last; only namespaces that
    /// are used are declared.
    ///
    /// Activities of a tuple are written as texts in the draft's namespace and those of the person as
    /// elements of RFC 4480, so a document that fills both can be read by either kind of watcher. What XML
    /// cannot hold is left out of texts.
    pub fn to_xml(&self) -> String {
        let mut out = String::with_capacity(1024);
        out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<presence xmlns=\"");
        out.push_str(NS_PIDF);
        let draft = self.tuples.iter().any(|tuple| !tuple.activities.is_empty());
        let rpid = self.tuples.iter().any(|tuple| tuple.idle)
            || self.person.as_ref().is_some_and(|person| person.idle || !person.activities.is_empty());
        for (used, prefix, namespace) in [
            (draft, "ep", NS_RPID_STATUS),
            (self.person.is_some(), "dm", NS_DATA_MODEL),
            (rpid, "rpid", NS_RPID),
            (self.display_name.is_some(), "ci", NS_CIPID),
        ] {
            if used {
                // writing to a String does not fail
                let _ = write!(out, "\" xmlns:{prefix}=\"{namespace}");
            }
        }
        out.push_str("\" entity=\"");
        push_attribute(&mut out, &self.entity);
        out.push_str("\">");
        for tuple in &self.tuples {
            write_tuple(&mut out, tuple);
        }
        write_notes(&mut out, "note", &self.notes);
        if let Some(name) = &self.display_name {
            out.push_str("<ci:display-name>");
            push_text(&mut out, name);
            out.push_str("</ci:display-name>");
        }
        if let Some(person) = &self.person {
            write_person(&mut out, person);
        }
        out.push_str("</presence>\n");
        out
    }
}

fn write_tuple(out: &mut String, tuple: &Tuple) {
    out.push_str("<tuple id=\"");
    push_attribute(out, &tuple.id);
    out.push_str("\"><status>");
    match tuple.basic {
        Some(Basic::Open) => out.push_str("<basic>open</basic>"),
        Some(Basic::Closed) => out.push_str("<basic>closed</basic>"),
        None => {}
    }
    if !tuple.activities.is_empty() {
        out.push_str("<ep:activities>");
        for activity in &tuple.activities {
            let _ = write!(out, "<ep:activity>{activity}</ep:activity>");
        }
        out.push_str("</ep:activities>");
    }
    if let Some(show) = tuple.show {
        let _ = write!(out, "<show xmlns=\"{NS_JABBER_CLIENT}\">{}</show>", show.as_str());
    }
    out.push_str("</status>");
    if tuple.idle {
        out.push_str("<rpid:user-input>idle</rpid:user-input>");
    }
    if let Some(contact) = &tuple.contact {
        out.push_str("<contact");
        if let Some(priority) = contact.priority.filter(|p| *p <= 1000) {
            let _ = match (priority / 1000, priority % 1000) {
                (whole, 0) => write!(out, " priority=\"{whole}\""),
                (whole, fraction) => write!(out, " priority=\"{whole}.{fraction:03}\""),
            };
        }
        out.push('>');
        push_text(out, &contact.uri);
        out.push_str("</contact>");
    }
    write_notes(out, "note", &tuple.notes);
    if let Some(at) = tuple.timestamp {
        let _ = write!(out, "<timestamp>{}</timestamp>", timestamp::format(at));
    }
    out.push_str("</tuple>");
}

fn write_person(out: &mut String, person: &Person) {
    out.push_str("<dm:person id=\"ID-p\">");
    if !person.activities.is_empty() {
        out.push_str("<rpid:activities>");
        for activity in &person.activities {
            write_activity(out, activity);
        }
        out.push_str("</rpid:activities>");
    }
    if person.idle {
        out.push_str("<rpid:user-input>idle</rpid:user-input>");
    }
    write_notes(out, "dm:note", &person.notes);
    out.push_str("</dm:person>");
}

/// An activity that is named like one of the two other children of `activities` is written as text.
fn write_activity(out: &mut String, activity: &Activity) {
    let _ = match activity.as_str() {
        name @ ("note" | "activity") => write!(out, "<rpid:activity>{name}</rpid:activity>"),
        name => write!(out, "<rpid:{name}/>"),
    };
}

fn write_notes(out: &mut String, name: &str, notes: &[LangText]) {
    for note in notes {
        let _ = write!(out, "<{name}");
        if let Some(lang) = &note.lang {
            out.push_str(" xml:lang=\"");
            push_attribute(out, lang);
            out.push('"');
        }
        out.push('>');
        push_text(out, &note.text);
        let _ = write!(out, "</{name}>");
    }
}
