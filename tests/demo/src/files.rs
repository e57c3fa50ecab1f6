//! Whether two files are the same.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

const PIECE: usize = 1 << 20;

/// Compares two files while the demonstration goes on.
pub fn compare(left: &Path, right: &Path) -> JoinHandle<io::Result<bool>> {
    let (left, right): (PathBuf, PathBuf) = (left.into(), right.into());
    std::thread::spawn(move || are_equal(&left, &right))
}

fn are_equal(left: &Path, right: &Path) -> io::Result<bool> {
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    if left.metadata()?.len() != right.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let length = left.read(&mut a)?;
        if length == 0 {
            return Ok(true);
        }
        right.read_exact(&mut b[..length])?;
        if a[..length] != b[..length] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_makes_the_difference() {
        let directory = std::env::temp_dir();
        let path = |name: &str| directory.join(format!("demo-{name}-{}", std::process::id()));
        let (left, right) = (path("left"), path("right"));
        let mut content = vec![7; 2 * PIECE + 5];
        std::fs::write(&left, &content).unwrap();
        std::fs::write(&right, &content).unwrap();
        assert!(are_equal(&left, &right).unwrap());
        content[2 * PIECE] = 8;
        std::fs::write(&right, &content).unwrap();
        assert!(!are_equal(&left, &right).unwrap());
        std::fs::write(&right, &content[..PIECE]).unwrap();
        assert!(!are_equal(&left, &right).unwrap());
        std::fs::remove_file(left).unwrap();
        std::fs::remove_file(right).unwrap();
    }
}
