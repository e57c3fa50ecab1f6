//! Implements the part of the Workstation Service Remote Protocol (MS-WKST) that browsing needs.

use super::ndr::{Reader, Writer};
use super::srvsvc::{PLATFORM_ID_NT, VERSION_MAJOR, VERSION_MINOR};
use super::{Fault, Server, win32};

const NETR_WKSTA_GET_INFO: u16 = 0;

/// The workgroup of a server that is a member of no domain.
const WORKGROUP: &str = "WORKGROUP";

/// Runs a call.
pub(super) fn call(opnum: u16, stub: &[u8], server: &Server<'_>) -> Result<Vec<u8>, Fault> {
    match opnum {
        NETR_WKSTA_GET_INFO => wksta_get_info(Reader::new(stub), server),
        _ => Err(Fault::OpnumOutOfRange),
    }
}

/// Runs NetrWkstaGetInfo (MS-WKST 3.2.4.1).
fn wksta_get_info(mut args: Reader<'_>, server: &Server<'_>) -> Result<Vec<u8>, Fault> {
    args.unique_string()?; // ServerName
    let level = args.u32()?;
    let mut out = Writer::default();
    out.u32(level);
    // Levels 101, 102 and 502 are for administrators (MS-WKST 3.2.4.1).
    let status = match level {
        100 => win32::SUCCESS,
        101 | 102 | 502 => win32::ACCESS_DENIED,
        _ => win32::INVALID_LEVEL,
    };
    if status == win32::SUCCESS {
        out.pointer();
        out.u32(PLATFORM_ID_NT);
        out.unique_string(server.name);
        out.unique_string(WORKGROUP);
        out.u32(VERSION_MAJOR);
        out.u32(VERSION_MINOR);
        out.flush();
    } else {
        out.null();
    }
    out.u32(status);
    Ok(out.finish())
}
