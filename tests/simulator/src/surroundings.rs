//! What a simulated server is given instead of the kernel's randomness, of fault injection and of a journal.

use std::sync::Arc;

use outlast::server::fault::{Point, Probe, When};
use outlast_smb::Entropy;

use crate::memory::Nvram;
use crate::mutation::Mutation;
use crate::random::Random;

/// Random numbers that the seed says.
pub struct Seeded(pub Random);

impl Entropy for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill(buffer);
    }
}

/// Leaves out the commits at point 2 of operations with a name, if that is the mutation.
pub struct Saboteur {
    /// The memory whose commits are left out.
    pub nvram: Arc<Nvram>,
    /// How the server is broken.
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

/// The journal of a stack that has no state to speak of.
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
