//! Sets up a server with limits, a well-behaved client on it, and the effects of an attack on that client.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use outlast::control::{ConnectionStatus, Status};

use super::attack::{self, Attack, BIG, Counts};
use super::client::{self, SMB3_1_1, Session, smbclient};
use super::lab::Lab;
use super::raw::{self, Client, FileId};
use super::server::{Server, Setup};
use super::{PATIENCE, can_run, files, wait_for};

/// The actions of an attacker, which are repeated.
pub type Life = fn(&attack::Field) -> io::Result<()>;

const BIG_BYTES: u64 = 64 << 20;

/// A server with limits, and a well-behaved client on it.
pub struct Stage {
    pub bystander: Session,
    pub gets: usize,
    pub local: PathBuf,
    pub before: Status,
    pub server: Server,
    pub lab: Lab,
}

impl Stage {
    /// `limits`: lines of `[limits]`. None where the test cannot run.
    pub fn set(test: &str, limits: &str) -> Option<Stage> {
        if !can_run(test) {
            return None;
        }
        let lab = Lab::new();
        let setup = Setup {
            share: "guest = true".to_owned(),
            more: format!("[limits]\n{limits}"),
            ..Setup::default()
        };
        let server = Server::start(&lab, setup);
        attack::furnish(server.share(), BIG_BYTES);
        let local = lab.make_dir("local");
        let before = server.status();
        let bystander = Session::interactive(smbclient(SMB3_1_1), &local);
        let mut stage = Stage {
            bystander,
            gets: 0,
            local,
            before,
            server,
            lab,
        };
        stage.bystander_gets();
        Some(stage)
    }

    /// Checks that the connected client receives the whole big file.
    pub fn bystander_gets(&mut self) {
        self.gets += 1;
        let name = format!("got {}", self.gets);
        self.bystander.say(&format!("get {BIG} \"{name}\""));
        self.bystander.expect(&format!("as {name}"));
        self.compare(&name);
    }

    /// Checks that a new client receives it, too.
    pub fn newcomer_gets(&self) {
        client::run(
            smbclient(SMB3_1_1),
            &self.local,
            &format!("get {BIG} newcomer's"),
        )
        .well();
        self.compare("newcomer's");
    }

    pub fn compare(&self, name: &str) {
        let (left, right) = (self.server.share().join(BIG), self.local.join(name));
        files::assert_same(&left, &right);
        std::fs::remove_file(right).expect("the copy");
    }

    /// Checks that during an attack no other client is affected.
    pub fn unharmed(&mut self) {
        self.bystander_gets();
        self.newcomer_gets();
        self.assert_same_worker();
    }

    pub fn assert_same_worker(&self) {
        assert_same(&self.server, &self.before);
    }

    /// Checks that after the attack everything has been released.
    pub fn everything_is_given_back(mut self) {
        self.bystander_gets();
        self.bystander.say("quit");
        self.bystander.finish().well();
        self.server.wait_until_left_alone();
        client::run(smbclient(SMB3_1_1), &self.local, "pwd").well();
        assert_same(&self.server, &self.before);
        drop(self.lab);
    }

    /// The same, after a recovery.
    pub fn everything_is_given_back_by_another(mut self) {
        self.before = self.server.status();
        self.everything_is_given_back();
    }

    /// The number of connections of this kind.
    pub fn count(&self, kind: impl Fn(&ConnectionStatus) -> bool) -> usize {
        let status = self.server.status();
        status.connections.iter().filter(|one| kind(one)).count()
    }
}

/// Waits until an attack has done so much.
pub fn wait_until(
    attack: &Attack,
    what: &str,
    which: impl Fn(&Counts) -> &AtomicU64,
    at_least: u64,
) {
    wait_for(what, PATIENCE, || {
        (which(attack.counts()).load(Ordering::Relaxed) >= at_least).then_some(())
    });
}

pub fn guest() -> Client {
    Client::guest()
}

pub fn open(client: &mut Client, name: &str, options: u32) -> raw::Answer {
    client.call(raw::CREATE, &raw::create(name, 0x0012_0089, 1, options))
}

pub fn opened(client: &mut Client, name: &str, options: u32) -> FileId {
    open(client, name, options).ok().file_id()
}

/// Checks that no worker has ended since.
fn assert_same(server: &Server, before: &Status) {
    let status = server.status();
    assert_eq!(
        (status.worker_pid, status.epoch),
        (before.worker_pid, before.epoch),
        "the worker has ended"
    );
    server.assert_sound();
}
