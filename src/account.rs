//! Looks up local accounts in the system's name service.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;

/// A local account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// The largest buffer for one entry of `getpwnam_r`, in bytes.
const ENTRY_MAX_BYTES: usize = 1 << 20;

/// Looks up an account by name; `None` if no account has this name.
///
/// # Errors
/// What `getpwnam_r` reports other than "no such account".
pub fn lookup(name: &str) -> io::Result<Option<Account>> {
    let Ok(wanted) = CString::new(name) else {
        return Ok(None);
    };
    let mut buffer: Vec<libc::c_char> = vec![0; 4096];
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found: *mut libc::passwd = std::ptr::null_mut();
        // SAFETY: every pointer is to memory that lives through the call, and the length is the buffer's own.
        let error = unsafe {
            libc::getpwnam_r(
                wanted.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &mut found,
            )
        };
        match error {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: success with `found` set: the entry is initialised and its strings lie in `buffer`.
                let (entry, name) = unsafe {
                    let entry = entry.assume_init_ref();
                    (entry, CStr::from_ptr(entry.pw_name))
                };
                return Ok(Some(Account {
                    name: name.to_string_lossy().into_owned(),
                    uid: entry.pw_uid,
                    gid: entry.pw_gid,
                }));
            }
            libc::ERANGE if buffer.len() < ENTRY_MAX_BYTES => buffer.resize(buffer.len() * 2, 0),
            // POSIX permits these errors for an unknown name.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests;
