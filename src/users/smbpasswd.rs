//! Samba's password file, smbpasswd(5): `name:uid:LM hash:NT hash:[flags]:LCT-time:`, a line for each account.

use std::path::Path;

use zeroize::Zeroizing;

use super::{Error, is_name, parse_hash};

/// The NT hash, or the reason why the account is not imported.
type Taken = Result<Zeroizing<[u8; 16]>, &'static str>;

/// One account.
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its NT hash, or the reason why it is not imported.
    pub nt_hash: Taken,
}

/// Reads the accounts; `path` is used in errors.
///
/// # Errors
/// A line is not of this format.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = parse_line(line).map_err(|problem| Error::Import {
            file: path.to_owned(),
            line: index + 1,
            problem,
        })?;
        entries.push(entry);
    }
    Ok(entries)
}

fn parse_line(line: &str) -> Result<Entry, &'static str> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, uid, _lm, nt, more @ ..] = fields.as_slice() else {
        return Err("is not name:uid:LM hash:NT hash:[flags]:time:");
    };
    if uid.parse::<u32>().is_err() {
        return Err("has a uid that is not a number");
    }
    Ok(Entry {
        name: (*name).to_owned(),
        nt_hash: take(name, nt, more.first().copied().unwrap_or_default())?,
    })
}

/// smbpasswd(5), "Account Flags": U is a user, D is disabled, N needs no password, W, I and S are machines and domains.
/// Older files have no flags.
fn take(name: &str, nt: &str, flags: &str) -> Result<Taken, &'static str> {
    let has = |wanted: &[char]| flags.starts_with('[') && flags.contains(wanted);
    if has(&['W', 'I', 'S']) {
        return Ok(Err("it is the account of a machine or a domain"));
    }
    if has(&['D']) {
        return Ok(Err("it is disabled"));
    }
    if has(&['N']) || nt.starts_with("NO PASSWORD") {
        return Ok(Err("it has no password"));
    }
    if !nt.is_empty() && nt.bytes().all(|byte| byte == b'X') {
        return Ok(Err("it has no NT hash"));
    }
    if !is_name(name) {
        return Ok(Err("no user may have this name"));
    }
    let hash = parse_hash(nt).ok_or("has an NT hash that is not 32 hexadecimal digits")?;
    Ok(Ok(hash.into()))
}

#[cfg(test)]
mod tests;
