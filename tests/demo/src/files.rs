//! Compares files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

const PIECE: usize = 1 << 20;

/// Compares two files while the demonstration continues.
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
mod tests;
