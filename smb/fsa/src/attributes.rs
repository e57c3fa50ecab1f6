//! Defines FILE_ATTRIBUTE_* (MS-FSCC 2.6).

#![allow(missing_docs)] // the names are MS-FSCC's own

pub const READONLY: u32 = 0x0000_0001;
pub const HIDDEN: u32 = 0x0000_0002;
pub const SYSTEM: u32 = 0x0000_0004;
pub const DIRECTORY: u32 = 0x0000_0010;
pub const ARCHIVE: u32 = 0x0000_0020;
pub const NORMAL: u32 = 0x0000_0080;
pub const TEMPORARY: u32 = 0x0000_0100;
pub const SPARSE_FILE: u32 = 0x0000_0200;
pub const REPARSE_POINT: u32 = 0x0000_0400;
pub const OFFLINE: u32 = 0x0000_1000;
pub const NOT_CONTENT_INDEXED: u32 = 0x0000_2000;
/// The attributes of a volume and of a device, which no file has (MS-FSA 2.1.5.1).
pub const NO_FILE: u32 = 0x0000_0048;
/// The attributes that a client may set and that are stored.
pub const SETTABLE: u32 =
    READONLY | HIDDEN | SYSTEM | ARCHIVE | TEMPORARY | OFFLINE | NOT_CONTENT_INDEXED;
