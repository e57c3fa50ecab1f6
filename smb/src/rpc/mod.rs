//! Named pipes of IPC$.

use serde::{Deserialize, Serialize};

/// An open named pipe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipe;

impl Pipe {
    /// Opens the pipe with this name (no leading backslash, compared without case); `None`: there is none.
    #[must_use]
    pub fn open(_name: &str) -> Option<Pipe> {
        None
    }
}
