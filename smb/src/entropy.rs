//! Defines the source of randomness: the core draws none by itself.

/// A source of random bytes: the operating system's in the server, a seeded one in tests.
pub trait Entropy {
    /// Fills `bytes` with random bytes fit for keys and challenges.
    fn fill(&mut self, bytes: &mut [u8]);
}
