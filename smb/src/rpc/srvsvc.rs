//! Implements the part of the Server Service Remote Protocol (MS-SRVS) that browsing needs.

use super::ndr::{Reader, Writer};
use super::{Fault, Server, win32};
use outlast_fsa::pattern::same_name;

#[cfg(test)]
mod tests;

const NETR_SHARE_ENUM: u16 = 15;
const NETR_SHARE_GET_INFO: u16 = 16;
const NETR_SERVER_GET_INFO: u16 = 21;
const NETR_SHARE_ENUM_STICKY: u16 = 36;

/// STYPE_DISKTREE (MS-SRVS 2.2.2.4).
const STYPE_DISKTREE: u32 = 0;
/// STYPE_IPC with STYPE_SPECIAL.
const STYPE_IPC_SPECIAL: u32 = 0x8000_0003;
/// PLATFORM_ID_NT (MS-SRVS 2.2.2.6), and the version of Windows whose behaviour clients may expect.
pub(super) const PLATFORM_ID_NT: u32 = 500;
/// Major version.
pub(super) const VERSION_MAJOR: u32 = 6;
/// Minor version.
pub(super) const VERSION_MINOR: u32 = 1;
/// SV_TYPE_WORKSTATION, _SERVER, _NT, _SERVER_NT (MS-SRVS 2.2.2.7).
const SERVER_TYPE: u32 = 0x0000_9003;

/// Runs a call.
pub(super) fn call(opnum: u16, stub: &[u8], server: &Server<'_>) -> Result<Vec<u8>, Fault> {
    let args = Reader::new(stub);
    match opnum {
        // Sticky shares are those that survive a restart of the service: all of them.
        NETR_SHARE_ENUM | NETR_SHARE_ENUM_STICKY => share_enum(args, server),
        NETR_SHARE_GET_INFO => share_get_info(args, server),
        NETR_SERVER_GET_INFO => server_get_info(args, server),
        _ => Err(Fault::OpnumOutOfRange),
    }
}

/// A share in a listing: name, type, remark.
struct Entry<'a> {
    name: &'a str,
    kind: u32,
    remark: &'a str,
}

/// Returns all shares; IPC$ is the last.
fn entries<'a>(server: &Server<'a>) -> Vec<Entry<'a>> {
    let disks = server.shares.iter().map(|share| Entry {
        name: share.name,
        kind: STYPE_DISKTREE,
        remark: share.comment,
    });
    let ipc = Entry {
        name: "IPC$",
        kind: STYPE_IPC_SPECIAL,
        remark: "",
    };
    disks.chain([ipc]).collect()
}

/// Checks that a SHARE_INFO of this level exists and is available to every account.
fn share_level(level: u32) -> Result<(), u32> {
    match level {
        0 | 1 | 2 | 501 | 1005 => Ok(()),
        // Levels with security descriptors are for administrators (MS-SRVS 3.1.4.8, 3.1.4.10).
        502 | 503 => Err(win32::ACCESS_DENIED),
        _ => Err(win32::INVALID_LEVEL),
    }
}

/// Writes one SHARE_INFO structure (MS-SRVS 2.2.4.22 and following) of a level that [`share_level`] allows.
fn put_share(out: &mut Writer, level: u32, entry: &Entry<'_>) {
    if level == 1005 {
        out.u32(0); // shi1005_flags: manual caching
        return;
    }
    out.unique_string(entry.name);
    if level == 0 {
        return;
    }
    out.u32(entry.kind);
    out.unique_string(entry.remark);
    match level {
        2 => {
            out.u32(0); // shi2_permissions
            out.u32(u32::MAX); // shi2_max_uses: no limit
            out.u32(0); // shi2_current_uses
            // The directory's real path is private; clients only need the form of a path.
            out.unique_string(&format!("C:\\{}", entry.name));
            out.null(); // shi2_passwd
        }
        501 => out.u32(0), // shi501_flags
        _ => {}
    }
}

/// Runs NetrShareEnum (MS-SRVS 3.1.4.8).
fn share_enum(mut args: Reader<'_>, server: &Server<'_>) -> Result<Vec<u8>, Fault> {
    args.unique_string()?; // ServerName
    let level = args.u32()?;
    if args.u32()? != level {
        return Err(Fault::BadStubData);
    }
    let container = args.pointer()?;
    if container {
        args.u32()?; // EntriesRead
        if args.pointer()? {
            return Err(Fault::BadStubData); // entries in a request have no meaning
        }
    }
    args.u32()?; // PreferedMaximumLength: a wish; listings here are short
    let resume = args.pointer()?.then(|| args.u32()).transpose()?;

    let all = entries(server);
    let from = usize::try_from(resume.unwrap_or(0)).unwrap_or(usize::MAX);
    let listed = all.get(from..).unwrap_or_default();
    // Level 1005 exists for NetrShareGetInfo alone.
    let status = match share_level(level) {
        Ok(()) if level == 1005 => win32::INVALID_LEVEL,
        Ok(()) => win32::SUCCESS,
        Err(status) => status,
    };

    let mut out = Writer::default();
    out.u32(level);
    out.u32(level);
    if status == win32::SUCCESS {
        let count = u32::try_from(listed.len()).unwrap_or(u32::MAX);
        out.pointer();
        out.u32(count); // EntriesRead
        out.pointer();
        out.u32(count); // MaximumCount of the array
        for entry in listed {
            put_share(&mut out, level, entry);
        }
        out.flush();
        out.u32(count); // TotalEntries
    } else {
        out.null();
        out.u32(0);
    }
    match resume {
        Some(_) => {
            out.pointer();
            out.u32(0);
        }
        None => out.null(),
    }
    out.u32(status);
    Ok(out.finish())
}

/// Runs NetrShareGetInfo (MS-SRVS 3.1.4.10).
fn share_get_info(mut args: Reader<'_>, server: &Server<'_>) -> Result<Vec<u8>, Fault> {
    args.unique_string()?; // ServerName
    let name = args.string()?;
    let level = args.u32()?;
    let all = entries(server);
    let entry = all.iter().find(|entry| same_name(entry.name, &name));
    let found = share_level(level).and(entry.ok_or(win32::NERR_NET_NAME_NOT_FOUND));
    let mut out = Writer::default();
    out.u32(level);
    match found {
        Ok(entry) => {
            out.pointer();
            put_share(&mut out, level, entry);
            out.flush();
            out.u32(win32::SUCCESS);
        }
        Err(status) => {
            out.null();
            out.u32(status);
        }
    }
    Ok(out.finish())
}

/// Runs NetrServerGetInfo (MS-SRVS 3.1.4.17).
fn server_get_info(mut args: Reader<'_>, server: &Server<'_>) -> Result<Vec<u8>, Fault> {
    args.unique_string()?; // ServerName
    let level = args.u32()?;
    let mut out = Writer::default();
    out.u32(level);
    if !(100..=102).contains(&level) {
        out.null();
        out.u32(win32::INVALID_LEVEL);
        return Ok(out.finish());
    }
    out.pointer();
    out.u32(PLATFORM_ID_NT);
    out.unique_string(server.name);
    if level >= 101 {
        out.u32(VERSION_MAJOR);
        out.u32(VERSION_MINOR);
        out.u32(SERVER_TYPE);
        out.unique_string(server.comment);
    }
    if level == 102 {
        out.u32(u32::MAX); // sv102_users: no limit
        out.u32(15); // sv102_disc, minutes
        out.u32(0); // sv102_hidden
        out.u32(240); // sv102_announce, seconds
        out.u32(3000); // sv102_anndelta, milliseconds
        out.u32(0); // sv102_licenses
        out.unique_string("C:\\"); // sv102_userpath
    }
    out.flush();
    out.u32(win32::SUCCESS);
    Ok(out.finish())
}
