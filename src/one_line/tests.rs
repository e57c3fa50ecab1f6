use super::*;

#[test]
fn foreign_text_is_quoted_and_limited() {
    assert_eq!(OneLine("ä\n\u{1b}[2J").to_string(), "ä\\n\\u{1b}[2J");
    assert_eq!(OneLine(&"é".repeat(MAX)).to_string(), "é".repeat(MAX));
    assert_eq!(
        OneLine(&"é".repeat(MAX + 1)).to_string(),
        "é".repeat(MAX) + "…"
    );
}
