//! Reads configuration and users files with mistakes or damage.

use crate::input::Input;
use outlast::config::{Config, Nvram};
use outlast::users::Users;
use std::path::Path;

const CONFIG: &str = r#"
[server]
name = "OUTLAST"
users_file = "users"
control_socket = "/run/outlast/control.sock"
min_protocol = "2.0.2"
max_protocol = "3.1.1"
signing = "enabled"
encryption = "required"
[network]
tap = "tap0"
offload = true
mac = "02:00:00:00:00:10"
addresses = ["10.77.0.1/24", "fd77::1/64"]
gateway = ["10.77.0.254", "fd77::2"]
mtu = 1500
[nvram]
path = "nvram"
size = "256MiB"
durability = "process"
[[share]]
name = "pub"
path = "/srv/pub"
comment = "all of it"
read_only = true
guest = true
users = ["alice"]
run_as = "root"
encryption = "off"
[limits]
max_connections = 1024
half_open = 128
max_sessions_per_connection = 64
max_trees_per_connection = 1024
max_opens_per_connection = 16384
max_locks_per_open = 4096
auth_timeout_seconds = 60
idle_timeout_seconds = 0
keep_alive_seconds = 120
"#;

const USERS: &str =
    "# users\nalice:8846f7eaee8fb117ad06bdd830b7586c\n\nbob:00000000000000000000000000000000\n";

/// Checks that an error is one line that names the file and a remedy.
fn judge(file: &str, error: &dyn std::fmt::Display) {
    let line = error.to_string();
    assert!(line.starts_with(file), "{line:?} does not name the file");
    assert!(
        !line.contains(char::is_control),
        "{line:?} is not one plain line"
    );
    assert!(line.contains("; "), "{line:?} names no remedy");
    assert!(line.len() < 4096, "{line:?} is longer than anybody reads");
}

/// Takes the whole text; or the valid one with other values for some keys.
fn text(input: &mut Input<'_>, good: &str) -> String {
    if input.byte() == 0 {
        return String::from_utf8_lossy(input.rest()).into_owned();
    }
    let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
    while !input.is_empty() {
        let at = input.below(lines.len());
        let value = String::from_utf8_lossy(input.bytes()).into_owned();
        let key = lines[at]
            .split(['=', ':'])
            .next()
            .unwrap_or_default()
            .to_owned();
        match input.below(5) {
            0 => lines[at] = format!("{key}= {value}"),
            1 => lines[at] = format!("{key}= {value:?}"),
            2 => lines[at] = format!("{key}:{value}"),
            3 => lines.insert(at, value),
            _ => lines.swap_remove(at).clear(),
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.join("\n")
}

/// Checks that the result is an error for people, or a configuration within all bounds.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.yes() {
        let text = text(&mut input, USERS);
        match Users::parse(Path::new("/etc/outlast/users"), &text) {
            Err(error) => judge("/etc/outlast/users:", &error),
            Ok(users) => {
                let names: Vec<&str> = users.iter().map(|(name, _)| name).collect();
                assert!(
                    names
                        .iter()
                        .all(|name| users.contains(name) && outlast::users::is_name(name))
                );
            }
        }
        return;
    }
    let text = text(&mut input, CONFIG);
    match Config::parse(Path::new("/etc/outlast/o.toml"), &text) {
        Err(error) => judge("/etc/outlast/o.toml", &error),
        Ok(config) => {
            assert!(!config.shares.is_empty());
            let network = &config.network;
            assert!(!network.addresses.is_empty() || network.sources.any());
            assert!((1280..=65521).contains(&config.network.mtu));
            assert!(config.network.mac[0] & 1 == 0, "a multicast address");
            let sizes = Nvram::SIZE_MIN_BYTES..=Nvram::SIZE_MAX_BYTES;
            assert!(sizes.contains(&config.nvram.size_bytes));
            assert!(config.server.min_protocol <= config.server.max_protocol);
            assert!(config.limits.max_connections > 0 && config.limits.half_open > 0);
            assert!(!config.limits.auth_timeout.is_zero());
        }
    }
}

/// The whole files, and some keys with other values.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        [&[0, 0], CONFIG.as_bytes()].concat(),
        [&[1, 0], USERS.as_bytes()].concat(),
        vec![0, 1],
        vec![1, 1],
    ];
    for value in [
        "-1",
        "99999999999999999999",
        "1e400",
        "[]",
        "[[",
        "{}",
        "\"",
        "0x10",
        "\u{1b}[2J",
        "fd77::1/200",
        "a\u{0}b",
        "9223372036854775807",
    ] {
        for line in [2, 11, 12, 14, 15, 17, 20, 24, 34] {
            for how in [0, 1, 3] {
                let mut seed = vec![0, 1, line, value.len() as u8];
                seed.extend(value.as_bytes());
                seed.push(how);
                seeds.push(seed);
            }
        }
    }
    seeds
}
