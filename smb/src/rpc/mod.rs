//! Implements the part of DCE/RPC over the named pipes of IPC$ (C706, MS-RPCE) that browsing a server needs.
//!
//! A [`Pipe`] is pure state: only reads and writes change it, and its answers depend only on them and on the [`Server`]
//! argument.

mod ndr;
mod pdu;
pub mod pipe;
mod srvsvc;
mod wkssvc;

pub use pipe::Pipe;

use serde::{Deserialize, Serialize};

/// What the interfaces report about this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server<'a> {
    /// NetBIOS name.
    pub name: &'a str,
    /// Remark shown by browsers.
    pub comment: &'a str,
    /// Shares in the order of listings, without IPC$.
    pub shares: Vec<Share<'a>>,
}

/// A share of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its remark.
    pub comment: &'a str,
}

/// An interface. Each has a pipe of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interface {
    /// Server Service Remote Protocol (MS-SRVS 1.9): pipe `srvsvc`.
    Srvsvc,
    /// Workstation Service Remote Protocol (MS-WKST 1.9): pipe `wkssvc`.
    Wkssvc,
}

impl Interface {
    /// Returns the interface of the pipe with this name, without regard to case.
    #[must_use]
    pub fn of_pipe(name: &str) -> Option<Interface> {
        [Interface::Srvsvc, Interface::Wkssvc]
            .into_iter()
            .find(|interface| name.eq_ignore_ascii_case(interface.pipe_name()))
    }

    /// Returns the pipe's name within IPC$.
    #[must_use]
    pub fn pipe_name(self) -> &'static str {
        match self {
            Interface::Srvsvc => "srvsvc",
            Interface::Wkssvc => "wkssvc",
        }
    }

    /// Returns UUID and version.
    fn syntax(self) -> pdu::Syntax {
        match self {
            // 4b324fc8-1670-01d3-1278-5a47bf6ee188, 3.0
            Interface::Srvsvc => pdu::Syntax {
                uuid: [
                    0xC8, 0x4F, 0x32, 0x4B, 0x70, 0x16, 0xD3, 0x01, 0x12, 0x78, 0x5A, 0x47, 0xBF,
                    0x6E, 0xE1, 0x88,
                ],
                version: 3,
            },
            // 6bffd098-a112-3610-9833-46c3f87e345a, 1.0
            Interface::Wkssvc => pdu::Syntax {
                uuid: [
                    0x98, 0xD0, 0xFF, 0x6B, 0x12, 0xA1, 0x10, 0x36, 0x98, 0x33, 0x46, 0xC3, 0xF8,
                    0x7E, 0x34, 0x5A,
                ],
                version: 1,
            },
        }
    }

    /// Runs a call.
    fn call(self, opnum: u16, stub: &[u8], server: &Server<'_>) -> Result<Vec<u8>, Fault> {
        match self {
            Interface::Srvsvc => srvsvc::call(opnum, stub, server),
            Interface::Wkssvc => wkssvc::call(opnum, stub, server),
        }
    }
}

/// The reason for a fault: the status of a fault PDU (C706 appendix E, MS-RPCE 3.1.1.5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// nca_s_op_rng_error: the operation does not exist.
    OpnumOutOfRange,
    /// RPC_X_BAD_STUB_DATA: the arguments cannot be parsed.
    BadStubData,
    /// nca_s_unk_if: no interface is bound to this context id.
    UnknownInterface,
}

impl Fault {
    fn code(self) -> u32 {
        match self {
            Fault::OpnumOutOfRange => 0x1C01_0002,
            Fault::BadStubData => 0x0000_06F7,
            Fault::UnknownInterface => 0x1C01_0003,
        }
    }
}

/// NET_API_STATUS and Win32 codes (MS-ERREF 2.2) that calls return.
mod win32 {
    pub const SUCCESS: u32 = 0;
    pub const ACCESS_DENIED: u32 = 5;
    pub const INVALID_LEVEL: u32 = 124;
    pub const NERR_NET_NAME_NOT_FOUND: u32 = 2310;
}
