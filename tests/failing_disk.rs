//! Tests durability `power` when the disk of one of two shares fails or hangs: acknowledged data reach its medium when
//! the disk works again, and the other share is served meanwhile.

mod support;

use support::disk::{BLOCK, Disk, MARK, State};
use support::lab::Lab;
use support::power::SinkPath;
use support::raw::{self, Client, FileId};
use support::server::{Server, Setup};
use support::{PATIENCE, Rng, can_run, has, wait_for};

const IO_DEVICE_ERROR: u32 = 0xC000_0185;
const ALL_ACCESS: u32 = 0x0017_019F;
const CREATE: u32 = 2;
const DISK_BYTES: u64 = 128 << 20;

/// Two shares, each on a disk of its own.
struct Scene {
    server: Server,
    well: Client,
    ill: Client,
    /// The acknowledged data of the failing share's client, and a file for them.
    acknowledged: Vec<u8>,
    file: FileId,
    kept: FileId,
    disk: Disk,
    _other: Disk,
    _sink: SinkPath,
    rng: Rng,
    lab: Lab,
}

impl Scene {
    fn new(test: &str) -> Option<Scene> {
        if !can_run(test) || !has(test, &support::disk::needs()) {
            return None;
        }
        let lab = Lab::new();
        let other = Disk::mount(&lab, "share", DISK_BYTES);
        let disk = Disk::mount(&lab, "ill", DISK_BYTES);
        let sink = SinkPath::new(test);
        let guests = "guest = true\nrun_as = \"root\"";
        let setup = Setup {
            share: guests.to_owned(),
            more: format!(
                "\n[[share]]\nname = \"ill\"\npath = \"{}\"\n{guests}\n",
                disk.dir().display()
            ),
            ..sink.setup()
        };
        let server = Server::start(&lab, setup);
        let mut well = Client::guest();
        let kept = well.create("kept", ALL_ACCESS, CREATE, 0);
        let mut ill = Client::guest();
        ill.tree("ill");
        let file = ill.create("file", ALL_ACCESS, CREATE, 0);
        Some(Scene {
            server,
            well,
            ill,
            acknowledged: Vec::new(),
            file,
            kept,
            disk,
            _other: other,
            _sink: sink,
            rng: Rng::named(test),
            lab,
        })
    }

    /// Writes so many blocks, each of which is acknowledged.
    fn write(&mut self, blocks: usize) {
        for _ in 0..blocks {
            let block = self.block();
            self.ill
                .write(self.file, self.acknowledged.len() as u64, &block);
            self.acknowledged.extend(block);
        }
    }

    /// The same on a disk that fails, until the server has noticed. On a busy machine a consistency point comes among
    /// the writes, and what comes after it is refused, and not acknowledged.
    fn write_until_refused(&mut self, blocks: usize) {
        for _ in 0..blocks {
            let block = self.block();
            let write = raw::write(self.file, self.acknowledged.len() as u64, &block);
            let answer = self.ill.call(raw::WRITE, &write);
            if answer.status == IO_DEVICE_ERROR {
                return;
            }
            answer.ok();
            self.acknowledged.extend(block);
        }
    }

    fn block(&mut self) -> Vec<u8> {
        let mut block = self.rng.bytes(BLOCK);
        block[..MARK.len()].copy_from_slice(MARK);
        block
    }

    /// The reported reasons why shares are not served.
    fn trouble(&self) -> Vec<String> {
        let status = self.server.try_status();
        status.map_or_else(Vec::new, |status| status.serves.trouble)
    }

    fn wait_until_isolated(&mut self) {
        wait_for("the share to be isolated", PATIENCE, || {
            let trouble = self.trouble();
            trouble
                .iter()
                .any(|line| line.contains("share ill"))
                .then_some(())
        });
        let log = self.server.log();
        assert!(log.contains("operations on it are refused"), "{log}");
        let write = raw::write(self.file, 0, b"x");
        assert_eq!(self.ill.call(raw::WRITE, &write).status, IO_DEVICE_ERROR);
        self.well.write(self.kept, 0, b"the other share is served");
    }

    /// kill -9 of the worker, and wait for the next.
    fn kill(&mut self) {
        let worker = self.server.status().worker_pid;
        self.server.kill_worker(worker);
        self.server.successor_of(worker);
        self.well.write(self.kept, 0, b"and on");
    }

    fn wait_until_recovered(&mut self) {
        wait_for("the share to be served again", PATIENCE, || {
            let status = self.server.try_status()?;
            status.serves.trouble.is_empty().then_some(())
        });
    }

    /// Checks that acknowledged data are on the medium, whatever happens to the machine.
    fn assert_kept(&self) {
        let found = self.disk.file_after_a_power_cut(&self.lab, "file");
        assert_eq!(found.len(), self.acknowledged.len());
        let differs = found
            .iter()
            .zip(&self.acknowledged)
            .position(|(a, b)| a != b);
        assert_eq!(differs, None, "the first byte that is another one");
        self.server.assert_sound();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Operations that wait for the disk cannot be ended.
        self.disk.set(State::Well);
    }
}

#[test]
fn data_dropped_by_a_failing_disk_are_there_when_it_works_again() {
    let test = "data_dropped_by_a_failing_disk_are_there_when_it_works_again";
    let Some(mut scene) = Scene::new(test) else {
        return;
    };
    scene.write(20);
    scene.disk.set(State::FailsForData);
    scene.write_until_refused(500);
    scene.wait_until_isolated();
    // The next worker finds it recorded, and finds the disk unchanged.
    scene.kill();
    scene.wait_until_isolated();
    scene.disk.set(State::Well);
    scene.wait_until_recovered();
    scene.assert_kept();
    scene.write(20);
    scene.ill.close(scene.file);
    scene.kill();
    let file = scene.ill.create("file", ALL_ACCESS, 1, 0);
    let found = scene.ill.read(file, 0, 64 << 10);
    assert!(scene.acknowledged.starts_with(&found) && found.len() == 64 << 10);
}

/// Its file system fails, and is served again when it is mounted again.
#[test]
fn a_disk_that_is_mounted_again_has_what_was_acknowledged() {
    let test = "a_disk_that_is_mounted_again_has_what_was_acknowledged";
    let Some(mut scene) = Scene::new(test) else {
        return;
    };
    scene.write(20);
    scene.disk.set(State::Fails);
    scene.write_until_refused(100);
    scene.wait_until_isolated();
    scene.disk.set(State::Well);
    scene.disk.mount_again();
    scene.wait_until_recovered();
    scene.assert_kept();
    scene.write(20);
    scene.kill();
    let found = scene.ill.read(scene.file, 0, 64 << 10);
    assert!(scene.acknowledged.starts_with(&found) && found.len() == 64 << 10);
}

#[test]
fn a_disk_that_hangs_holds_up_no_other() {
    let test = "a_disk_that_hangs_holds_up_no_other";
    let Some(mut scene) = Scene::new(test) else {
        return;
    };
    scene.write(20);
    scene.disk.set(State::Hangs);
    scene.write(4);
    // More than the log's length: without consistency points there is no room for it.
    let part = scene.rng.bytes(64 << 10);
    for _ in 0..140 {
        let write = |place: u64| raw::write(scene.kept, place * (64 << 10), &part);
        let asked: Vec<u64> = (0..16)
            .map(|place| scene.well.request(raw::WRITE, &write(place)))
            .collect();
        for number in asked {
            assert_eq!(scene.well.answer(number).status, 0);
        }
    }
    let trouble = scene.trouble();
    assert!(
        trouble[0].contains("share ill: its file system does not answer"),
        "{trouble:?}"
    );
    let write = raw::write(scene.file, 0, &scene.acknowledged[..BLOCK]);
    let waits = scene.ill.request(raw::WRITE, &write);
    scene
        .well
        .write(scene.kept, 0, b"the other share is served");
    scene.disk.set(State::Well);
    assert_eq!(scene.ill.answer(waits).status, 0);
    scene.wait_until_recovered();
    scene.assert_kept();
}
