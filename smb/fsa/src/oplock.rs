//! Oplocks: the levels that an open may cache at, and breaks in progress (MS-FSA 2.1.1.10).

use crate::caching::Caching;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Oplock levels (MS-SMB2 2.2.13), in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum OplockLevel {
    /// SMB2_OPLOCK_LEVEL_NONE.
    #[default]
    None = 0x00,
    /// SMB2_OPLOCK_LEVEL_II.
    LevelII = 0x01,
    /// SMB2_OPLOCK_LEVEL_EXCLUSIVE.
    Exclusive = 0x08,
    /// SMB2_OPLOCK_LEVEL_BATCH.
    Batch = 0x09,
}

impl OplockLevel {
    /// Those that cache something, from the highest to the lowest.
    pub const HELD: [OplockLevel; 3] = [
        OplockLevel::Batch,
        OplockLevel::Exclusive,
        OplockLevel::LevelII,
    ];

    /// What its holder may cache (MS-FSA 2.1.5.18).
    #[must_use]
    pub fn caching(self) -> Caching {
        match self {
            OplockLevel::None => Caching::NONE,
            OplockLevel::LevelII => Caching::READ,
            OplockLevel::Exclusive => Caching::READ_WRITE,
            OplockLevel::Batch => Caching::ALL,
        }
    }

    /// The level of an oplock that is shared with others: the highest one within `caching`.
    #[must_use]
    pub fn shared(caching: Caching) -> OplockLevel {
        match caching.has(Caching::READ) {
            true => OplockLevel::LevelII,
            false => OplockLevel::None,
        }
    }
}

/// A break that the client has not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaking {
    /// The level it breaks to.
    pub to: OplockLevel,
    /// Service time at which the server stops waiting.
    pub deadline: Duration,
}
