//! Tests the limits of clients: each limit holds against a client that takes all it can, and no other client is harmed.
//! A connected client continues and gets whole files, a new one is accepted, the worker never crashes, and everything
//! is released afterwards.

mod support;

use std::io::Write as _;

use outlast::control::ConnectionStatus;
use support::attack::{Attack, BIG, crowd, flood, state, stream};
use support::raw::{self, Client};
use support::stage::{Life, Stage, guest, open, opened, wait_until};
use support::{PATIENCE, wait_for};

const TOO_MANY_OPENED_FILES: u32 = 0xC000_011F;
const INSUFFICIENT_RESOURCES: u32 = 0xC000_009A;

// TCP

#[test]
fn half_open_connections_are_few() {
    let Some(mut stage) = Stage::set("half_open_connections_are_few", "half_open = 16") else {
        return;
    };
    let half_open = |one: &ConnectionStatus| one.tcp.state == "SYN-RECEIVED";
    let attack = Attack::start(1, |field| flood::syn_flood(field, 20_000));
    attack.wait_until_steady();
    wait_for("as many as may be", PATIENCE, || {
        (stage.count(half_open) == 16).then_some(())
    });
    stage.unharmed();
    assert_eq!(stage.count(half_open), 16);
    attack.stop();
    // a SYN whose sender never answers is only forgotten after a long time: the new client is accepted by a cookie
    stage.newcomer_gets();
    stage.bystander_gets();
    stage.assert_same_worker();
    assert!(stage.count(|_| true) <= 16 + 2);
}

#[test]
fn connections_are_limited() {
    let limits = "max_connections = 16";
    let Some(mut stage) = Stage::set("connections_are_limited", limits) else {
        return;
    };
    let attack = Attack::start(1, |field| crowd::idlers(field, 18));
    wait_until(&attack, "some to be dropped", |counts| &counts.dropped, 8);
    // the guest that has been idle for longest makes room for a new client, whatever its account
    for _ in 0..3 {
        stage.unharmed();
        let all = stage.count(|_| true);
        assert!((8..=16).contains(&all), "{all} connections");
    }
    attack.stop();
    wait_for("the others to leave", PATIENCE, || {
        (stage.count(|one| one.tcp.state == "ESTABLISHED") == 1).then_some(())
    });
    stage.newcomer_gets();
    stage.everything_is_given_back();
}

// Unauthenticated clients

#[test]
fn the_oldest_of_many_that_never_log_in_are_dropped() {
    let limits = "max_unauthenticated = 8";
    let Some(mut stage) = Stage::set("the_oldest_of_many_that_never_log_in_are_dropped", limits)
    else {
        return;
    };
    let unknown = |one: &ConnectionStatus| one.smb.user.is_none() && one.tcp.state == "ESTABLISHED";
    let attack = Attack::start(1, |field| crowd::unauthenticated(field, 32, 20));
    wait_until(&attack, "some to be dropped", |counts| &counts.dropped, 32);
    // one may be in progress
    assert!(stage.count(unknown) <= 9, "{:?}", stage.server.status());
    stage.unharmed();
    assert!(stage.count(unknown) <= 9, "{:?}", stage.server.status());
    attack.stop();
    stage.everything_is_given_back();
}

#[test]
fn a_client_that_does_not_log_in_in_time_is_dropped() {
    let limits = "auth_timeout_seconds = 1";
    let Some(mut stage) = Stage::set("a_client_that_does_not_log_in_in_time_is_dropped", limits)
    else {
        return;
    };
    let attack = Attack::start(1, |field| crowd::unauthenticated(field, 64, 200));
    wait_until(&attack, "all to be dropped", |counts| &counts.dropped, 64);
    stage.unharmed();
    attack.stop();
    stage.everything_is_given_back();
}

/// Other activity is no login; a client that has logged off is treated like one that never logged in.
#[test]
fn a_client_that_is_active_without_logging_in_is_dropped() {
    let limits = "auth_timeout_seconds = 1";
    let Some(stage) = Stage::set(
        "a_client_that_is_active_without_logging_in_is_dropped",
        limits,
    ) else {
        return;
    };
    let is_dropped = |mut client: Client| {
        wait_for("it to be dropped", PATIENCE, || {
            client.try_call(raw::ECHO, &[4, 0, 0, 0]).err()
        });
    };
    let mut client = Client::connect();
    client.negotiate();
    is_dropped(client);
    let mut client = guest();
    client.call(raw::LOGOFF, &[4, 0, 0, 0]).ok();
    is_dropped(client);
    stage.everything_is_given_back();
}

#[test]
fn a_long_message_before_login_costs_the_connection() {
    let Some(mut stage) = Stage::set("a_long_message_before_login_costs_the_connection", "") else {
        return;
    };
    const LONGEST: usize = 65 << 10;
    // a message of this length is still accepted
    let mut client = Client::connect();
    client.negotiate();
    let mut message = client.message(raw::ECHO, &[4, 0, 0, 0]);
    message.resize(LONGEST, 0);
    client.send(&message).expect("sent");
    client.receive().expect("an answer");
    drop(client);
    // a longer one is refused by its length
    for negotiates in [false, true] {
        let mut client = Client::connect();
        if negotiates {
            client.negotiate();
        }
        let longer = u32::try_from(LONGEST + 1).expect("short");
        client
            .stream
            .write_all(&longer.to_be_bytes())
            .expect("sent");
        assert!(client.is_dropped(), "negotiated: {negotiates}");
    }
    // after login it is permitted
    let mut client = guest();
    let file = client.create("long", 0x0017_019F, 3, 0);
    let data = vec![7; 2 * LONGEST];
    let write = client.charged(raw::WRITE, &raw::write(file, 0, &data), 4);
    client.send(&write).expect("sent");
    client.receive().expect("an answer").ok();
    drop(client);
    stage.unharmed();
    stage.everything_is_given_back();
}

#[test]
fn guessing_passwords_costs_the_connection() {
    let limits = "max_failed_logins_per_connection = 2";
    let Some(mut stage) = Stage::set("guessing_passwords_costs_the_connection", limits) else {
        return;
    };
    let attack = Attack::start(4, stream::failed_logins);
    wait_until(&attack, "some to be dropped", |counts| &counts.dropped, 20);
    stage.unharmed();
    let [connections, _, _, _, refused] = attack.counts().get();
    assert!(
        refused <= 2 * connections,
        "no more than two guesses on a connection: {}",
        attack.counts()
    );
    attack.stop();
    stage.everything_is_given_back();
}

// Open state

#[test]
fn opens_are_limited() {
    let limits = "max_opens = 64\nmax_opens_per_connection = 32";
    let Some(mut stage) = Stage::set("opens_are_limited", limits) else {
        return;
    };
    let mut one = guest();
    for _ in 0..32 {
        opened(&mut one, BIG, 0);
    }
    assert_eq!(open(&mut one, BIG, 0).status, TOO_MANY_OPENED_FILES);
    let mut another = guest();
    opened(&mut another, BIG, 0);

    let attack = Attack::start(3, stream::handles);
    attack.wait_until_steady();
    wait_until(&attack, "refusals", |counts| &counts.refused, 100);
    opened(&mut another, BIG, 0);
    stage.unharmed();
    let opens: u64 = {
        let status = stage.server.status();
        status.connections.iter().map(|one| one.smb.opens).sum()
    };
    assert!(opens <= 64, "{opens} opens");
    attack.stop();
    drop((one, another));
    stage.everything_is_given_back();
}

#[test]
fn locks_are_limited() {
    let limits = "max_locks = 64\nmax_locks_per_open = 32";
    let Some(mut stage) = Stage::set("locks_are_limited", limits) else {
        return;
    };
    let mut one = guest();
    let file = one.create("one's", 0x0017_019F, 3, 0);
    let lock = |client: &mut Client, file, at| client.lock(file, at, 1, 2 | 16);
    for at in 0..32 {
        lock(&mut one, file, at).ok();
    }
    assert_eq!(lock(&mut one, file, 32).status, INSUFFICIENT_RESOURCES);
    let mut another = guest();
    let file = another.create("another's", 0x0017_019F, 3, 0);
    lock(&mut another, file, 0).ok();

    let attack = Attack::start(3, stream::locks);
    attack.wait_until_steady();
    wait_until(&attack, "refusals", |counts| &counts.refused, 100);
    lock(&mut another, file, 1).ok();
    stage.unharmed();
    let locks: u64 = {
        let status = stage.server.status();
        status.connections.iter().map(|one| one.smb.locks).sum()
    };
    assert!(locks <= 64, "{locks} locks");
    attack.stop();
    drop((one, another));
    stage.everything_is_given_back();
}

/// Requests change notifications on so many opens of the share's directory; returns the first answer to each.
fn watch(client: &mut Client, opens: usize) -> Vec<u32> {
    (0..opens)
        .map(|_| {
            let dir = opened(client, "", 1);
            client.request(raw::CHANGE_NOTIFY, &raw::change_notify(dir));
            client.receive().expect("an answer").status
        })
        .collect()
}

fn watches_are_limited(test: &str, limits: &str) {
    let Some(mut stage) = Stage::set(test, limits) else {
        return;
    };
    let mut one = guest();
    let mut expected = vec![raw::STATUS_PENDING; 4];
    expected.push(INSUFFICIENT_RESOURCES);
    assert_eq!(watch(&mut one, 5), expected);
    let mut another = guest();
    assert_eq!(watch(&mut another, 1), [raw::STATUS_PENDING]);

    let attack = Attack::start(3, stream::watches);
    attack.wait_until_steady();
    wait_until(&attack, "refusals", |counts| &counts.refused, 20);
    stage.unharmed();
    attack.stop();
    drop((one, another));
    stage.everything_is_given_back();
}

#[test]
fn watches_hold_within_their_limit() {
    watches_are_limited(
        "watches_hold_within_their_limit",
        "max_watches = 16\nmax_watches_per_connection = 4",
    );
}

#[test]
fn waiting_requests_are_limited() {
    watches_are_limited(
        "waiting_requests_are_limited",
        "max_pending = 16\nmax_pending_per_connection = 4",
    );
}

// State of each client

#[test]
fn logins_that_are_not_finished_leave_room_for_others() {
    during_attack(
        "logins_that_are_not_finished_leave_room_for_others",
        32,
        state::half_done,
    );
}

#[test]
fn logins_that_guests_do_not_finish_leave_room_for_others() {
    during_attack(
        "logins_that_guests_do_not_finish_leave_room_for_others",
        16,
        state::half_done_by_guests,
    );
}

#[test]
fn long_paths_leave_room_for_others() {
    during_attack("long_paths_leave_room_for_others", 2, state::long_paths);
}

#[test]
fn long_patterns_leave_room_for_others() {
    during_attack("long_patterns_leave_room_for_others", 2, state::cursors);
}

#[test]
fn listings_that_are_not_ended_leave_room_for_others() {
    during_attack(
        "listings_that_are_not_ended_leave_room_for_others",
        2,
        state::listing_handles,
    );
}

#[test]
fn copies_onto_themselves_leave_room_for_others() {
    during_attack(
        "copies_onto_themselves_leave_room_for_others",
        2,
        state::copies,
    );
}

#[test]
fn chains_that_wait_leave_room_for_others() {
    during_attack("chains_that_wait_leave_room_for_others", 2, state::parking);
}

#[test]
fn missing_names_in_deep_directories_leave_time_for_others() {
    during_attack(
        "missing_names_in_deep_directories_leave_time_for_others",
        2,
        state::deep_names,
    );
}

/// An account that has taken everything permitted prevents no other account from opening a file, and releases it all.
#[test]
fn state_of_an_account_is_released_with_it() {
    let Some(stage) = Stage::set("state_of_an_account_is_released_with_it", "") else {
        return;
    };
    let attack = Attack::start(2, state::long_paths);
    wait_until(&attack, "refusals", |counts| &counts.refused, 20);
    let held = |stage: &Stage| -> u64 {
        let status = stage.server.status();
        let all = status.connections.iter();
        all.map(|one| one.smb.state_bytes).sum()
    };
    let most = held(&stage);
    assert!(most > 1 << 20, "{most} bytes are held");
    attack.stop();
    wait_for("it to be released", PATIENCE, || {
        (held(&stage) < 64 << 10).then_some(())
    });
    stage.everything_is_given_back();
}

/// A recovery releases the memory for reading the log: the next worker is about as large as the one before it.
#[test]
fn a_recovered_worker_is_no_larger_than_the_one_before() {
    const CLIENTS: usize = 500;
    let test = "a_recovered_worker_is_no_larger_than_the_one_before";
    let Some(stage) = Stage::set(test, "") else {
        return;
    };
    let attack = Attack::start(1, |field| crowd::idlers(field, CLIENTS));
    wait_for("all to be there", PATIENCE, || {
        (stage.count(|_| true) > CLIENTS).then_some(())
    });
    let heap = |pid: u32| {
        let path = format!("/proc/{pid}/status");
        let text = std::fs::read_to_string(path).expect("the worker's figures");
        let line = text.lines().find(|line| line.starts_with("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.expect("RssAnon in kB")
    };
    let worker = stage.before.worker_pid;
    let before = heap(worker);
    stage.server.kill_worker(worker);
    let after = heap(stage.server.successor_of(worker).worker_pid);
    eprintln!("{before} KiB before, {after} KiB after the recovery of {CLIENTS} connections");
    assert!(
        after < before + before / 2 + 4096,
        "{before} KiB, then {after}"
    );
    attack.stop();
    stage.everything_is_given_back_by_another();
}

/// All of these attacks at once, with crashes of the worker in between: it recovers each time, and a new client is
/// accepted and served.
#[test]
fn all_attacks_at_once_across_crashes() {
    const LIVES: [Life; 8] = [
        state::half_done,
        state::half_done_by_guests,
        state::long_paths,
        state::cursors,
        state::listing_handles,
        state::copies,
        state::parking,
        stream::locks,
    ];
    let Some(stage) = Stage::set("all_attacks_at_once_across_crashes", "") else {
        return;
    };
    let attacks: Vec<Attack> = LIVES.iter().map(|life| Attack::start(2, *life)).collect();
    attacks.iter().for_each(Attack::wait_until_steady);
    let mut worker = stage.before.worker_pid;
    for _ in 0..3 {
        stage.newcomer_gets();
        stage.server.kill_worker(worker);
        worker = stage.server.successor_of(worker).worker_pid;
    }
    stage.newcomer_gets();
    stage.server.assert_sound();
    for attack in attacks {
        attack.stop();
    }
}

// Time of the single thread

fn during_attack(test: &str, threads: usize, life: Life) {
    let Some(mut stage) = Stage::set(test, "") else {
        return;
    };
    let attack = Attack::start(threads, life);
    attack.wait_until_steady();
    stage.unharmed();
    let [_, dropped, ..] = attack.counts().get();
    assert_eq!(dropped, 0, "what it does is allowed");
    attack.stop();
    stage.everything_is_given_back();
}

#[test]
fn long_compounds_leave_time_for_others() {
    during_attack("long_compounds_leave_time_for_others", 4, |field| {
        stream::compounds(field, 500)
    });
}

#[test]
fn listings_leave_time_for_others() {
    during_attack("listings_leave_time_for_others", 4, stream::listings);
}

#[test]
fn messages_that_trickle_in_leave_time_for_others() {
    during_attack(
        "messages_that_trickle_in_leave_time_for_others",
        1,
        |field| crowd::trickle(field, 256),
    );
}
