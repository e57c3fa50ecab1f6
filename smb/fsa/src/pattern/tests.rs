use super::*;
use proptest::prelude::*;

fn matches(pattern: &str, name: &str) -> bool {
    Pattern::new(pattern).matches(name)
}

#[test]
fn folding_is_simple_upper_case() {
    assert_eq!(fold("aé.txt"), "AÉ.TXT");
    assert_eq!(fold("straße"), "STRAßE");
    assert_eq!(fold("ŉ"), "ŉ"); // two characters in upper case
    assert_eq!(fold("ıſ"), "ıſ");
    assert!(same_name("ÀB", "àb"));
    assert!(!same_name("kit", "kıt"));
}

#[test]
fn plain_wildcards() {
    for (pattern, name) in [
        ("*", ""),
        ("*", "."),
        ("*", "a.b"),
        ("*.*", "a.b"),
        ("a*c", "abbc"),
        ("A*C*", "abbcd"),
        ("???", "äbc"),
        ("readme.TXT", "ReadMe.txt"),
        ("*.txt", "a.b.txt"),
        ("**a", "bca"),
    ] {
        assert!(matches(pattern, name), "{pattern} {name}");
    }
    for (pattern, name) in [
        ("*.*", "ab"),
        ("???", "ab"),
        ("a*c", "abcd"),
        ("?", ""),
        ("", "a"),
        ("*.txt", "txt"),
        ("*a", "ab"),
    ] {
        assert!(!matches(pattern, name), "{pattern} {name}");
    }
}

#[test]
fn dos_wildcards() {
    for (pattern, name) in [
        ("<.txt", "a.b.txt"),
        ("<", "abc"),
        ("<\"*", "a"),
        ("<\"*", "a.b"),
        ("<.b", "a.b.b"),
        ("a>>>", "ab"),
        ("a>>>.c", "ab.c"),
        ("a\"", "a"),
        ("a\"", "a."),
        ("a\"b", "a.b"),
        (">>>>>>>>\">>>", "file.c"),
        (">>>>>>>>\">>>", "file"),
    ] {
        assert!(matches(pattern, name), "{pattern} {name}");
    }
    for (pattern, name) in [
        ("<", "a.b"),
        ("a>>>", "abcde"),
        ("a>>>", "ab.c"),
        ("a\"b", "ab"),
        ("a\"", "a.b"),
        (">>>>>>>>\">>>", "longer-than-8.c"),
    ] {
        assert!(!matches(pattern, name), "{pattern} {name}");
    }
}

/// Matches `*` and `?` by their definition.
fn naive(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), tail) => {
            naive(rest, name) || tail.is_some_and(|(_, n)| naive(pattern, n))
        }
        (Some(('?', rest)), Some((_, n))) => naive(rest, n),
        (Some((p, rest)), Some((c, n))) => p == c && naive(rest, n),
        _ => false,
    }
}

proptest! {
    #[test]
    fn agrees_with_the_definition(pattern in "[ab.*?]{0,7}", name in "[ab.]{0,7}") {
        let p: Vec<char> = pattern.chars().collect();
        let n: Vec<char> = name.chars().collect();
        prop_assert_eq!(matches(&pattern, &name), naive(&p, &n));
    }

    #[test]
    fn any_pattern_any_name(pattern in "\\PC{0,40}", name in "\\PC{0,40}") {
        let _ = matches(&pattern, &name);
        prop_assert_eq!(same_name(&pattern, &name), fold(&pattern) == fold(&name));
        prop_assert!(matches("*", &name));
        if !has_wildcard(&name) {
            prop_assert!(matches(&name, &fold(&name)) || fold(&fold(&name)) != fold(&name));
        }
    }
}

#[test]
fn a_hostile_pattern_takes_no_longer() {
    let pattern = "*a".repeat(120) + "b";
    let name = "a".repeat(255);
    assert!(!matches(&pattern, &name));
    assert!(!matches(&"<?".repeat(120), &".".repeat(100)));
}
