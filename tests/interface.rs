//! The command line, the configuration and the files, as users meet them; and what clients may not do.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use support::client::{
    self, ENCRYPTED, SIGNED, SMB2_1, SMB3_0, SMB3_1_1, Session, anonymous, smbclient,
};
use support::lab::{self, Lab, SERVER};
use support::server::{PASSWORD, Protection, Server, Setup, USER};
use support::{PATIENCE, can_run, files, wait_for};

/// Runs `outlast serve`, which is to end by itself with one line of its own that names all of this.
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

/// The configuration with one text in place of another.
fn rewrite(server: &Server, from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(server.config()).expect("the configuration");
    assert!(text.contains(from), "{from:?} is not in the configuration");
    std::fs::write(server.config(), text.replacen(from, to, 1)).expect("the configuration");
    text
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
        let before = rewrite(&server, from, to);
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
fn what_another_server_holds_is_refused() {
    if !can_run("what_another_server_holds_is_refused") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    assert_refused(&server, "its control socket", &["control_socket"]);
    rewrite(&server, "control.sock", "other.sock");
    assert_refused(&server, "its TAP", &["network.tap", "tap0"]);
    lab::run("ip tuntap add tap1 mode tap");
    lab::run("ip link set tap1 up");
    rewrite(&server, "tap = \"tap0\"", "tap = \"tap1\"");
    assert_refused(
        &server,
        "its NVRAM",
        &["nvram.path", "nvram", "another server"],
    );
    // the one that runs has not noticed
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
    // a state worth keeping: somebody holds a file open
    let mut session = Session::interactive(smbclient(SMB3_1_1), &local);
    std::fs::write(server.share().join("held"), "held").expect("a file");
    session.say("open held");
    session.expect("fnum");
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
    // the tail's position; the oldest record that counts is there
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
    // put right again, it has the session
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
    session.say("close 1");
    wait_for("the close", PATIENCE, || {
        (server.status().connections[0].smb.opens == 0).then_some(())
    });
    session.say("quit");
    session.finish().well();
}

#[test]
fn status_tells_what_is_promised() {
    if !can_run("status_tells_what_is_promised") {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    std::fs::write(server.share().join("held"), "held").expect("a file");
    let mut session = Session::interactive(smbclient(SIGNED), &local);
    session.say("open held");
    session.expect("fnum");
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

    // stop: the sessions end, nothing is left to take up
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

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
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
fn the_flag_says_how_the_server_went_and_how_it_comes_back() {
    if !can_run("the_flag_says_how_the_server_went_and_how_it_comes_back") {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    std::fs::write(server.share().join("held"), "held").expect("a file");
    let mut session = Session::interactive(smbclient(SMB3_1_1), &local);
    session.say("open held");
    session.expect("fnum");
    let nvram = lab.path("nvram");
    let flag = || nvram_show(&nvram)["flag"].clone();
    let taken_up = |server: &Server, flag: &str| {
        let line = format!("flag {flag}: taking up 1 connection(s)");
        assert!(server.log().contains(&line), "{line}: {}", server.log());
        assert_eq!(server.status().connections[0].smb.opens, 1);
    };

    let worker = server.status().worker_pid;
    server.kill_tree(worker);
    assert_eq!(flag(), "non-elective-reboot");
    server.start_again();
    taken_up(&server, "non-elective-reboot");

    server.terminate();
    assert_eq!(flag(), "elective-reboot");
    server.start_again();
    taken_up(&server, "elective-reboot");
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
    assert_eq!(server.log().matches("taking up").count(), 2);
}

#[test]
fn nvram_show_tells_no_secrets() {
    if !can_run("nvram_show_tells_no_secrets") {
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
    std::fs::write(server.share().join("held"), "held").expect("a file");
    let mut session = Session::interactive(smbclient(ENCRYPTED), &local);
    session.say("open held");
    session.expect("fnum");
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
    assert!(
        printed.contains(USER),
        "who is connected is told: {printed}"
    );
    // Nothing that the file has and that could be a key: no run of random bytes of it in hexadecimal or base64, but for the two ids
    // that say so. A key is 16 bytes; 8 of them are enough to find it.
    let folded: String = printed
        .to_lowercase()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let told = |value: &str| folded.contains(value);
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
        assert!(known || !told(&hex), "bytes of the log are printed: {hex}");
    }
    server.start_again();
    session.say("quit");
    session.finish();
}

#[test]
fn users_come_and_go() {
    if !can_run("users_come_and_go") {
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
    std::fs::write(server.share().join("held"), "held").expect("a file");
    let mut session = Session::interactive(smbclient(SMB3_1_1), &local);
    session.say("open held");
    session.expect("fnum");
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
    session.say("close 1");
    wait_for("the close", PATIENCE, || {
        (server.status().connections[0].smb.opens == 0).then_some(())
    });
    session.say("quit");
    session.finish().well();
}

#[test]
fn a_hold_is_kept() {
    if !can_run("a_hold_is_kept") {
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
        "it was back too early"
    );
    assert_eq!(server.status().epoch, before.epoch + 1);
}

#[test]
fn shares_keep_their_rules() {
    if !can_run("shares_keep_their_rules") {
        return;
    }
    let lab = Lab::new();
    let (locked, open) = (lab.make_dir("locked"), lab.make_dir("open"));
    std::fs::write(locked.join("file"), "read me").expect("a file");
    std::fs::write(open.join("file"), "read me").expect("a file");
    let more = format!(
        "\n[[share]]\nname = \"locked\"\npath = \"{}\"\nread_only = true\ncomment = \"look, do not touch\"\n\
         \n[[share]]\nname = \"open\"\npath = \"{}\"\nguest = true\n\
         \n[[share]]\nname = \"private\"\npath = \"{}\"\nusers = [\"carol\"]\n",
        locked.display(),
        open.display(),
        open.display()
    );
    let _server = Server::start(
        &lab,
        Setup {
            more,
            ..Setup::default()
        },
    );
    let local = lab.make_dir("local");
    std::fs::write(local.join("mine"), "mine").expect("a file");
    let user = format!("{USER}%{PASSWORD}");
    let run = |share: &str, options: &[&str], commands: &str| {
        let mut command = anonymous(&format!("//{SERVER}/{share}"));
        command.args(options);
        client::run(command, &local, commands)
    };

    // read only
    run("locked", &["-U", &user], "get file copy").well();
    for commands in [
        "put mine",
        "del file",
        "mkdir d",
        "rename file other",
        "setmode file +h",
    ] {
        let text = run("locked", &["-U", &user], commands).text;
        let refused = ["ACCESS_DENIED", "MEDIA_WRITE_PROTECTED"]
            .iter()
            .any(|status| text.contains(status));
        assert!(refused, "{commands}: {text}");
    }
    assert_eq!(files::tree(&locked).len(), 1);

    // guest and anonymous where allowed, nowhere else
    run("open", &["-N"], "get file copy").well();
    run("open", &["-U", "guest%"], "get file copy").well();
    for options in [&["-N"][..], &["-U", "guest%"]] {
        let refused = run("pub", options, "ls");
        assert!(
            !refused.success && refused.text.contains("NT_STATUS_ACCESS_DENIED"),
            "{options:?}: {}",
            refused.text
        );
    }

    // for whom it is
    let refused = run("private", &["-U", &user], "ls");
    assert!(
        !refused.success && refused.text.contains("NT_STATUS_ACCESS_DENIED"),
        "{}",
        refused.text
    );
    let refused = run("nowhere", &["-U", &user], "ls");
    assert!(
        !refused.success && refused.text.contains("NT_STATUS_BAD_NETWORK_NAME"),
        "{}",
        refused.text
    );

    // the list of shares
    let mut command = std::process::Command::new("smbclient");
    command.args(["-L", SERVER, "-p", "445", "-s", "/dev/null", "-U", &user]);
    let output = command.output().expect("smbclient -L");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", error(&output));
    for line in ["pub", "locked", "look, do not touch", "open", "IPC$"] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn names_stay_in_the_share() {
    if !can_run("names_stay_in_the_share") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let (share, local) = (server.share(), lab.make_dir("local"));
    std::fs::write(lab.path("secret"), "secret").expect("a file");
    std::fs::create_dir(share.join("dir")).expect("a directory");
    std::fs::write(share.join("dir/inside"), "inside").expect("a file");
    let link =
        |to: &str, name: &str| std::os::unix::fs::symlink(to, share.join(name)).expect("a link");
    link("../secret", "relative");
    link(lab.path("secret").to_str().expect("UTF-8"), "absolute");
    link("/", "root");
    link("dir/../../secret", "winding");
    link("loop", "loop");
    link("dir/inside", "good");
    for commands in [
        "get relative x",
        "get absolute x",
        "get winding x",
        "get root/etc/passwd x",
        "get loop x",
        "get ../secret x",
        "get dir/../../secret x",
        "cd root",
        "put own relative",
    ] {
        std::fs::write(local.join("own"), "own").expect("a file");
        let text = client::run(smbclient(SMB3_1_1), &local, commands).text;
        assert!(text.contains("NT_STATUS_"), "{commands}: {text}");
        assert!(
            !local.join("x").exists() || files::size(&local.join("x")) == 0,
            "{commands}: got it"
        );
        let _ = std::fs::remove_file(local.join("x"));
    }
    assert_eq!(
        std::fs::read(lab.path("secret")).expect("the secret"),
        b"secret"
    );
    client::run(smbclient(SMB3_1_1), &local, "get good x").well();
    assert_eq!(std::fs::read(local.join("x")).expect("the file"), b"inside");
    // case is kept and does not matter
    client::run(
        smbclient(SMB3_1_1),
        &local,
        "put own MixedCase; get mixedcase y; rename MIXEDCASE mixedCASE",
    )
    .well();
    assert!(share.join("mixedCASE").exists());
}

#[test]
fn a_full_disk_is_told() {
    if !can_run("a_full_disk_is_told") {
        return;
    }
    let lab = Lab::new();
    let small = lab.make_dir("share");
    lab::run(&format!(
        "mount -t tmpfs -o size=2m,mode=777 tmpfs {}",
        small.display()
    ));
    let server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let mut rng = support::Rng::named("disk");
    files::random_file(&local.join("large"), 5 << 20, &mut rng);
    files::random_file(&local.join("little"), 100_000, &mut rng);
    let full = client::run(smbclient(SMB3_1_1), &local, "put large");
    assert!(full.text.contains("NT_STATUS_DISK_FULL"), "{}", full.text);
    // the session and the rest go on
    let both = client::run(
        smbclient(SMB3_1_1),
        &local,
        "put large; del large; put little; get little back",
    );
    assert!(both.text.contains("NT_STATUS_DISK_FULL"), "{}", both.text);
    files::assert_same(&local.join("little"), &local.join("back"));
    server.assert_sound();
    drop(server);
    lab::run(&format!("umount -l {}", small.display()));
}

#[test]
fn required_protection_is_insisted_on() {
    if !can_run("required_protection_is_insisted_on") {
        return;
    }
    for (protection, refused, allowed) in [
        (
            Protection {
                signing: "required",
                encryption: "enabled",
            },
            &[][..],
            &[SMB2_1, SMB3_0, SMB3_1_1, SIGNED, ENCRYPTED][..],
        ),
        // a client of 2.1 cannot encrypt
        (
            Protection {
                signing: "enabled",
                encryption: "required",
            },
            &[SMB2_1][..],
            &[SMB3_0, SMB3_1_1, ENCRYPTED][..],
        ),
        (
            Protection {
                signing: "off",
                encryption: "off",
            },
            &[ENCRYPTED][..],
            &[SMB2_1, SMB3_0][..],
        ),
    ] {
        // a thread of its own: each lab is a fresh network namespace
        let case = std::thread::spawn(move || {
            let lab = Lab::new();
            let server = Server::start(
                &lab,
                Setup {
                    protection,
                    share: "guest = true".to_owned(),
                    ..Setup::default()
                },
            );
            let local = lab.make_dir("local");
            std::fs::write(server.share().join("file"), "content").expect("a file");
            for dialect in refused {
                let outcome = client::run(smbclient(*dialect), &local, "get file x");
                assert!(
                    !outcome.success,
                    "{protection:?} lets {} in: {}",
                    dialect.name, outcome.text
                );
            }
            for dialect in allowed {
                client::run(smbclient(*dialect), &local, "get file x").well();
            }
            // a guest has no key to sign or encrypt with
            let guest = client::run(
                {
                    let mut command = anonymous(&format!("//{SERVER}/pub"));
                    command.args(["-U", "guest%"]);
                    command
                },
                &local,
                "get file x",
            );
            let free = protection.signing != "required" && protection.encryption != "required";
            assert_eq!(guest.success, free, "{protection:?}: {}", guest.text);
        });
        case.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
