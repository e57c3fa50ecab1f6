//! Defines oplocks: their levels, and breaks in progress (MS-FSA 2.1.1.10).

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
    /// The levels that allow caching, from the highest to the lowest.
    pub const HELD: [OplockLevel; 3] = [
        OplockLevel::Batch,
        OplockLevel::Exclusive,
        OplockLevel::LevelII,
    ];

    /// Returns the caching that the level allows (MS-FSA 2.1.5.18).
    #[must_use]
    pub fn caching(self) -> Caching {
        match self {
            OplockLevel::None => Caching::NONE,
            OplockLevel::LevelII => Caching::READ,
            OplockLevel::Exclusive => Caching::READ_WRITE,
            OplockLevel::Batch => Caching::ALL,
        }
    }

    /// Returns the level of an oplock beside other opens: the highest one within `caching`.
    #[must_use]
    pub fn shared(caching: Caching) -> OplockLevel {
        match caching.has(Caching::READ) {
            true => OplockLevel::LevelII,
            false => OplockLevel::None,
        }
    }
}

/// A break that awaits its acknowledgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaking {
    /// The level to which it breaks.
    pub to: OplockLevel,
    /// Service time at which the wait for the acknowledgment ends.
    pub deadline: Duration,
}
