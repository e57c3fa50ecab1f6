//! Tests that the keys of sessions stay neither in the NVRAM nor in its sink when they are no longer needed.

mod support;

use std::path::Path;

use support::client::{SMB3_1_1, Session, smbclient};
use support::lab::Lab;
use support::power::{OnDisk, SinkPath, can_cut_power};
use support::server::Server;
use support::{PATIENCE, wait_for};

/// A session, and its signing key, which smbclient prints.
fn session(lab: &Lab, name: &str) -> (Session, Vec<u8>) {
    let local = lab.make_dir(name);
    let mut client = smbclient(SMB3_1_1);
    client.args(["-d", "1", "--option=debug encryption=yes"]);
    let mut session = Session::interactive(client, &local);
    session.say("ls");
    let text = session.expect("blocks available");
    let key = signing_key(&text);
    assert_eq!(key.len(), 16, "{text}");
    (session, key)
}

/// `Signing Key   [0000] 01 23 ...`, eight bytes, a space, eight bytes.
fn signing_key(text: &str) -> Vec<u8> {
    let from = text.find("Signing Key").expect("a signing key");
    let (_, dump) = text[from..].split_once("[0000]").expect("a dump");
    let words = dump.split_whitespace().take(16);
    words
        .map_while(|word| u8::from_str_radix(word, 16).ok())
        .collect()
}

fn holds(file: &Path, key: &[u8]) -> bool {
    let bytes = std::fs::read(file).expect("the log");
    bytes.windows(key.len()).any(|found| found == key)
}

#[test]
fn the_keys_of_ended_sessions_leave_the_nvram_and_the_sink() {
    const NAME: &str = "the_keys_of_ended_sessions_leave_the_nvram_and_the_sink";
    if !can_cut_power(NAME) {
        return;
    }
    let lab = Lab::new();
    let _disk = OnDisk::new(&lab, NAME);
    let sink = SinkPath::new(NAME);
    let mut server = Server::start(&lab, sink.setup());
    let nvram = lab.path("nvram");
    let places = [nvram.as_path(), &sink.0];
    let (_stays, staying) = session(&lab, "stays");
    let (mut leaves, leaving) = session(&lab, "leaves");
    for file in places {
        assert!(holds(file, &staying) && holds(file, &leaving), "{file:?}");
    }
    leaves.say("quit");
    leaves.finish().well();
    // At most a minute after the session.
    wait_for("the key to be wiped", 3 * PATIENCE, || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let is_held = places.into_iter().any(|file| holds(file, &leaving));
        (!is_held).then_some(())
    });
    for file in places {
        assert!(holds(file, &staying), "{file:?}: the other session lives");
    }
    let stopped = server.outlast(&["stop"]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(server.ended(), Some(0));
    for file in places {
        assert!(!holds(file, &staying), "{file:?}");
    }
    server.assert_sound();
}
