//! A writer of YAML for generated files: sorted keys, no surprises for readers of YAML 1.1 such as kubectl.

use std::fmt::Write as _;

use serde_json::Value;

/// Widest line of a folded text.
const WIDTH: usize = 120;

/// Words that some reader of YAML takes for something else than a string.
const NOT_PLAIN: &[&str] = &["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"];

/// Writes a JSON value as block-style YAML with sorted keys.
///
/// Strings are plain only where no version of YAML reads them as anything else; a long `description` is folded.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(_) | Value::Array(_) if !is_empty(value) => block(&mut out, value, 0, false),
        _ => {
            out.push_str(&scalar(value));
            out.push('\n');
        }
    }
    out
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Writes the entries of a mapping or sequence; `inline` says that the first one stands on a line already begun.
fn block(out: &mut String, value: &Value, indent: usize, inline: bool) {
    let mut first = inline;
    let mut begin = |out: &mut String| {
        if !std::mem::take(&mut first) {
            out.extend(std::iter::repeat_n(' ', indent));
        }
    };
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_str());
            for (key, child) in entries {
                begin(out);
                out.push_str(&text(key));
                out.push(':');
                if key == "description" && child.as_str().is_some_and(|text| foldable(text, indent)) {
                    folded(out, child.as_str().unwrap_or_default(), indent + 2);
                } else if is_empty(child) || !(child.is_object() || child.is_array()) {
                    let _ = writeln!(out, " {}", scalar(child));
                } else {
                    out.push('\n');
                    // Sequences stand at the column of their key, as Kubernetes' own generators write them.
                    block(out, child, if child.is_array() { indent } else { indent + 2 }, false);
                }
            }
        }
        Value::Array(list) => {
            for child in list {
                begin(out);
                out.push_str("- ");
                if is_empty(child) || !(child.is_object() || child.is_array()) {
                    let _ = writeln!(out, "{}", scalar(child));
                } else {
                    block(out, child, indent + 2, true);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let _ = writeln!(out, "{}", scalar(value));
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        Value::Object(_) => "{}".into(),
        Value::Array(_) => "[]".into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A string, plain where that is safe, else in double quotes as JSON writes it, which is YAML too.
fn text(string: &str) -> String {
    let plain = string.starts_with(|c: char| c.is_ascii_alphabetic())
        && string.chars().all(|c| c.is_ascii_alphanumeric() || " ._/-".contains(c))
        && !string.ends_with(' ')
        && !NOT_PLAIN.contains(&string.to_ascii_lowercase().as_str());
    if plain { string.to_owned() } else { Value::from(string).to_string() }
}

fn foldable(text: &str, indent: usize) -> bool {
    text.len() + indent > WIDTH - 20 && text.split(' ').all(|word| !word.is_empty()) && !text.contains(['\n', '\t'])
}

/// Writes a text of single-spaced words over several lines.
fn folded(out: &mut String, text: &str, indent: usize) {
    out.push_str(" >-");
    let mut column = WIDTH;
    for word in text.split(' ') {
        if column + 1 + word.len() > WIDTH {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let value = json!({
            "words": ["Off", "yes", "plain", "0123", "a: b", "# c", "- d", "", " e", "f ", "{g}", "null", "é", "line\nbreak", "tab\t"],
            "description": "word ".repeat(60).trim_end(),
            "nested": {"empty": {}, "none": [], "list": [{"a": 1, "b": [true, null, -2.5]}, [["deep"]]]},
            "odd key: x": "v",
            "N": "n",
        });
        let read: Value = serde_saphyr::from_str(&to_yaml(&value)).unwrap();
        assert_eq!(read, value);
    }

    #[test]
    fn words_of_yaml_one_one_are_quoted() {
        assert_eq!(to_yaml(&json!({"dane": "Off", "y": "No"})), "dane: \"Off\"\n\"y\": \"No\"\n");
    }
}
