//! Tests `outlast user`: its effects and its messages.

mod support;

use std::io::Write as _;
use std::process::{Output, Stdio};

use support::can_run;
use support::client::{self, anonymous};
use support::lab::{Lab, SERVER};
use support::server::{Server, Setup, USER, error};

/// MD4 of "password" in UTF-16LE.
const PASSWORD_HASH: &str = "8846F7EAEE8FB117AD06BDD830B7586C";
const NO_HASH: &str = "XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX";

/// Runs `outlast COMMAND...` with this on its standard input.
fn with_input(server: &Server, words: &[&str], input: &str) -> Output {
    let mut child = server
        .command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("outlast");
    // It may have ended without reading.
    let _ = child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes());
    child.wait_with_output().expect("outlast")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", error(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_running_server_is_mentioned_only_if_one_runs() {
    if !can_run("a_running_server_is_mentioned_only_if_one_runs") {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::prepare(&lab, Setup::default());
    let add = ["user", "add", "bob", "--password-stdin"];
    let passwd = ["user", "passwd", "bob", "--password-stdin"];
    assert_eq!(said(&with_input(&server, &add, "one\n")), "bob: added\n");
    server.start_again();
    let text = said(&with_input(&server, &passwd, "two\n"));
    let hint = format!("kill -HUP {}", server.status().supervisor_pid);
    assert!(
        text.starts_with("bob: password changed\n") && text.contains(&hint),
        "{text}"
    );
    server.terminate();
    let text = said(&server.outlast(&["user", "remove", "bob"]));
    assert_eq!(text, "bob: removed\n");
}

#[test]
fn a_password_is_set_for_an_existing_user() {
    if !can_run("a_password_is_set_for_an_existing_user") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let users = || std::fs::read_to_string(lab.path("users")).expect("the users");
    let before = users();
    let wrong = with_input(
        &server,
        &["user", "passwd", "nobody", "--password-stdin"],
        "x\n",
    );
    assert!(!wrong.status.success());
    assert!(
        error(&wrong).contains("there is no user \"nobody\""),
        "{}",
        error(&wrong)
    );
    assert_eq!(users(), before);
    said(&with_input(
        &server,
        &["user", "passwd", USER, "--password-stdin"],
        "new\n",
    ));
    server.reboot();
    let mut command = anonymous(&format!("//{SERVER}/pub"));
    command.arg("-U").arg(format!("{USER}%new"));
    client::run(command, &lab.make_dir("local"), "ls").well();
}

#[test]
fn the_users_of_a_samba_server_are_imported() {
    if !can_run("the_users_of_a_samba_server_are_imported") {
        return;
    }
    let lab = Lab::new();
    let server = Server::prepare(&lab, Setup::default());
    let samba = format!(
        "carol:1000:{NO_HASH}:{PASSWORD_HASH}:[U          ]:LCT-5F000000:\n\
         host$:1001:{NO_HASH}:{PASSWORD_HASH}:[W          ]:LCT-5F000000:\n"
    );
    let file = lab.path("smbpasswd");
    std::fs::write(&file, &samba).expect("a file");
    let name = file.to_str().expect("UTF-8");
    let text = said(&server.outlast(&["user", "import", name]));
    assert_eq!(
        text,
        "carol: added\nhost$: skipped, it is the account of a machine or a domain\n"
    );
    let again = said(&with_input(&server, &["user", "import", "-"], &samba));
    assert!(again.starts_with("carol: password changed\n"), "{again}");
    // All or none.
    std::fs::write(
        &file,
        format!("{}dave:1002:x\n", samba.replace("carol", "bob")),
    )
    .expect("a file");
    let wrong = server.outlast(&["user", "import", name]);
    assert!(!wrong.status.success());
    assert!(error(&wrong).contains("smbpasswd:3: "), "{}", error(&wrong));
    let users = said(&server.outlast(&["user", "list"]));
    assert_eq!(users, format!("{USER}\ncarol\n"));
    let mut server = server;
    server.start_again();
    let mut command = anonymous(&format!("//{SERVER}/pub"));
    command.args(["-U", "carol%password"]);
    client::run(command, &lab.make_dir("local"), "ls").well();
}
