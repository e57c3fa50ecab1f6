//! Tests open files and watched directories across crashes of the server, on the real file system.

mod support;

use rustix::process::{Pid, Signal, kill_process};
use support::can_run;
use support::lab::Lab;
use support::raw::{self, Answer, Client, FileId};
use support::server::{Server, Setup};

/// FILE_READ_DATA, FILE_WRITE_DATA and FILE_READ_ATTRIBUTES (MS-SMB2 2.2.13.1).
const READ_WRITE: u32 = 0x83;
const CREATE_NEW: u32 = 2;
const OPEN: u32 = 1;
const DIRECTORY_FILE: u32 = 1;
/// STATUS_NOTIFY_ENUM_DIR, STATUS_FILE_CLOSED (MS-ERREF 2.3.1).
const NOTIFY_ENUM_DIR: u32 = 0x0000_010C;
const FILE_CLOSED: u32 = 0xC000_0128;

fn start(lab: &Lab) -> Server {
    let share = "guest = true".to_owned();
    Server::start(
        lab,
        Setup {
            share,
            ..Setup::default()
        },
    )
}

/// Kills the worker by kill -9, and waits for the next one.
fn kill(server: &Server) {
    let worker = server.status().worker_pid;
    server.kill_worker(worker);
    server.successor_of(worker);
}

fn watch_root(client: &mut Client) -> u64 {
    let root = client.create("", READ_WRITE & 0x81, OPEN, DIRECTORY_FILE);
    client.request(raw::CHANGE_NOTIFY, &raw::change_notify(root))
}

/// The single change that is reported: its action and name.
fn change(answer: &Answer) -> (u32, Vec<u8>) {
    assert_eq!(answer.status, 0, "the change was not reported");
    let word = |at: usize| u32::from_le_bytes(answer.body[at..at + 4].try_into().expect("four"));
    (word(12), answer.body[20..20 + word(16) as usize].to_vec())
}

#[test]
fn a_watch_reports_nothing_while_nothing_changes() {
    if !can_run("a_watch_reports_nothing_while_nothing_changes") {
        return;
    }
    let lab = Lab::new();
    let server = start(&lab);
    let mut client = Client::guest();
    let watched = watch_root(&mut client);
    for _ in 0..5 {
        kill(&server);
        // The connection still works.
        client.call(raw::ECHO, &[4, 0, 0, 0]).ok();
    }
    std::fs::write(server.share().join("new"), "").expect("a file");
    assert_eq!(change(&client.answer(watched)), (1, raw::utf16("new")));
    server.assert_sound();
}

#[test]
fn a_change_while_the_server_is_down_is_not_missed() {
    if !can_run("a_change_while_the_server_is_down_is_not_missed") {
        return;
    }
    let lab = Lab::new();
    let server = start(&lab);
    let mut client = Client::guest();
    let watched = watch_root(&mut client);
    client.call(raw::ECHO, &[4, 0, 0, 0]).ok();
    let worker = server.status().worker_pid;
    let pid = i32::try_from(worker).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process"), Signal::STOP).expect("the worker stands still");
    std::fs::write(server.share().join("unseen"), "").expect("a file");
    server.kill_worker(worker);
    server.successor_of(worker);
    assert_eq!(client.answer(watched).status, NOTIFY_ENUM_DIR);
    server.assert_sound();
}

#[test]
fn two_thousand_opens_survive_crashes_and_one_was_deleted() {
    if !can_run("two_thousand_opens_survive_crashes_and_one_was_deleted") {
        return;
    }
    let lab = Lab::new();
    let server = start(&lab);
    let mut client = Client::guest();
    let name = |number: usize| format!("file{number}");
    let files: Vec<FileId> = (0..2000)
        .map(|number| {
            let file = client.create(&name(number), READ_WRITE, CREATE_NEW, 0);
            client.write(file, 0, name(number).as_bytes());
            file
        })
        .collect();
    kill(&server);
    let renamed = server.share().join("elsewhere");
    std::fs::rename(server.share().join(name(7)), renamed).expect("a rename");
    std::fs::remove_file(server.share().join(name(8))).expect("a removal");
    kill(&server);
    for (number, file) in files.iter().enumerate() {
        if number == 8 {
            let answer = client.call(raw::READ, &raw::read(*file, 0, 100));
            assert_eq!(answer.status, FILE_CLOSED);
        } else {
            assert_eq!(client.read(*file, 0, 100), name(number).as_bytes());
        }
    }
    for file in files {
        client.close(file);
    }
    let log = server.log();
    assert_eq!(log.matches("cannot be opened again").count(), 1, "{log}");
    server.assert_sound();
}
