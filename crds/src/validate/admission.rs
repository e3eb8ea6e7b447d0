//! Admission policies in process: one object against others, pair by pair.

use std::sync::LazyLock;

use kube::core::cel::cel::{Program, Value as CelValue};
use serde_json::{Value, json};

use super::{FieldPath, Report, Violation, cel};
use crate::admission::{self, AdmissionPolicy, Enforcement};
use crate::object::Kind;

struct Compiled {
    policy: &'static AdmissionPolicy,
    // A test compiles every text, so `None` cannot be met; it would refuse every object.
    program: Option<Program>,
    message_program: Option<Program>,
}

static COMPILED: LazyLock<Vec<Compiled>> = LazyLock::new(|| {
    admission::ALL
        .iter()
        .map(|policy| Compiled {
            policy,
            program: Program::compile(policy.expression).ok(),
            message_program: Program::compile(&policy.message_expression()).ok(),
        })
        .collect()
});

pub(super) fn prepare() {
    LazyLock::force(&COMPILED);
}

/// Judges an object against the other objects of its realm, and against DomainClaims, by the admission policies.
///
/// Only objects of the same namespace and DomainClaims are looked at; `others` may hold the object itself and any other
/// kind. What the API server's authorizer would decide (VAP-7) passes. Each pair costs an evaluation: for thousands of objects
/// the compiler's index gives the same answers.
pub fn admit<'a>(object: &Value, old: Option<&Value>, others: impl IntoIterator<Item = &'a Value>) -> Report {
    let mut report = Report::default();
    let Some(kind) = Kind::of(object) else { return report };
    // `matchConditions`: an update that leaves the spec alone is not judged again.
    if old.is_some_and(|old| old.get("spec") == object.get("spec")) {
        return report;
    }
    let policies: Vec<_> =
        COMPILED.iter().filter(|compiled| compiled.policy.kind == kind && !compiled.policy.needs_authorizer).collect();
    let mut params_kinds: Vec<_> = policies.iter().filter_map(|compiled| compiled.policy.params).collect();
    params_kinds.dedup();
    if params_kinds.is_empty() {
        return report;
    }

    let namespace = namespace(object);
    let mut realm = cel::scope();
    realm.add_variable_from_value("object", cel::to_cel(object));
    realm.add_variable_from_value("oldObject", old.map_or(CelValue::Null, cel::to_cel));
    realm.add_variable_from_value("namespaceObject", cel::to_cel(&json!({ "metadata": { "name": namespace } })));
    for other in others {
        let Some(other_kind) = Kind::of(other).filter(|kind| params_kinds.contains(kind)) else { continue };
        if other_kind.is_namespaced() && self::namespace(other) != namespace {
            continue;
        }
        let mut scope = realm.new_inner_scope();
        scope.add_variable_from_value("params", cel::to_cel(other));
        for compiled in policies.iter().filter(|compiled| compiled.policy.params == Some(other_kind)) {
            if cel::holds(compiled.program.as_ref(), &scope) {
                continue;
            }
            let text =
                cel::spoken(compiled.message_program.as_ref(), &scope).unwrap_or_else(|| compiled.policy.message());
            let violation = Violation::from_sentences(FieldPath::from_dotted(compiled.policy.field_path), &text);
            match compiled.policy.enforcement {
                Enforcement::Deny => report.violations.push(violation),
                Enforcement::Warn => report.warnings.push(violation),
            }
        }
    }
    report
}

/// The namespace of a document; manifests without one go to `default`.
fn namespace(document: &Value) -> &str {
    document.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default")
}
