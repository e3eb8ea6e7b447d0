//! Writes `e2e/coverage.md`: each item of `e2e/items.txt` with the tests that name it.
//!
//! A test names items in a comment on or in it, in exactly this form: `// A-01, A-03`. With `--check`
//! nothing is written and the program fails when the file is stale.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> Result<ExitCode> {
    let check = std::env::args().any(|argument| argument == "--check");
    let e2e = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = e2e.parent().context("the crate lies in the workspace")?;
    let items = read_items(&e2e.join("items.txt"))?;
    let mut sources = Vec::new();
    collect(root, &mut sources)?;
    sources.sort();
    let mut claims: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources {
        let text = fs::read_to_string(&path)?;
        let name = path.strip_prefix(root)?.display().to_string();
        for (id, test) in claims_in(&text, is_test_file(&path)) {
            if !items.iter().any(|item| item.id == id) {
                bail!("{name}: {id} is no item of e2e/items.txt");
            }
            let tests = claims.entry(id).or_default();
            let claim = format!("`{name}` {test}");
            if !tests.contains(&claim) {
                tests.push(claim);
            }
        }
    }
    let text = render(&items, &claims);
    let target = e2e.join("coverage.md");
    if !check {
        fs::write(&target, text)?;
        return Ok(ExitCode::SUCCESS);
    }
    if fs::read_to_string(&target).unwrap_or_default() == text {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("e2e/coverage.md is stale: run `make coverage` and commit the file");
    Ok(ExitCode::FAILURE)
}

struct Item {
    section: String,
    id: String,
    words: String,
}

fn read_items(path: &Path) -> Result<Vec<Item>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut section = String::new();
    let mut items: Vec<Item> = Vec::new();
    // The first line explains the file.
    for line in text.lines().skip(1) {
        if let Some(title) = line.strip_prefix("# ") {
            title.clone_into(&mut section);
        } else if let Some((id, words)) = line.split_once(' ') {
            if !is_id(id) || items.iter().any(|item| item.id == id) {
                bail!("{}: {id} is malformed or there twice", path.display());
            }
            items.push(Item { section: section.clone(), id: id.to_owned(), words: words.to_owned() });
        }
    }
    Ok(items)
}

/// All Rust sources of the workspace.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && !name.starts_with("target") {
                collect(&path, found)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// Files that hold nothing but tests.
fn is_test_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

/// The ids in a source with the test that each belongs to.
fn claims_in(text: &str, only_tests: bool) -> Vec<(String, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut in_tests = only_tests;
    let mut last = "(file)";
    let mut claims = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let line = line.trim();
        in_tests |= line.starts_with("#[cfg(test)]");
        if let Some(name) = function(line) {
            last = name;
        }
        let Some((_, comment)) = line.split_once("// ") else { continue };
        let ids: Vec<&str> = comment.split(", ").collect();
        if !in_tests || !ids.iter().all(|id| is_id(id)) {
            continue;
        }
        let on = line.starts_with("//").then(|| next_function(lines.get(number + 1..).unwrap_or_default())).flatten();
        let test = on.unwrap_or(last);
        claims.extend(ids.iter().map(|id| ((*id).to_owned(), test.to_owned())));
    }
    claims
}

/// The function that starts after nothing but attributes, comments and empty lines.
fn next_function<'a>(lines: &[&'a str]) -> Option<&'a str> {
    for line in lines {
        let line = line.trim();
        if let Some(name) = function(line) {
            return Some(name);
        }
        if !(line.is_empty() || line.starts_with("#[") || line.starts_with("//")) {
            return None;
        }
    }
    None
}

/// The name of the function that this line starts.
fn function(line: &str) -> Option<&str> {
    let rest = ["fn ", "async fn ", "pub fn ", "pub async fn ", "pub(crate) fn ", "pub(super) fn "]
        .iter()
        .find_map(|prefix| line.strip_prefix(prefix))?;
    rest.split(['(', '<', ' ']).next()
}

/// One capital letter, a minus sign, two or three digits.
fn is_id(text: &str) -> bool {
    let Some((letter, number)) = text.split_once('-') else { return false };
    matches!(letter.as_bytes(), [b'A'..=b'Z'])
        && (2..=3).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
}

fn render(items: &[Item], claims: &BTreeMap<String, Vec<String>>) -> String {
    let covered = items.iter().filter(|item| claims.contains_key(&item.id)).count();
    let mut text = format!(
        "# Coverage\n\nWritten by `make coverage` from `e2e/items.txt` and from the ids that tests name. \
         {covered} of {} items have a test.\n",
        items.len()
    );
    let mut section = "";
    for item in items {
        if item.section != section {
            section = &item.section;
            let _ = write!(text, "\n## {section}\n\n| item | what | tests |\n|---|---|---|\n");
        }
        let tests = claims.get(&item.id).map_or_else(|| "none".to_owned(), |tests| tests.join("<br>"));
        let _ = writeln!(text, "| {} | {} | {tests} |", item.id, item.words);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_belongs_to_the_test_it_stands_on_or_in() {
        let text = "fn ignored() {} // Q-01\n#[cfg(test)]\nmod tests {\n    // Q-02, Q-103\n    #[test]\n    fn on() {}\n\
                    \n    #[test]\n    fn within() {\n        // Q-04\n        let x = 1; // Q-05\n    }\n    // no Q-06\n}\n";
        let claims = claims_in(text, false);
        let expected = [("Q-02", "on"), ("Q-103", "on"), ("Q-04", "within"), ("Q-05", "within")];
        assert_eq!(claims, expected.map(|(id, test)| (id.to_owned(), test.to_owned())));
    }
}
