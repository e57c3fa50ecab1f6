use super::*;
use outlast_fsa::fileop::DirEntry;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

fn list(
    b: &mut Bench,
    open: OpenId,
    pattern: &str,
    after: Option<&str>,
    limit: u32,
) -> (Vec<DirEntry>, bool) {
    let op = FileOp::QueryDirectory {
        open,
        pattern: pattern.into(),
        after: after.map(str::to_owned),
        limit,
    };
    match b.run(&op).unwrap() {
        Outcome::Entries { entries, more } => (entries, more),
        other => panic!("{other:?}"),
    }
}

fn names(entries: &[DirEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.name.as_str()).collect()
}

#[test]
fn in_order_piece_by_piece_and_across_a_restart() {
    everywhere(|b| {
        for i in 0..500 {
            std::fs::write(b.dir.join(format!("{}{i:03}", ["a", "B"][i % 2])), "").unwrap();
        }
        let op = b.op("", Disposition::Open);
        let created = b.create(op).unwrap();
        let open = b.last;
        let (whole, more) = list(b, open, "*", None, 1000);
        assert!(!more);
        assert_eq!(whole.len(), 502);
        assert_eq!(names(&whole[..4]), [".", "..", "a000", "a002"]);
        assert_eq!(whole[251].name, "a498");
        assert_eq!(whole[252].name, "B001");
        let mut pieces: Vec<DirEntry> = Vec::new();
        loop {
            let after = pieces.last().map(|entry| entry.name.clone());
            let (piece, more) = list(b, open, "*", after.as_deref(), 7);
            assert!(piece.len() == 7 || !more);
            pieces.extend(piece);
            if !more {
                break;
            }
            // The restart forgets the names it had sorted; the cursor is a name.
            b.restart();
            b.fs.remember(info(open, &created, 0x1));
        }
        assert_eq!(names(&pieces), names(&whole));
    });
}

#[test]
fn patterns_and_single_names() {
    everywhere(|b| {
        for name in ["One.txt", "two.TXT", "three.doc"] {
            std::fs::write(b.dir.join(name), "12345").unwrap();
        }
        let root = b.directory("");
        assert_eq!(
            names(&list(b, root, "*.txt", None, 10).0),
            ["One.txt", "two.TXT"]
        );
        let (one, more) = list(b, root, "ONE.TXT", None, 10);
        assert_eq!((names(&one), more), (vec!["One.txt"], false));
        assert_eq!(one[0].metadata.end_of_file, 5);
        assert_eq!(one[0].file_id, one[0].metadata.key.ino);
        assert!(list(b, root, "none", None, 10).0.is_empty());
        assert!(list(b, root, "a:b", None, 10).0.is_empty());
        assert!(list(b, root, "*", None, 2).1);
        assert!(!list(b, root, "*.doc", Some("One.txt"), 1).1);
    });
}

#[test]
fn odd_names_and_links() {
    everywhere(|b| {
        let raw = std::ffi::OsStr::from_bytes(b"bad\xff:name.");
        std::fs::write(b.dir.join(raw), "raw").unwrap();
        std::fs::write(b.dir.join("real"), "real").unwrap();
        symlink("real", b.dir.join("link")).unwrap();
        symlink("nothing", b.dir.join("dangling")).unwrap();
        symlink("../outside", b.dir.join("out")).unwrap();
        symlink(b.dir.join("real"), b.dir.join("absolute")).unwrap();
        let root = b.directory("");
        let (entries, _) = list(b, root, "*", None, 100);
        let shown = "bad\u{F7FF}\u{F022}name\u{F029}";
        assert_eq!(
            names(&entries),
            [
                ".", "..", "absolute", shown, "dangling", "link", "out", "real"
            ]
        );
        assert_eq!(entries[5].metadata.key, entries[7].metadata.key);
        assert_eq!(entries[2].metadata.key, entries[7].metadata.key);
        let open = b.file(shown);
        assert_eq!(b.read(open, 0, 9), b"raw");
        assert_eq!(b.try_open(&shown.to_uppercase()).unwrap().path, shown);
    });
}

#[test]
fn the_snapshot_lives_until_the_scan_begins_again() {
    everywhere(|b| {
        for name in ["a", "b", "c"] {
            std::fs::write(b.dir.join(name), "").unwrap();
        }
        let root = b.directory("");
        assert_eq!(names(&list(b, root, "*", None, 3).0), [".", "..", "a"]);
        std::fs::remove_file(b.dir.join("b")).unwrap();
        std::fs::write(b.dir.join("d"), "").unwrap();
        assert_eq!(names(&list(b, root, "*", Some("a"), 9).0), ["c"]);
        assert_eq!(
            names(&list(b, root, "*", None, 9).0),
            [".", "..", "a", "c", "d"]
        );
        let file = b.file("a");
        let op = FileOp::QueryDirectory {
            open: file,
            pattern: "*".into(),
            after: None,
            limit: 1,
        };
        assert_eq!(b.run(&op), Err(NtStatus::INVALID_PARAMETER));
    });
}

/// The pieces of a listing from its start to its end, requested by several opens in turn.
fn list_in_turn(
    b: &mut Bench,
    opens: &[OpenId],
    piece: u32,
    mut look: impl FnMut(&Bench),
) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = vec![Vec::new(); opens.len()];
    let mut under_way: Vec<usize> = (0..opens.len()).collect();
    while !under_way.is_empty() {
        under_way.retain(|&at| {
            let after = found[at].last().cloned();
            let (entries, more) = list(b, opens[at], "*", after.as_deref(), piece);
            found[at].extend(entries.into_iter().map(|entry| entry.name));
            look(b);
            more
        });
    }
    found
}

#[test]
fn the_memory_of_listings_is_bounded() {
    // Each takes 400 KiB by its names, all together 30 MiB.
    let mut b = Bench::at(Path::new("/dev/shm"));
    let mut expected: Vec<String> = [".", ".."].map(str::to_owned).to_vec();
    for number in 0..900 {
        let name = format!("{number:0200}");
        std::fs::write(b.dir.join(&name), "").unwrap();
        expected.push(name);
    }
    let opens: Vec<OpenId> = (0..80).map(|_| b.directory("")).collect();
    let found = list_in_turn(&mut b, &opens, 300, |b| {
        assert!(b.fs.listings.bytes() <= 16 << 20);
    });
    assert!(found.iter().all(|names| *names == expected));
    assert!(b.fs.listings.bytes() > 8 << 20, "it is used");
    for open in opens {
        b.close(open);
    }
    assert_eq!(b.fs.listings.bytes(), 0);
}

#[test]
fn one_listing_reads_its_directory_once() {
    everywhere(|b| {
        for number in 0..100 {
            std::fs::write(b.dir.join(number.to_string()), "").unwrap();
        }
        let open = b.directory("");
        let found = list_in_turn(b, &[open], 9, |_| {});
        assert_eq!(found[0].len(), 102);
        assert_eq!(b.fs.listings.reads, 1);
    });
}
