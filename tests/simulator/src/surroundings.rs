//! Replaces the server's surroundings: the source of randomness, the fault injection, and the journal of a stack.

use std::sync::Arc;

use outlast::server::fault::{Point, Probe, When};
use outlast_smb::Entropy;

use crate::memory::Nvram;
use crate::mutation::Mutation;
use crate::random::Random;

/// Random numbers from the seed.
pub struct Seeded(pub Random);

impl Entropy for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill(buffer);
    }
}

/// Omits the commits at point 2 of operations with a name, if that is the mutation.
pub struct Saboteur {
    /// The memory whose commits are omitted.
    pub nvram: Arc<Nvram>,
    /// The mutation of the server.
    pub mutation: Option<Mutation>,
}

impl Probe for Saboteur {
    fn at(&mut self, point: Point, when: When, operation: &str) {
        if self.mutation
            == Some(Mutation::NoIntent(match operation {
                "create" => "create",
                "rename" => "rename",
                "delete" => "delete",
                "write" => "write",
                _ => return,
            }))
            && (point, when) == (Point::Two, When::Before)
        {
            self.nvram.leave_out_commit();
        }
    }
}

/// The journal of a stack without durable state.
pub struct Nothing;

impl outlast_stack::Journal for Nothing {
    fn append(&mut self, _: u64, _: &outlast_stack::Record, data: &[&[u8]]) -> bytes::Bytes {
        data.concat().into()
    }

    fn room(&self, _: u64) -> usize {
        usize::MAX
    }

    fn unique_id(&mut self) -> u64 {
        1
    }
}
