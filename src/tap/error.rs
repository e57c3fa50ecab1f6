//! Errors of a TAP, and their remedies.

use std::io;

/// Why a TAP cannot be used. Each message names the device and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface has this name.
    #[error(
        "there is no TAP device {name:?}: make one with `scripts/lab up --tap {name}`, or name another as `tap` in \
         [network]"
    )]
    Missing {
        /// The configured name.
        name: String,
    },
    /// Longer than 15 bytes, empty, or with characters that the kernel refuses.
    #[error(
        "{name:?} cannot be the name of a TAP device: use 1 to 15 characters, no '/', ':', '%' or space; correct \
         `tap` in [network]"
    )]
    Name {
        /// The configured name.
        name: String,
    },
    /// Another process is attached.
    #[error(
        "the TAP device {name} is busy: another process holds it (another outlast?); stop that, or name another as \
         `tap` in [network]"
    )]
    Busy {
        /// The configured name.
        name: String,
    },
    /// It belongs to another user.
    #[error(
        "no permission to use the TAP device {name}: give it to this user (`scripts/lab down --tap {name}`, then \
         `scripts/lab up --tap {name} --owner USER`), or run as root"
    )]
    Denied {
        /// The configured name.
        name: String,
    },
    /// The driver itself may not be used.
    #[error(
        "no permission to open /dev/net/tun ({source}), needed for {name}: run as root, `chmod 666 /dev/net/tun`, or \
         give the container the device (--device /dev/net/tun)"
    )]
    DriverDenied {
        /// The configured name.
        name: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// An interface that cannot be used.
    #[error(
        "{name} is {what}, not a plain TAP device: make one with `scripts/lab up --tap NAME` and name it as `tap` in \
         [network]"
    )]
    NotATap {
        /// The configured name.
        name: String,
        /// What it is instead.
        what: &'static str,
    },
    /// No TUN/TAP driver.
    #[error(
        "this system has no TAP driver (/dev/net/tun: {source}), needed for {name}: `modprobe tun`, or give the \
         container /dev/net/tun"
    )]
    NoDriver {
        /// The configured name.
        name: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The inherited descriptor is something else.
    #[error(
        "the inherited descriptor is not an attached TAP device: start the server with `outlast serve`"
    )]
    NotInherited,
    /// Another error.
    #[error("cannot {action} the TAP device {name}: {source}")]
    Failed {
        /// The configured name.
        name: String,
        /// The failed action.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}
