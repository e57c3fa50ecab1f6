use super::*;

const HASH: &str = "8846F7EAEE8FB117AD06BDD830B7586C";
const NONE: &str = "XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX";

#[test]
fn users_are_taken_and_others_are_not() {
    let text = format!(
        "# comment\n\nalice:1000:{NONE}:{HASH}:[U          ]:LCT-5F000000:\nold:7:{NONE}:{HASH}\n\
         bob:1001:{NONE}:{HASH}:[UD         ]:LCT-5F000000:\nhost$:1002:{NONE}:{HASH}:[W          ]:LCT-5F000000:\n\
         carol:1003:{NONE}:NO PASSWORDXXXXXXXXXXXXXXXXXXXXX:[NU         ]:LCT-5F000000:\n\
         dave:4:{NONE}:{NONE}:[U ]:\n"
    );
    let entries = parse(Path::new("p"), &text).unwrap();
    let taken: Vec<_> = entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.nt_hash.is_ok()))
        .collect();
    let expected = [
        ("alice", true),
        ("old", true),
        ("bob", false),
        ("host$", false),
        ("carol", false),
        ("dave", false),
    ];
    assert_eq!(taken, expected);
    let hash = entries[0].nt_hash.as_ref().unwrap();
    assert_eq!((hash[0], hash[15]), (0x88, 0x6c));
}

#[test]
fn a_wrong_line_is_named_and_nothing_is_taken() {
    for (text, named) in [
        ("alice", "name:uid"),
        ("alice:8846f7eaee8fb117ad06bdd830b7586c", "name:uid"),
        ("alice:x:a:b:", "uid"),
        ("alice:1:a:1234:[U]:", "32 hexadecimal"),
        ("alice:1:a:\u{e4}\u{e4}:[U]:", "32 hexadecimal"),
    ] {
        let error = parse(Path::new("/p"), &format!("#\n{text}\n")).err();
        let error = error.unwrap().to_string();
        assert!(
            error.starts_with("/p:2: ") && error.contains(named),
            "{error}"
        );
    }
}
