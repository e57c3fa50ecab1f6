//! Authentication.

use serde::{Deserialize, Serialize};

/// What an authentication in progress remembers between two SESSION_SETUP requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake;
