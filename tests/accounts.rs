//! Tests failures of the name service while the server runs: no user gets another account's rights meanwhile.

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;

use support::client::{self, Session, anonymous};
use support::lab::{self, Lab, SERVER};
use support::server::{PASSWORD, Server, Setup, USER};
use support::{PATIENCE, can_run, has, wait_for};

const ALICE: u32 = 4001;
const BOB: u32 = 4002;

/// A name service that can fail: glibc's `files`, whose file is replaced by a socket, which cannot be opened (ENXIO).
struct NameService {
    socket: String,
}

impl NameService {
    /// Makes it with separate accounts for two users.
    fn new(lab: &Lab) -> NameService {
        let set = |name: &str, text: String| {
            let path = lab.path(name);
            std::fs::write(&path, text).expect("a file");
            lab::run(&format!("mount --bind {} /etc/{name}", path.display()));
        };
        let system = std::fs::read_to_string("/etc/passwd").expect("accounts");
        let system = system.lines().filter(|line| !line.starts_with("alice:"));
        let system: String = system
            .filter(|line| !line.starts_with("bob:"))
            .map(|line| format!("{line}\n"))
            .collect();
        let account = |name, id| format!("{name}:x:{id}:{id}::/:/bin/false\n");
        set(
            "passwd",
            system + &account("alice", ALICE) + &account("bob", BOB),
        );
        set("nsswitch.conf", "passwd: files\ngroup: files\n".to_owned());
        let socket = lab.path("socket");
        drop(UnixListener::bind(&socket).expect("a socket"));
        NameService {
            socket: socket.display().to_string(),
        }
    }

    fn fail(&self) {
        lab::run(&format!("mount --bind {} /etc/passwd", self.socket));
    }

    fn answer(&self) {
        lab::run("umount /etc/passwd");
    }
}

#[test]
fn no_user_gets_other_rights_while_the_name_service_fails() {
    const NAME: &str = "no_user_gets_other_rights_while_the_name_service_fails";
    if !can_run(NAME) {
        return;
    }
    let lab = Lab::new();
    let mine = lab.path("mine");
    std::fs::write(&mine, "").expect("a file");
    let given = std::os::unix::fs::chown(&mine, Some(ALICE), Some(ALICE));
    let has_file = std::path::Path::new("/etc/nsswitch.conf").exists();
    let needs = [
        (given.is_ok(), "an account's own user ids (root)"),
        (has_file, "/etc/nsswitch.conf"),
    ];
    if !has(NAME, &needs) {
        return;
    }
    let names = NameService::new(&lab);
    let mut server = Server::prepare(&lab, Setup::default());
    server.add_user("bob", PASSWORD);
    server.start_again();
    let local = lab.make_dir("local");
    std::fs::write(local.join("file"), "bytes").expect("a file");
    let client = |user: &str| {
        let mut command = anonymous(&format!("//{SERVER}/pub"));
        command.arg("-U").arg(format!("{user}%{PASSWORD}"));
        command
    };
    let mut alice = Session::holding(client(USER), server.share(), "held", &lab.make_dir("alice"));
    let share = server.share().to_owned();
    let mut make = |name: &str| {
        alice.say(&format!("mkdir {name}"));
        let owner = || Some(share.join(name).metadata().ok()?.uid());
        assert_eq!(wait_for("the directory", PATIENCE, owner), ALICE, "{name}");
    };
    make("before");
    names.fail();
    // The recorded account applies, in this worker and in the next ones.
    make("meanwhile");
    for name in ["after-a-kill", "after-another"] {
        let before = server.status();
        server.kill_worker(before.worker_pid);
        server.successor_of(before.worker_pid);
        make(name);
    }
    // An account about which the name service has never answered is not guessed.
    let put = || client::run(client("bob"), &local, "put file");
    let refused = put();
    assert!(
        refused.text.contains("NT_STATUS_ACCESS_DENIED"),
        "{}",
        refused.text
    );
    assert!(!share.join("file").exists());
    let log = server.log();
    for (user, meanwhile) in [("alice", "its last answer applies"), ("bob", "are refused")] {
        let line = |line: &&str| line.contains(&format!("account {user}: the name service fails"));
        let line = log.lines().find(line);
        assert!(line.is_some_and(|line| line.contains(meanwhile)), "{log}");
    }
    names.answer();
    wait_for("bob to be served", PATIENCE, || put().success.then_some(()));
    let owner = share.join("file").metadata().expect("bob's file").uid();
    assert_eq!(owner, BOB);
    make("afterwards");
    server.assert_sound();
}
