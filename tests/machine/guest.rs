//! Makes the guest that serves: its operating system, its disk, and the network that it is wired to.

use std::path::{Path, PathBuf};

use crate::host::{self, find};
use crate::initramfs::Initramfs;
use crate::support::basics::run;

/// The server's address.
pub const SERVER: &str = "10.77.0.1";
/// Where the guest has its configuration.
pub const CONFIG: &str = "/etc/outlast.toml";
/// Beside those of any guest; `crc32c_generic` is what ext4 asks `modprobe` for.
const MODULES: [&str; 5] = ["virtio_blk", "tun", "bridge", "crc32c_generic", "ext4"];

/// The server's configuration.
pub fn configuration(users: &str, durability: &str) -> String {
    // under `power` only the sink need be on the disk
    let nvram = match durability {
        "power" => "/run/nvram",
        _ => "/mnt/nvram",
    };
    format!(
        r#"[server]
users_file = "{users}"
control_socket = "/run/outlast.sock"
[network]
tap = "tap0"
addresses = ["{SERVER}/24"]
[nvram]
path = "{nvram}"
sink = "/mnt/nvram.sink"
size = "128MiB"
durability = "{durability}"
[[share]]
name = "pub"
path = "/mnt/share"
"#
    )
}

/// The guest's operating system, with the server's configuration and the file `users` of the directory, which has the
/// one user.
pub fn initramfs(directory: &Path, outlast: &Path, user: &str, durability: &str) -> PathBuf {
    let config = configuration("/etc/users", durability);
    finish(system(directory, outlast, user, &config), directory)
}

/// The guest's operating system with this configuration, before other files are added.
pub fn system(directory: &Path, outlast: &Path, user: &str, config: &str) -> Initramfs {
    let mut image = host::guest(directory, &MODULES);
    image.directory("/mnt");
    image.program("/bin/outlast", outlast);
    image.program("/sbin/e2fsck", &find("e2fsck").expect("e2fsck"));
    image.file(CONFIG, 0o600, config.as_bytes());
    let account = format!("{user}:x:0:0::/:/\n");
    image.file("/etc/passwd", 0o644, account.as_bytes());
    let users = std::fs::read(directory.join("users")).expect("users");
    image.file("/etc/users", 0o600, &users);
    image
}

/// Writes the operating system to a file of the directory.
pub fn finish(image: Initramfs, directory: &Path) -> PathBuf {
    let path = directory.join("initramfs");
    std::fs::write(&path, image.finish()).expect("an initramfs");
    path
}

/// A disk with a share that holds the big file, and copies of other files under these names.
pub fn disk(directory: &Path, big: &Path, others: &[(&Path, &str)]) -> PathBuf {
    let content = directory.join("content");
    let share = content.join("share");
    std::fs::create_dir_all(&share).expect("a directory");
    std::fs::copy(big, share.join("big")).expect("a copy");
    for (file, name) in others {
        std::fs::copy(file, content.join(name)).expect("a copy");
    }
    let disk = directory.join("disk");
    run(&format!("truncate -s 1G {}", disk.display()));
    run(&format!(
        "{} -q -F -d {} {}",
        find("mkfs.ext4").expect("mkfs.ext4").display(),
        content.display(),
        disk.display()
    ));
    std::fs::remove_dir_all(content).expect("removed");
    disk
}

/// The machine is one port of a bridge. Another port stays up, as a switch does when one of its machines goes down:
/// this host, which has the bridge's address, continues to send.
pub fn wire() {
    for command in [
        "ip addr flush dev tap0",
        "ip link add br0 type bridge",
        "ip link add neighbor0 type veth peer name neighbor1",
        "ip link set tap0 master br0",
        "ip link set neighbor0 master br0",
        "ip link set neighbor0 up",
        "ip link set neighbor1 up",
        "ip addr add 10.77.0.2/24 dev br0",
        "ip link set br0 up",
    ] {
        run(command);
    }
}
