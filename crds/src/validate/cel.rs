//! CEL in process: programs are compiled once, values are converted per node that has rules.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use kube::core::cel::KubeCelExt;
use kube::core::cel::cel::objects::{Key, Map};
use kube::core::cel::cel::{Context, Program, Value as CelValue};
use serde_json::Value;

use super::{FieldPath, Violation};

/// The functions of Kubernetes' CEL, registered once; evaluations open scopes in it.
static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(|| Context::default().with_all());

/// A rule of a schema node, ready to run.
pub(super) struct CompiledRule {
    // A test compiles every rule, so `None` cannot be met; it would refuse every document.
    program: Option<Program>,
    is_transition: bool,
    message: String,
    message_program: Option<Program>,
    field_path: FieldPath,
}

impl CompiledRule {
    /// Compiles an entry of `x-kubernetes-validations`.
    pub(super) fn compile(rule: &Value) -> Self {
        let word = |field: &str| rule.get(field).and_then(Value::as_str);
        let program = word("rule").and_then(|text| Program::compile(text).ok());
        Self {
            is_transition: program.as_ref().is_some_and(|program| program.references().has_variable("oldSelf")),
            program,
            message: word("message").unwrap_or("a rule of the schema does not hold. Correct the fields.").to_owned(),
            message_program: word("messageExpression").and_then(|text| Program::compile(text).ok()),
            field_path: FieldPath::from_dotted(word("fieldPath").unwrap_or_default()),
        }
    }
}

/// Evaluates the rules of one node. A transition rule without a former value is not evaluated, as in the API server.
pub(super) fn check_rules(
    rules: &[CompiledRule],
    value: &Value,
    old: Option<&Value>,
    path: &FieldPath,
    violations: &mut Vec<Violation>,
) {
    if rules.is_empty() {
        return;
    }
    let mut scope = FUNCTIONS.new_inner_scope();
    scope.add_variable_from_value("self", to_cel(value));
    if let Some(old) = old.filter(|_| rules.iter().any(|rule| rule.is_transition)) {
        scope.add_variable_from_value("oldSelf", to_cel(old));
    }
    for rule in rules {
        if rule.is_transition && old.is_none() {
            continue;
        }
        if !holds(rule.program.as_ref(), &scope) {
            let text = spoken(rule.message_program.as_ref(), &scope).unwrap_or_else(|| rule.message.clone());
            violations.push(Violation::from_sentences(path.join(&rule.field_path), &text));
        }
    }
}

/// True when the program says so; whatever cannot be evaluated does not hold.
pub(super) fn holds(program: Option<&Program>, scope: &Context<'_>) -> bool {
    program.is_some_and(|program| matches!(program.execute(scope), Ok(CelValue::Bool(true))))
}

/// The text that a message expression gives, when it gives one.
pub(super) fn spoken(program: Option<&Program>, scope: &Context<'_>) -> Option<String> {
    match program?.execute(scope) {
        // Values of documents are in it; escapes keep control characters out of messages.
        Ok(CelValue::String(text)) if !text.is_empty() => Some(
            text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect(),
        ),
        _ => None,
    }
}

/// A scope with the functions and no variables.
pub(super) fn scope() -> Context<'static> {
    FUNCTIONS.new_inner_scope()
}

/// Converts a value as the API server does for untyped objects: whole numbers are `int`, names that CEL reserves are escaped.
pub(super) fn to_cel(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(truth) => CelValue::Bool(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => CelValue::Int(number),
            (None, Some(number)) => CelValue::UInt(number),
            (None, None) => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(entries) => CelValue::List(Arc::new(entries.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let map: HashMap<Key, CelValue> =
                fields.iter().map(|(name, field)| (Key::String(Arc::new(escaped(name))), to_cel(field))).collect();
            CelValue::Map(Map { map: Arc::new(map) })
        }
    }
}

/// The name under which CEL finds a field (Kubernetes' escaping of field names).
fn escaped(name: &str) -> String {
    const RESERVED: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains(['_', '.', '-', '/']) {
        return name.to_owned();
    }
    name.replace('_', "__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}
