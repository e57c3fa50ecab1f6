//! Tests the command line, the configuration and the files as users see them.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use support::client::{self, ENCRYPTED, SIGNED, SMB3_1_1, Session, anonymous, smbclient};
use support::lab::{self, Lab, SERVER};
use support::server::{PASSWORD, Server, Setup, USER, error};
use support::{PATIENCE, can_run};

/// Runs `outlast serve`, which has to end with one line of its own that contains all of this.
fn assert_refused(server: &Server, what: &str, names: &[&str]) {
    let mut child = server
        .command(&["serve"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("outlast serve");
    let mut status = None;
    let begun = std::time::Instant::now();
    while status.is_none() && begun.elapsed() < PATIENCE {
        status = child.try_wait().expect("outlast serve");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    if status.is_none() {
        child.kill().expect("kill -9");
    }
    let output = child.wait_with_output().expect("outlast serve");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = status.unwrap_or_else(|| panic!("{what}: the server serves: {text}"));
    assert!(!status.success(), "{what}: exit code 0: {text}");
    // the log's lines begin with a time
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('[')).collect();
    let [line] = &lines[..] else {
        panic!("{what}: one line is wanted: {text}")
    };
    for name in names {
        assert!(line.contains(name), "{what}: {name:?} is not in: {line}");
    }
}

#[test]
fn a_wrong_configuration_is_refused() {
    if !can_run("a_wrong_configuration_is_refused") {
        return;
    }
    let lab = Lab::new();
    let server = Server::prepare(&lab, Setup::default());
    let share = format!("path = \"{}/share\"", lab.dir().display());
    let missing = format!("path = \"{}/nowhere\"", lab.dir().display());
    let no_directory = format!("path = \"{}/outlast.toml\"", lab.dir().display());
    for (what, from, to, names) in [
        (
            "an unknown key",
            "[server]",
            "[server]\nnmae = \"x\"",
            &["outlast.toml", "nmae"][..],
        ),
        (
            "an unknown table",
            "[nvram]",
            "[netvork]\n\n[nvram]",
            &["outlast.toml", "netvork"],
        ),
        (
            "a wrong type",
            "name = \"OUTLAST\"",
            "name = 5",
            &["outlast.toml", "name"],
        ),
        ("no TOML", "[server]", "[server", &["outlast.toml"]),
        (
            "an impossible address",
            "10.77.0.1/24",
            "10.77.0.1/33",
            &["outlast.toml", "addresses", "10.77.0.1/33"],
        ),
        (
            "an address that is none",
            "10.77.0.1/24",
            "10.77.0.256/24",
            &["outlast.toml", "addresses"],
        ),
        (
            "a level that is none",
            "signing = \"enabled\"",
            "signing = \"maybe\"",
            &["outlast.toml", "signing"],
        ),
        (
            "a missing share",
            &share,
            &missing,
            &["outlast.toml", "path", "nowhere"],
        ),
        (
            "a share that is a file",
            &share,
            &no_directory,
            &["outlast.toml", "path", "director"],
        ),
        (
            "a durability of later",
            "[nvram]",
            "[nvram]\ndurability = \"mirror\"",
            &["outlast.toml", "durability", "mirror"],
        ),
        (
            "a size too small",
            "size = \"256MiB\"",
            "size = \"1MiB\"",
            &["outlast.toml", "size"],
        ),
        (
            "a missing TAP",
            "tap = \"tap0\"",
            "tap = \"tap9\"",
            &["outlast.toml", "network.tap", "tap9"],
        ),
        ("missing users", "/users\"", "/no-users\"", &["users_file"]),
    ] {
        let before = server.rewrite(from, to);
        assert_refused(&server, what, names);
        std::fs::write(server.config(), before).expect("the configuration");
    }
    assert!(!lab.path("nvram").exists(), "nothing was made");
    std::fs::set_permissions(lab.path("users"), std::fs::Permissions::from_mode(0o644))
        .expect("a mode");
    assert_refused(
        &server,
        "users open to all",
        &["outlast.toml", "users_file", "600"],
    );
}

#[test]
fn resources_of_another_server_are_refused() {
    if !can_run("resources_of_another_server_are_refused") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    assert_refused(&server, "its control socket", &["control_socket"]);
    server.rewrite("control.sock", "other.sock");
    assert_refused(&server, "its TAP", &["network.tap", "tap0"]);
    lab::run("ip tuntap add tap1 mode tap");
    lab::run("ip link set tap1 up");
    server.rewrite("tap = \"tap0\"", "tap = \"tap1\"");
    assert_refused(
        &server,
        "its NVRAM",
        &["nvram.path", "nvram", "another server"],
    );
    // the running one has not noticed
    client::run(smbclient(SMB3_1_1), &lab.make_dir("local"), "ls").well();
}

#[test]
fn a_damaged_nvram_is_refused_and_left_alone() {
    if !can_run("a_damaged_nvram_is_refused_and_left_alone") {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::start(
        &lab,
        Setup {
            nvram_size: "128MiB",
            ..Setup::default()
        },
    );
    let local = lab.make_dir("local");
    // a state worth keeping: a client holds a file open
    let mut session = Session::holding(smbclient(SMB3_1_1), server.share(), "held", &local);
    server.terminate();
    let nvram = lab.path("nvram");
    let good = std::fs::read(&nvram).expect("the NVRAM");
    let mut cases: Vec<(&str, Vec<u8>, &[&str])> = Vec::new();
    // docs/log-format.md: superblocks at 0 and 4096, version at 8, checksum at 124; the commit word at 8192;
    // the tail word at 8320; the ring's length at 80 of the superblock, the ring from 12288
    let mut version = good.clone();
    for slot in [0, 4096] {
        version[slot + 8] = 99;
        let checksum = crc32c::crc32c(&version[slot..slot + 124]).to_le_bytes();
        version[slot + 124..slot + 128].copy_from_slice(&checksum);
    }
    cases.push(("of an unknown version", version, &["version"]));
    cases.push(("truncated", good[..good.len() / 2].to_vec(), &[]));
    cases.push(("too small", good[..8192].to_vec(), &[]));
    let mut commit_word = good.clone();
    commit_word[8194] ^= 0x40;
    cases.push(("with a damaged commit word", commit_word, &["damaged"]));
    let mut record = good.clone();
    let word = |at: usize| u64::from_le_bytes(good[at..at + 8].try_into().expect("eight"));
    // the tail's position; the oldest live record is there
    let tail = 12288 + (word(8320) >> 8) * 8 % word(80);
    record[usize::try_from(tail).expect("in the file") + 20] ^= 1;
    cases.push(("with a damaged record", record, &["damaged"]));
    let mut superblocks = good.clone();
    superblocks[30] ^= 1;
    superblocks[4096 + 30] ^= 1;
    cases.push(("with damaged superblocks", superblocks, &["damaged"]));
    let mut foreign = good.clone();
    foreign[..8].copy_from_slice(b"SOMEBODY");
    foreign[4096..4104].copy_from_slice(b"SOMEBODY");
    cases.push(("of somebody else", foreign, &["not an Outlast"]));
    for (what, bytes, names) in cases {
        std::fs::write(&nvram, &bytes).expect("the NVRAM");
        assert_refused(&server, what, &[&["nvram"], names].concat());
        assert!(
            std::fs::read(&nvram).expect("the NVRAM") == bytes,
            "{what}: the file was changed"
        );
    }
    std::fs::set_permissions(&nvram, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    std::fs::write(&nvram, &good).expect("the NVRAM");
    assert_refused(&server, "open to all", &["nvram", "600"]);
    std::fs::set_permissions(&nvram, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    // restored, it has the session
    server.start_again();
    let status = server.status();
    assert_eq!(
        status
            .connections
            .iter()
            .map(|connection| connection.smb.opens)
            .collect::<Vec<_>>(),
        [1]
    );
    session.close_held(|| server.status().connections[0].smb.opens == 0);
    session.say("quit");
    session.finish().well();
}

#[test]
fn status_shows_the_promised_fields() {
    if !can_run("status_shows_the_promised_fields") {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let session = Session::holding(smbclient(SIGNED), server.share(), "held", &local);
    let output = server.outlast(&["status", "--json"]);
    assert!(output.status.success());
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for key in [
        "flag",
        "epoch",
        "recoveries",
        "supervisor_pid",
        "worker_pid",
        "uptime_seconds",
        "connections",
    ] {
        assert!(!status[key].is_null(), "{key}: {status}");
    }
    assert_eq!(status["flag"], "non-elective-reboot");
    let connection = &status["connections"][0];
    assert!(
        connection["client"]
            .as_str()
            .expect("client")
            .starts_with("10.77.0.2:")
    );
    assert_eq!(connection["server"], format!("{SERVER}:445"));
    let tcp = &connection["tcp"];
    assert_eq!(tcp["state"], "ESTABLISHED");
    for key in [
        "snd_una",
        "snd_nxt",
        "snd_wnd",
        "rcv_nxt",
        "rcv_wnd",
        "unacked_bytes",
        "cwnd",
    ] {
        assert!(tcp[key].is_u64(), "{key}: {tcp}");
    }
    assert!(
        tcp.as_object()
            .expect("tcp")
            .keys()
            .any(|key| key.starts_with("srtt")),
        "{tcp}"
    );
    let smb = &connection["smb"];
    assert_eq!(
        (&smb["dialect"], &smb["user"]),
        (&"3.1.1".into(), &USER.into())
    );
    assert_ne!(smb["signing"], "off");
    assert_eq!(smb["encryption"], "off");
    assert_eq!(
        (
            smb["trees"].as_u64(),
            smb["opens"].as_u64(),
            smb["locks"].as_u64()
        ),
        (Some(1), Some(1), Some(0))
    );
    let text = String::from_utf8(server.outlast(&["status"]).stdout).expect("UTF-8");
    assert!(
        text.contains("ESTABLISHED") && text.contains(USER),
        "{text}"
    );

    // stop: the sessions end, nothing is left to recover
    let output = server.outlast(&["stop"]);
    assert!(output.status.success(), "{}", error(&output));
    assert_eq!(server.ended(), Some(0));
    drop(session);
    let shown = nvram_show(&lab.path("nvram"));
    assert_eq!(shown["flag"], "clean");
    let output = server.outlast(&["status"]);
    assert!(!output.status.success());
    assert!(
        error(&output).contains("outlast serve"),
        "the remedy: {}",
        error(&output)
    );
    server.start_again();
    assert!(server.status().connections.is_empty());
}

fn nvram_show(nvram: &Path) -> Value {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_outlast"));
    let output = command
        .args(["nvram", "show", "--json"])
        .arg(nvram)
        .output()
        .expect("outlast nvram show");
    assert!(output.status.success(), "{}", error(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

//= patent fig2-205, fig2-219, fig2-227, fig3-305, fig3-309
//= patent claim-8, claim-9, claim-10, claim-11, claim-14, claim-29, claim-30, claim-31, claim-32, claim-35, claim-43
#[test]
fn the_flag_says_how_the_server_ended_and_how_it_recovers() {
    if !can_run("the_flag_says_how_the_server_ended_and_how_it_recovers") {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let mut session = Session::holding(smbclient(SMB3_1_1), server.share(), "held", &local);
    let nvram = lab.path("nvram");
    let flag = || nvram_show(&nvram)["flag"].clone();
    let recovered = |server: &Server, flag: &str| {
        let line = format!("flag {flag}: recovering 1 connection(s)");
        assert!(server.log().contains(&line), "{line}: {}", server.log());
        assert_eq!(server.status().connections[0].smb.opens, 1);
    };

    let worker = server.status().worker_pid;
    server.kill_tree(worker);
    assert_eq!(flag(), "non-elective-reboot");
    server.start_again();
    recovered(&server, "non-elective-reboot");

    server.terminate();
    assert_eq!(flag(), "elective-reboot");
    server.start_again();
    recovered(&server, "elective-reboot");
    assert_eq!(flag(), "non-elective-reboot", "while it runs");

    // the same connection, the same session, the same open
    session.say("get held back");
    session.expect("as back");
    let output = server.outlast(&["stop"]);
    assert!(output.status.success(), "{}", error(&output));
    assert_eq!(server.ended(), Some(0));
    assert_eq!(flag(), "clean");
    server.start_again();
    assert!(server.status().connections.is_empty());
    assert_eq!(server.log().matches(": recovering ").count(), 2);
}

#[test]
fn nvram_show_prints_no_secrets() {
    if !can_run("nvram_show_prints_no_secrets") {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::start(
        &lab,
        Setup {
            protection: ENCRYPTED.protection,
            ..Setup::default()
        },
    );
    let local = lab.make_dir("local");
    let mut session = Session::holding(smbclient(ENCRYPTED), server.share(), "held", &local);
    server.terminate();
    let nvram = lab.path("nvram");
    let bytes = std::fs::read(&nvram).expect("the NVRAM");
    let mut printed = nvram_show(&nvram).to_string();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_outlast"));
    let output = command
        .args(["nvram", "show"])
        .arg(&nvram)
        .output()
        .expect("outlast nvram show");
    assert!(output.status.success());
    printed += &String::from_utf8(output.stdout).expect("UTF-8");
    assert!(printed.contains("elective-reboot"), "{printed}");
    assert!(printed.contains(USER), "a client is printed: {printed}");
    // No bytes of the file that could be a key are printed: no run of random bytes in hexadecimal or base64, except for
    // the two ids. A key is 16 bytes; 8 of them are enough to find it.
    let folded: String = printed
        .to_lowercase()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let is_printed = |value: &str| folded.contains(value);
    let ids: Vec<String> = ["instance", "boot_id"]
        .iter()
        .filter_map(|key| nvram_show(&nvram)[*key].as_str().map(str::to_lowercase))
        .collect();
    let is_random = |window: &[u8]| {
        let mut seen = window.to_vec();
        seen.sort_unstable();
        seen.dedup();
        seen.len() >= 7
    };
    for window in bytes[12288..]
        .windows(8)
        .take(1 << 20)
        .filter(|window| is_random(window))
    {
        let hex: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
        let known = ids.iter().any(|id| id.contains(&hex));
        assert!(
            known || !is_printed(&hex),
            "bytes of the log are printed: {hex}"
        );
    }
    server.start_again();
    session.say("quit");
    session.finish();
}

#[test]
fn users_are_added_and_removed() {
    if !can_run("users_are_added_and_removed") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let list = || String::from_utf8(server.outlast(&["user", "list"]).stdout).expect("UTF-8");
    server.add_user("bob", "swordfish");
    assert_eq!(list(), format!("{USER}\nbob\n"));
    let mode = std::fs::metadata(lab.path("users"))
        .expect("the users")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let users = std::fs::read_to_string(lab.path("users")).expect("the users");
    assert!(
        !users.contains("swordfish") && !users.contains(PASSWORD),
        "a password is kept as it is"
    );
    let bob = |password: &str| {
        let mut command = anonymous(&format!("//{SERVER}/pub"));
        command.arg("-U").arg(format!("bob%{password}"));
        command
    };
    server.reboot();
    client::run(bob("swordfish"), &local, "ls").well();
    let refused = client::run(bob("wrong"), &local, "ls");
    assert!(
        !refused.success && refused.text.contains("NT_STATUS_LOGON_FAILURE"),
        "{}",
        refused.text
    );
    let nobody = client::run(
        {
            let mut command = anonymous(&format!("//{SERVER}/pub"));
            command.args(["-U", "stranger%x"]);
            command
        },
        &local,
        "ls",
    );
    assert!(
        !nobody.success && nobody.text.contains("NT_STATUS_LOGON_FAILURE"),
        "{}",
        nobody.text
    );
    assert!(server.outlast(&["user", "remove", "bob"]).status.success());
    assert_eq!(list(), format!("{USER}\n"));
    assert!(!server.outlast(&["user", "remove", "bob"]).status.success());
    server.reboot();
    assert!(!client::run(bob("swordfish"), &local, "ls").success);
}

#[test]
fn a_reboot_as_something_else_is_refused() {
    if !can_run("a_reboot_as_something_else_is_refused") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let mut session = Session::holding(smbclient(SMB3_1_1), server.share(), "held", &local);
    let before = server.status();
    let script = lab.path("script");
    std::fs::write(&script, "#!/bin/sh\nexit 0\n").expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    for other in [
        PathBuf::from("/bin/true"),
        script,
        lab.path("missing"),
        lab.path("outlast.toml"),
    ] {
        let output = server.outlast(&["reboot", "--exec", other.to_str().expect("UTF-8")]);
        assert!(!output.status.success(), "{}", other.display());
        assert_eq!(error(&output).lines().count(), 1, "{}", error(&output));
    }
    let after = server.status();
    assert_eq!(
        (after.worker_pid, after.epoch),
        (before.worker_pid, before.epoch),
        "nothing has happened"
    );
    assert_eq!(after.connections[0].smb.opens, 1);
    session.close_held(|| server.status().connections[0].smb.opens == 0);
    session.say("quit");
    session.finish().well();
}

#[test]
fn a_hold_is_observed() {
    if !can_run("a_hold_is_observed") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let before = server.status();
    let begun = std::time::Instant::now();
    let output = server.outlast(&["reboot", "--hold", "1.5"]);
    assert!(output.status.success(), "{}", error(&output));
    assert!(
        begun.elapsed() >= std::time::Duration::from_millis(1500),
        "it restarted too early"
    );
    assert_eq!(server.status().epoch, before.epoch + 1);
}
