//! Makes files of random bytes, and compares files and trees.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use super::{PATIENCE, Rng, wait_for};

const PIECE: usize = 1 << 20;

/// Writes a file of random bytes.
pub fn random_file(path: &Path, size: u64, rng: &mut Rng) {
    let mut file = File::create(path).expect("a file to copy");
    let mut piece = vec![0; PIECE];
    let mut left = size;
    while left > 0 {
        let take = usize::try_from(left.min(PIECE as u64)).expect("a piece");
        rng.fill(&mut piece[..take]);
        file.write_all(&piece[..take]).expect("room for the file");
        left -= take as u64;
    }
}

/// Fails at the first byte in which the files differ.
pub fn assert_same(left: &Path, right: &Path) {
    let open = |path: &Path| {
        File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let (mut a, mut b) = (BufReader::new(open(left)), BufReader::new(open(right)));
    let (mut piece_a, mut piece_b) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    let mut offset = 0;
    loop {
        for (file, piece) in [(&mut a, &mut piece_a), (&mut b, &mut piece_b)] {
            piece.clear();
            file.take(PIECE as u64)
                .read_to_end(piece)
                .expect("readable");
        }
        if piece_a != piece_b {
            let at = piece_a.iter().zip(&piece_b).position(|(a, b)| a != b);
            panic!(
                "{} and {} differ at byte {}",
                left.display(),
                right.display(),
                offset + at.unwrap_or(piece_a.len().min(piece_b.len()))
            );
        }
        if piece_a.is_empty() {
            return;
        }
        offset += piece_a.len();
    }
}

/// Size of a file, 0 if it is missing.
pub fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// The bytes of a file that have been written, as far as it is there. A client may set the size first.
pub fn written(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path).ok()?;
    Some(found.len().min(found.blocks() * 512))
}

/// Waits until so many percent of the file's future size have been written.
pub fn wait_until_written(path: &Path, size: u64, percent: u64) {
    wait_for("the transfer", PATIENCE, || {
        (written(path)? >= size / 100 * percent).then_some(())
    });
}

/// The number of names in a directory.
pub fn count(dir: &Path) -> u64 {
    std::fs::read_dir(dir).map_or(0, |entries| entries.count() as u64)
}

/// Paths and contents; `None` for a directory.
pub type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// A tree of small files: path to content; a directory has none.
pub fn tree(root: &Path) -> Tree {
    let mut tree = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path
                .strip_prefix(root)
                .expect("beneath")
                .to_str()
                .expect("UTF-8")
                .to_owned();
            if path.is_dir() {
                left.push(path);
                tree.insert(name, None);
            } else {
                tree.insert(name, Some(std::fs::read(&path).expect("a file")));
            }
        }
    }
    tree
}

/// Empties a directory; makes it if it is missing.
pub fn clear(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a directory");
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let gone = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        gone.expect("an entry that can be removed");
    }
}
