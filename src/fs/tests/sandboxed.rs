//! Under the worker's sandbox a file is found by its handle although no directory that the kernel's cache knows leads
//! to it.

use std::os::fd::AsFd as _;

use outlast_fsa::fileop::FileHandle;
use rustix::fs::OFlags;

use super::*;
use crate::config::Config;
use crate::config::sample::Sample;
use crate::fs::handle;

const READ_WRITE: u32 = 0x3;
/// The number of attempts to make the kernel forget a file.
const ATTEMPTS: u32 = 20;

/// Makes the kernel forget which directory a file is in. Returns what keeps it forgotten; `None`: not possible here.
fn forgotten(dir: &Path, file: &FileHandle) -> Option<std::os::fd::OwnedFd> {
    let mount = std::fs::File::open(dir).unwrap();
    for _ in 0..ATTEMPTS {
        std::fs::write("/proc/sys/vm/drop_caches", "2").ok()?;
        let opened = handle::open(mount.as_fd(), file, OFlags::PATH).ok()?;
        let path = super::super::path::fd_path(opened.as_fd());
        // It is a root of its own.
        if std::fs::read_link(path).unwrap() == Path::new("/") {
            return Some(opened);
        }
    }
    None
}

#[test]
fn a_file_is_found_by_its_handle() {
    if !is_root() {
        return;
    }
    let top = std::env::temp_dir().join(format!("outlast-sandboxed-{}", std::process::id()));
    let (share, beside) = (top.join("shares/pub"), top.join("beside"));
    let text = Sample {
        nvram: &top.join("state/nvram"),
        share: &share,
        ..Sample::default()
    };
    let config = Config::parse(Path::new("/o.toml"), &text.text()).unwrap();
    // The sandbox is the thread's.
    let sandboxed = std::thread::spawn(move || {
        let mut b = Bench::serving(share, beside);
        let sandbox = crate::sandbox::restrict(&config, false);
        b.directory("sub");
        let op = b.op("sub/file", Disposition::Create);
        let created = b.create(op).unwrap();
        let open = b.last;
        b.write(open, 0, b"kept").unwrap();
        b.restart();
        let forgotten = forgotten(&b.dir, &created.handle);
        if forgotten.is_none() || sandbox.starts_with("none") {
            eprintln!("SKIPPED: no cold cache or no Landlock here ({sandbox})");
            return;
        }
        // Its path leads elsewhere: only the handle is left.
        let mut moved = info(open, &created, READ_WRITE);
        moved.path = "elsewhere".to_owned();
        b.fs.remember(moved.clone());
        assert_eq!(b.read(open, 0, 10), b"kept");
        b.write(open, 4, b" on").unwrap();

        b.restart();
        b.fs.remember(info(open, &created, READ_WRITE));
        let link = FileOp::Link {
            open,
            to: "link".to_owned(),
            replace: false,
        };
        b.run_twice(&link).unwrap();
        assert_eq!(std::fs::read(b.dir.join("link")).unwrap(), b"kept on");
        drop(forgotten);
    });
    let result = sandboxed.join();
    std::fs::remove_dir_all(&top).unwrap();
    result.unwrap();
}
