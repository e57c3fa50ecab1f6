use super::*;
use crate::{Identity, Incarnation, Kind, Log};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const SIZE: u64 = 1 << 20;
const IDENTITY: Identity = Identity {
    instance: [7; 16],
    incarnation: Incarnation {
        host: [5; 16],
        boot: [9; 16],
    },
};

/// A directory of its own for each test, removed with it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        Directory::within(&std::env::temp_dir())
    }

    fn within(parent: &Path) -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "outlast-nvram-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = parent.join(name);
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("nvram")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn problem(result: Result<Mapping, Error>) -> FileProblem {
    match result.unwrap_err() {
        Error::File { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn made_whole_and_private() {
    let directory = Directory::new();
    let mapping = Mapping::create(&directory.file(), SIZE).unwrap();
    let found = fs::metadata(directory.file()).unwrap();
    assert_eq!((found.len(), found.mode() & 0o777), (SIZE, 0o600));
    assert!(found.blocks() * 512 >= SIZE, "allocated in full");
    assert_eq!(
        fs::read_dir(&directory.0).unwrap().count(),
        1,
        "nothing is left over"
    );
    assert!(matches!(
        problem(Mapping::create(&directory.file(), SIZE)),
        FileProblem::Exists
    ));
    drop(mapping);
    Mapping::open(&directory.file(), SIZE).unwrap();
}

#[test]
fn a_log_outlives_its_mapping() {
    let directory = Directory::new();
    let mapping = Arc::new(Mapping::create(&directory.file(), SIZE).unwrap());
    let mut log = Log::format(mapping, IDENTITY).unwrap();
    let bytes = log
        .append(1, Kind::Snapshot, b"meta", &[b"da", b"ta"])
        .unwrap();
    log.commit();
    drop(log);
    assert_eq!(bytes, "data", "bytes keep the mapping alive");
    drop(bytes);
    let (log, contents) =
        Log::open(Arc::new(Mapping::open(&directory.file(), SIZE).unwrap())).unwrap();
    assert_eq!(contents.records[0].data, "data");

    // The lock and the mapping last as long as the log or any bytes of it.
    drop(log);
    assert!(matches!(
        problem(Mapping::open(&directory.file(), SIZE)),
        FileProblem::Locked
    ));
    drop(contents);
    Mapping::open(&directory.file(), SIZE).unwrap();
}

#[test]
fn a_second_server_is_refused_but_may_look() {
    let directory = Directory::new();
    let mapping = Arc::new(Mapping::create(&directory.file(), SIZE).unwrap());
    let mut log = Log::format(mapping, IDENTITY).unwrap();
    log.append(1, Kind::Snapshot, b"meta", &[]).unwrap();
    log.commit();
    assert!(matches!(
        problem(Mapping::open(&directory.file(), SIZE)),
        FileProblem::Locked
    ));
    let looking = Mapping::open_read_only(&directory.file()).unwrap();
    assert_eq!(Log::inspect(&looking).unwrap().records[0].meta, "meta");
    log.append(1, Kind::Delta, b"more", &[]).unwrap();
    log.commit();
    assert_eq!(Log::inspect(&looking).unwrap().records[1].meta, "more");
}

#[test]
fn the_file_of_another_program_is_named_as_such_and_left_alone() {
    let directory = Directory::new();
    let path = directory.file();
    for content in [&b"127.0.0.1 localhost\n"[..], &[7; 1 << 20], b"x"] {
        fs::write(&path, content).unwrap();
        for mode in [0o644, 0o600] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let opened = [
                problem(Mapping::open(&path, 2 * SIZE)),
                problem(Mapping::follow(&path, 2 * SIZE)),
            ];
            for found in opened {
                assert!(matches!(found, FileProblem::Foreign), "{found:?}");
            }
        }
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    let short = problem(Mapping::open_read_only(&path));
    assert!(matches!(short, FileProblem::Foreign), "{short:?}");
    fs::write(&path, [7; 1 << 20]).unwrap();
    let long = problem(Mapping::open_read_only(&path));
    assert!(matches!(long, FileProblem::Foreign), "{long:?}");
    // One superblock of two is enough for a log, and a new file has neither yet.
    let mut half = vec![0; 1 << 20];
    half[..8].fill(7);
    fs::write(&path, &half).unwrap();
    assert!(Mapping::open_read_only(&path).is_ok());
    // A new file that was not written to is not another program's.
    fs::write(&path, [0; 100]).unwrap();
    let blank = problem(Mapping::open(&path, SIZE));
    assert!(
        matches!(blank, FileProblem::SizeDiffers { .. }),
        "{blank:?}"
    );
}

#[test]
fn errors_name_the_file_and_the_remedy() {
    let directory = Directory::new();
    let path = directory.file();
    assert!(matches!(
        problem(Mapping::open(&path, SIZE)),
        FileProblem::Missing
    ));
    let nowhere = directory.0.join("missing/nvram");
    assert!(matches!(
        problem(Mapping::create(&nowhere, SIZE)),
        FileProblem::NoDirectory
    ));
    assert!(matches!(
        problem(Mapping::create(&path, 100)),
        FileProblem::TooSmall { .. }
    ));
    assert!(matches!(
        problem(Mapping::open(&directory.0, SIZE)),
        FileProblem::NotAFile
    ));
    assert!(matches!(
        problem(Mapping::create(&path, 1 << 55)),
        FileProblem::DiskFull { .. } | FileProblem::Io { .. }
    ));
    assert_eq!(
        fs::read_dir(&directory.0).unwrap().count(),
        0,
        "nothing is left over"
    );

    drop(Mapping::create(&path, SIZE).unwrap());
    let differs = Mapping::open(&path, 2 * SIZE).unwrap_err().to_string();
    assert!(
        differs.contains("nvram")
            && differs.contains("1048576")
            && differs.contains("set the size"),
        "{differs}"
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let open_to_others = Mapping::open(&path, SIZE).unwrap_err().to_string();
    assert!(
        open_to_others.contains("640") && open_to_others.contains("chmod 600"),
        "{open_to_others}"
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(SIZE / 2)
        .unwrap();
    assert!(matches!(
        problem(Mapping::open(&path, SIZE)),
        FileProblem::SizeDiffers { found: 524_288, .. }
    ));
}

#[test]
fn a_sparse_file_is_refused() {
    // the second is a tmpfs on most machines
    for parent in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        if !parent.is_dir() {
            continue;
        }
        let directory = Directory::within(&parent);
        drop(Mapping::create(&directory.file(), SIZE).unwrap());
        drop(Mapping::open(&directory.file(), SIZE).unwrap());
        let file = File::options().write(true).open(directory.file()).unwrap();
        let page = 4096;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, flags, SIZE - 2 * page, page).unwrap();
        assert!(
            matches!(
                problem(Mapping::open(&directory.file(), SIZE)),
                FileProblem::Sparse
            ),
            "{}",
            parent.display()
        );
    }
}

/// A process that has died holds its mappings until the kernel has removed them; its descriptors are closed before.
#[test]
fn the_lock_ends_with_the_descriptors_not_with_the_mapping() {
    let directory = Directory::new();
    let Mapping { map, file, .. } = Mapping::create(&directory.file(), SIZE).unwrap();
    assert!(matches!(
        problem(Mapping::open(&directory.file(), SIZE)),
        FileProblem::Locked
    ));
    drop(file);
    drop(Mapping::open(&directory.file(), SIZE).unwrap());
    drop(map);
}

#[test]
fn an_unfinished_file_is_completed() {
    let directory = Directory::new();
    // A server was killed while it made the file.
    fs::write(directory.0.join(".nvram.unfinished"), b"some of it").unwrap();
    let mapping = Mapping::create(&directory.file(), SIZE).unwrap();
    assert!(matches!(Log::inspect(&mapping), Err(Error::Blank)));
    assert_eq!(
        fs::metadata(directory.file()).unwrap().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1);
}
