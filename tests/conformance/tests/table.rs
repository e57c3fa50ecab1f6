//! Tests that the table is up to date and complete, and that errors of lists and citations are found.

use outlast_conformance::{TABLE, citation, examine, list, report, repository};

/// The prefix of a citation; written so that this file cites nothing.
const CITE: &str = concat!("//", "=");

#[test]
fn the_table_is_up_to_date_and_whole() {
    let repository = repository();
    let (table, complaints) = examine(&repository).expect("lists and sources");
    assert!(complaints.is_empty(), "{complaints:#?}");
    let there = std::fs::read_to_string(repository.join(TABLE)).expect(TABLE);
    assert!(
        there == table,
        "{TABLE} is out of date: run scripts/conformance"
    );
}

fn one(reason: &str) -> list::List {
    list::parse(&format!(
        "key = \"rfc1\"\ntitle = \"RFC 1\"\nabout = \"all\"\nchecked = \"by hand.\"\n[[requirement]]\nid = \
         \"MUST-1\"\nlevel = \"MUST\"\ntext = \"be\"\n{reason}"
    ))
    .expect("a list")
}

fn complaints(list: &list::List, file: &str, source: &str) -> Vec<String> {
    let (citations, mut wrong) = citation::find(file, source);
    wrong.extend(report::report(std::slice::from_ref(list), &citations).1);
    wrong
}

#[test]
fn a_test_or_a_reason_is_asked_for_and_not_both() {
    let test = format!("{CITE} rfc1 MUST-1\n/// Shows it.\n#[test]\nfn shown() {{}}\n");
    let code = format!("    {CITE} rfc1 MUST-1\n    if be {{}}\n");
    let missing = ["rfc1 MUST-1: neither a test cites it nor a reason is given"];
    assert_eq!(complaints(&one(""), "a/tests.rs", &test), [""; 0]);
    assert_eq!(complaints(&one(""), "a.rs", &code), missing);
    assert_eq!(complaints(&one(""), "a.rs", ""), missing);
    for reason in ["not_applicable", "not_met", "open"] {
        let list = one(&format!("{reason} = \"because\""));
        assert_eq!(complaints(&list, "a.rs", ""), [""; 0]);
        assert_eq!(complaints(&list, "a.rs", &test).len(), 1, "{reason}");
        let code = complaints(&list, "a.rs", &code).len();
        assert_eq!(code, usize::from(reason == "not_applicable"), "{reason}");
    }
}

#[test]
fn citations_that_show_nothing_are_refused() {
    let list = one("open = \"\"");
    for (source, expected) in [
        (format!("{CITE} rfc1 MUST-2\n"), "rfc1 MUST-2 is not listed"),
        (format!("{CITE} rfc2 MUST-1\n"), "rfc2 MUST-1 is not listed"),
        (format!("{CITE} MUST-1\n"), "a citation is"),
        (
            format!("#[cfg(test)]\nmod tests {{\n{CITE} rfc1 MUST-1\nfn no_test() {{}}\n"),
            "above a #[test]",
        ),
        (
            format!("{CITE} rfc1 MUST-1\n#[test]\n#[ignore = \"long\"]\nfn long() {{}}\n"),
            "long is ignored",
        ),
    ] {
        let wrong = complaints(&list, "a.rs", &source);
        assert!(
            wrong.len() == 1 && wrong[0].contains(expected) && wrong[0].starts_with("a.rs:"),
            "{source} {wrong:?}"
        );
    }
}

#[test]
fn a_row_names_the_tests_and_the_code() {
    let source = format!(
        "#[cfg(test)]\nmod tests;\n{CITE} rfc1 MUST-1\nif be {{}}\n#[cfg(test)]\nproptest! {{\n{CITE} rfc1 \
         MUST-1\n#[test]\nfn one(a: u8) {{}}\n}}\n"
    );
    let (citations, wrong) = citation::find("a/b.rs", &source);
    assert!(wrong.is_empty());
    let (table, _) = report::report(&[one("")], &citations);
    let row = "| MUST-1 |  | be | `one` in [a/b.rs](../a/b.rs); code: [a/b.rs](../a/b.rs) |";
    assert!(table.contains(row), "{table}");
    assert!(table.contains("| RFC 1 | 1 | 0 | 0 | 0 |"), "{table}");
    let head = "## RFC 1\n\nall\n\nChecked: by hand.\n";
    assert!(table.contains(head), "{table}");
}

#[test]
fn lists_that_contradict_themselves_are_refused() {
    let head = "key = \"k\"\ntitle = \"t\"\nabout = \"a\"\nchecked = \"c\"\n";
    let entry = "[[requirement]]\nid = \"1\"\nlevel = \"MUST\"\ntext = \"t\"\n";
    for (text, expected) in [
        (format!("{head}{entry}{entry}"), "twice"),
        (
            format!("{head}{entry}open = \"\"\nnot_met = \"\"\n"),
            "more than one",
        ),
        (format!("{head}{entry}opne = \"\"\n"), "opne"),
    ] {
        let error = list::parse(&text).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}
