//! From files to the objects of one realm, each judged on its own and against the version in force before.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use isthmus_crds::validate::{self, Segment, UnknownFields};
use isthmus_crds::{Kind, Object, Secret};
use serde_json::Value;

use super::files;
use super::finding::{Finding, Notice, Place, Refusal, object_name, shown};
use super::secrets::Secrets;
use super::yaml::{self, Document};
use super::{ObjectKey, SourceOptions};

/// Most documents of a folder.
const MAX_DOCUMENTS: usize = 200_000;
/// Fields that a Secret may have.
const SECRET_FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "type", "data", "stringData", "immutable"];

/// An object of the realm with its document and place.
#[derive(Debug)]
pub struct Declared {
    place: Place,
    document: Document,
    object: Object,
    /// Nothing was found wrong and nothing has to be said again.
    is_clean: bool,
}

impl Declared {
    /// The object.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// The document, with the realm's namespace filled in.
    pub fn value(&self) -> &Value {
        &self.document.value
    }

    /// The file in which it stands.
    pub fn file(&self) -> &Path {
        &self.place.file
    }

    /// The line on which it begins, from 1.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// A finding about a field, written as `spec.chatAliases[0].host`.
    pub(super) fn finding(&self, field: &str, message: impl Into<String>) -> Finding {
        let line = self.document.line_of(&segments(field));
        self.place.finding(line, field, message)
    }
}

/// What the files of a folder declare.
#[derive(Debug, Default)]
pub(super) struct Realm {
    declared: BTreeMap<ObjectKey, Arc<Declared>>,
    secrets: Secrets,
    secret_places: BTreeMap<String, Place>,
}

impl Realm {
    pub(super) fn declared(&self, kind: Kind, name: &str) -> Option<&Declared> {
        self.declared.get(&(kind, name.to_owned())).map(Arc::as_ref)
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &Declared> {
        self.declared.values().map(Arc::as_ref)
    }

    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Declared> {
        self.objects().filter(move |declared| declared.object.kind() == kind)
    }

    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    pub(super) fn into_parts(self) -> (BTreeMap<ObjectKey, Arc<Declared>>, Secrets) {
        (self.declared, self.secrets)
    }
}

/// Reads files into a realm and collects what is wrong.
pub(super) struct Reader<'a> {
    unknown_fields: UnknownFields,
    former: Option<&'a BTreeMap<ObjectKey, Arc<Declared>>>,
    realm: Realm,
    namespace: Option<(String, Place)>,
    documents: usize,
    /// Documents that wait until the namespace of the realm is known.
    waiting: Vec<(Kind, String, Place, Document)>,
    secrets: Vec<(Place, Document)>,
    places: BTreeMap<ObjectKey, Place>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) notices: Vec<Notice>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(options: &SourceOptions, former: Option<&'a BTreeMap<ObjectKey, Arc<Declared>>>) -> Self {
        Self {
            unknown_fields: if options.lenient { UnknownFields::Warn } else { UnknownFields::Refuse },
            former,
            realm: Realm::default(),
            namespace: None,
            documents: 0,
            waiting: Vec::new(),
            secrets: Vec::new(),
            places: BTreeMap::new(),
            refusals: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Reads one file. Faults of its documents are collected; what ends all reading is the error.
    pub(super) fn file(&mut self, path: &Path) -> Result<(), Refusal> {
        let text = match files::read_text(path) {
            Ok(text) => text,
            Err(refusal) => {
                self.refusals.push(refusal);
                return Ok(());
            }
        };
        let documents = match yaml::documents(&text) {
            Ok(documents) => documents,
            Err(error) => {
                let mut refusal = Refusal::of_file(path, error.message);
                (refusal.line, refusal.document) = (Some(error.line), Some(error.document));
                self.refusals.push(refusal);
                return Ok(());
            }
        };
        let file: Arc<Path> = Arc::from(path);
        for document in documents {
            self.documents += 1;
            if self.documents > MAX_DOCUMENTS {
                let text = format!("the folder holds more than {MAX_DOCUMENTS} documents. Divide the realm.");
                return Err(Refusal::of_file(path, text));
            }
            let place =
                Place { file: Arc::clone(&file), line: document.line_of(&[]), document: document.number, object: None };
            self.document(place, document);
        }
        Ok(())
    }

    fn document(&mut self, mut place: Place, document: Document) {
        if !document.value.is_object() {
            let text = "the document is no mapping. Write apiVersion, kind, metadata and spec.";
            return self.refusals.push(place.finding(place.line, "", text));
        }
        let word = |pointer: &str| document.value.pointer(pointer).and_then(Value::as_str);
        let name = word("/metadata/name").map(str::to_owned);
        let kind_word = word("/kind").unwrap_or("document");
        if let Some(name) = &name {
            place.object = Some(format!("{} {}", shown(kind_word, 80), shown(name, 253)));
        }
        if Secret::recognises(&document.value) {
            self.note_namespace(&place, &document);
            return self.secrets.push((place, document));
        }
        let (Some(kind), Some(name)) = (Kind::of(&document.value), name) else {
            // The schema says what is amiss: the group, the kind or the name.
            return self.judge_alone(&place, &document);
        };
        place.object = Some(object_name(kind, &name));
        if kind.is_namespaced() {
            self.note_namespace(&place, &document);
        }
        if let Some(first) = self.places.get(&(kind, name.clone())) {
            let line = document.line_of(&segments("metadata.name"));
            let text =
                format!("{kind} {} is declared at {} too. Keep one of them.", shown(&name, 253), first.in_words());
            return self.refusals.push(place.finding(line, "metadata.name", text));
        }
        self.places.insert((kind, name.clone()), place.clone());
        self.waiting.push((kind, name, place, document));
    }

    fn note_namespace(&mut self, place: &Place, document: &Document) {
        let Some(own) = document.value.pointer("/metadata/namespace").and_then(Value::as_str) else { return };
        match &self.namespace {
            None => self.namespace = Some((own.to_owned(), place.clone())),
            Some((realm, first)) if realm != own => {
                let line = document.line_of(&segments("metadata.namespace"));
                let text = format!(
                    "the namespace {} differs from {} at {}. A folder holds one realm: write one namespace everywhere, or divide the folder.",
                    shown(own, 80),
                    shown(realm, 80),
                    first.in_words()
                );
                self.refusals.push(place.finding(line, "metadata.namespace", text));
            }
            Some(_) => {}
        }
    }

    /// Refuses a document that is no object of ours, in the words of the schema.
    fn judge_alone(&mut self, place: &Place, document: &Document) {
        for violation in validate::validate(&document.value, None, self.unknown_fields).violations {
            let line = document.line_of(violation.field_path.segments());
            let text = format!("{}. {}", violation.message, violation.remedy);
            self.refusals.push(place.finding(line, &violation.field_path.to_string(), text));
        }
    }

    /// Judges what was read, now that the namespace of the realm is known, and takes the folder of Secrets in.
    pub(super) fn finish(mut self, secrets: Option<&Path>) -> Result<(Realm, Vec<Refusal>, Vec<Notice>), Refusal> {
        for (place, document) in std::mem::take(&mut self.secrets) {
            self.secret(place, &document);
        }
        if let Some(dir) = secrets {
            self.realm.secrets.add_folder(dir, &self.realm.secret_places, &mut self.refusals)?;
        }
        let namespace = self.namespace.take().map_or_else(|| "default".to_owned(), |(namespace, _)| namespace);
        for (kind, name, place, document) in std::mem::take(&mut self.waiting) {
            self.object((kind, name), place, document, &namespace);
        }
        Ok((self.realm, self.refusals, self.notices))
    }

    fn secret(&mut self, place: Place, document: &Document) {
        if let Some(fields) = document.value.as_object() {
            for field in fields.keys().filter(|field| !SECRET_FIELDS.contains(&field.as_str())) {
                let line = document.line_of(&[Segment::Key(field.clone())]);
                let text = format!("a Secret has no field {}. Remove it, or correct its name.", shown(field, 80));
                let finding = place.finding(line, &shown(field, 80), text);
                match self.unknown_fields {
                    UnknownFields::Refuse => self.refusals.push(finding),
                    UnknownFields::Warn => self.notices.push(finding),
                }
            }
        }
        let secret = match Secret::parse(&document.value) {
            Ok(secret) => secret,
            Err(error) => {
                let field = if place.object.is_some() { "data" } else { "metadata.name" };
                let line = document.line_of(&segments(field));
                return self.refusals.push(place.finding(line, field, error.to_string()));
            }
        };
        let name = secret.name().to_owned();
        if let Some(first) = self.realm.secret_places.get(&name) {
            let line = document.line_of(&segments("metadata.name"));
            let text =
                format!("Secret {} is declared at {} too. Keep one of them.", shown(&name, 253), first.in_words());
            return self.refusals.push(place.finding(line, "metadata.name", text));
        }
        self.realm.secrets.add_document(&secret);
        self.realm.secret_places.insert(name, place);
    }

    fn object(&mut self, key: ObjectKey, place: Place, mut document: Document, namespace: &str) {
        // Rules between objects compare namespaces, so a missing one is filled in.
        if key.0.is_namespaced()
            && let Some(metadata) = document.value.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.entry("namespace").or_insert_with(|| Value::String(namespace.to_owned()));
        }
        let former = self.former.and_then(|former| former.get(&key));
        if let Some(former) = former.filter(|former| former.is_clean && former.document.value == document.value) {
            let object = former.object.clone();
            self.realm.declared.insert(key, Arc::new(Declared { place, document, object, is_clean: true }));
            return;
        }
        match validate::read(&document.value, former.map(|former| former.value()), self.unknown_fields) {
            Ok((object, warnings)) => {
                let is_clean = warnings.is_empty();
                for warning in warnings {
                    let line = document.line_of(warning.field_path.segments());
                    let text = format!("{}. {}", warning.message, warning.remedy);
                    self.notices.push(place.finding(line, &warning.field_path.to_string(), text));
                }
                self.realm.declared.insert(key, Arc::new(Declared { place, document, object, is_clean }));
            }
            Err(report) => {
                for violation in report.violations {
                    let line = document.line_of(violation.field_path.segments());
                    let text = format!("{}. {}", violation.message, violation.remedy);
                    self.refusals.push(place.finding(line, &violation.field_path.to_string(), text));
                }
            }
        }
    }
}

/// Takes a field's text apart: `spec.chatAliases[0].host`.
fn segments(field: &str) -> Vec<Segment> {
    let mut found = Vec::new();
    for part in field.split('.').filter(|part| !part.is_empty()) {
        let mut pieces = part.split('[');
        if let Some(key) = pieces.next().filter(|key| !key.is_empty()) {
            found.push(Segment::Key(key.to_owned()));
        }
        for piece in pieces {
            if let Ok(index) = piece.trim_end_matches(']').parse() {
                found.push(Segment::Index(index));
            }
        }
    }
    found
}
