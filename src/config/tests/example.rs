//! docs/outlast.example.toml, which the package installs.

use std::path::Path;

use super::super::{Config, Format, Limits};

const EXAMPLE: &str = include_str!("../../../docs/outlast.example.toml");
const DOCUMENTED: &str = include_str!("../../../docs/configuration.md");

/// The example with the keys that are commented out.
fn with_all_keys() -> String {
    let is_key = |text: &str| {
        text.split_once(" = ").is_some_and(|(key, _)| {
            key.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        })
    };
    let uncommented = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(key) if is_key(key) => key,
        _ => line,
    });
    uncommented.collect::<Vec<_>>().join("\n")
}

fn parse(text: &str) -> Config {
    Config::parse(Path::new("/etc/outlast/outlast.toml"), text).unwrap()
}

#[test]
fn the_example_has_each_documented_key_with_its_default() {
    let (_, after) = DOCUMENTED.split_once("```toml\n").unwrap();
    let (documented, _) = after.split_once("```").unwrap();
    let mut documented: toml::Table = documented.parse().unwrap();
    let mut example: toml::Table = with_all_keys().parse().unwrap();
    // There are several, and one is enough to begin with.
    for table in [&mut documented, &mut example] {
        let network = table["network"].as_table_mut().unwrap();
        assert!(network.remove("addresses").is_some());
    }
    assert_eq!(example, documented);
}

#[test]
fn the_example_is_accepted_with_and_without_what_is_commented_out() {
    let (short, long) = (parse(EXAMPLE), parse(&with_all_keys()));
    assert_eq!(short.limits, Limits::default());
    assert_eq!((&short.server, &short.limits), (&long.server, &long.limits));
    assert_eq!((&short.nvram, &short.shares), (&long.nvram, &long.shares));
    assert_eq!(
        (short.log.format, short.metrics.listen),
        (Format::Text, None)
    );
    assert_eq!(long.metrics.listen, Some("127.0.0.1:9445".parse().unwrap()));
}

#[test]
fn what_is_wrong_with_how_the_server_is_observed_is_one_line() {
    let refused = |section: &str, line: &str| {
        let text = EXAMPLE.replace(section, &format!("{section}\n{line}"));
        let path = Path::new("/etc/outlast/outlast.toml");
        Config::parse(path, &text).unwrap_err().to_string()
    };
    let format = refused("[log]", "format = \"xml\"");
    assert!(
        format.contains("log.format: there is no format \"xml\"; use"),
        "{format}"
    );
    let listen = refused("[metrics]", "listen = \"9445\"");
    assert!(
        listen.contains("metrics.listen: \"9445\" is not an address"),
        "{listen}"
    );
    let json = EXAMPLE.replace("[log]", "[log]\nformat = \"json\"");
    assert_eq!(parse(&json).log.format, Format::Json);
}
