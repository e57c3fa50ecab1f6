use super::{Kind, StreamId, StreamKey, full_name, has_same_name, parse, parse_target, split};
use crate::fileop::FileKey;
use crate::path::MAX_PATH;
use crate::status::NtStatus;

#[test]
fn names_become_paths_with_a_stream() {
    for (name, path, kind) in [
        ("", "", None),
        ("a\\b.txt", "a/b.txt", None),
        ("a\\", "a", None),
        ("a::$data", "a", Some(Kind::Data)),
        ("::$DATA", "", Some(Kind::Data)),
        ("d\\e::$INDEX_ALLOCATION", "d/e", Some(Kind::Directory)),
        ("d:$i30:$Index_Allocation", "d", Some(Kind::Directory)),
        ("a\\b:s", "a/b:s", None),
        (":s", ":s", None),
        ("a:s:$DATA", "a:s", Some(Kind::Data)),
        (
            "a:\u{5}Stream\n One*?<>|\"",
            "a:\u{5}Stream\n One*?<>|\"",
            None,
        ),
    ] {
        let named = parse(name).unwrap();
        assert_eq!((named.path.as_str(), named.kind), (path, kind), "{name}");
    }
}

#[test]
fn names_that_no_stream_can_have_are_refused() {
    for name in [
        "a:",
        "a::",
        "a:s:",
        "a:s:$FOO",
        "a:s:?D*a",
        "a:s:t:$DATA",
        "a:s\\b",
        "a:s/b",
        "a\\:s",
        "a:s\0",
        "a:s:$INDEX_ALLOCATION",
        "a?:s",
        ":",
        "a::$DATA\\b",
    ] {
        assert_eq!(parse(name), Err(NtStatus::OBJECT_NAME_INVALID), "{name}");
    }
    assert!(parse(&format!("a:{}", "x".repeat(255))).is_ok());
    assert!(parse(&format!("a:{}", "x".repeat(256))).is_err());
    assert_eq!(parse("\\a:s"), Err(NtStatus::INVALID_PARAMETER));
}

#[test]
fn the_target_of_a_rename_begins_with_a_colon() {
    let target = |target| parse_target(target, "d/a:old");
    assert_eq!(target(":s"), Ok("d/a:s".to_owned()));
    assert_eq!(target(":s:$data"), Ok("d/a:s".to_owned()));
    assert_eq!(target("a:s"), Err(NtStatus::INVALID_PARAMETER));
    assert_eq!(target("::$DATA"), Err(NtStatus::INVALID_PARAMETER));
    assert_eq!(target(":"), Err(NtStatus::OBJECT_NAME_INVALID));
    let long = ["long/"; MAX_PATH / 5].concat() + "a";
    assert!(parse(&long.replace('/', "\\")).is_ok());
    assert!(parse(&format!("{}:streams", long.replace('/', "\\"))).is_err());
    assert!(parse_target(":streams", &long).is_err());
}

#[test]
fn streams_are_identified_without_regard_to_case() {
    let file = FileKey {
        dev: 1,
        ino: 2,
        birth_ns: 3,
    };
    assert!(StreamId::of("d/a").is_default());
    assert_eq!(StreamKey::new(file, "d/a"), StreamKey::from(file));
    assert_eq!(
        StreamKey::new(file, "a:Grün"),
        StreamKey::new(file, "B:GRÜN")
    );
    assert_ne!(StreamId::of("a:s"), StreamId::of("a:t"));
    assert!(has_same_name("a:s", "b:s") && !has_same_name("a:S", "a:s"));
    assert_eq!(split("d/a:s"), ("d/a", Some("s")));
    assert_eq!(full_name("s"), ":s:$DATA");
}
