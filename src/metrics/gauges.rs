//! Defines the gauges: the present resources of the server.

/// Lists each gauge once: its documentation, which metrics show as well, and its name.
macro_rules! gauges {
    ($($(#[doc = $help:literal])* $name:ident;)*) => {
        /// The present resources of the server. A worker measures them a few times a second.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Gauges {
            $($(#[doc = $help])* pub $name: u64,)*
        }

        /// The number of words of all gauges.
        pub(super) const LEN: usize = [$(stringify!($name)),*].len();

        impl Gauges {
            pub(super) fn words(self) -> [u64; LEN] {
                [$(self.$name),*]
            }

            pub(super) fn from_words(words: [u64; LEN]) -> Gauges {
                let [$($name),*] = words;
                Gauges { $($name),* }
            }

            /// Returns name, help and value of each gauge.
            pub(super) fn all(self) -> [(&'static str, &'static str, u64); LEN] {
                [$((stringify!($name), concat!($($help),*).trim_ascii(), self.$name)),*]
            }
        }
    };
}

gauges! {
    /// TCP connections.
    connections;
    /// Unauthenticated connections.
    unauthenticated_connections;
    /// Opens of all connections.
    opens;
    /// Byte-range locks of all connections.
    locks;
    /// Tree connects of all connections.
    tree_connects;
    /// Bytes handed to TCP that clients have not acknowledged.
    unacknowledged_bytes;
    /// Bytes that the checkpoint log can hold.
    log_size_bytes;
    /// Bytes of the checkpoint log in use, from its tail to its head.
    log_used_bytes;
    /// Records that a recovery would read now.
    replay_records;
    /// Bytes of the log that a recovery would read now.
    replay_bytes;
    /// Deltas that a recovery would apply now.
    replay_deltas;
    /// Bytes of the room for what clients send.
    receive_room_bytes;
    /// Bytes of that room in use or promised to clients.
    receive_held_bytes;
    /// Segments within a window that this worker has dropped for lack of room.
    in_window_dropped_segments;
    /// Bytes of the log that no sink has yet, under durability power.
    sink_lag_bytes;
    /// Committed bytes of the log that the partner does not have yet.
    partner_lag_bytes;
    /// 1 if a standby worker runs, else 0.
    standby;
    /// Bytes of the log that the standby worker has not read yet.
    standby_lag_bytes;
    /// Digests of its state that differed from the server's: a fault of the server.
    standby_differences;
    /// 1 if the server is one node of a pair, else 0.
    pair;
    /// 1 if the other node of the pair runs, else 0.
    partner_runs;
    /// 1 if the other node of the pair has everything that is committed, else 0.
    partner_in_step;
    /// Epoch of the log: each start has one of its own.
    epoch;
    /// Recoveries since the log was formatted.
    recoveries;
}
