//! Tests that clients that read no reply, or send half a message, hold little, are dropped when they make no progress,
//! and harm no other client.

mod support;

use std::io::Read as _;

use support::attack::{Attack, BIG, crowd};
use support::raw::{self, Client, FileId};
use support::stage::{Life, Stage, guest, opened};
use support::{PATIENCE, wait_for};

/// Asks for the big file, a MiB at a time, and does not read it.
fn ask(client: &mut Client, file: FileId, requests: u64) {
    for number in 0..requests {
        let body = raw::read(file, number << 20, 1 << 20);
        let message = client.charged(raw::READ, &body, 16);
        client.send(&message).expect("sent");
    }
}

#[test]
fn unread_replies_are_limited() {
    let limits = "max_unread_per_connection = \"2MiB\"";
    let Some(mut stage) = Stage::set("unread_replies_are_limited", limits) else {
        return;
    };
    let mut client = guest();
    let port = client.stream.local_addr().expect("an address").port();
    client.credits = 2048;
    let file = opened(&mut client, BIG, 0);
    ask(&mut client, file, 64);
    let kept = |stage: &Stage| {
        let status = stage.server.status();
        let mut of_client = status.connections.iter();
        let one = of_client.find(|one| one.client.port() == port);
        one.expect("its connection").tcp.unacked_bytes
    };
    // the reply that exceeded the limit is there completely
    let most = (2 << 20) + (1 << 20) + (64 << 10);
    wait_for("replies to wait", PATIENCE, || {
        (kept(&stage) >= 1 << 20).then_some(())
    });
    stage.unharmed();
    assert!(kept(&stage) <= most, "{} bytes are kept", kept(&stage));
    // when the client reads, it gets everything
    let expected = std::fs::read(stage.server.share().join(BIG)).expect("the file");
    for piece in expected.chunks(1 << 20) {
        let answer = client.receive().expect("an answer").ok();
        assert!(answer.body.ends_with(piece), "another piece");
        assert!(kept(&stage) <= most, "{} bytes are kept", kept(&stage));
    }
    drop(client);
    stage.everything_is_given_back();
}

/// Earlier in a crowd than the tests' timeout; what a crowd leaves behind is dropped too, while they still wait.
const CROWDED: &str = "stall_timeout_seconds = 60\nstall_timeout_crowded_seconds = 1";

/// During an attack that makes no progress, and is dropped for it, a slow client that progresses keeps its connection.
fn stalled_are_dropped(test: &str, limits: &str, threads: usize, life: Life) {
    let Some(mut stage) = Stage::set(test, limits) else {
        return;
    };
    let mut steady = guest();
    steady.credits = 2048;
    let file = opened(&mut steady, BIG, 0);
    ask(&mut steady, file, 64);
    let attack = Attack::start(threads, life);
    let expected = std::fs::read(stage.server.share().join(BIG)).expect("the file");
    let mut pieces = expected.chunks(1 << 20);
    // slowly: a MiB for each check of how many have been dropped
    wait_for("stalled clients to be dropped", PATIENCE, || {
        if let Some(piece) = pieces.next() {
            let answer = steady.receive().expect("an answer").ok();
            assert!(answer.body.ends_with(piece), "another piece");
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        let [_, dropped, ..] = attack.counts().get();
        (dropped >= 24).then_some(())
    });
    for piece in pieces {
        let answer = steady.receive().expect("an answer").ok();
        assert!(answer.body.ends_with(piece), "another piece");
    }
    stage.unharmed();
    attack.stop();
    drop(steady);
    stage.everything_is_given_back();
}

#[test]
fn slow_readers_are_dropped() {
    let limits = "stall_timeout_seconds = 2\nstall_timeout_crowded_seconds = 2";
    stalled_are_dropped("slow_readers_are_dropped", limits, 1, |field| {
        crowd::slow_readers(field, 8)
    });
}

#[test]
fn slow_readers_are_dropped_sooner_in_a_crowd() {
    stalled_are_dropped(
        "slow_readers_are_dropped_sooner_in_a_crowd",
        CROWDED,
        1,
        |field| crowd::slow_readers(field, 48),
    );
}

#[test]
fn slow_writers_are_dropped() {
    let limits = "stall_timeout_seconds = 2\nstall_timeout_crowded_seconds = 2";
    stalled_are_dropped("slow_writers_are_dropped", limits, 4, crowd::half_messages);
}

#[test]
fn slow_writers_are_dropped_sooner_in_a_crowd() {
    stalled_are_dropped(
        "slow_writers_are_dropped_sooner_in_a_crowd",
        CROWDED,
        48,
        crowd::half_messages,
    );
}

/// A reader that reads a piece, and then nothing for a while, is served in turn with the others: the replies kept for
/// it are not lost.
#[test]
fn a_client_that_pauses_gets_what_it_asked_for() {
    let limits = "max_unread_per_connection = \"1MiB\"";
    let Some(mut stage) = Stage::set("a_client_that_pauses_gets_what_it_asked_for", limits) else {
        return;
    };
    let mut client = guest();
    client.credits = 2048;
    let file = opened(&mut client, BIG, 0);
    ask(&mut client, file, 8);
    let mut first = [0; 4];
    client.stream.read_exact(&mut first).expect("a length");
    stage.unharmed();
    let length = u32::from_be_bytes(first) as usize;
    let mut rest = vec![0; length];
    client.stream.read_exact(&mut rest).expect("the rest");
    let expected = std::fs::read(stage.server.share().join(BIG)).expect("the file");
    assert!(rest.ends_with(&expected[..1 << 20]), "another piece");
    for piece in expected.chunks(1 << 20).take(8).skip(1) {
        let answer = client.receive().expect("an answer").ok();
        assert!(answer.body.ends_with(piece), "another piece");
    }
    drop(client);
    stage.everything_is_given_back();
}
