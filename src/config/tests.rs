mod example;

use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;

/// Smallest configuration; the tests change it.
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

/// The configuration in the documentation.
const FULL: &str = r#"
[server]
name = "OUTLAST"
users_file = "/etc/outlast/users"
control_socket = "/run/outlast/control.sock"
min_protocol = "2.0.2"
max_protocol = "3.1.1"
signing = "enabled"
encryption = "enabled"
oplocks = "on"

[network]
tap = "tap0"
offload = true
mac = "02:00:00:00:00:10"
addresses = ["10.77.0.1/24", "fd77::1/64"]
gateway = "10.77.0.254"
mtu = 1500

[nvram]
path = "/var/lib/outlast/nvram"
size = "256MiB"
durability = "process"

[[share]]
name = "pub"
path = "/srv/pub"
comment = ""
read_only = false
guest = false
users = []
run_as = ""
encryption = "enabled"
continuous_availability = false
"#;

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(Path::new("/etc/outlast/o.toml"), text)
}

//= rfc1122 3.3.1.6, 3.2.2.9a
#[test]
fn the_documented_file_is_the_default() {
    let full = parse(FULL).unwrap();
    assert_eq!(full.network.mac, [2, 0, 0, 0, 0, 0x10]);
    assert_eq!(full.network.gateway_v4, Some(Ipv4Addr::new(10, 77, 0, 254)));
    assert_eq!(full.nvram.size_bytes, 256 << 20);
    assert_eq!(full.shares[0].run_as, None);

    let small = parse(GOOD).unwrap();
    assert_eq!(small.server, full.server);
    assert_eq!(small.limits, Limits::default());
    assert_eq!(small.nvram.path, Path::new("/etc/outlast/nvram"));
    assert_eq!(small.nvram.size_bytes, full.nvram.size_bytes);
    assert_eq!(small.nvram.sink, Path::new("/etc/outlast/nvram.sink"));
    let power = parse(&FULL.replace("\"process\"", "\"power\"\nsink = \"s\"")).unwrap();
    assert_eq!(power.nvram.durability, Durability::Power);
    assert_eq!(power.nvram.sink, Path::new("/etc/outlast/s"));
    assert!(small.network.offload);
    assert_eq!(small.network.mtu, 1500);
    assert_eq!((small.network.ttl, small.network.dscp), (64, 0));
}

#[test]
fn a_derived_mac_is_local_unicast_and_the_same_again() {
    let mac = parse(GOOD).unwrap().network.mac;
    assert_eq!(mac[0] & 3, 2);
    assert_eq!(mac, parse(GOOD).unwrap().network.mac);
    let other = GOOD.replace("[network]", "[server]\nname = \"B\"\n[network]");
    assert_ne!(mac, parse(&other).unwrap().network.mac);
}

#[test]
fn limits_and_two_gateways() {
    let text = GOOD.replace(
        "[nvram]",
        "gateway = [\"10.77.0.254\", \"fe80::1\"]\n[nvram]",
    ) + "[limits]\nmax_connections = 3\nidle_timeout_seconds = 9\nkeep_alive_seconds = 0\n\
         max_out_of_order = \"2MiB\"\nmax_unread_per_connection = \"1MiB\"\nmax_unauthenticated = 4\n\
         stall_timeout_seconds = 7\nstall_timeout_crowded_seconds = 1\n";
    let config = parse(&text).unwrap();
    assert_eq!(config.limits.max_connections, 3);
    assert_eq!(config.limits.idle_timeout, Duration::from_secs(9));
    assert_eq!(config.limits.keep_alive, Duration::ZERO);
    assert_eq!(config.limits.max_out_of_order, 2 << 20);
    assert_eq!(config.limits.max_unread_per_connection, 1 << 20);
    assert_eq!(config.limits.max_unauthenticated, 4);
    assert_eq!(config.limits.stall_timeout, Duration::from_secs(7));
    assert_eq!(config.limits.stall_timeout_crowded, Duration::from_secs(1));
    assert_eq!(config.network.gateway_v6, Some("fe80::1".parse().unwrap()));
}

//= rfc1122 3.2.2.9a
/// A mistake, as a replacement in `FULL`, and the whole line that it produces after the file's name.
#[test]
fn every_mistake_has_its_line() {
    #[rustfmt::skip]
    let table: &[(&str, &str, &str)] = &[
        ("name = \"OUTLAST\"", "nam = \"OUTLAST\"",
         ":3: server.nam: there is no key \"nam\"; write \"name\""),
        ("[network]", "[networks]",
         ":12: networks: there is no key \"networks\"; write \"network\""),
        ("[network]", "[tcp]",
         ":12: tcp: there is no key \"tcp\"; remove it, or use one of server, network, nvram, share, limits, \
          discovery, log, metrics, partner"),
        ("mtu = 1500", "mtu = 1500\n[limits]\nmax_conections = 5",
         ":20: limits.max_conections: there is no key \"max_conections\"; write \"max_connections\""),
        ("mtu = 1500", "mtu = 1500\n[limits]\nmax_opens = \"5\"",
         ":20: limits.max_opens: string \"5\", where a whole number is expected; write a number without quotes"),
        ("[[share]]", "[share]",
         ":25: share: [share] is one table, and there may be several shares; write [[share]], with two brackets"),
        ("mtu = 1500", "mtu = \"1500\"",
         ":18: network.mtu: string \"1500\", where a whole number is expected; write a number without quotes"),
        ("offload = true", "offload = 1",
         ":14: network.offload: integer 1, where true or false is expected; write true or false, without quotes"),
        ("gateway = \"10.77.0.254\"", "gateway = 7",
         ":17: network.gateway: integer 7, where an address, or a list of one IPv4 and one IPv6 address is expected; \
          write that"),
        ("tap = \"tap0\"\n", "",
         ":12: network.tap: the key \"tap\" is missing; add it"),
        ("mtu = 1500", "mtu = 1500\nmtu = 1500",
         ":19: network.mtu: duplicate key; keep one of them"),
        ("mtu = 1500", "mtu = ",
         ":18: network.mtu: string values must be quoted, expected literal string; correct the TOML syntax"),
        ("\"OUTLAST\"", "\"OUT LAST\"",
         ": server.name: \"OUT LAST\" is not a NetBIOS name; use 1 to 15 letters, digits and hyphens"),
        ("min_protocol = \"2.0.2\"", "min_protocol = \"1.0\"",
         ": server.min_protocol: unknown dialect \"1.0\"; use \"2.0.2\", \"2.1\", \"3.0\", \"3.0.2\" or \"3.1.1\""),
        ("max_protocol = \"3.1.1\"", "max_protocol = \"NT1\"",
         ": server.max_protocol: unknown dialect \"NT1\"; use \"2.0.2\", \"2.1\", \"3.0\", \"3.0.2\" or \"3.1.1\""),
        ("min_protocol = \"2.0.2\"\nmax_protocol = \"3.1.1\"", "min_protocol = \"3.0\"\nmax_protocol = \"2.1\"",
         ": server.min_protocol: 3.0 is above max_protocol 2.1; lower it or raise max_protocol"),
        ("oplocks = \"on\"", "oplocks = \"yes\"",
         ": server.oplocks: unknown value \"yes\"; use \"on\" or \"off\""),
        ("signing = \"enabled\"", "signing = \"yes\"",
         ": server.signing: unknown value \"yes\"; use \"off\", \"enabled\" or \"required\""),
        ("max_protocol = \"3.1.1\"\nsigning = \"enabled\"\nencryption = \"enabled\"", "max_protocol = \
            \"2.1\"\nencryption = \"required\"",
         ": server.encryption: \"required\" needs SMB 3.0 and max_protocol is 2.1; raise max_protocol to \"3.0\" or \
          above"),
        ("\"/etc/outlast/users\"", "\"\"",
         ": server.users_file: \"\" is not a path; name a file or directory"),
        ("tap = \"tap0\"", "tap = \"a/b\"",
         ": network.tap: \"a/b\" is not a device name; name a TAP device, such as \"tap0\""),
        ("tap = \"tap0\"", "tap = \"a23456789012345x\"",
         ": network.tap: \"a23456789012345x\" is not a device name; name a TAP device, such as \"tap0\""),
        ("02:00:00:00:00:10", "02:00:00:00:00",
         ": network.mac: \"02:00:00:00:00\" is not a MAC address; write six two-digit hexadecimal numbers, such as \
          \"02:00:00:00:00:10\""),
        ("02:00:00:00:00:10", "01:00:5e:00:00:10",
         ": network.mac: 01:00:5e:00:00:10 is not the address of one station; use a unicast address, such as \
          \"02:00:00:00:00:10\""),
        ("10.77.0.1/24", "10.77.0.1",
         ": network.addresses: \"10.77.0.1\" is not an address with a prefix length; write it as \"10.77.0.1/24\" or \
          \"fd77::1/64\", or use \"dhcp\" or \"router-advertisements\""),
        ("10.77.0.1/24", "10.77.0.300/24",
         ": network.addresses: \"10.77.0.300/24\" is not an address with a prefix length; write it as \
          \"10.77.0.1/24\" or \"fd77::1/64\", or use \"dhcp\" or \"router-advertisements\""),
        ("10.77.0.1/24", "10.77.0.1/33",
         ": network.addresses: \"10.77.0.1/33\" has an impossible prefix length; use /1 to /32"),
        ("fd77::1/64", "fd77::1/129",
         ": network.addresses: \"fd77::1/129\" has an impossible prefix length; use /1 to /128"),
        ("10.77.0.1/24", "10.77.0.0/24",
         ": network.addresses: \"10.77.0.0/24\" is the network's own address; use an address a host may have"),
        ("10.77.0.1/24", "10.77.0.255/24",
         ": network.addresses: \"10.77.0.255/24\" is the network's broadcast address; use an address a host may have"),
        ("10.77.0.1/24", "127.0.0.1/8",
         ": network.addresses: \"127.0.0.1/8\" is a loopback address; use an address a host may have"),
        ("10.77.0.1/24", "224.0.0.1/24",
         ": network.addresses: \"224.0.0.1/24\" is a multicast address; use an address a host may have"),
        ("fd77::1/64", "::/64",
         ": network.addresses: \"::/64\" is the unspecified address; use an address a host may have"),
        ("fd77::1/64", "10.77.0.1/16",
         ": network.addresses: 10.77.0.1 appears twice; remove one of them"),
        ("[\"10.77.0.1/24\", \"fd77::1/64\"]", "[]",
         ": network.addresses: is empty; give at least one address, such as \"10.77.0.1/24\", or \"dhcp\""),
        ("[\"10.77.0.1/24\", \"fd77::1/64\"]", "[\"dhcp\", \"dhcp\"]",
         ": network.addresses: names a source twice; remove one of them"),
        ("fd77::1/64", "dhcp",
         ": network.addresses: has an IPv4 address besides \"dhcp\"; remove one of them"),
        ("10.77.0.1/24", "dhcp",
         ": network.gateway: 10.77.0.254 is given, but the network names the gateway; remove it, or give the address \
          in network.addresses"),
        ("10.77.0.254", "10.77.1.254",
         ": network.gateway: 10.77.1.254 is on no subnet of network.addresses; name a gateway on one of these \
          subnets, or correct the prefix length"),
        ("10.77.0.254", "10.77.0.1",
         ": network.gateway: 10.77.0.1 is the server's own address; name the router's address"),
        ("10.77.0.254", "10.77.0.255",
         ": network.gateway: 10.77.0.255 is the network's broadcast address; name the router's address"),
        ("10.77.0.254", "router",
         ": network.gateway: \"router\" is not an address; write it without a prefix length, as \"10.77.0.254\""),
        ("\"10.77.0.254\"", "[\"10.77.0.254\", \"10.77.0.253\"]",
         ": network.gateway: has two addresses of one family; keep one IPv4 and one IPv6 address"),
        ("mtu = 1500", "mtu = 1279",
         ": network.mtu: 1279 is out of range; use 1280 to 65521"),
        ("mtu = 1500", "mtu = 65522",
         ": network.mtu: 65522 is out of range; use 1280 to 65521"),
        ("mtu = 1500", "ttl = 0",
         ": network.ttl: 0 is out of range; use 1 to 255"),
        ("mtu = 1500", "dscp = 64",
         ": network.dscp: 64 is out of range; use 0 to 63"),
        ("256MiB", "256MB",
         ": nvram.size: \"256MB\" is not a size; write a number with KiB, MiB, GiB or TiB, such as \"256MiB\""),
        ("256MiB", "99999999999999999999TiB",
         ": nvram.size: \"99999999999999999999TiB\" is not a size; write a number with KiB, MiB, GiB or TiB, such as \
          \"256MiB\""),
        ("256MiB", "31MiB",
         ": nvram.size: 31MiB is out of range; use 128MiB to 1TiB"),
        ("256MiB", "134217729",
         ": nvram.size: 134217729 is not a multiple of 4 KiB; round it, for example to whole MiB"),
        ("durability = \"process\"", "sink = \"/var/lib/outlast/nvram\"",
         ": nvram.sink: is the same file as nvram.path; give it a path of its own, on a disk"),
        ("durability = \"process\"", "durability = \"mirror\"",
         ": nvram.durability: \"mirror\" needs a partner; add [partner] with interconnect and key, or \
          use \"power\" or \"process\""),
        ("durability = \"process\"", "durability = \"fast\"",
         ": nvram.durability: unknown value \"fast\"; use \"process\", \"power\", \"mirror\" or \
          \"power+mirror\", or \"none\" for benchmarks"),
        ("name = \"pub\"", "name = \"ipc$\"",
         ": share.name: \"ipc$\" is reserved; use another name"),
        ("name = \"pub\"", "name = \"a/b\"",
         ": share.name: \"a/b\" is not a share name; use 1 to 80 characters without \" \\ / [ ] : | < > + = ; , * ? \
          and no space at either end"),
        ("name = \"pub\"", "name = \"PUB\"\npath = \"/\"\n[[share]]\nname = \"pub\"",
         ": share.name: \"pub\" appears twice (case does not matter); give each share a name of its own"),
        ("users = []", "users = [\"a:b\"]",
         ": share \"pub\".users: \"a:b\" is not a user name; name users as `outlast user list` shows them; an empty \
          list admits every user"),
        ("run_as = \"\"\nencryption = \"enabled\"", "encryption = \"maybe\"",
         ": share \"pub\".encryption: unknown value \"maybe\"; use \"off\", \"enabled\" or \"required\""),
        ("comment = \"\"", "comment = \"a\\nb\"",
         ": share \"pub\".comment: has control characters; write one line of text"),
        ("[[share]]", "[limits]\nhalf_open = 0\n[[share]]",
         ": limits.half_open: 0 is out of range; use 1 to 1048576"),
        ("[[share]]", "[limits]\nauth_timeout_seconds = -1\n[[share]]",
         ": limits.auth_timeout_seconds: -1 is out of range; use 1 to 86400 seconds"),
        ("[[share]]", "[limits]\nmax_opens = 0\n[[share]]",
         ": limits.max_opens: 0 is out of range; use 1 to 16777216"),
        ("[[share]]", "[limits]\nmax_out_of_order = \"1KiB\"\n[[share]]",
         ": limits.max_out_of_order: 1KiB is out of range; use 1MiB to 1TiB"),
        ("[[share]]", "[limits]\nmax_out_of_order = \"much\"\n[[share]]",
         ": limits.max_out_of_order: \"much\" is not a size; write a number with KiB, MiB, GiB or TiB, such as \
          \"256MiB\""),
    ];
    for (good, bad, line) in table {
        assert!(FULL.contains(good), "{good}");
        let error = parse(&FULL.replacen(good, bad, 1)).expect_err(bad);
        assert_eq!(error.to_string(), format!("/etc/outlast/o.toml{line}"));
    }
}

#[test]
fn the_network_can_be_a_source_of_addresses() {
    let with = |addresses: &str| GOOD.replace("[\"10.77.0.1/24\", \"fd77::1/64\"]", addresses);
    let network = parse(&with("[\"dhcp\", \"router-advertisements\"]"))
        .unwrap()
        .network;
    assert!(network.sources.dhcp && network.sources.router_advertisements);
    assert_eq!(network.addresses, []);
    let network = parse(&with("[\"dhcp\", \"fd77::1/64\"]")).unwrap().network;
    assert!(network.sources.dhcp && !network.sources.router_advertisements);
    assert_eq!(network.addresses.len(), 1);
    // The link-local address and three prefixes have places in smoltcp's table.
    let five: Vec<String> = (1..=5).map(|n| format!("\"fd77::{n}/64\"")).collect();
    let text = format!("[\"router-advertisements\", {}]", five.join(", "));
    let error = parse(&with(&text)).unwrap_err().to_string();
    assert!(
        error.ends_with("has too many addresses; use 3 at most"),
        "{error}"
    );
    let discovery = with("[\"dhcp\"]") + "[discovery]\nnetbios = true\n";
    assert_eq!(parse(&discovery).unwrap_err().key, "discovery");
}

#[test]
fn a_server_without_shares_is_refused() {
    let (without, _) = GOOD.split_once("[[share]]").unwrap();
    let error = parse(without).unwrap_err();
    assert_eq!(error.key, "share");
}

#[test]
fn a_share_cannot_require_what_the_server_does_not_offer() {
    let text = FULL
        .replacen("encryption = \"enabled\"", "encryption = \"off\"", 1)
        .replace(
            "run_as = \"\"\nencryption = \"enabled\"",
            "encryption = \"required\"",
        );
    assert_eq!(parse(&text).unwrap_err().key, "share \"pub\".encryption");
}

#[test]
fn a_missing_file_is_one_line() {
    let error = Config::load(Path::new("/nowhere/o.toml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nowhere/o.toml: cannot be read: No such file or directory (os error 2); name an existing file with \
         --config or in OUTLAST_CONFIG"
    );
}

#[test]
fn the_machine_is_checked() {
    let check = |from: &str, to: &str| {
        let config = parse(&FULL.replacen(from, to, 1)).unwrap();
        config.missing_shares().remove(0)
    };
    let error = check("/srv/pub", "/nowhere/pub");
    assert_eq!(
        error.to_string(),
        "/etc/outlast/o.toml: share \"pub\".path: /nowhere/pub does not exist; create the directory or correct the path"
    );
    let error = check("/srv/pub", "/etc/passwd");
    assert_eq!(
        error.to_string(),
        "/etc/outlast/o.toml: share \"pub\".path: /etc/passwd is not a directory; name a directory"
    );
    let text = FULL
        .replace("/srv/pub", "/")
        .replace("run_as = \"\"", "run_as = \"no-such-one\"");
    let error = parse(&text).unwrap().check_system().unwrap_err();
    assert_eq!(
        error.to_string(),
        "/etc/outlast/o.toml: share \"pub\".run_as: there is no local account \"no-such-one\"; name a local account, \
         or leave it empty"
    );
    let text = FULL
        .replace("/srv/pub", "/")
        .replace("/var/lib/outlast/nvram", "/nowhere/nvram");
    let error = parse(&text).unwrap().check_system().unwrap_err();
    assert_eq!(error.key, "nvram.path");
}

#[test]
fn probable_mistakes_are_warned_of() {
    let users =
        crate::users::Users::parse(Path::new("/u"), "alice:8846f7eaee8fb117ad06bdd830b7586c")
            .unwrap();
    let nobody = crate::users::Users::default();
    let config =
        parse(&GOOD.replace("path = \"/\"", "path = \"/\"\nusers = [\"ALICE\", \"eve\"]")).unwrap();
    let lines = |all: Vec<Error>| {
        all.iter()
            .map(Error::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let unknown = lines(config.advice_on_users(&users));
    assert!(
        unknown.contains("share \"pub\".users: there is no user \"eve\""),
        "{unknown}"
    );
    assert!(!unknown.contains("ALICE"), "{unknown}");
    let config = parse(GOOD).unwrap();
    assert!(lines(config.advice_on_users(&nobody)).contains("no client can log in"));
    assert_eq!(config.advice_on_users(&users), []);
    let guests = parse(&GOOD.replace("path = \"/\"", "path = \"/\"\nguest = true")).unwrap();
    assert_eq!(guests.advice_on_users(&nobody), []);
}

#[test]
fn the_machines_own_addresses_are_not_the_servers() {
    let host = |interface: &str, text: &str| advice::HostAddress {
        interface: interface.into(),
        cidr: {
            let (address, bits) = text.split_once('/').unwrap();
            Cidr {
                address: address.parse().unwrap(),
                prefix_bits: bits.parse().unwrap(),
            }
        },
    };
    let config = parse(GOOD).unwrap();
    let check = check::Check::of(&config);
    let same = [host("eth0", "192.0.2.1/24"), host("tap0", "10.77.0.1/24")];
    let error = check.is_not_the_hosts(&config.network, &same).unwrap_err();
    assert_eq!(error.key, "network.addresses");
    assert!(
        error.problem.contains("10.77.0.1") && error.problem.contains("tap0"),
        "{error}"
    );
    let other = [host("tap0", "10.77.0.2/24"), host("tap0", "fe80::1/64")];
    assert_eq!(check.is_not_the_hosts(&config.network, &other), Ok(()));
    assert_eq!(config.advice_on_addresses(&other), []);
    // A network elsewhere, so that the two do not reach each other.
    let elsewhere = [host("tap0", "10.78.0.2/24"), host("eth0", "10.77.0.2/24")];
    let advice = config.advice_on_addresses(&elsewhere);
    assert_eq!(advice.len(), 1, "{advice:?}");
    assert!(
        advice[0].to_string().contains("10.78.0.2/24"),
        "{}",
        advice[0]
    );
}

#[test]
fn persistent_handles_need_a_log() {
    let share = GOOD.replace(
        "path = \"/\"",
        "path = \"/\"\ncontinuous_availability = true",
    );
    assert!(parse(&share).unwrap().shares[0].continuous_availability);
    let none = share.replace("[nvram]\n", "[nvram]\ndurability = \"none\"\n");
    let error = parse(&none).unwrap_err();
    assert_eq!(error.key, "share \"pub\".continuous_availability");
}

#[test]
fn guests_cannot_protect_anything() {
    let guest = GOOD.replace("path = \"/\"", "path = \"/\"\nguest = true");
    let server = |line: &str| format!("[server]\n{line}\n{guest}");
    for text in [
        format!("{guest}\nencryption = \"required\""),
        server("encryption = \"required\""),
        server("signing = \"required\""),
    ] {
        let advice = parse(&text).unwrap().advice_on_guests();
        assert_eq!(advice.len(), 1, "{advice:?}");
        assert_eq!(advice[0].key, "share \"pub\".guest");
    }
    let good = parse(&server("signing = \"enabled\"")).unwrap();
    assert_eq!(good.advice_on_guests(), []);
}

#[test]
fn subnets() {
    let cidr = |text: &str| {
        let (address, bits) = text.split_once('/').unwrap();
        Cidr {
            address: address.parse().unwrap(),
            prefix_bits: bits.parse().unwrap(),
        }
    };
    let holds = |net: &str, address: &str| cidr(net).contains(address.parse().unwrap());
    assert!(holds("10.0.0.1/8", "10.255.0.1"));
    assert!(!holds("10.0.0.1/8", "11.0.0.1"));
    assert!(holds("10.0.0.1/32", "10.0.0.1"));
    assert!(!holds("10.0.0.1/32", "10.0.0.0"));
    assert!(holds("0.0.0.1/0", "200.0.0.1"));
    assert!(holds("fd77::1/64", "fd77::ffff"));
    assert!(!holds("fd77::1/64", "fd78::1"));
    assert!(!holds("fd77::1/64", "10.0.0.1"));
}

#[test]
fn an_etcd_is_reached_over_tls_or_on_this_machine() {
    let with = |keys: &str| {
        let text = format!("{GOOD}[partner]\nnode = \"a\"\narbiter = \"etcd\"\n{keys}\n");
        parse(&text).map(|config| config.partner.unwrap().arbiter)
    };
    let prefix = "etcd_prefix = \"/outlast/office/\"";
    let local = "etcd = [\"http://127.0.0.1:2379/\", \"http://[::1]:2379\"]";
    let found = with(&format!("{local}\n{prefix}")).unwrap();
    let Arbitration::Etcd(etcd) = found else {
        panic!("{found:?}");
    };
    assert_eq!(etcd.endpoints[0], "http://127.0.0.1:2379");
    assert_eq!(
        (&*etcd.prefix, etcd.lease.as_secs()),
        ("/outlast/office/", 5)
    );
    let secret = "etcd = [\"https://10.0.0.1:2379\"]\netcd_ca = \"/etc/ca\"";
    assert!(with(&format!("{secret}\n{prefix}")).is_ok());
    for (keys, key) in [
        (prefix.to_owned(), "partner.etcd"),
        (format!("etcd = [\"10.0.0.1\"]\n{prefix}"), "partner.etcd"),
        (
            format!("etcd = [\"http://10.0.0.1:2379\"]\n{prefix}"),
            "partner.etcd",
        ),
        (
            format!("etcd = [\"https://10.0.0.1:2379\"]\n{prefix}"),
            "partner.etcd_ca",
        ),
        (
            format!("{local}\netcd_prefix = \"/\""),
            "partner.etcd_prefix",
        ),
        (local.to_owned(), "partner.etcd_prefix"),
        (
            format!("{local}\n{prefix}\netcd_key = \"/key\""),
            "partner.etcd_certificate",
        ),
        (
            format!("{local}\n{prefix}\nlease_seconds = 1"),
            "partner.lease_seconds",
        ),
        (
            format!("{local}\n{prefix}\nlock = \"/lock\""),
            "partner.lock",
        ),
    ] {
        assert_eq!(with(&keys).unwrap_err().key, key, "{keys}");
    }
}

#[test]
fn a_pair_has_two_nodes_and_knows_which_it_is() {
    let with = |section: &str| parse(&format!("{GOOD}[partner]\n{section}\n"));
    let partner = |section: &str| with(section).unwrap().partner.unwrap();
    let found = partner("node = \"b\"\nlock = \"/srv/lock\"");
    let (own, other) = ("b".to_owned(), "a".to_owned());
    assert_eq!((found.nodes.own, found.nodes.partner), (own, other));
    let lock = Arbitration::Lock("/srv/lock".into());
    assert_eq!((found.number, found.arbiter), (1, lock));
    assert_eq!(parse(GOOD).unwrap().partner, None);
    let lock = "lock = \"lock\"";
    for (section, key) in [
        (format!("node = \"c\"\n{lock}"), "partner.node"),
        (
            format!("node = \"a\"\nnodes = [\"a\"]\n{lock}"),
            "partner.nodes",
        ),
        (
            format!("node = \"a\"\nnodes = [\"a\", \"a\"]\n{lock}"),
            "partner.nodes",
        ),
        (
            format!("node = \"a\"\narbiter = \"raft\"\n{lock}"),
            "partner.arbiter",
        ),
        ("node = \"a\"".to_owned(), "partner.lock"),
        (
            format!("node = \"a\"\netcd_prefix = \"/x\"\n{lock}"),
            "partner.etcd_prefix",
        ),
        (
            format!("node = \"a\"\nmount_command = \"true\"\n{lock}"),
            "partner.mount_command",
        ),
        (
            format!("node = \"a\"\nmount_command = \"true\"\nunmount_command = \"true\"\n{lock}"),
            "partner.fence_command",
        ),
        (
            format!("node = \"a\"\nfence_command = \" \"\n{lock}"),
            "partner.fence_command",
        ),
    ] {
        let error = with(&section).unwrap_err();
        assert_eq!(error.key, key, "{error}");
    }
    let without = GOOD.replace(
        "path = \"nvram\"",
        "path = \"nvram\"\ndurability = \"none\"",
    );
    let text = format!("{without}[partner]\nnode = \"a\"\n{lock}\n");
    assert_eq!(parse(&text).unwrap_err().key, "nvram.durability");
}

#[test]
fn an_interconnect_has_two_ends_and_a_key() {
    let with = |durability: &str, section: &str| {
        let path = "path = \"nvram\"";
        let text = GOOD.replacen(path, &format!("{path}\n{durability}"), 1);
        parse(&format!(
            "{text}[partner]\nnode = \"b\"\nlock = \"/srv/lock\"\n{section}\n"
        ))
    };
    let good = "interconnect = [\"10.9.0.1:4450\", \"[fd09::2]:4450\"]\nkey = \"node.pem\"";
    for durability in ["mirror", "power+mirror"] {
        let config = with(&format!("durability = \"{durability}\""), good).unwrap();
        assert_eq!(config.nvram.durability.name(), durability);
        let found = config.partner.unwrap().interconnect.unwrap();
        assert_eq!(found.own, "[fd09::2]:4450".parse().unwrap());
        assert_eq!(found.partner, "10.9.0.1:4450".parse().unwrap());
        assert_eq!(found.timeout, Duration::from_secs(1));
        assert!(found.key.is_absolute());
    }
    // Under `process` the state goes along with a planned takeover.
    let process = with("durability = \"process\"", good).unwrap();
    assert!(process.partner.unwrap().interconnect.is_some());
    let key = "key = \"node.pem\"";
    for (section, wrong) in [
        (String::new(), "nvram.durability"),
        (key.to_owned(), "partner.interconnect"),
        (
            "interconnect = [\"10.9.0.1:1\", \"10.9.0.2:1\"]".to_owned(),
            "partner.interconnect",
        ),
        (
            format!("{key}\ninterconnect = [\"10.9.0.1:1\"]"),
            "partner.interconnect",
        ),
        (
            format!("{key}\ninterconnect = [\"10.9.0.1:1\", \"10.9.0.1:1\"]"),
            "partner.interconnect",
        ),
        (
            format!("{key}\ninterconnect = [\"10.9.0.1\", \"node-b:1\"]"),
            "partner.interconnect",
        ),
        (format!("{good}\ntimeout_ms = 99"), "partner.timeout_ms"),
        (format!("{good}\ntimeout_ms = 30001"), "partner.timeout_ms"),
    ] {
        let error = with("durability = \"mirror\"", &section).unwrap_err();
        assert_eq!(error.key, wrong, "{section}");
    }
}
