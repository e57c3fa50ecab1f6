//! Checks the requirements of durability `power`: a sink and a share on a disk.

use std::path::{Path, PathBuf};

use super::lab::{self, Lab};
use super::server::Setup;
use super::{can_run, has};

/// A file for the sink: on a disk, where the lab may be in memory. It is removed with the test.
pub struct SinkPath(pub PathBuf);

impl SinkPath {
    pub fn new(test: &str) -> SinkPath {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.sink"));
        let _ = std::fs::remove_file(&path);
        SinkPath(path)
    }

    pub fn setup(&self) -> Setup {
        Setup {
            nvram_size: "128MiB",
            nvram: format!("durability = \"power\"\nsink = \"{}\"", self.0.display()),
            ..Setup::default()
        }
    }
}

impl Drop for SinkPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Cargo's directory for tests, if it is on a file system on which `power` serves a share.
fn disk() -> Option<&'static Path> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    problem_of(dir).is_none().then_some(dir)
}

pub fn problem_of(dir: &Path) -> Option<String> {
    let opened = std::fs::File::open(dir).expect("a directory");
    outlast::fs::features::power_problem(std::os::fd::AsFd::as_fd(&opened))
}

/// The requirements of a file system in a file.
pub fn images() -> [(bool, &'static str); 2] {
    let mkfs = std::process::Command::new("mkfs.ext4").arg("-V").output();
    let control = std::fs::File::options()
        .write(true)
        .open("/dev/loop-control");
    [
        (mkfs.is_ok(), "mkfs.ext4"),
        (control.is_ok(), "/dev/loop-control, to be written"),
    ]
}

/// Mounts an ext4 in a file of the lab.
pub fn mount_image(lab: &Lab, features: &str, dir: &Path) {
    let image = lab.path("image");
    let file = std::fs::File::create(&image).expect("an image");
    file.set_len(2 << 30).expect("an image");
    lab::run(&format!("mkfs.ext4 -q -F{features} {}", image.display()));
    lab::run(&format!(
        "mount -t ext4 -o loop {} {}",
        image.display(),
        dir.display()
    ));
    std::fs::remove_dir(dir.join("lost+found")).expect("an empty directory");
}

/// A share on a disk, where the lab may be in memory: `power` serves no other.
pub struct OnDisk {
    dir: Option<PathBuf>,
    share: PathBuf,
}

impl OnDisk {
    pub fn new(lab: &Lab, test: &str) -> OnDisk {
        let share = lab.make_dir("share");
        let dir = disk().map(|disk| disk.join(format!("{test}.share")));
        match &dir {
            Some(dir) => {
                let _ = std::fs::remove_dir_all(dir);
                std::fs::create_dir_all(dir).expect("a directory");
                lab::run(&format!(
                    "mount --bind {} {}",
                    dir.display(),
                    share.display()
                ));
            }
            None => mount_image(lab, "", &share),
        }
        OnDisk { dir, share }
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.share)
            .status();
        if let Some(dir) = &self.dir {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// As [`can_run`]; also whether there is a disk on which `power` serves a share.
pub fn can_cut_power(test: &str) -> bool {
    can_run(test) && (disk().is_some() || has(test, &images()))
}
