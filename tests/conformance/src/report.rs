//! Makes the table, in Markdown, and the complaints.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::citation::Citation;
use crate::lines::COLUMNS;
use crate::list::{List, Reason, Requirement};

const HEAD: &str = "\
# Conformance

The requirements of the patent and the RFCs, and the test that shows each. This file is made by `scripts/conformance`
from the lists in [`conformance/`](conformance) and from citations, lines `//= LIST ID` above tests and above the code
that obeys: do not edit it. `cargo test -p outlast-conformance` fails if it is out of date, if a requirement has neither
a test nor a reason, or if a citation names a missing requirement.

*Not applicable*: nothing in this server could break it. *Not met*: the server does otherwise, for the reason given.
*Open*: not built yet. *Checked*: what the list itself was compared with.

";

/// The status counts of a list's requirements.
#[derive(Default)]
struct Count {
    shown: usize,
    not_met: usize,
    not_applicable: usize,
    open: usize,
}

/// Makes the table and the complaints: a citation of something that is not listed, a requirement with neither test nor
/// reason, or with both.
pub fn report(lists: &[List], citations: &[Citation]) -> (String, Vec<String>) {
    let mut cited: BTreeMap<(&str, &str), Vec<&Citation>> = BTreeMap::new();
    for citation in citations {
        let key = (citation.list.as_str(), citation.id.as_str());
        cited.entry(key).or_default().push(citation);
    }
    let mut wrong = Vec::new();
    let mut summary = String::from(
        "| | shown by tests | not met | not applicable | open |\n|---|---|---|---|---|\n",
    );
    let mut body = String::new();
    for list in lists {
        let mut count = Count::default();
        let title = &list.title;
        let about = wrapped(&list.about);
        let checked = wrapped(&format!("Checked: {}", list.checked));
        let _ = write!(body, "\n## {title}\n\n{about}\n\n{checked}\n\n");
        body.push_str("| | § | | how |\n|---|---|---|---|\n");
        for requirement in &list.requirement {
            let key = (list.key.as_str(), requirement.id.as_str());
            let citations = cited.remove(&key).unwrap_or_default();
            if let Some(complaint) = complaint(requirement, &citations) {
                wrong.push(format!("{} {}: {complaint}", key.0, key.1));
            }
            count.add(requirement);
            let Requirement {
                id,
                level,
                section,
                text,
                ..
            } = requirement;
            let name = match id.starts_with(level.as_str()) {
                true => id.clone(),
                false => format!("{id} {level}"),
            };
            let how = how(requirement, &citations);
            let _ = writeln!(body, "| {name} | {section} | {} | {how} |", text.trim());
        }
        let Count {
            shown,
            not_met,
            not_applicable,
            open,
        } = count;
        let _ = writeln!(
            summary,
            "| {title} | {shown} | {not_met} | {not_applicable} | {open} |"
        );
    }
    for citation in cited.values().flatten() {
        let Citation {
            list,
            id,
            file,
            line,
            ..
        } = citation;
        wrong.push(format!("{file}:{line}: {list} {id} is not listed"));
    }
    (format!("{HEAD}{summary}{body}"), wrong)
}

/// Breaks a paragraph into lines of at most [`COLUMNS`].
fn wrapped(paragraph: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in paragraph.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

impl Count {
    fn add(&mut self, requirement: &Requirement) {
        let which = match requirement.reason() {
            None => &mut self.shown,
            Some(Reason::NotMet(_)) => &mut self.not_met,
            Some(Reason::NotApplicable(_)) => &mut self.not_applicable,
            Some(Reason::Open(_)) => &mut self.open,
        };
        *which += 1;
    }
}

fn complaint(requirement: &Requirement, citations: &[&Citation]) -> Option<&'static str> {
    let tested = citations.iter().any(|citation| citation.test.is_some());
    match requirement.reason() {
        None if !tested => Some("neither a test cites it nor a reason is given"),
        Some(_) if tested => Some("a reason is given, and yet a test cites it"),
        Some(Reason::NotApplicable(_)) if !citations.is_empty() => {
            Some("it does not apply, and yet code cites it")
        }
        _ => None,
    }
}

/// The reason, the tests and the places of the code, by file.
fn how(requirement: &Requirement, citations: &[&Citation]) -> String {
    let mut parts = Vec::new();
    parts.extend(requirement.reason().map(|reason| match reason {
        Reason::NotApplicable(why) => format!("*not applicable*: {}", why.trim()),
        Reason::NotMet(why) => format!("*not met*: {}", why.trim()),
        Reason::Open(why) => format!("*open*: {}", why.trim()),
    }));
    let mut tests: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut code: Vec<&str> = Vec::new();
    for citation in citations {
        match &citation.test {
            Some(test) => tests.entry(&citation.file).or_default().push(test),
            None => code.push(&citation.file),
        }
    }
    parts.extend(tests.iter().map(|(file, names)| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        format!("{} in {}", names.join(", "), link(file))
    }));
    code.dedup();
    if !code.is_empty() {
        let links: Vec<String> = code.iter().map(|file| link(file)).collect();
        parts.push(format!("code: {}", links.join(", ")));
    }
    parts.join("; ")
}

fn link(file: &str) -> String {
    format!("[{file}](../{file})")
}
