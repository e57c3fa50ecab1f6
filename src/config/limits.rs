//! `[limits]`: the resources of one client, and of all of them. Every key is optional.

use std::time::Duration;

use serde::Deserialize;

use super::Error;
use super::check::Check;

/// The longest time that is accepted.
const SECONDS_MAX: i64 = 86_400;

/// Defines each limit once: its documentation, key, default and range.
macro_rules! limits {
    (
        counts { $($(#[$count_doc:meta])* $count:ident = $count_default:expr, up to $count_max:expr;)* }
        sizes { $($(#[$size_doc:meta])* $size:ident = $size_default:expr, from $size_min:expr;)* }
        seconds {
            $($(#[$seconds_doc:meta])* $field:ident, $key:ident = $seconds_default:expr, from $seconds_min:expr;)*
        }
    ) => {
        /// `[limits]`, checked.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[$count_doc])* pub $count: usize,)*
            $($(#[$size_doc])* pub $size: usize,)*
            $($(#[$seconds_doc])* pub $field: Duration,)*
        }

        impl Default for Limits {
            fn default() -> Limits {
                Limits {
                    $($count: $count_default,)*
                    $($size: $size_default,)*
                    $($field: Duration::from_secs($seconds_default),)*
                }
            }
        }

        /// `[limits]` as in the file.
        #[derive(Deserialize, Default)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct Written {
            $($count: Option<i64>,)*
            $($size: Option<String>,)*
            $($key: Option<i64>,)*
        }

        impl Check<'_> {
            pub(super) fn limits(&self, written: &Written) -> Result<Limits, Error> {
                let default = Limits::default();
                Ok(Limits {
                    $($count: self.count(stringify!($count), written.$count, default.$count, $count_max)?,)*
                    $($size: self.bytes(stringify!($size), written.$size.as_deref(), default.$size, $size_min)?,)*
                    $($field: self.seconds(stringify!($key), written.$key, default.$field, $seconds_min)?,)*
                })
            }
        }
    };
}

limits! {
    counts {
        /// `max_connections`: simultaneous TCP connections; a few are kept free, at the cost of the account that has
        /// most.
        max_connections = 1024, up to 1 << 20;
        /// `max_unauthenticated`: connections that have not logged in; if there is one more, the oldest is dropped.
        max_unauthenticated = 256, up to 1 << 20;
        /// `half_open`: unfinished TCP handshakes that are kept; beyond it SYN cookies are used.
        half_open = 128, up to 1 << 20;
        /// `max_sessions_per_connection`.
        max_sessions_per_connection = 64, up to 1 << 10;
        /// `max_failed_logins_per_connection`: if there is one more, the connection is dropped.
        max_failed_logins_per_connection = 16, up to 1 << 16;
        /// `max_trees_per_connection`.
        max_trees_per_connection = 1024, up to 1 << 14;
        /// `max_opens`: open files, directories and pipes in total.
        max_opens = 65_536, up to 1 << 24;
        /// `max_opens_per_connection`.
        max_opens_per_connection = 16_384, up to 1 << 20;
        /// `max_locks`: byte-range locks in total.
        max_locks = 65_536, up to 1 << 24;
        /// `max_locks_per_open`.
        max_locks_per_open = 4096, up to 1 << 18;
        /// `max_pending`: requests that wait (for a lock, a change, an oplock break) in total.
        max_pending = 8192, up to 1 << 20;
        /// `max_pending_per_connection`.
        max_pending_per_connection = 512, up to 1 << 20;
        /// `max_watches`: watched directories in total.
        max_watches = 1024, up to 1 << 20;
        /// `max_watches_per_connection`.
        max_watches_per_connection = 128, up to 1 << 20;
        /// `max_pings_per_second`: echo requests that are answered.
        max_pings_per_second = 1000, up to 1 << 20;
    }
    sizes {
        /// `max_out_of_order`, bytes: out-of-order segments that are kept, in total.
        max_out_of_order = 64 << 20, from 1 << 20;
        /// `max_unread_per_connection`, bytes: replies that a client has not read; meanwhile no more of its requests
        /// are processed.
        max_unread_per_connection = 16 << 20, from 1 << 20;
    }
    seconds {
        /// `auth_timeout_seconds`: time to log in, from the connection's beginning or the end of its last session.
        auth_timeout, auth_timeout_seconds = 60, from 1;
        /// `idle_timeout_seconds`: a connection without opens and without requests is dropped after this long; 0:
        /// never.
        idle_timeout, idle_timeout_seconds = 0, from 0;
        /// `stall_timeout_seconds`: a client that neither reads its replies nor finishes the message it has begun is
        /// dropped.
        stall_timeout, stall_timeout_seconds = 300, from 1;
        /// `stall_timeout_crowded_seconds`: the same while others wait for room in the log.
        stall_timeout_crowded, stall_timeout_crowded_seconds = 5, from 1;
        /// `keep_alive_seconds`: a silent peer is probed after this long; 0: never.
        keep_alive, keep_alive_seconds = 120, from 0;
    }
}

impl Check<'_> {
    fn count(
        &self,
        key: &str,
        value: Option<i64>,
        default: usize,
        max: usize,
    ) -> Result<usize, Error> {
        value.map_or(Ok(default), |value| {
            self.number(&format!("limits.{key}"), value, 1, max)
        })
    }

    fn bytes(
        &self,
        key: &str,
        value: Option<&str>,
        default: usize,
        min: usize,
    ) -> Result<usize, Error> {
        let Some(value) = value else {
            return Ok(default);
        };
        let remedy = format!("use {}MiB to 1TiB", min >> 20);
        let range = min as u64..=1 << 40;
        let bytes = self.size(&format!("limits.{key}"), value, range, &remedy)?;
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    fn seconds(
        &self,
        key: &str,
        value: Option<i64>,
        default: Duration,
        min: i64,
    ) -> Result<Duration, Error> {
        match value {
            None => Ok(default),
            Some(value) if (min..=SECONDS_MAX).contains(&value) => {
                Ok(Duration::from_secs(value.unsigned_abs()))
            }
            Some(value) => self.fail(
                &format!("limits.{key}"),
                format!("{value} is out of range"),
                &format!("use {min} to {SECONDS_MAX} seconds"),
            ),
        }
    }
}
