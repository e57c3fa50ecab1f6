use std::os::unix::fs::PermissionsExt;

use super::*;

fn file(name: &str) -> (Scratch, PathBuf) {
    let scratch = Scratch::new(name);
    let path = scratch.0.join("users");
    (scratch, path)
}

/// A directory that is removed with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path =
            std::env::temp_dir().join(format!("outlast-users-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_saved_is_loaded_and_private() {
    let (scratch, path) = file("round");
    let mut users = Users::default();
    assert!(!users.insert("Alice", [0xab; 16]));
    assert!(!users.insert("bob", *b"0123456789abcdef"));
    users.save(&path).unwrap();
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(Users::load(&path).unwrap(), users);

    assert!(users.insert("alice", [1; 16]), "case does not count");
    assert!(users.remove("BOB"));
    assert!(!users.remove("bob"));
    users.save(&path).unwrap();
    let again = Users::load(&path).unwrap();
    assert_eq!(again.iter().collect::<Vec<_>>(), [("alice", &[1; 16])]);
    assert_eq!(
        std::fs::read_dir(&scratch.0).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

#[test]
fn a_file_open_to_others_is_refused() {
    let (_scratch, path) = file("mode");
    for mode in [0o640, 0o604, 0o620, 0o610] {
        write(&path, "", mode);
        let error = Users::load(&path).unwrap_err().to_string();
        let shown = path.display();
        assert_eq!(
            error,
            format!(
                "{shown}: mode {mode:03o} permits access by others, and its hashes are as good as passwords; run \
                 `chmod 600 {shown}`"
            )
        );
    }
    write(&path, "", 0o400);
    assert_eq!(Users::load(&path).unwrap(), Users::default());
}

#[test]
fn wrong_lines_are_named() {
    let hash = "8846f7eaee8fb117ad06bdd830b7586c";
    let path = Path::new("/u");
    let good = format!(
        "# comment\n\nalice:{hash}\nBörk Ü:{}\r\n",
        hash.to_uppercase()
    );
    assert_eq!(Users::parse(path, &good).unwrap().iter().count(), 2);
    for (text, line) in [
        ("alice".to_owned(), "/u:1: is not name:hash"),
        (format!("\n{hash}"), "/u:2: is not name:hash"),
        (
            format!("alice:{}", &hash[1..]),
            "/u:1: has a hash that is not 32 hexadecimal digits",
        ),
        (
            format!("alice:+{}", &hash[1..]),
            "/u:1: has a hash that is not 32 hexadecimal digits",
        ),
        (format!(":{hash}"), "/u:1: has a name that no user may have"),
        (
            format!("a:{hash}\nA:{hash}"),
            "/u:2: names a user that exists already (case does not matter)",
        ),
    ] {
        let error = Users::parse(path, &text).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{line}; remove the line and run `outlast user add`")
        );
    }
}

#[test]
fn a_missing_file_names_the_remedy() {
    let error = Users::load(Path::new("/nowhere/users"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "/nowhere/users: cannot be read: No such file or directory (os error 2); make it with `outlast user add NAME \
         --config FILE`"
    );
    assert_eq!(
        Users::load_or_empty(Path::new("/nowhere/users")).unwrap(),
        Users::default()
    );
}

#[test]
fn hashes_are_not_shown() {
    let mut users = Users::default();
    users.insert("alice", [0xab; 16]);
    assert_eq!(format!("{users:?}"), "[\"alice\"]");
}

#[test]
fn names() {
    for good in ["alice", "Alice B", "Ünal", "a.b-c_d$"] {
        assert!(is_name(good), "{good}");
    }
    for bad in [
        "",
        " a",
        "a ",
        "#a",
        "a:b",
        "a@b",
        "a/b",
        "a\tb",
        &"x".repeat(257),
    ] {
        assert!(!is_name(bad), "{bad}");
    }
}
