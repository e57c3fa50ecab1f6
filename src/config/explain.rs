//! Explains an error of the TOML parser in one line for the person who wrote the file.

use std::path::Path;

use super::Error;

/// The similarity from which on a name is treated as a misspelling (Jaro-Winkler: 1 is the same name).
const SIMILAR: f64 = 0.8;

/// The parser's error as one line: place, key, problem and remedy.
pub(super) fn explain(path: &Path, text: &str, mut error: toml::de::Error) -> Error {
    let line = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map(|before| before.matches('\n').count() + 1);
    let found = error
        .message()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    // Without its input the error shows its message and, in a second line, the path of the key, which is available in
    // no other way.
    error.set_input(None);
    let shown = error.to_string();
    let mut key = shown
        .lines()
        .find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'))
        .unwrap_or_default()
        .to_owned();
    let is_syntax = key.is_empty();
    if is_syntax && let Some(line) = line {
        key = key_of_line(text, line);
    }
    let (problem, remedy) = if let Some(name) = quoted_after(&found, "unknown field ") {
        // The path may or may not end in the unknown key itself.
        if key.rsplit('.').next() != Some(name) {
            key = join(&key, name);
        }
        unknown_key(name, &found)
    } else if let Some(name) = quoted_after(&found, "missing field ") {
        key = join(&key, name);
        (format!("the key {name:?} is missing"), "add it".into())
    } else if key == "share" && found.starts_with("invalid type: map") {
        (
            "[share] is one table, and there may be several shares".into(),
            "write [[share]], with two brackets".into(),
        )
    } else if let Some(types) = wrong_type(&found) {
        types
    } else if found.starts_with("duplicate") {
        (found, "keep one of them".into())
    } else if is_syntax {
        (found, "correct the TOML syntax".into())
    } else {
        (
            found,
            "correct it; the documentation lists every key".into(),
        )
    };
    Error {
        file: path.to_owned(),
        line,
        key,
        problem,
        remedy,
    }
}

/// Problem and remedy of "unknown field `a`, expected one of `b`, `c`".
fn unknown_key(name: &str, found: &str) -> (String, String) {
    // Every second piece between backticks is a name; the first of them is the unknown one.
    let known: Vec<&str> = found.split('`').skip(1).step_by(2).skip(1).collect();
    let similarity = |of: &&str| strsim::jaro_winkler(name, of);
    let nearest = known
        .iter()
        .copied()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
        .filter(|of| similarity(of) >= SIMILAR);
    let remedy = match nearest {
        Some(nearest) => format!("write {nearest:?}"),
        None => format!("remove it, or use one of {}", known.join(", ")),
    };
    (format!("there is no key {name:?}"), remedy)
}

/// Problem and remedy of "invalid type: string "x", expected i64".
fn wrong_type(found: &str) -> Option<(String, String)> {
    let rest = found
        .strip_prefix("invalid type: ")
        .or_else(|| found.strip_prefix("invalid value: "))?;
    let (is, expected) = rest.rsplit_once(", expected ")?;
    let is = match is.strip_prefix("map") {
        Some(_) => "a table".to_owned(),
        None if is == "sequence" => "a list".to_owned(),
        None => is.replace('`', ""),
    };
    let (wanted, remedy) = match expected {
        "i64" => ("a whole number", "write a number without quotes"),
        "a boolean" => ("true or false", "write true or false, without quotes"),
        "a string" => ("a text", "write it in quotes"),
        "a sequence" => ("a list", "write it in brackets: [\"...\"]"),
        struct_ if struct_.starts_with("struct ") => {
            ("a table", "write it as a [section] with its keys below")
        }
        other => (other, "write that"),
    };
    Some((format!("{is}, where {wanted} is expected"), remedy.into()))
}

/// The key that a line (from 1) sets, as far as text that is not TOML shows it.
fn key_of_line(text: &str, line: usize) -> String {
    let mut section = "";
    let mut key = "";
    for line in text.lines().take(line) {
        let line = line.trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            key = "";
        } else if let Some((name, _)) = line.split_once('=') {
            key = name.trim();
        }
    }
    match (section, key) {
        ("", key) => key.to_owned(),
        (section, "") => section.to_owned(),
        (section, key) => join(section, key),
    }
}

fn quoted_after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.strip_prefix(prefix)?
        .strip_prefix('`')?
        .split('`')
        .next()
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}
