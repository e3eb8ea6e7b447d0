//! Stanzas to bytes.
//!
//! Written straight into the stream's buffer, without a tree in between: every message that crosses the
//! gateway passes here. Identifiers with characters that XML cannot carry are refused; text loses them.

use compact_str::CompactString;
use isthmus_model::LangText;
use xso::AsXml;

use super::{Iq, IqKind, Message, MessageType, Presence, PresenceType, Stanza, StanzaError};
use crate::element::{Attribute, Element};
use crate::ns;
use crate::payload::{Nick, Receipt, Received, Replace};
use crate::stream::codec::{EncodeError, StreamEncoder};

impl StreamEncoder {
    /// Writes a stanza.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]; nothing of the stanza is written then.
    pub fn stanza(&mut self, stanza: &Stanza) -> Result<(), EncodeError> {
        match stanza {
            Stanza::Message(message) => self.message(message),
            Stanza::Presence(presence) => self.presence(presence),
            Stanza::Iq(iq) => self.iq(iq),
        }
    }

    /// Writes a message.
    ///
    /// # Errors
    ///
    /// As [`Self::stanza`].
    pub fn message(&mut self, message: &Message) -> Result<(), EncodeError> {
        self.whole(|this| this.message_parts(message))
    }

    /// Writes a presence.
    ///
    /// # Errors
    ///
    /// As [`Self::stanza`].
    pub fn presence(&mut self, presence: &Presence) -> Result<(), EncodeError> {
        self.whole(|this| this.presence_parts(presence))
    }

    /// Writes an iq.
    ///
    /// # Errors
    ///
    /// As [`Self::stanza`].
    pub fn iq(&mut self, iq: &Iq) -> Result<(), EncodeError> {
        self.whole(|this| this.iq_parts(iq))
    }

    fn message_parts(&mut self, message: &Message) -> Result<(), EncodeError> {
        let Message { from, to, id, kind, lang, other_attributes, .. } = message;
        self.open_stanza("message", [from, to, id, lang], kind.as_str(), other_attributes)?;
        for subject in &message.subjects {
            self.lang_text("subject", subject, message.lang.as_ref())?;
        }
        for body in &message.bodies {
            self.lang_text("body", body, message.lang.as_ref())?;
        }
        if let Some(thread) = &message.thread {
            self.raw("<thread>");
            self.text(thread);
            self.raw("</thread>");
        }
        if let Some(state) = message.chat_state {
            self.empty(state.as_str(), ns::CHAT_STATES);
        }
        match &message.receipt {
            Some(Receipt::Request) => self.empty("request", ns::RECEIPTS),
            Some(Receipt::Received(id)) => self.payload(&Received { id: id.clone() })?,
            None => {}
        }
        if let Some(id) = &message.replace {
            self.payload(&Replace { id: id.to_string() })?;
        }
        if let Some(delay) = &message.delay {
            self.payload(delay)?;
        }
        if let (MessageType::Error, Some(error)) = (message.kind, &message.error) {
            self.stanza_error(error, message.lang.as_ref())?;
        }
        self.payloads(&message.payloads)?;
        self.raw("</message>");
        Ok(())
    }

    fn presence_parts(&mut self, presence: &Presence) -> Result<(), EncodeError> {
        let Presence { from, to, id, kind, lang, other_attributes, .. } = presence;
        self.open_stanza("presence", [from, to, id, lang], kind.as_str(), other_attributes)?;
        if let Some(show) = presence.show {
            self.raw("<show>");
            self.raw(show.as_str());
            self.raw("</show>");
        }
        for status in &presence.statuses {
            self.lang_text("status", status, presence.lang.as_ref())?;
        }
        if let Some(priority) = presence.priority {
            self.raw("<priority>");
            self.raw(&compact_str::format_compact!("{priority}"));
            self.raw("</priority>");
        }
        if let Some(delay) = &presence.delay {
            self.payload(delay)?;
        }
        if let Some(name) = &presence.nick {
            self.payload(&Nick { name: crate::xml::drop_illegal(name).into_owned() })?;
        }
        if let (PresenceType::Error, Some(error)) = (presence.kind, &presence.error) {
            self.stanza_error(error, presence.lang.as_ref())?;
        }
        self.payloads(&presence.payloads)?;
        self.raw("</presence>");
        Ok(())
    }

    fn iq_parts(&mut self, iq: &Iq) -> Result<(), EncodeError> {
        let (kind, payload, error) = match &iq.kind {
            IqKind::Get(payload) => ("get", Some(payload), None),
            IqKind::Set(payload) => ("set", Some(payload), None),
            IqKind::Result(payload) => ("result", payload.as_ref(), None),
            IqKind::Error { error, request } => ("error", request.as_ref(), Some(error)),
        };
        let id = Some(iq.id.clone());
        self.open_stanza("iq", [&iq.from, &iq.to, &id, &iq.lang], Some(kind), &iq.other_attributes)?;
        if let Some(payload) = payload {
            self.nodes(payload.nodes())?;
        }
        if let Some(error) = error {
            self.stanza_error(error, iq.lang.as_ref())?;
        }
        self.raw("</iq>");
        Ok(())
    }

    fn open_stanza(
        &mut self,
        name: &'static str,
        [from, to, id, lang]: [&Option<CompactString>; 4],
        kind: Option<&str>,
        others: &[Attribute],
    ) -> Result<(), EncodeError> {
        self.raw("<");
        self.raw(name);
        for (name, value) in [("from", from), ("to", to), ("id", id)] {
            self.optional_attribute(name, value.as_deref())?;
        }
        if let Some(kind) = kind {
            self.raw(" type=\"");
            self.raw(kind);
            self.raw("\"");
        }
        self.optional_attribute("xml:lang", lang.as_deref())?;
        self.attributes(others)?;
        self.raw(">");
        Ok(())
    }

    /// Writes text in its element, with `xml:lang` where it differs from what is in force outside.
    fn lang_text(
        &mut self,
        name: &'static str,
        text: &LangText,
        around: Option<&CompactString>,
    ) -> Result<(), EncodeError> {
        self.raw("<");
        self.raw(name);
        if text.lang.as_ref() != around {
            self.attribute("xml:lang", text.lang.as_deref().unwrap_or_default())?;
        }
        self.raw(">");
        self.text(&text.text);
        self.raw("</");
        self.raw(name);
        self.raw(">");
        Ok(())
    }

    fn empty(&mut self, name: &'static str, namespace: &'static str) {
        self.raw("<");
        self.raw(name);
        self.raw(" xmlns=\"");
        self.raw(namespace);
        self.raw("\"/>");
    }

    fn payload<T: AsXml>(&mut self, payload: &T) -> Result<(), EncodeError> {
        // the payload types of this crate can always be written; a character may be illegal
        let element = Element::write(payload).map_err(|_| EncodeError::IllegalCharacter)?;
        self.nodes(element.nodes())
    }

    fn payloads(&mut self, payloads: &[Element]) -> Result<(), EncodeError> {
        payloads.iter().try_for_each(|payload| self.nodes(payload.nodes()))
    }

    fn stanza_error(&mut self, error: &StanzaError, around: Option<&CompactString>) -> Result<(), EncodeError> {
        self.raw("<error type=\"");
        self.raw(error.kind.as_str());
        self.raw("\"");
        self.optional_attribute("by", error.by.as_deref())?;
        self.raw("><");
        self.raw(error.condition.as_str());
        self.raw(" xmlns=\"");
        self.raw(ns::STANZA_ERRORS);
        if let Some(uri) = &error.uri {
            self.raw("\">");
            self.text(uri);
            self.raw("</");
            self.raw(error.condition.as_str());
            self.raw(">");
        } else {
            self.raw("\"/>");
        }
        if let Some(text) = &error.text {
            self.raw("<text xmlns=\"");
            self.raw(ns::STANZA_ERRORS);
            self.raw("\"");
            if text.lang.as_ref() != around {
                self.attribute("xml:lang", text.lang.as_deref().unwrap_or_default())?;
            }
            self.raw(">");
            self.text(&text.text);
            self.raw("</text>");
        }
        self.payloads(&error.others)?;
        self.raw("</error>");
        Ok(())
    }
}
