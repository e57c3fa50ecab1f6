//! Defines the NTSTATUS codes (MS-ERREF 2.3.1) that this server returns.

use serde::{Deserialize, Serialize};

/// An NTSTATUS value (MS-ERREF 2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NtStatus(pub u32);

macro_rules! codes {
    ($($name:ident = $value:expr;)*) => {
        #[allow(missing_docs)] // the names are MS-ERREF's own
        impl NtStatus {
            $(pub const $name: NtStatus = NtStatus($value);)*
            /// Returns the name of this value in MS-ERREF, if the server uses it.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self { $(NtStatus::$name => Some(concat!("STATUS_", stringify!($name))),)* _ => None }
            }
        }
    };
}

codes! {
    SUCCESS = 0x0000_0000;
    PENDING = 0x0000_0103;
    NOTIFY_CLEANUP = 0x0000_010B;
    NOTIFY_ENUM_DIR = 0x0000_010C;
    BUFFER_OVERFLOW = 0x8000_0005;
    NO_MORE_FILES = 0x8000_0006;
    INVALID_EA_NAME = 0x8000_0013;
    EA_LIST_INCONSISTENT = 0x8000_0014;
    STOPPED_ON_SYMLINK = 0x8000_002D;
    UNSUCCESSFUL = 0xC000_0001;
    NOT_IMPLEMENTED = 0xC000_0002;
    INVALID_INFO_CLASS = 0xC000_0003;
    INFO_LENGTH_MISMATCH = 0xC000_0004;
    INVALID_HANDLE = 0xC000_0008;
    INVALID_PARAMETER = 0xC000_000D;
    NO_SUCH_FILE = 0xC000_000F;
    INVALID_DEVICE_REQUEST = 0xC000_0010;
    END_OF_FILE = 0xC000_0011;
    MORE_PROCESSING_REQUIRED = 0xC000_0016;
    NO_MEMORY = 0xC000_0017;
    INVALID_VIEW_SIZE = 0xC000_001F;
    ACCESS_DENIED = 0xC000_0022;
    BUFFER_TOO_SMALL = 0xC000_0023;
    OBJECT_TYPE_MISMATCH = 0xC000_0024;
    OBJECT_NAME_INVALID = 0xC000_0033;
    OBJECT_NAME_NOT_FOUND = 0xC000_0034;
    OBJECT_NAME_COLLISION = 0xC000_0035;
    OBJECT_PATH_INVALID = 0xC000_0039;
    OBJECT_PATH_NOT_FOUND = 0xC000_003A;
    OBJECT_PATH_SYNTAX_BAD = 0xC000_003B;
    SHARING_VIOLATION = 0xC000_0043;
    QUOTA_EXCEEDED = 0xC000_0044;
    EAS_NOT_SUPPORTED = 0xC000_004F;
    EA_TOO_LARGE = 0xC000_0050;
    NO_EAS_ON_FILE = 0xC000_0052;
    FILE_LOCK_CONFLICT = 0xC000_0054;
    LOCK_NOT_GRANTED = 0xC000_0055;
    DELETE_PENDING = 0xC000_0056;
    PRIVILEGE_NOT_HELD = 0xC000_0061;
    LOGON_FAILURE = 0xC000_006D;
    RANGE_NOT_LOCKED = 0xC000_007E;
    DISK_FULL = 0xC000_007F;
    INSUFFICIENT_RESOURCES = 0xC000_009A;
    MEDIA_WRITE_PROTECTED = 0xC000_00A2;
    INVALID_READ_MODE = 0xC000_00B4;
    PIPE_DISCONNECTED = 0xC000_00B0;
    IO_TIMEOUT = 0xC000_00B5;
    FILE_IS_A_DIRECTORY = 0xC000_00BA;
    NOT_SUPPORTED = 0xC000_00BB;
    NETWORK_NAME_DELETED = 0xC000_00C9;
    BAD_NETWORK_NAME = 0xC000_00CC;
    REQUEST_NOT_ACCEPTED = 0xC000_00D0;
    PIPE_EMPTY = 0xC000_00D9;
    INVALID_OPLOCK_PROTOCOL = 0xC000_00E3;
    INTERNAL_ERROR = 0xC000_00E5;
    BAD_IMPERSONATION_LEVEL = 0xC000_00A5;
    UNEXPECTED_IO_ERROR = 0xC000_00E9;
    DIRECTORY_NOT_EMPTY = 0xC000_0101;
    NOT_A_DIRECTORY = 0xC000_0103;
    NAME_TOO_LONG = 0xC000_0106;
    TOO_MANY_OPENED_FILES = 0xC000_011F;
    CANCELLED = 0xC000_0120;
    CANNOT_DELETE = 0xC000_0121;
    FILE_DELETED = 0xC000_0123;
    FILE_CLOSED = 0xC000_0128;
    FS_DRIVER_REQUIRED = 0xC000_019C;
    USER_SESSION_DELETED = 0xC000_0203;
    NOT_FOUND = 0xC000_0225;
    DUPLICATE_OBJECTID = 0xC000_022A;
    PATH_NOT_COVERED = 0xC000_0257;
    NOT_A_REPARSE_POINT = 0xC000_0275;
    NOT_SAME_DEVICE = 0xC000_00D4;
    TOO_MANY_LINKS = 0xC000_0265;
    HASH_NOT_SUPPORTED = 0xC000_A100;
    SMB_NO_PREAUTH_INTEGRITY_HASH_OVERLAP = 0xC05D_0000;
    NETWORK_SESSION_EXPIRED = 0xC000_035C;
    INVALID_LOCK_RANGE = 0xC000_01A1;
    IO_DEVICE_ERROR = 0xC000_0185;
    PIPE_BROKEN = 0xC000_014B;
    FILE_NOT_AVAILABLE = 0xC000_0467;
}

impl NtStatus {
    /// Returns whether the severity is "error" (MS-ERREF 2.3): the two top bits are set.
    #[must_use]
    pub fn is_error(self) -> bool {
        self.0 >> 30 == 3
    }
}

impl std::fmt::Display for NtStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#010x}", self.0),
        }
    }
}

impl std::fmt::Debug for NtStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for NtStatus {}
