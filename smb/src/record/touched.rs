//! Lists the parts of a connection's state that each record changes, so that the indexes and accounts are updated part
//! by part.

use super::{Piece, Record, WorkId};
use outlast_fsa::fileop::OpenId;

/// The parts of a connection that a record changes and that are indexed, counted or accounted across connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// All of it.
    pub(crate) everything: bool,
    /// All but opens, waiting requests and sessions: the message in progress, credits, and ended sessions.
    pub(crate) frame: bool,
    pub(crate) session: Option<u64>,
    pub(crate) open: Option<OpenId>,
    /// A waiting request, and the one that ends when it begins.
    parked: (Option<u64>, Option<u64>),
}

impl Touched {
    pub(crate) fn everything() -> Touched {
        Touched {
            everything: true,
            ..Touched::default()
        }
    }

    fn open(open: OpenId) -> Touched {
        Touched {
            open: Some(open),
            ..Touched::default()
        }
    }

    fn session(id: u64) -> Touched {
        Touched {
            session: Some(id),
            ..Touched::default()
        }
    }

    fn work(id: WorkId) -> Touched {
        let parked = match id {
            WorkId::Message => None,
            WorkId::Parked(id) => Some(id),
        };
        Touched {
            frame: parked.is_none(),
            parked: (parked, None),
            ..Touched::default()
        }
    }

    fn and_frame(self) -> Touched {
        Touched {
            frame: true,
            ..self
        }
    }

    pub(crate) fn parked(self) -> impl Iterator<Item = u64> {
        let (one, other) = self.parked;
        one.into_iter().chain(other.filter(|_| one != other))
    }
}

impl Record {
    /// Returns the parts that must be removed from the index and the accounts before this record and added after it. A
    /// field with a fixed share of its part's size (`crate::size`) that is not indexed need not be.
    pub(crate) fn touches(&self) -> Touched {
        match self {
            Record::Connected { .. }
            | Record::Disconnected
            | Record::SessionLeft { .. }
            | Record::Rekeyed { .. } => Touched::everything(),
            Record::Opened(open) => Touched::open(open.id),
            Record::Closed { open }
            | Record::Closing { open, .. }
            | Record::Oplock { open, .. }
            | Record::Lease { open, .. }
            | Record::Detached { open, .. }
            | Record::Orphaned { open }
            | Record::Released { open }
            | Record::Survives { open, .. }
            | Record::Locked { open, .. }
            | Record::Unlocked { open, .. }
            | Record::LockSequence { open, .. }
            | Record::Moved { open, .. }
            | Record::DeletePending { open, .. }
            | Record::FileDeletePending { open, .. }
            | Record::Cursor { open, .. }
            | Record::Watch { open, .. }
            | Record::Noticed { open, .. }
            | Record::Pipe { open, .. } => Touched::open(*open),
            Record::Waiting { id, .. } => Touched::work(WorkId::Parked(*id)),
            Record::Doing { work, .. }
            | Record::Undone { work }
            | Record::PartsDone { work, .. }
            | Record::Answered { work, .. } => Touched::work(*work),
            Record::Done { work, .. } => Touched::work(*work).and_frame(),
            Record::Parked { work, id, .. } => {
                let ended = Touched::work(*work).parked.0;
                Touched {
                    frame: true,
                    parked: (Some(*id), ended),
                    ..Touched::default()
                }
            }
            Record::Begin | Record::Admitted { .. } => Touched::default().and_frame(),
            Record::Session { id, .. }
            | Record::SessionEnded { id }
            | Record::TreeConnected { session: id, .. }
            | Record::TreeChanged { session: id, .. }
            | Record::TreeEnded { session: id, .. } => Touched::session(*id).and_frame(),
            Record::Crashed { .. }
            | Record::CloseCrashed { .. }
            | Record::Running { .. }
            | Record::Cancelled { .. }
            | Record::Negotiated(_)
            | Record::Nonce { .. }
            | Record::SharesMoved { .. }
            | Record::Position { .. }
            | Record::Mode { .. }
            | Record::Stopped { .. }
            | Record::ChannelSequence { .. } => Touched::default(),
            Record::Copied(piece) => piece.touches(),
        }
    }
}

impl Piece {
    fn touches(&self) -> Touched {
        match self {
            Piece::Work(_) => Touched::default().and_frame(),
            Piece::Parked(id, _) => Touched::work(WorkId::Parked(*id)),
            Piece::Open(open) => Touched::open(open.id),
            // An ended session is part of the frame.
            Piece::Session(id, _) => Touched::session(*id).and_frame(),
        }
    }
}
