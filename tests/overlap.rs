//! Tests large writes, which run in parallel to the loop: their outcome when the client disconnects, or the server is
//! rebooted, meanwhile.

mod support;

use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use support::can_run;
use support::lab::Lab;
use support::raw::{self, Client, FileId};
use support::server::{Server, Setup};

const LENGTH: usize = 1 << 20;

/// The message of a large write at the file's beginning, with the credits that it costs (MS-SMB2 3.2.4.1.5).
fn large_write(client: &mut Client, file: FileId, data: &[u8]) -> Vec<u8> {
    let charge = u16::try_from(data.len() / 65536).expect("some credits");
    let mut message = client.message(raw::WRITE, &raw::write(file, 0, data));
    message[6..8].copy_from_slice(&charge.to_le_bytes());
    client.message_id += u64::from(charge) - 1;
    message
}

fn create(client: &mut Client, name: &str) -> FileId {
    const READ_AND_WRITE: u32 = 0x0012_019f;
    const CREATE: u32 = 2;
    client.create(name, READ_AND_WRITE, CREATE, 0)
}

fn serve(lab: &Lab) -> Server {
    Server::start(
        lab,
        Setup {
            share: "guest = true".to_owned(),
            ..Setup::default()
        },
    )
}

#[test]
fn a_client_that_resets_in_the_middle_of_its_writes_leaves_nothing_behind() {
    if !can_run("a_client_that_resets_in_the_middle_of_its_writes_leaves_nothing_behind") {
        return;
    }
    let lab = Lab::new();
    let server = serve(&lab);
    let before = server.status();
    let mut other = Client::guest();
    let kept = create(&mut other, "kept");
    let data: Vec<u8> = (0..LENGTH).map(|i| (i % 251) as u8).collect();
    for round in 0..40 {
        let mut client = Client::guest();
        let file = create(&mut client, &format!("left-{round}"));
        let message = large_write(&mut client, file, &data);
        client.send(&message).expect("sent");
        // closed with this it resets instead of finishing
        set_socket_linger(&client.stream, Some(Duration::ZERO)).expect("linger");
        drop(client);
        let message = large_write(&mut other, kept, &data);
        let id = other.message_id - (LENGTH / 65536) as u64;
        other.send(&message).expect("sent");
        other.answer(id).ok();
    }
    other.close(kept);
    drop(other);
    server.wait_until_left_alone();
    let after = server.status();
    assert_eq!(
        (after.worker_pid, after.epoch),
        (before.worker_pid, before.epoch)
    );
    let written = std::fs::read(server.share().join("kept")).expect("the file");
    assert!(written == data);
    server.assert_sound();
}

//= patent fig2-215, claim-7, claim-28
#[test]
fn a_reboot_waits_for_the_write_under_way_and_answers_it_once() {
    if !can_run("a_reboot_waits_for_the_write_under_way_and_answers_it_once") {
        return;
    }
    let lab = Lab::new();
    let server = serve(&lab);
    let mut client = Client::guest();
    let file = create(&mut client, "file");
    for round in 0..10_u8 {
        let data = vec![round; LENGTH];
        let message = large_write(&mut client, file, &data);
        let id = client.message_id - (LENGTH / 65536) as u64;
        client.send(&message).expect("sent");
        server.reboot();
        client.answer(id).ok();
        assert_eq!(
            client.read(file, LENGTH as u64 - 1000, 1000),
            [round; 1000],
            "round {round}"
        );
    }
    client.close(file);
    drop(client);
    server.wait_until_left_alone();
    server.assert_sound();
}
