use super::*;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

fn mount(kind: &str, on: &Path, flags: libc::c_ulong, data: &str) -> bool {
    let on = CString::new(on.as_os_str().as_bytes()).unwrap();
    let (kind, data) = (CString::new(kind).unwrap(), CString::new(data).unwrap());
    // SAFETY: all four are NUL-terminated strings, and the kernel copies them.
    let result = unsafe {
        libc::mount(
            kind.as_ptr(),
            on.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    };
    result == 0
}

/// Runs the test on an overlayfs, in a mount namespace of its thread. `lower`: makes the files of the lower layer.
fn on_overlay(lower: impl Fn(&Path) + Send, test: impl FnOnce(&mut Bench) + Send) {
    if !is_root() {
        return;
    }
    let run = move || {
        // SAFETY: the namespace is the calling thread's alone.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
        assert!(mount(
            "none",
            Path::new("/"),
            libc::MS_REC | libc::MS_PRIVATE,
            ""
        ));
        let layers = Bench::at(&std::env::temp_dir());
        let of = |name: &str| layers.outside.join(name);
        for name in ["lower/share", "upper", "work", "merged"] {
            std::fs::create_dir_all(of(name)).unwrap();
        }
        lower(&of("lower/share"));
        let options =
            ["lower", "upper", "work"].map(|name| format!("{name}dir={}", of(name).display()));
        assert!(mount("overlay", &of("merged"), 0, &options.join(",")));
        test(&mut Bench::serving(
            of("merged/share"),
            of("merged/outside"),
        ));
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap());
}

#[test]
fn a_file_of_the_lower_layer_stays_the_same_file_when_it_is_written() {
    on_overlay(
        |lower| std::fs::write(lower.join("file"), "lower").unwrap(),
        |b| {
            let mut op = b.op("file", Disposition::Open);
            op.write_data = false;
            let created = b.create(op).unwrap();
            let reader = b.last;
            let writer = b.file("file");
            b.write(writer, 0, b"upper").unwrap();
            assert_eq!(b.read(reader, 0, 9), b"upper");
            // The record of the reader leads to the file that has been copied meanwhile.
            b.restart();
            b.fs.reopen(&info(reader, &created, 0x1)).unwrap();
            assert_eq!(b.read(reader, 0, 9), b"upper");
            let rename = FileOp::Rename {
                open: reader,
                from: "file".into(),
                to: "moved".into(),
                replace: false,
            };
            b.run_twice(&rename).unwrap();
            assert_eq!(b.on_disk(), [super::super::names::PROBE, "moved"]);
        },
    );
}
