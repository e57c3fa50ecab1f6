use super::{below, parent, parse};
use crate::status::NtStatus;

#[test]
fn names_become_paths() {
    for (name, path) in [
        ("", ""),
        ("a", "a"),
        ("a\\b.txt", "a/b.txt"),
        ("a\\", "a"),
        ("grün\\ß", "grün/ß"),
    ] {
        assert_eq!(parse(name), Ok(path.to_string()), "{name}");
    }
}

#[test]
fn names_no_file_can_have_are_refused() {
    for (name, status) in [
        ("\\a", NtStatus::INVALID_PARAMETER),
        ("a\\..\\b", NtStatus::OBJECT_PATH_SYNTAX_BAD),
        ("..", NtStatus::OBJECT_PATH_SYNTAX_BAD),
        ("a\\.\\b", NtStatus::OBJECT_NAME_INVALID),
        ("a\\\\b", NtStatus::OBJECT_NAME_INVALID),
        ("a/b", NtStatus::OBJECT_NAME_INVALID),
        ("a*", NtStatus::OBJECT_NAME_INVALID),
        ("a:stream", NtStatus::OBJECT_NAME_INVALID),
        ("a\u{1}", NtStatus::OBJECT_NAME_INVALID),
    ] {
        assert_eq!(parse(name), Err(status), "{name}");
    }
    assert_eq!(parse(&"x".repeat(256)), Err(NtStatus::OBJECT_NAME_INVALID));
    assert!(parse(&"x".repeat(255)).is_ok());
}

#[test]
fn below_compares_without_case() {
    assert_eq!(below("Dir/Sub/f", "dir/sub"), Some("f"));
    assert_eq!(below("Dir/Sub/f", "dir"), Some("Sub/f"));
    assert_eq!(below("Directory/f", "dir"), None);
    assert_eq!(below("dir", "dir"), None);
    assert_eq!(below("f", ""), Some("f"));
    assert_eq!(below("", ""), None);
    assert_eq!(parent("a/b"), Some("a"));
    assert_eq!(parent("a"), Some(""));
    assert_eq!(parent(""), None);
}
