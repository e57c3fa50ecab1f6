use super::is_name;

#[test]
fn names_have_no_separators_and_one_byte_of_length() {
    for name in ["a", "Name.1 with_blank", "grün", &"x".repeat(255)] {
        assert!(is_name(name), "{name}");
    }
    for name in [
        "",
        "a*",
        "a=b",
        "a:b",
        "a/b",
        "a\\b",
        "a\u{1}",
        "a|b",
        &"x".repeat(256),
    ] {
        assert!(!is_name(name), "{name}");
    }
}
