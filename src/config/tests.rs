use super::*;

const GOOD: &str = r#"
[network]
tap = "tap0"
addresses = ["10.77.0.1/24", "fd77::1/64"]
[nvram]
path = "nvram"
[[share]]
name = "pub"
path = "/"
"#;

#[test]
fn defaults() {
    let config = Config::parse(Path::new("/etc/outlast/o.toml"), GOOD).unwrap();
    assert_eq!(config.nvram.path, Path::new("/etc/outlast/nvram"));
}
