//! Crashes the server before and after each of the four points, for each operation: the session continues, and its
//! effects and answers are those of an undisturbed one.

mod support;

use std::path::{Path, PathBuf};

use support::capture::Capture;
use support::client::{self, SMB3_1_1, smbclient};
use support::files::{self, Tree};
use support::lab::Lab;
use support::raw::{self, Client};
use support::server::{Server, Setup};
use support::{Rng, can_run};

/// The largest number of occurrences of an operation at which a crash happens; more add no new kinds.
const OCCURRENCES: u32 = 6;

/// A server whose worker ends at a requested point.
struct Range {
    server: Server,
    fault: PathBuf,
    capture: Option<Capture>,
    sessions: usize,
    lab: Lab,
}

impl Range {
    fn new() -> Range {
        let lab = Lab::new();
        let fault = lab.path("fault");
        let server = Server::start(
            &lab,
            Setup {
                share: "guest = true".to_owned(),
                environment: vec![("OUTLAST_FAULT", fault.clone())],
                ..Setup::default()
            },
        );
        let capture = Some(Capture::start());
        Range {
            server,
            fault,
            capture,
            sessions: 0,
            lab,
        }
    }

    /// Runs a session in an empty share.
    fn session<T>(&mut self, session: &mut dyn FnMut(&Path) -> T) -> (T, Tree) {
        files::clear(self.server.share());
        self.sessions += 1;
        let answers = session(self.server.share());
        (answers, files::tree(self.server.share()))
    }

    /// The same with a crash; `None` if the operation did not occur so often.
    fn crashed<T>(
        &mut self,
        fault: &str,
        session: &mut dyn FnMut(&Path) -> T,
    ) -> Option<(T, Tree)> {
        std::fs::write(&self.fault, fault).expect("the fault");
        // a worker reads the fault when it starts
        let idle = self.server.status();
        self.server.kill_worker(idle.worker_pid);
        let armed = self.server.successor_of(idle.worker_pid);
        println!("{fault}");
        let result = self.session(session);
        // some points occur at the connection's end
        self.server.wait_until_left_alone();
        let fired = !self.fault.exists();
        let _ = std::fs::remove_file(&self.fault);
        let after = if fired {
            self.server.successor_of(armed.worker_pid)
        } else {
            self.server.status()
        };
        assert_eq!(
            after.epoch,
            armed.epoch + u64::from(fired),
            "{fault}: deaths"
        );
        fired.then_some(result)
    }

    /// Crashes at each of `points` of each of `operations`, at each occurrence.
    fn sweep<T: PartialEq + std::fmt::Debug>(
        &mut self,
        operations: &[&str],
        points: &[&str],
        mut session: impl FnMut(&Path) -> T,
    ) {
        let undisturbed = self.session(&mut session);
        for operation in operations {
            for point in points {
                for count in 1..=OCCURRENCES {
                    let fault = format!("{point}:{operation}:{count}");
                    let Some(outcome) = self.crashed(&fault, &mut session) else {
                        assert!(count > 1, "{fault}: the session never came there");
                        break;
                    };
                    assert_eq!(
                        outcome.0, undisturbed.0,
                        "{fault}: what the client was answers"
                    );
                    assert!(
                        outcome.1 == undisturbed.1,
                        "{fault}: what is in the share: {:?}",
                        names(&outcome.1)
                    );
                }
            }
        }
    }

    fn end(mut self) {
        self.server.wait_until_left_alone();
        self.capture
            .take()
            .expect("a capture")
            .verdict()
            .assert_untouched(self.sessions);
        self.server.assert_sound();
        drop(self.server);
        drop(self.lab);
    }
}

fn names(tree: &Tree) -> Vec<(&String, Option<usize>)> {
    tree.iter()
        .map(|(name, content)| (name, content.as_ref().map(Vec::len)))
        .collect()
}

const ALL: [&str; 4] = ["2:before", "2:after", "3:before", "3:after"];

/// Points 1 and 4 belong to TCP.
const TCP: [&str; 4] = ["1:before", "1:after", "4:before", "4:after"];

//= patent fig5-2, fig5-3
#[test]
fn smbclient_at_points_2_and_3() {
    if !can_run("smbclient_at_points_2_and_3") {
        return;
    }
    let mut range = Range::new();
    let local = range.lab.make_dir("local");
    let operations = [
        "create",
        "read",
        "write",
        "close",
        "delete",
        "rename",
        "query-directory",
        "set-basic",
        "stat",
        "check-delete",
    ];
    range.sweep(&operations, &ALL, smbclient_session(local));
    range.end();
}

//= patent fig5-1, fig5-4, claim-2, claim-23
#[test]
fn smbclient_at_points_1_and_4() {
    if !can_run("smbclient_at_points_1_and_4") {
        return;
    }
    let mut range = Range::new();
    let local = range.lab.make_dir("local");
    range.sweep(&["tcp"], &TCP, smbclient_session(local));
    range.end();
}

/// Before point 1 the request is in no queue and not recorded: the next worker finds it in memory that outlives the
/// worker, and the client need not send it again.
#[test]
fn frames_read_by_a_dead_worker_are_received_by_the_next() {
    if !can_run("frames_read_by_a_dead_worker_are_received_by_the_next") {
        return;
    }
    let mut range = Range::new();
    let mut session = |_: &Path| {
        let mut client = Client::guest();
        client.create("file", ACCESS, CREATE_NEW, NON_DIRECTORY_FILE);
    };
    for count in 1..=3 {
        let crashed = range.crashed(&format!("1:before:tcp:{count}"), &mut session);
        assert!(crashed.is_some(), "no request came");
    }
    let again = "kept frame(s) are received";
    assert_eq!(range.server.log().matches(again).count(), 3);
    range.end();
}

/// The actions of an ordinary user; returns the output and the downloaded file.
fn smbclient_session(local: PathBuf) -> impl FnMut(&Path) -> (Vec<String>, Vec<u8>) {
    let mut rng = Rng::named("points");
    for (name, size) in [("first", 100_000), ("second", 70)] {
        std::fs::write(local.join(name), rng.bytes(size)).expect("a file");
    }
    move |_| {
        let back = local.join("back");
        let _ = std::fs::remove_file(&back);
        let commands = "put first a; put second a; put first b; mkdir d; rename b d/c; setmode a +h; \
                        utimes a -1 -1 2001:02:03-04:05:06 -1; put second gone; del gone; mkdir e; rmdir e; \
                        ls; ls d/*; get d/c back; allinfo a";
        let text = client::run(smbclient(SMB3_1_1), &local, commands).well();
        (
            without_times(&text),
            std::fs::read(&back).expect("what came back"),
        )
    }
}

/// A client's output without what differs between any two runs: times and speeds.
fn without_times(text: &str) -> Vec<String> {
    let is_time = |word: &str| ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"].contains(&word);
    text.lines()
        .filter(|line| {
            !line.contains("kb/s")
                && !line.contains("KiloBytes/sec")
                && !line.contains("blocks of size")
        })
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            // a time that was set is compared
            let keep = |word: &&str| line.contains("write_time") || !is_time(word);
            line.split_whitespace()
                .take_while(keep)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

//= patent fig5-2, fig5-3
//= patent claim-3, claim-4, claim-21, claim-24, claim-25, claim-42
#[test]
fn every_operation_at_points_2_and_3() {
    if !can_run("every_operation_at_points_2_and_3") {
        return;
    }
    let mut range = Range::new();
    let operations = [
        "create",
        "close",
        "delete",
        "flush",
        "read",
        "write",
        "query-directory",
        "stat",
        "query-volume",
        "set-basic",
        "set-end-of-file",
        "set-allocation",
        "rename",
        "link",
        "check-delete",
        "query-security",
        "set-security",
        "copy-chunks",
        "zero-data",
        "set-sparse",
        "query-allocated-ranges",
        "watch",
    ];
    range.sweep(&operations, &ALL, |_| session_of_everything());
    range.end();
}

//= patent fig5-1, fig5-3, fig5-4
#[test]
fn session_setup_and_locks_at_point_3_and_tcp() {
    if !can_run("session_setup_and_locks_at_point_3_and_tcp") {
        return;
    }
    let mut range = Range::new();
    range.sweep(&["none"], &["3:before", "3:after"], |_| session_of_locks());
    range.sweep(&["tcp"], &TCP, |_| session_of_locks());
    range.end();
}

/// Everything except EXECUTE and WRITE_OWNER, which the account of guests lacks on its own files.
const ACCESS: u32 = 0x0017_019F;
/// DELETE.
const DELETE: u32 = 0x0001_0000;
const CREATE_NEW: u32 = 2;
const OPEN: u32 = 1;
const OVERWRITE_IF: u32 = 5;
const DIRECTORY_FILE: u32 = 1;
const NON_DIRECTORY_FILE: u32 = 0x40;
const DELETE_ON_CLOSE: u32 = 0x1000;

const SRV_REQUEST_RESUME_KEY: u32 = 0x0014_0078;
const SRV_COPYCHUNK_WRITE: u32 = 0x0014_80F2;
const SET_SPARSE: u32 = 0x0009_00C4;
const SET_ZERO_DATA: u32 = 0x0009_80C8;
const QUERY_ALLOCATED_RANGES: u32 = 0x0009_40CF;

/// One of each operation, some of them twice, the second time with another answer. Returns the answers, without times
/// and ids.
fn session_of_everything() -> Vec<String> {
    let mut client = Client::guest();
    let mut answers = Vec::new();
    let name_information = |replace: u8, name: &str| {
        let name = raw::utf16(name);
        let mut buffer = vec![replace, 0, 0, 0, 0, 0, 0, 0];
        buffer.extend([0; 8]);
        buffer.extend(u32::try_from(name.len()).expect("short").to_le_bytes());
        buffer.extend(name);
        buffer
    };
    // A file in it could not be renamed while another open may delete it.
    let dir = client.create("d", ACCESS & !DELETE, CREATE_NEW, DIRECTORY_FILE);
    let watched = client.request(raw::CHANGE_NOTIFY, &raw::change_notify(dir));
    let file = client.create(r"d\f", ACCESS, CREATE_NEW, NON_DIRECTORY_FILE);
    answers.push(format!(
        "notified: {}",
        client.answer(watched).status & 0xF000_0000
    ));
    // exclusive: the second time it exists
    answers.push(format!(
        "{:x}",
        client
            .call(raw::CREATE, &raw::create(r"d\f", ACCESS, CREATE_NEW, 0))
            .status
    ));
    client.write(file, 0, b"0123456789");
    client.write(file, 70_000, b"far away");
    answers.push(format!("flush {:x}", client.flush(file).status));
    answers.push(format!("{:?}", client.read(file, 5, 10)));
    answers.push(format!(
        "eof {:x}",
        client
            .set_info(file, 1, 20, 0, &65_540_u64.to_le_bytes())
            .status
    ));
    answers.push(format!(
        "allocation {:x}",
        client
            .set_info(file, 1, 19, 0, &131_072_u64.to_le_bytes())
            .status
    ));
    let mut basic = vec![0; 32];
    basic[16..24].copy_from_slice(&126_000_000_000_000_000_u64.to_le_bytes()); // LastWriteTime
    basic.extend([0x20, 0, 0, 0, 0, 0, 0, 0]);
    answers.push(format!(
        "basic {:x}",
        client.set_info(file, 1, 4, 0, &basic).status
    ));
    let standard = client.query_info(file, 1, 5, 0);
    answers.push(format!(
        "standard {:x} {:?}",
        standard.status,
        &standard.body[16..]
    ));
    answers.push(format!(
        "volume {:x}",
        client.query_info(file, 2, 3, 0).status
    ));
    answers.push(format!(
        "security {:x}",
        client.query_info(file, 3, 0, 7).status
    ));
    // its current descriptor, set again
    let descriptor = client.query_info(file, 3, 0, 4).ok().body[8..].to_vec();
    answers.push(format!(
        "set security {:x}",
        client.set_info(file, 3, 0, 4, &descriptor).status
    ));
    answers.push(format!(
        "sparse {:x}",
        client.ioctl(file, SET_SPARSE, &[1], 0).status
    ));
    let range = |from: u64, to: u64| [from.to_le_bytes(), to.to_le_bytes()].concat();
    answers.push(format!(
        "zero {:x}",
        client.ioctl(file, SET_ZERO_DATA, &range(2, 5), 0).status
    ));
    answers.push(format!(
        "ranges {:x}",
        client
            .ioctl(file, QUERY_ALLOCATED_RANGES, &range(0, 65_540), 1024)
            .status
    ));
    let key = client
        .ioctl(file, SRV_REQUEST_RESUME_KEY, &[], 32)
        .ok()
        .body[48..72]
        .to_vec();
    let copy = client.create(r"d\copy", ACCESS, OVERWRITE_IF, NON_DIRECTORY_FILE);
    let mut chunks = key;
    chunks.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    chunks.extend(range(0, 0));
    chunks.extend([10, 0, 0, 0, 0, 0, 0, 0]);
    answers.push(format!(
        "copy {:x}",
        client.ioctl(copy, SRV_COPYCHUNK_WRITE, &chunks, 12).status
    ));
    answers.push(format!("{:?}", client.read(copy, 0, 10)));
    answers.push(format!(
        "link {:x}",
        client
            .set_info(file, 1, 11, 0, &name_information(0, r"d\link"))
            .status
    ));
    // without permission to replace an existing file
    answers.push(format!(
        "link {:x}",
        client
            .set_info(file, 1, 11, 0, &name_information(0, r"d\link"))
            .status
    ));
    answers.push(format!(
        "rename {:x}",
        client
            .set_info(copy, 1, 10, 0, &name_information(0, r"d\renamed"))
            .status
    ));
    answers.push(format!(
        "rename {:x}",
        client
            .set_info(copy, 1, 10, 0, &name_information(0, r"d\f"))
            .status
    ));
    let dying = client.create(r"d\dying", ACCESS, CREATE_NEW, NON_DIRECTORY_FILE);
    answers.push(format!(
        "disposition {:x}",
        client.set_info(dying, 1, 13, 0, &[1]).status
    ));
    client.close(dying);
    let brief = client.create(
        r"d\brief",
        ACCESS,
        CREATE_NEW,
        DIRECTORY_FILE | DELETE_ON_CLOSE,
    );
    client.close(brief);
    // not empty
    let doomed = client.create("d", ACCESS, OPEN, DIRECTORY_FILE);
    answers.push(format!(
        "disposition {:x}",
        client.set_info(doomed, 1, 13, 0, &[1]).status
    ));
    client.close(doomed);
    for _ in 0..2 {
        answers.push(format!("{:?}", client.list(dir, "*")));
    }
    for open in [file, copy, dir] {
        client.close(open);
    }
    let again = client.create(r"d\link", ACCESS, OPEN, 0);
    answers.push(format!("{:?}", client.read(again, 0, 10)));
    client.close(again);
    answers
}

/// Login, locks that hold across the crash, and an end.
fn session_of_locks() -> Vec<String> {
    let mut client = Client::guest();
    let mut answers = Vec::new();
    let one = client.create("f", ACCESS, CREATE_NEW, 0);
    let two = client.create("f", ACCESS, OPEN, 0);
    let mut lock = |client: &mut Client, file, flags| {
        answers.push(format!("{:x}", client.lock(file, 0, 10, flags).status))
    };
    lock(&mut client, one, 2 | 16);
    lock(&mut client, two, 2 | 16);
    lock(&mut client, one, 4);
    lock(&mut client, two, 2 | 16);
    lock(&mut client, one, 1 | 16);
    client.close(two);
    lock(&mut client, one, 1 | 16);
    client.close(one);
    answers.push(format!(
        "{:x}",
        client.call(raw::LOGOFF, &[4, 0, 0, 0]).status
    ));
    answers
}
