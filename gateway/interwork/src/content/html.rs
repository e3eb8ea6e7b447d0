//! HTML to plain text, for messages of a line or two.
//!
//! This is no HTML parser. It leaves out tags, comments and what browsers do not show, keeps text, and turns blocks
//! into lines. It takes any input and its output is never longer than its input by more than a few characters.

/// Elements whose beginning and end start a new line.
const BLOCKS: [&str; 15] =
    ["br", "p", "div", "li", "tr", "ul", "ol", "table", "blockquote", "pre", "h1", "h2", "h3", "h4", "hr"];

/// Elements whose text is not shown.
const HIDDEN: [&str; 5] = ["script", "style", "head", "title", "template"];

/// The text of an HTML document or fragment.
pub(super) fn to_plain(html: &str) -> String {
    let mut out = Plain { text: String::with_capacity(html.len()), space: false };
    let mut rest = html;
    while let Some(c) = rest.chars().next() {
        let (piece, tail) = match c {
            '<' => markup(rest, &mut out),
            '&' => {
                let (shown, length) = reference(rest);
                shown.chars().for_each(|c| out.push(c));
                rest.split_at_checked(length).unwrap_or((rest, ""))
            }
            _ => {
                out.push(c);
                rest.split_at_checked(c.len_utf8()).unwrap_or((rest, ""))
            }
        };
        debug_assert!(!piece.is_empty());
        rest = tail;
    }
    out.text.trim().to_owned()
}

/// Text under construction: blanks are joined, and a line break swallows them.
struct Plain {
    text: String,
    space: bool,
}

impl Plain {
    fn push(&mut self, c: char) {
        if c.is_ascii_whitespace() {
            self.space = true;
            return;
        }
        if std::mem::take(&mut self.space) && !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push(' ');
        }
        self.text.push(c);
    }

    fn line(&mut self, forced: bool) {
        self.space = false;
        if forced || !(self.text.is_empty() || self.text.ends_with('\n')) {
            self.text.push('\n');
        }
    }
}

/// Takes a tag, comment or declaration from the front; what never ends is taken whole. A `<` that begins
/// nothing is text.
fn markup<'a>(html: &'a str, out: &mut Plain) -> (&'a str, &'a str) {
    let until = |end: &str| match html.find(end) {
        Some(at) => html.split_at_checked(at + end.len()).unwrap_or((html, "")),
        None => (html, ""),
    };
    if html.starts_with("<!--") {
        return until("-->");
    }
    let inner = html.strip_prefix('<').unwrap_or(html);
    let (closing, name) = match inner.strip_prefix('/') {
        Some(name) => (true, name),
        None => (false, inner),
    };
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '!' | '?')) {
        out.push('<');
        return html.split_at_checked(1).unwrap_or((html, ""));
    }
    let name: String =
        name.chars().take_while(char::is_ascii_alphanumeric).take(16).collect::<String>().to_ascii_lowercase();
    let (tag, rest) = html.split_at_checked(tag_length(html)).unwrap_or((html, ""));
    if HIDDEN.contains(&name.as_str()) && !closing && !tag.ends_with("/>") {
        return hidden(html, tag.len(), &name);
    }
    if BLOCKS.contains(&name.as_str()) {
        out.line(name == "br" && !closing);
    }
    (tag, rest)
}

/// Length of the tag at the front; quoted attribute values may hold `>`.
fn tag_length(html: &str) -> usize {
    let mut quote = None;
    for (at, b) in html.bytes().enumerate() {
        match (quote, b) {
            (None, b'>') => return at + 1,
            (None, b'"' | b'\'') => quote = Some(b),
            (Some(open), b) if open == b => quote = None,
            _ => {}
        }
    }
    html.len()
}

/// Takes an element whose text is not shown, to its end tag or the end of everything.
fn hidden<'a>(html: &'a str, from: usize, name: &str) -> (&'a str, &'a str) {
    let mut at = from;
    while let Some(found) = html.get(at..).and_then(|rest| rest.find("</")) {
        let end = at + found;
        let after = html.get(end + 2..).unwrap_or("");
        if after.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)) {
            return html.split_at_checked(end + tag_length(html.get(end..).unwrap_or(""))).unwrap_or((html, ""));
        }
        at = end + 2;
    }
    (html, "")
}

/// Reads a character reference: what it shows, and how long it is. What is none is shown as it is.
fn reference(html: &str) -> (String, usize) {
    let plain = || ("&".to_owned(), 1);
    let Some(end) = html.bytes().take(12).position(|b| b == b';') else { return plain() };
    let Some(name) = html.get(1..end) else { return plain() };
    let c = match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        _ => name.strip_prefix('#').and_then(number),
    };
    c.map_or_else(plain, |c| (c.to_string(), end + 1))
}

fn number(digits: &str) -> Option<char> {
    let (digits, radix) = match digits.strip_prefix(['x', 'X']) {
        Some(hex) => (hex, 16),
        None => (digits, 10),
    };
    let sound = digits.bytes().all(|b| b.is_ascii_hexdigit());
    u32::from_str_radix(digits, radix).ok().filter(|_| sound).and_then(char::from_u32).filter(|c| *c != '\0')
}
