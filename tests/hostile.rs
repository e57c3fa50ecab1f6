//! Tests that clients that send malformed data cost only themselves: another client is served, and the worker never
//! crashes.

mod support;

use std::io::Write as _;
use std::net::Shutdown;
use std::time::Duration;

use support::capture::Capture;
use support::client::{SMB3_1_1, Session, smbclient};
use support::lab::Lab;
use support::raw::{self, Client};
use support::server::{Server, Setup};
use support::{PATIENCE, Rng, can_run, files, wait_for};

const BIG: u64 = 256 << 20;

/// Number of hostile clients of each kind while the bystander is connected.
const ROUNDS: usize = 60;

#[test]
fn no_other_client_notices() {
    if !can_run("no_other_client_notices") {
        return;
    }
    let seed = std::env::var("OUTLAST_SEED")
        .ok()
        .map_or(0x0717_a571, |seed| {
            seed.parse().expect("OUTLAST_SEED: a number")
        });
    println!("OUTLAST_SEED={seed}");
    let mut rng = Rng(seed);
    let lab = Lab::new();
    let server = Server::start(
        &lab,
        Setup {
            share: "guest = true".to_owned(),
            ..Setup::default()
        },
    );
    files::random_file(&server.share().join("big"), BIG, &mut rng);
    let local = lab.make_dir("local");
    let before = server.status();

    // a well-behaved session during all of them, which downloads before, during and after
    let capture = Capture::start();
    let mut bystander = Session::interactive(smbclient(SMB3_1_1), &local);
    bystander.say("get big first");
    wait_for("the bystander to have begun", PATIENCE, || {
        (files::size(&local.join("first")) > 0).then_some(())
    });
    let port = {
        let status = server.status();
        let [connection] = &status.connections[..] else {
            panic!("one client: {status:?}")
        };
        connection.client.port()
    };
    for round in 0..ROUNDS {
        for (name, attack) in ATTACKS {
            attack(&mut rng);
            let status = server.status();
            assert_eq!(
                (status.worker_pid, status.epoch),
                (before.worker_pid, before.epoch),
                "round {round}: {name} crashed the worker"
            );
        }
    }
    bystander.say("get big second");
    bystander.expect("as second");
    bystander.say("quit");
    bystander.finish().well();
    for name in ["first", "second"] {
        files::assert_same(&server.share().join("big"), &local.join(name));
    }
    server.wait_until_left_alone();
    let verdict = capture.verdict();
    assert_eq!(
        verdict.syns.get(&port).map(std::collections::BTreeSet::len),
        Some(1),
        "the bystander has one connection"
    );
    assert_eq!(server.status().worker_pid, before.worker_pid);
    server.assert_sound();
}

type Attack = fn(&mut Rng);

const ATTACKS: [(&str, Attack); 10] = [
    ("random bytes", random_bytes),
    ("NetBIOS lengths", netbios_lengths),
    ("a message that never ends", endless_message),
    ("SMB headers", headers),
    ("offsets and lengths", offsets),
    ("compounds", compounds),
    ("credits and MessageIds", credits),
    ("security blobs", security_blobs),
    ("paths and patterns", paths),
    ("a mutilated session", mutilated_session),
];

/// Sends bytes, ignores how it ends, and reads the answers until the server drops the connection.
fn throw(mut client: Client, bytes: &[u8]) {
    // the server may have dropped it already
    let _ = client.stream.write_all(bytes);
    let _ = client.stream.shutdown(Shutdown::Write);
    client
        .stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    assert!(client.is_dropped(), "a client that has finished is kept");
}

fn random_bytes(rng: &mut Rng) {
    let len = 1 + rng.below(2000);
    let bytes = rng.bytes(len);
    throw(Client::connect(), &bytes);
}

fn netbios_lengths(rng: &mut Rng) {
    let len = rng.below(200);
    let mut bytes = rng.bytes(len + 4);
    let header: [u8; 4] = [
        [0, 0, 0, 0],
        [0, 0xFF, 0xFF, 0xFF],
        [0, 1, 0, 0],
        [0x85, 0, 0, 0],
        [0x81, 0, 0, 68],
        [0xFF, 0xFF, 0xFF, 0xFF],
        [0, 0, 0, 3],
    ][rng.below(7)];
    bytes[..4].copy_from_slice(&header);
    throw(Client::connect(), &bytes);
}

/// A large length, and fewer bytes; the client stays connected for a while.
fn endless_message(rng: &mut Rng) {
    let mut client = Client::connect();
    client.negotiate();
    let mut bytes = vec![0, 0x7F, 0xFF, 0xFF];
    let len = rng.below(100_000);
    bytes.extend(rng.bytes(len));
    throw(client, &bytes);
}

fn headers(rng: &mut Rng) {
    let mut client = Client::connect();
    if rng.below(2) == 0 {
        client.negotiate();
    }
    let command = u16::try_from(rng.below(24)).expect("small");
    let mut message = client.message(command, &[]);
    let len = rng.below(120);
    message.extend(rng.bytes(len));
    for _ in 0..=rng.below(4) {
        let at = rng.below(64);
        message[at] = rng.bytes(1)[0];
    }
    message.truncate(1 + rng.below(message.len()));
    throw(client, &raw::frame(&message));
}

/// Extreme values of fields with offsets and lengths.
const EXTREMES: [u32; 8] = [
    0,
    1,
    63,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFF8,
    0xFFFF_FFFF,
    0x0001_0000,
];

fn offsets(rng: &mut Rng) {
    let mut client = Client::guest();
    let file = client.create("offsets", 0x0017_019F, 3, 0);
    let (command, mut body) = match rng.below(6) {
        0 => (raw::READ, raw::read(file, u64::MAX - 7, 0xFFFF_FFFF)),
        1 => (raw::WRITE, raw::write(file, u64::MAX - 7, b"beyond")),
        2 => (raw::CREATE, raw::create("x", 0x0017_019F, 3, 0)),
        3 => (raw::IOCTL, {
            let mut body = vec![57, 0, 0, 0, 0x78, 0, 0x14, 0];
            body.extend(file);
            body.extend([0; 33]);
            body
        }),
        4 => (raw::LOCK, {
            let mut body = vec![48, 0, 0xFF, 0xFF, 0, 0, 0, 0];
            body.extend(file);
            body.extend([0xFF; 24]);
            body
        }),
        _ => (raw::CHANGE_NOTIFY, raw::change_notify(file)),
    };
    for _ in 0..=rng.below(3) {
        let at = 2 + 2 * rng.below(body.len() / 2 - 3);
        let value = EXTREMES[rng.below(EXTREMES.len())].to_le_bytes();
        body[at..at + 4].copy_from_slice(&value);
    }
    let message = client.message(command, &body);
    throw(client, &raw::frame(&message));
}

/// Chains whose NextCommand points to any place.
fn compounds(rng: &mut Rng) {
    let mut client = Client::guest();
    let mut chain = Vec::new();
    for _ in 0..1 + rng.below(8) {
        let name = format!("compound {}", rng.below(4));
        let mut message = match rng.below(3) {
            0 => client.message(raw::CREATE, &raw::create(&name, 0x0017_019F, 3, 0)),
            1 => client.message(raw::READ, &raw::read([0xFF; 16], 0, 100)),
            _ => client.message(raw::CLOSE, &raw::close([0xFF; 16])),
        };
        message.resize(message.len().next_multiple_of(8), 0);
        let next = match rng.below(4) {
            0 => EXTREMES[rng.below(EXTREMES.len())],
            1 => u32::try_from(rng.below(300)).expect("small"),
            _ => u32::try_from(message.len()).expect("short"),
        };
        message[20..24].copy_from_slice(&next.to_le_bytes());
        message[16] = [0, 4][rng.below(2)]; // RELATED_OPERATIONS
        chain.extend(message);
    }
    throw(client, &raw::frame(&chain));
}

fn credits(rng: &mut Rng) {
    let mut client = Client::guest();
    let mut message = client.message(raw::QUERY_INFO, &[41; 41]);
    match rng.below(4) {
        0 => message[6..8].copy_from_slice(&0xFFFF_u16.to_le_bytes()),
        1 => message[24..32].copy_from_slice(&rng.next().to_le_bytes()),
        2 => message[24..32].copy_from_slice(&0_u64.to_le_bytes()),
        _ => message[14..16].copy_from_slice(&0xFFFF_u16.to_le_bytes()),
    }
    throw(client, &raw::frame(&message));
}

fn security_blobs(rng: &mut Rng) {
    let mut client = Client::connect();
    client.negotiate();
    let mut blob = match rng.below(4) {
        0 => raw::ntlm_negotiate(),
        1 => raw::ntlm_guest(),
        2 => {
            let challenge = client.session_setup(&raw::ntlm_negotiate());
            client.session_id = challenge.session_id;
            raw::ntlm_guest()
        }
        // SPNEGO: an application tag and lengths that lie
        _ => [
            vec![0x60, [0x7F, 0x84, 0x80, 0xFF][rng.below(4)]],
            rng.bytes(60),
        ]
        .concat(),
    };
    for _ in 0..rng.below(6) {
        let at = rng.below(blob.len());
        blob[at] = rng.bytes(1)[0];
    }
    blob.truncate(1 + rng.below(blob.len()));
    let message = client.message(raw::SESSION_SETUP, &raw::session_setup(&blob));
    throw(client, &raw::frame(&message));
}

fn paths(rng: &mut Rng) {
    let mut client = Client::guest();
    let name = match rng.below(7) {
        0 => r"..\..\..\..\etc\passwd".to_owned(),
        1 => r"\\\".to_owned(),
        2 => "a\0b".to_owned(),
        3 => r"x\".repeat(8000),
        4 => "*?<>\"|".to_owned(),
        5 => "n".repeat(20_000),
        _ => String::from_utf16_lossy(
            &(0..50)
                .map(|_| u16::try_from(rng.below(0x1_0000)).expect("16 bits"))
                .collect::<Vec<_>>(),
        ),
    };
    let answer = client.call(raw::CREATE, &raw::create(&name, 0x0012_0089, 1, 0));
    assert_ne!(answer.status, 0, "{name:?} was opened");
    // a directory is listed with a pattern that may take long to match
    let dir = client.create("", 0x0012_0089, 1, 1);
    let pattern = [
        "*a*b*c*d*e*f*g*h*i*j*k*l*m*".repeat(20),
        "<".repeat(500),
        "?\"".repeat(300),
    ][rng.below(3)]
    .clone();
    let pattern = raw::utf16(&pattern);
    let mut body = vec![33, 0, 12, 0, 0, 0, 0, 0];
    body.extend(dir);
    body.extend([96, 0]);
    body.extend(u16::try_from(pattern.len()).expect("short").to_le_bytes());
    body.extend(4096_u32.to_le_bytes());
    body.extend(&pattern);
    let message = client.message(raw::QUERY_DIRECTORY, &body);
    throw(client, &raw::frame(&message));
}

/// A whole session in which any byte may be changed.
fn mutilated_session(rng: &mut Rng) {
    let mut client = Client::guest();
    let file = client.create("victim", 0x0017_019F, 3, 0);
    let mut bytes = Vec::new();
    for _ in 0..6 {
        let message = match rng.below(5) {
            0 => client.message(raw::WRITE, &raw::write(file, 0, &[7; 300])),
            1 => client.message(raw::READ, &raw::read(file, 0, 300)),
            2 => client.message(raw::CREATE, &raw::create("other", 0x0017_019F, 3, 0)),
            3 => client.message(raw::CHANGE_NOTIFY, &raw::change_notify(file)),
            _ => client.message(raw::CLOSE, &raw::close(file)),
        };
        bytes.extend(raw::frame(&message));
    }
    for _ in 0..1 + rng.below(10) {
        let at = rng.below(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
    }
    throw(client, &bytes);
}
