//! Finds citations: lines `//= LIST ID, ID` in Rust source.

/// The prefix of a citation.
const MARK: &str = "//=";

/// A requirement cited at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Citation {
    /// Key of the list.
    pub list: String,
    /// Identifier in it.
    pub id: String,
    /// Path in the repository.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The test below it; `None`: it is in code.
    pub test: Option<String>,
}

/// Finds the citations of a source file, and their errors.
///
/// A citation right above a `#[test]` function (comments and attributes may lie between) belongs to that test.
/// Elsewhere in tests a citation would show nothing, and is an error; so is one of an ignored test.
pub fn find(file: &str, source: &str) -> (Vec<Citation>, Vec<String>) {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let mut in_tests = file
        .split('/')
        .any(|part| part == "tests" || part == "tests.rs");
    let mut citations = Vec::new();
    let mut wrong = Vec::new();
    for (index, text) in lines.iter().enumerate() {
        // A module in its own file is not in this one.
        let elsewhere = lines.get(index + 1).is_some_and(|next| next.ends_with(';'));
        in_tests |= *text == "#[cfg(test)]" && !elsewhere;
        let Some(cited) = text.strip_prefix(MARK) else {
            continue;
        };
        let line = index + 1;
        let Some((list, ids)) = cited.trim().split_once(' ') else {
            wrong.push(format!("{file}:{line}: a citation is `{MARK} LIST ID, ID`"));
            continue;
        };
        let below = &lines[line..];
        let test = match test_at(below) {
            Subject::Test(name) => Some(name.to_owned()),
            Subject::Ignored(name) => {
                wrong.push(format!(
                    "{file}:{line}: {name} is ignored, so it shows nothing"
                ));
                continue;
            }
            Subject::Code if in_tests => {
                wrong.push(format!(
                    "{file}:{line}: in tests a citation stands above a #[test]"
                ));
                continue;
            }
            Subject::Code => None,
        };
        citations.extend(ids.split(',').map(|id| Citation {
            list: list.to_owned(),
            id: id.trim().to_owned(),
            file: file.to_owned(),
            line,
            test: test.clone(),
        }));
    }
    (citations, wrong)
}

/// The subject of a citation.
enum Subject<'a> {
    Test(&'a str),
    Ignored(&'a str),
    Code,
}

/// Determines the subject from the lines below a citation.
fn test_at<'a>(below: &[&'a str]) -> Subject<'a> {
    let (mut test, mut ignored) = (false, false);
    for line in below {
        if line.starts_with("//") {
            continue;
        }
        if line.starts_with("#[") {
            test |= *line == "#[test]";
            ignored |= line.starts_with("#[ignore");
            continue;
        }
        let name = line
            .strip_prefix("fn ")
            .and_then(|rest| rest.split(['(', '<']).next());
        return match name {
            Some(name) if test && ignored => Subject::Ignored(name),
            Some(name) if test => Subject::Test(name),
            _ => Subject::Code,
        };
    }
    Subject::Code
}
