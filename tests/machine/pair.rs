//! Tests that the partner continues when the first server's machine loses its power. The first node is a virtual
//! machine with a disk, the partner this host, which mounts that disk. The arbiter is a real etcd.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::guest::{self, CONFIG};
use crate::host::{self, find};
use crate::machine::{Hardware, Machine};
use crate::scene::traffic;
use crate::support::capture::Capture;
use crate::support::client::{ENCRYPTED, SMB3_1_1, Session, smbclient};
use crate::support::etcd::Etcd;
use crate::support::lab::Lab;
use crate::support::server::{Server, Setup, USER, error};
use crate::support::speakers::MAC;
use crate::support::{PATIENCE, Rng, files, wait_for};

const SIZE: u64 = 96 << 20;
/// Addresses of the two machines' own kernels: for etcd and the interconnect.
const GUEST: &str = "10.77.0.21";
const HOST: &str = "10.77.0.2";
/// An emulated machine renews its lease in time also when the host is busy.
const LEASE: Duration = Duration::from_secs(10);
/// Where both nodes mount the disk.
const MOUNT_POINT: &str = "/mnt";
/// The guest's directory for what this host has in the lab's.
const ETC: &str = "/etc/outlast";

/// The requirements beside those of any machine, and whether each is met.
pub fn needs() -> Vec<(bool, &'static str)> {
    let mut needs = host::programs(&["dash", "mkfs.ext4", "e2fsck"]);
    let loops = std::fs::File::options()
        .write(true)
        .open("/dev/loop-control");
    needs.push((loops.is_ok(), "/dev/loop-control, to be written"));
    needs
}

/// The first node's machine, and the partner.
pub struct Scene<'a> {
    lab: &'a Lab,
    machine: Machine,
    partner: Server,
    _etcd: Etcd,
}

impl<'a> Scene<'a> {
    /// The guest serves, and the partner is on standby, in step.
    pub fn set(lab: &'a Lab) -> Scene<'a> {
        lab.make_dir("client");
        files::random_file(&lab.path("client/big"), SIZE, &mut Rng(1));
        let disk = guest::disk(lab.dir(), &lab.path("client/big"), &[]);
        lab.bridge();
        let etcd = Etcd::start_at(HOST.parse().expect("an address"), lab.dir());
        let mut partner = prepare(lab, &etcd);
        let hardware = Hardware {
            role: "serve 10.77.0.21 255.255.255.0",
            kernel: host::bootable(lab.dir()),
            initramfs: initramfs(lab, &partner),
            disk: Some(disk),
            tap: "tap0",
            dir: lab.dir().to_owned(),
        };
        let mut machine = hardware.start();
        wait_for("the guest to serve", 4 * PATIENCE, || {
            machine.assert_well();
            hardware
                .console()
                .contains("the gates are open")
                .then_some(())
        });
        partner.start_again();
        wait_for("the partner to be in step", 4 * PATIENCE, || {
            let status = machine.run(&format!("/bin/outlast status --json --config {CONFIG}"));
            status
                .ok()?
                .contains("\"non-elective-takeover\"")
                .then_some(())
        });
        Scene {
            lab,
            machine,
            partner,
            _etcd: etcd,
        }
    }

    /// Two clients transfer a file when the first server's machine loses its power.
    pub fn lose_power(mut self) {
        let capture = Capture::start();
        let local = ["up", "down"].map(|name| self.lab.make_dir(name));
        std::fs::copy(self.lab.path("client/big"), local[0].join("big")).expect("a copy");
        let mut up = Session::start(smbclient(ENCRYPTED), &local[0], "put big back");
        let down = Session::start(smbclient(SMB3_1_1), &local[1], "get big copy");
        let target = traffic() + SIZE / 2;
        wait_for("half of the transfers", 4 * PATIENCE, || {
            assert!(!up.has_ended(), "over before the cut: {}", up.text());
            (traffic() >= target).then_some(())
        });
        self.machine.wait_for_a_write();
        let outcome = self.machine.cut(&mut Rng(1));
        println!(
            "   {} sectors were not flushed, {} of them are lost",
            outcome.unflushed, outcome.lost
        );
        std::fs::write(self.lab.path("off"), "").expect("a file");
        up.finish().well();
        down.finish().well();
        capture.verdict().assert_untouched(2);
        let big = self.lab.path("client/big");
        files::assert_same(&big, &local[1].join("copy"));
        files::assert_same(&big, &Path::new(MOUNT_POINT).join("share/back"));
        let stopped = self.partner.outlast(&["stop"]);
        assert!(stopped.status.success(), "{}", error(&stopped));
        self.partner.reap();
    }
}

/// Writes the partner's configuration, and makes the keys of both nodes.
fn prepare(lab: &Lab, etcd: &Etcd) -> Server {
    let init = Command::new(env!("CARGO_BIN_EXE_outlast"))
        .args(["pair", "init", "--directory"])
        .arg(lab.dir())
        .output()
        .expect("outlast pair init");
    assert!(init.status.success(), "{}", error(&init));
    let dir = lab.dir().display();
    let partner = Server::prepare(
        lab,
        Setup {
            nvram_size: "128MiB",
            nvram: "durability = \"mirror\"".to_owned(),
            more: format!(
                "[partner]\nnode = \"b\"\n{}interconnect = [\"{GUEST}:4450\", \"{HOST}:4450\"]\n\
                 key = \"{dir}/node-b.pem\"\ntimeout_ms = 10000\n\
                 fence_command = \"until [ -e {dir}/off ]; do sleep 0.05; done\"\n\
                 mount_command = \"mount -o loop {dir}/disk {MOUNT_POINT}\"\n\
                 unmount_command = \"umount {MOUNT_POINT}\"\n",
                etcd.section(LEASE)
            ),
            ..Setup::default()
        },
    );
    partner.rewrite(
        "tap = \"tap0\"",
        &format!("tap = \"tap1\"\nmac = \"{MAC}\""),
    );
    partner.rewrite(&format!("{dir}/share"), &format!("{MOUNT_POINT}/share"));
    partner
}

/// The guest's operating system. Its configuration is the partner's, except for what each node has of its own; its disk
/// is mounted when it starts.
fn initramfs(lab: &Lab, partner: &Server) -> std::path::PathBuf {
    let dir = lab.dir().display().to_string();
    let mut config = std::fs::read_to_string(partner.config()).expect("the configuration");
    let mount = format!("mount -o loop {dir}/disk {MOUNT_POINT}");
    for (from, to) in [
        ("node = \"b\"", "node = \"a\""),
        ("tap = \"tap1\"", "tap = \"tap0\""),
        ("node-b.pem", "node-a.pem"),
        (mount.as_str(), "true"),
        (&format!("umount {MOUNT_POINT}"), "true"),
        (&format!("{dir}/control.sock"), "/run/outlast.sock"),
        (&format!("{dir}/nvram"), "/run/nvram"),
    ] {
        assert!(
            config.contains(from),
            "{from:?} is not in the configuration"
        );
        config = config.replacen(from, to, 1);
    }
    let config = config.replace(&dir, ETC);
    let outlast = Path::new(env!("CARGO_BIN_EXE_outlast"));
    let mut image = guest::system(lab.dir(), outlast, USER, &config);
    image.program("/bin/sh", &find("dash").expect("dash"));
    for name in ["users", "node-a.pem", "ca.pem", "cert.pem", "key.pem"] {
        let content = std::fs::read(lab.path(name)).expect(name);
        image.file(&format!("{ETC}/{name}"), 0o600, &content);
    }
    guest::finish(image, lab.dir())
}
