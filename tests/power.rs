//! Tests durability `power`: the machine stops with the server. An old copy of the NVRAM's mapping returns, or nothing,
//! under another boot id; the sessions continue from the sink, on the same connections.

mod support;

use std::path::Path;

use support::capture::Capture;
use support::client::{ENCRYPTED, SMB3_1_1, Session, smbclient};
use support::files;
use support::lab::Lab;
use support::power::{OnDisk, SinkPath, can_cut_power, images, mount_image, problem_of};
use support::server::{Server, Setup};
use support::{PATIENCE, Rng, can_run, wait_for};

/// What the power cut leaves of the mapping.
#[derive(Clone, Copy, Debug)]
enum Left {
    Nothing,
    Zeroes,
    /// Its content at this moment, before the cut.
    OldCopy,
}

/// Supervisor and worker end at once, and restart on a machine that was booted again.
fn cut_power(server: &mut Server, nvram: &Path, left: Left, boot: u32) {
    let worker = server.status().worker_pid;
    server.kill_tree(worker);
    match left {
        Left::Nothing => std::fs::remove_file(nvram).expect("the NVRAM"),
        Left::Zeroes => {
            let size = files::size(nvram);
            let zeroes = vec![0; usize::try_from(size).expect("small")];
            std::fs::write(nvram, zeroes).expect("the NVRAM");
        }
        Left::OldCopy => {
            std::fs::copy(nvram.with_extension("old"), nvram).expect("the NVRAM");
        }
    }
    server.set_environment("OUTLAST_BOOT_ID", &format!("{boot:032x}"));
    server.start_again();
}

fn transfers_through_power_cuts(test: &str, dialect: support::client::Dialect) {
    if !can_cut_power(test) {
        return;
    }
    let lab = Lab::new();
    let _disk = OnDisk::new(&lab, test);
    let sink = SinkPath::new(test);
    let mut server = Server::start(
        &lab,
        Setup {
            protection: dialect.protection,
            ..sink.setup()
        },
    );
    let nvram = lab.path("nvram");
    let local = lab.make_dir("local");
    let mut rng = Rng::named(test);
    let size = 60 << 20;
    files::random_file(&local.join("up"), size, &mut rng);
    std::fs::copy(local.join("up"), server.share().join("down")).expect("a file");
    let capture = Capture::start();
    let session = Session::start(smbclient(dialect), &local, "put up; get down");
    let progress = |server: &Server| {
        files::size(&server.share().join("up")) + files::size(&local.join("down"))
    };
    let cuts = [
        (20, Left::OldCopy),
        (40, Left::Nothing),
        (60, Left::Zeroes),
        (80, Left::OldCopy),
    ];
    for (boot, (percent, left)) in (1..).zip(cuts) {
        std::fs::copy(&nvram, nvram.with_extension("old")).expect("a copy");
        wait_for("some progress", PATIENCE, || {
            (progress(&server) >= 2 * size * percent / 100).then_some(())
        });
        cut_power(&mut server, &nvram, left, boot);
        assert!(server.log().contains("the state is recovered from"));
        // and the death of a process alone, which changes nothing
        let worker = server.status().worker_pid;
        server.kill_worker(worker);
        server.successor_of(worker);
    }
    session.finish().well();
    files::assert_same(&local.join("up"), &server.share().join("up"));
    files::assert_same(&local.join("up"), &local.join("down"));
    server.wait_until_left_alone();
    capture.verdict().assert_untouched(1);
    server.assert_sound();
}

#[test]
fn transfers_continue_after_power_cuts() {
    transfers_through_power_cuts("transfers_continue_after_power_cuts", SMB3_1_1);
}

#[test]
fn encrypted_transfers_continue_after_power_cuts() {
    transfers_through_power_cuts("encrypted_transfers_continue_after_power_cuts", ENCRYPTED);
}

/// Data that need no file operation also wrap around the log.
#[test]
fn a_download_is_longer_than_the_log() {
    if !can_cut_power("a_download_is_longer_than_the_log") {
        return;
    }
    let lab = Lab::new();
    let _disk = OnDisk::new(&lab, "a_download_is_longer_than_the_log");
    let sink = SinkPath::new("a_download_is_longer_than_the_log");
    let server = Server::start(&lab, sink.setup());
    let local = lab.make_dir("local");
    let mut rng = Rng::named("a_download_is_longer_than_the_log");
    files::random_file(&server.share().join("down"), 300 << 20, &mut rng);
    support::client::run(smbclient(SMB3_1_1), &local, "get down").well();
    files::assert_same(&server.share().join("down"), &local.join("down"));
    server.assert_sound();
}

/// Directories are made, files move between them, and every other directory is removed, while the power is cut.
#[test]
fn names_survive_power_cuts() {
    if !can_cut_power("names_survive_power_cuts") {
        return;
    }
    let lab = Lab::new();
    let _disk = OnDisk::new(&lab, "names_survive_power_cuts");
    let sink = SinkPath::new("names_survive_power_cuts");
    let mut server = Server::start(&lab, sink.setup());
    let nvram = lab.path("nvram");
    let local = lab.make_dir("local");
    std::fs::write(local.join("seed"), "seed").expect("a file");
    let number = 300;
    let mut commands = vec!["put seed first".to_owned()];
    let mut expected = files::Tree::new();
    for i in 0..number {
        commands.push(format!(
            "mkdir d{i};mkdir d{i}/s;put seed d{i}/a;rename d{i}/a d{i}/s/b"
        ));
        if i % 2 == 0 {
            expected.insert(format!("d{i}"), None);
            expected.insert(format!("d{i}/s"), None);
            expected.insert(format!("d{i}/s/b"), Some(b"seed".to_vec()));
        } else {
            commands.push(format!("del d{i}/s/b; rmdir d{i}/s; rmdir d{i}"));
        }
    }
    commands.push("rename first last".to_owned());
    expected.insert("last".to_owned(), Some(b"seed".to_vec()));
    let capture = Capture::start();
    let session = Session::start(smbclient(SMB3_1_1), &local, &commands.join(";"));
    for boot in 1..=3 {
        wait_for("some progress", PATIENCE, || {
            (files::count(server.share()) >= number / 2 * u64::from(boot) / 4).then_some(())
        });
        cut_power(&mut server, &nvram, Left::Nothing, boot);
    }
    session.finish().well();
    // the marker is the server's own
    let mut found = files::tree(server.share());
    assert!(found.remove(".outlast-marker").is_some());
    assert!(found == expected, "the share holds something else");
    server.wait_until_left_alone();
    capture.verdict().assert_untouched(1);
    server.assert_sound();
    assert!(server.log().contains("done once more"));
}

/// A sink that is not the log's, or is missing when it is needed, is refused and left unchanged.
#[test]
fn an_unusable_sink_is_refused() {
    if !can_cut_power("an_unusable_sink_is_refused") {
        return;
    }
    let lab = Lab::new();
    let _disk = OnDisk::new(&lab, "an_unusable_sink_is_refused");
    let sink = SinkPath::new("an_unusable_sink_is_refused");
    let mut server = Server::start(&lab, sink.setup());
    let local = lab.make_dir("local");
    let mut session = Session::interactive(smbclient(SMB3_1_1), &local);
    session.say("ls");
    session.expect("blocks available");
    let worker = server.status().worker_pid;
    server.kill_tree(worker);
    server.set_environment("OUTLAST_BOOT_ID", &format!("{:032x}", 7));
    let refused = |server: &Server, what: &str, words: &[&str]| {
        let output = server
            .command(&["serve"])
            .env("OUTLAST_BOOT_ID", format!("{:032x}", 7))
            .output()
            .expect("outlast serve");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{what}: {text}");
        for word in words {
            assert!(text.contains(word), "{what}: {word:?} in {text}");
        }
    };
    let whole = std::fs::read(&sink.0).expect("the sink");
    // missing, although the mapping says that there is one
    std::fs::remove_file(&sink.0).expect("the sink");
    refused(&server, "missing", &["sink", "missing", "put it back"]);
    // damaged where it matters
    let write = |bytes: &[u8]| {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::File::options();
        let file = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = file.open(&sink.0).expect("the sink");
        std::io::Write::write_all(&mut file, bytes).expect("the sink");
    };
    let mut damaged = whole.clone();
    for byte in &mut damaged[12288 + 40..12288 + 60] {
        *byte ^= 0xff;
    }
    write(&damaged);
    refused(&server, "damaged", &["nvram.sink", "damaged"]);
    assert!(
        std::fs::read(&sink.0).expect("the sink") == damaged,
        "left alone"
    );
    write(&whole[..whole.len() / 2]);
    refused(&server, "too small", &["nvram.sink", "bytes"]);
    // and its original content is accepted
    write(&whole);
    server.start_again();
    session.say("ls");
    session.expect("blocks available");
    assert_eq!(server.status().connections.len(), 1);
    session.say("quit");
    session.finish().well();
}

/// A sink in memory does not survive.
#[test]
fn a_sink_on_tmpfs_is_refused() {
    if !can_run("a_sink_on_tmpfs_is_refused") {
        return;
    }
    let lab = Lab::new();
    let memory = lab.make_dir("memory");
    support::lab::run(&format!("mount -t tmpfs none {}", memory.display()));
    let server = Server::prepare(
        &lab,
        Setup {
            nvram_size: "128MiB",
            nvram: format!(
                "durability = \"power\"\nsink = \"{}/sink\"",
                memory.display()
            ),
            ..Setup::default()
        },
    );
    let output = server.outlast(&["serve"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        text.contains("nvram.sink") && text.contains("tmpfs"),
        "{text}"
    );
}

/// A share on a file system that does not keep the order of name changes is refused.
#[test]
fn a_share_on_tmpfs_is_refused() {
    if !can_run("a_share_on_tmpfs_is_refused") {
        return;
    }
    let lab = Lab::new();
    let share = lab.make_dir("share");
    support::lab::run(&format!("mount -t tmpfs none {}", share.display()));
    let sink = SinkPath::new("a_share_on_tmpfs_is_refused");
    let server = Server::prepare(&lab, sink.setup());
    let output = server.outlast(&["serve"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        text.contains("on tmpfs") && text.contains("ext4 or XFS"),
        "{text}"
    );
}

/// The kernel's data about an ext4: without a journal, with fast_commit.
#[test]
fn an_ext4_that_reorders_is_seen() {
    let test = "an_ext4_that_reorders_is_seen";
    if !can_run(test) || !support::has(test, &images()) {
        return;
    }
    let lab = Lab::new();
    for (features, word) in [
        (" -O ^has_journal", Some("without a journal")),
        (" -O fast_commit", Some("fast_commit")),
        ("", None),
    ] {
        let dir = lab.make_dir("disk");
        mount_image(&lab, features, &dir);
        let problem = problem_of(&dir);
        support::lab::run(&format!("umount {}", dir.display()));
        let is_right = match (&problem, word) {
            (Some(problem), Some(word)) => problem.contains(word),
            (problem, word) => problem.is_none() && word.is_none(),
        };
        assert!(is_right, "{features}: {problem:?}");
    }
}
