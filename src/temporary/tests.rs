use super::*;
use crate::config::Config;

fn subnet() -> Subnet {
    Subnet {
        server: "10.77.0.1".parse().unwrap(),
        host: "10.77.0.2".parse().unwrap(),
        prefix_bits: 30,
    }
}

#[test]
fn the_configuration_is_one_whatever_the_directory_is_called() {
    for path in ["/", "/a b", "/a\"b\\c", "/\u{e4}\n\u{1}"] {
        for access in [Access::Guest, Access::new(false, Some("u:p")).unwrap()] {
            let text = configuration(Path::new(path), &access, "outlast0", &subnet()).unwrap();
            let config = Config::parse(Path::new("/run/o.toml"), &text).unwrap();
            assert_eq!(config.shares[0].path, Path::new(path));
            assert_eq!(config.shares[0].guest, matches!(access, Access::Guest));
            assert_eq!(config.nvram.size_bytes, NVRAM_BYTES);
        }
    }
}

#[test]
fn a_password_is_given_or_made() {
    let user = |text| match Access::new(false, Some(text)) {
        Ok(Access::User { name, password }) => (name, password.to_string()),
        _ => panic!("{text}"),
    };
    assert_eq!(user("ada:a:b"), ("ada".into(), "a:b".into()));
    let (name, password) = user("ada");
    assert_eq!((name.as_str(), password.len()), ("ada", 2 * PASSWORD_BYTES));
    assert_ne!(user("ada").1, password);
    assert!(Access::new(false, Some("a/b:x")).is_err());
    assert!(Access::new(false, Some("ada:")).is_err());
}
