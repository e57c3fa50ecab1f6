//! Tests permissions and restrictions of clients on shares.

mod support;

use support::client::{self, ENCRYPTED, SIGNED, SMB2_1, SMB3_0, SMB3_1_1, anonymous, smbclient};
use support::lab::{self, Lab, SERVER};
use support::server::{PASSWORD, Protection, Server, Setup, USER};
use support::{can_run, files};

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

    // guest and anonymous where permitted, and only there
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

    // the permitted users
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
    assert!(output.status.success(), "{text}{output:?}");
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
fn a_full_disk_is_reported() {
    if !can_run("a_full_disk_is_reported") {
        return;
    }
    let lab = Lab::new();
    let small = lab.make_dir("share");
    lab::run(&format!(
        "mount -t tmpfs -o size=1m,mode=777 tmpfs {}",
        small.display()
    ));
    let server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let mut rng = support::Rng::named("disk");
    // One WRITE: smbclient ends its connection by itself if one of several WRITEs in progress fails.
    files::random_file(&local.join("large"), 3 << 19, &mut rng);
    files::random_file(&local.join("little"), 100_000, &mut rng);
    let full = client::run(smbclient(SMB3_1_1), &local, "put large");
    assert!(full.text.contains("NT_STATUS_DISK_FULL"), "{}", full.text);
    // the session and the rest continue
    let both = client::run(
        smbclient(SMB3_1_1),
        &local,
        "put large; del large; put little; get little back",
    );
    assert!(both.text.contains("NT_STATUS_DISK_FULL"), "{}", both.text);
    assert!(local.join("back").exists(), "{}", both.text);
    files::assert_same(&local.join("little"), &local.join("back"));
    server.assert_sound();
    drop(server);
    lab::run(&format!("umount -l {}", small.display()));
}

#[test]
fn required_protection_is_enforced() {
    if !can_run("required_protection_is_enforced") {
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
