//! SMB2 and SMB3 whose sessions can be saved and restored.

pub mod entropy;
pub mod fileop;
pub mod info;
pub mod pattern;
pub mod status;
pub mod wire;
