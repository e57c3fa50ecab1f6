//! Mutations: servers that break a law, to show that the sweep notices. None of it is in the server's own code: each is a wrapper
//! around what the machine stands on (NVRAM, disk, clock, frames), or a change of the log between two lives of the server, which is
//! what a server amounts to that does not write or does not take up a part of its state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outlast::server::record::Record;
use outlast_nvram::{Flag, Identity, Kind, Log, Memory, VecMemory, codec};
use outlast_stack::device::Faults;
use outlast_stack::{Lost, Record as Tcp, TxFrame};
use smoltcp::wire::{TcpPacket, TcpSeqNumber};

use crate::kinds;
use crate::scenario::Scenario;
use crate::trouble;
use crate::workload::Verb;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Law 1: the frames of a turn leave before its commits.
    FramesBeforeCommit,
    /// Law 1: point 2 is left out for operations of this name.
    NoIntent(&'static str),
    /// Law 2: records of this kind are not taken up.
    Forgets(Forgotten),
    /// Law 2: each record is committed by itself, not in its group.
    RecordsApart,
    /// Law 2: the commit word reaches the memory before the records it commits.
    CommitFirst,
    /// Law 3: replies that wait in the send queue are made again, so that they have other bytes.
    RepliesMadeAgain,
    /// Law 4: a dying server ends its connections.
    LastWords,
    /// Law 4: a server answers before its connections are back.
    AnswersTooEarly,
    /// Law 5: who created a file is not looked at.
    StampIgnored,
    /// Law 5: an append goes to the end of the file as it is.
    AppendsAgain,
    /// Law 5: a rename that is done already is an error.
    RenamesOnce,
    /// Law 5: a copy within one file reads its source again.
    CopiesAgain,
    /// Law 6: timers run on while the server is down.
    OutageIsTime,
    /// Law 7: when the log fills, the oldest connection is given up.
    OldestGivenUp,
    /// Law 1 under `power`: output leaves before its commit is on the medium.
    FlushNotAwaited,
    /// Law 5 under `power`: an operation is done before its intent is on the medium.
    IntentNotAwaited,
    /// A consistency point is on record before the file systems are synced.
    SyncNotAwaited,
    /// A sync that has failed is taken for one that succeeded, as the one after it would be.
    FailedSyncBelieved,
    /// Of two syncs that fail in a row the second one is.
    SecondFailureBelieved,
    /// After a power cut an error of the disk is taken for a file that is gone.
    FaultTakenForGone,
    /// After a power cut operations of this name are not done once more.
    RedoWithout(&'static str),
    /// The marker reaches the medium before what it speaks of.
    MarkerFirst,
    /// The marker is not asked how far the file system came.
    MarkerIgnored,
    /// The checksums of what is in the sink are not looked at.
    ChecksumsIgnored,
    /// Law 8: the right edge is not on record, and windows are smaller after the recovery.
    PromiseForgotten,
    /// Windows are promised for which there is no room.
    WindowsWithoutRoom,
    /// What came out of order is reported as received, and forgotten.
    ReportedForgotten,
    /// A segment that is in order and within the window is dropped, now and then.
    InOrderDropped,
    /// After a return nothing is sent for some seconds.
    SilentAfterReturn,
    /// One more of these than the limit says may be had.
    OneTooMany(Limited),
    /// An error of the disk is not told: the write is said to be done.
    ErrorSwallowed,
    /// A copy that fails midway is said to be done.
    ErrorMidwaySwallowed,
    /// A share that is away is taken for one whose files are gone.
    AwayTakenForGone,
    /// A handle is given up when its file cannot be opened again at the first attempt.
    HandleLost,
    /// What is done for an account that cannot be told now is done as root.
    UnknownIsRoot,
    /// A file without a stamp, which was made where there are neither links nor renames that replace nothing, is taken
    /// for another's.
    UnstampedTakenForAnothers,
    /// Sessions and tree connects are admitted again by the configuration of before.
    OldConfiguration,
    /// The tail that has moved is not put on record, so that it lies in what has been written over.
    TailStands,
    /// A worker that stands by takes over without the last commit.
    FollowerBehind,
    /// What a killed worker had read and not put on record is lost, though the machine keeps all frames.
    ReceivedForgotten,
    /// The state of a worker that stands by is another one than the server's.
    FollowerDiffers,
}

/// What a limit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the limits' names
pub enum Limited {
    Opens,
    AllOpens,
    Locks,
    Pending,
    Watches,
    Trees,
    Sessions,
}

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the records' names
pub enum Forgotten {
    Nonces,
    Ids,
    Clock,
    Consumed,
    Sent,
    Locks,
    Oplocks,
    Leases,
    Paths,
    Cursors,
    DeletePending,
    StoppedTimes,
    Answers,
    MessageIds,
    Sessions,
    Closes,
    Unlocks,
    Ends,
    Watches,
    Trees,
    Watched,
    Roots,
}

impl Mutation {
    /// All of them.
    pub const ALL: &[Mutation] = {
        use self::Forgotten as F;
        use Mutation::*;
        &[
            FramesBeforeCommit,
            NoIntent("create"),
            NoIntent("rename"),
            NoIntent("delete"),
            NoIntent("write"),
            Forgets(F::Nonces),
            Forgets(F::Ids),
            Forgets(F::Clock),
            Forgets(F::Consumed),
            Forgets(F::Sent),
            Forgets(F::Locks),
            Forgets(F::Oplocks),
            Forgets(F::Leases),
            Forgets(F::Paths),
            Forgets(F::Cursors),
            Forgets(F::DeletePending),
            Forgets(F::StoppedTimes),
            Forgets(F::Answers),
            Forgets(F::MessageIds),
            Forgets(F::Sessions),
            Forgets(F::Watched),
            Forgets(F::Roots),
            RecordsApart,
            CommitFirst,
            RepliesMadeAgain,
            LastWords,
            AnswersTooEarly,
            StampIgnored,
            AppendsAgain,
            RenamesOnce,
            CopiesAgain,
            OutageIsTime,
            OldestGivenUp,
            PromiseForgotten,
            FlushNotAwaited,
            IntentNotAwaited,
            SyncNotAwaited,
            FailedSyncBelieved,
            SecondFailureBelieved,
            FaultTakenForGone,
            RedoWithout("rename"),
            RedoWithout("link"),
            RedoWithout("delete"),
            RedoWithout("write"),
            RedoWithout("truncate"),
            RedoWithout("times"),
            MarkerFirst,
            MarkerIgnored,
            ChecksumsIgnored,
            Forgets(F::Closes),
            Forgets(F::Unlocks),
            Forgets(F::Ends),
            Forgets(F::Watches),
            Forgets(F::Trees),
            WindowsWithoutRoom,
            ReportedForgotten,
            InOrderDropped,
            SilentAfterReturn,
            OneTooMany(Limited::Opens),
            OneTooMany(Limited::AllOpens),
            OneTooMany(Limited::Locks),
            OneTooMany(Limited::Pending),
            OneTooMany(Limited::Watches),
            OneTooMany(Limited::Trees),
            OneTooMany(Limited::Sessions),
            ErrorSwallowed,
            ErrorMidwaySwallowed,
            AwayTakenForGone,
            HandleLost,
            UnknownIsRoot,
            UnstampedTakenForAnothers,
            OldConfiguration,
            TailStands,
            FollowerBehind,
            ReceivedForgotten,
            FollowerDiffers,
        ]
    };

    /// Can no well-behaved client notice, or hardly one of the workload? Forgotten MessageIds would let one be used
    /// twice, which none does. Of times that an open has stopped one has to write by that open after the crash.
    #[must_use]
    pub fn is_hidden(self) -> bool {
        matches!(
            self,
            Mutation::Forgets(Forgotten::MessageIds | Forgotten::StoppedTimes)
        )
    }

    /// Is it about what a power cut does?
    #[must_use]
    pub fn is_of_power(self) -> bool {
        matches!(
            self,
            Mutation::FlushNotAwaited
                | Mutation::IntentNotAwaited
                | Mutation::SyncNotAwaited
                | Mutation::FailedSyncBelieved
                | Mutation::SecondFailureBelieved
                | Mutation::FaultTakenForGone
                | Mutation::RedoWithout(_)
                | Mutation::MarkerFirst
                | Mutation::MarkerIgnored
                | Mutation::ChecksumsIgnored
        )
    }

    /// What a mutation needs to make a difference: chance gives it to some scenarios only.
    pub fn choose_surroundings(self, scenario: &mut Scenario) {
        match self {
            Mutation::OutageIsTime => {
                scenario.outage = Duration::from_secs(40);
                scenario.lost = Lost::Nothing;
            }
            Mutation::Forgets(what) => {
                scenario.timestamps |= what == Forgotten::Clock;
                // In a small log a change is soon part of a copy of its connection, and is not forgotten then.
                scenario.nvram_bytes = 256 << 10;
            }
            Mutation::OldestGivenUp => scenario.nvram_bytes = 64 << 10,
            Mutation::PromiseForgotten => scenario.smaller_window = true,
            Mutation::AnswersTooEarly | Mutation::ReceivedForgotten => {
                scenario.lost = Lost::Nothing;
            }
            // Where the wire loses frames nothing is said about how long it takes.
            Mutation::SilentAfterReturn => scenario.faults = Faults::default(),
            Mutation::ReportedForgotten => scenario.faults.reorder_ppm = 100_000,
            _ => {}
        }
    }

    /// The kinds of scenarios where it makes a difference, as picked from seeds: every seed, or those of one kind.
    #[must_use]
    pub fn concerns(self, scenario: &Scenario) -> bool {
        let is_of_limits = scenario.kind.limits().is_some();
        let asks = |for_it: fn(&Verb) -> bool| {
            let mut verbs = scenario.ops.iter().flat_map(|op| &op.verbs);
            verbs.any(for_it)
        };
        match self {
            Mutation::NoIntent("rename")
            | Mutation::RenamesOnce
            | Mutation::RedoWithout("rename") => asks(|verb| matches!(verb, Verb::Rename { .. })),
            // A file that can be opened by its handle is found without its path.
            Mutation::Forgets(Forgotten::Paths) => {
                !scenario.handles && asks(|verb| matches!(verb, Verb::Rename { .. }))
            }
            Mutation::Forgets(Forgotten::StoppedTimes) | Mutation::RedoWithout("times") => {
                asks(|verb| matches!(verb, Verb::SetTime { .. }))
            }
            Mutation::RedoWithout("link") => asks(|verb| matches!(verb, Verb::Link { .. })),
            Mutation::RedoWithout("truncate") => asks(|verb| matches!(verb, Verb::SetEnd { .. })),
            Mutation::CopiesAgain => asks(|verb| matches!(verb, Verb::Copy { .. })),
            Mutation::OneTooMany(_) => is_of_limits,
            Mutation::Forgets(what) if what.gives_back() => is_of_limits,
            Mutation::WindowsWithoutRoom => matches!(scenario.kind, kinds::Kind::Uploads { .. }),
            Mutation::ErrorSwallowed | Mutation::HandleLost | Mutation::UnknownIsRoot => {
                trouble::is_of(scenario.seed)
            }
            Mutation::SecondFailureBelieved => scenario.power.is_some_and(|it| it.fails_twice),
            Mutation::UnstampedTakenForAnothers => scenario.lacks.links,
            Mutation::ErrorMidwaySwallowed => scenario.ops.iter().any(|op| {
                let trouble = op.trouble.map(|trouble| trouble.what);
                trouble == Some(trouble::What::Rest)
            }),
            Mutation::AwayTakenForGone | Mutation::Forgets(Forgotten::Roots) => {
                scenario.has_outages_of_share
            }
            Mutation::OldConfiguration => scenario.rules.revocation.is_some(),
            _ => true,
        }
    }

    /// Does it change the log between two lives?
    #[must_use]
    pub fn changes_log(self) -> bool {
        matches!(
            self,
            Mutation::Forgets(_)
                | Mutation::RepliesMadeAgain
                | Mutation::OldestGivenUp
                | Mutation::PromiseForgotten
        )
    }

    /// What the mutated server makes of the log it finds. `None`: there is no log yet.
    #[must_use]
    pub fn change_log(self, memory: &dyn Memory) -> Option<VecMemory> {
        let contents = Log::inspect(memory).ok()?;
        let changed = Arc::new(VecMemory::new(memory.len() as usize));
        let identity = Identity {
            instance: contents.superblock.instance,
            incarnation: contents.superblock.incarnation,
        };
        let mut log = Log::format(changed.clone(), identity).ok()?;
        let is_full = contents.head.0 - contents.tail.0 > memory.len() / 8;
        let clients = contents.records.iter().map(|it| it.object);
        let oldest = clients.filter(|object| *object != 0).min();
        let given_up = oldest.filter(|_| is_full && self == Mutation::OldestGivenUp);
        for replayed in contents.records {
            if given_up == Some(replayed.object) {
                continue;
            }
            let record: Record<'static> = codec::decode(&replayed.meta).ok()?;
            let Some((record, data)) = self.change(record, &replayed.data) else {
                continue;
            };
            let mut meta = Vec::new();
            codec::encode(&record, &mut meta);
            let kind: Kind = replayed.kind;
            log.append(replayed.object, kind, &meta, &[&data]).ok()?;
        }
        log.commit();
        log.set_flag(Flag::NonElectiveReboot);
        drop(log);
        Arc::into_inner(changed)
    }

    fn change(self, record: Record<'static>, data: &[u8]) -> Option<(Record<'static>, Vec<u8>)> {
        let mut data = data.to_vec();
        let mut record = record;
        match self {
            Mutation::Forgets(what) if what.is(&record) => return None,
            Mutation::Forgets(Forgotten::Ids) => {
                if let Record::Global(global) = &mut record {
                    global.ids_up_to = 2;
                }
            }
            Mutation::Forgets(Forgotten::Clock) => {
                if let Record::Global(global) = &mut record {
                    global.clock_up_to = Duration::ZERO;
                }
            }
            Mutation::Forgets(Forgotten::Watched) => {
                if let Record::Global(global) = &mut record {
                    global.watched_until = 0;
                }
            }
            Mutation::Forgets(Forgotten::Roots) => {
                if let Record::Global(global) = &mut record {
                    for root in &mut global.roots {
                        root.key = None;
                    }
                }
            }
            Mutation::RepliesMadeAgain => {
                let sent = |tcp: &Tcp| matches!(tcp, Tcp::Sent { .. } | Tcp::RequeuedSent);
                if let (Record::Tcp(tcp), Some(last)) = (&record, data.last_mut())
                    && sent(tcp)
                {
                    *last ^= 1;
                }
            }
            Mutation::PromiseForgotten => match &mut record {
                Record::Client { tcp: Some(tcp), .. } | Record::Copied { tcp: Some(tcp) } => {
                    let tcp = tcp.to_mut();
                    tcp.rcv_edge = tcp.rcv_nxt;
                }
                Record::Tcp(tcp) => match tcp.to_mut() {
                    Tcp::Received { promise, .. } | Tcp::Sent { promise } => *promise = None,
                    Tcp::Promised(_) => return None,
                    _ => {}
                },
                _ => {}
            },
            _ => {}
        }
        Some((record, data))
    }
}

impl Forgotten {
    /// Is it about what a client holds, or does not hold any more?
    fn gives_back(self) -> bool {
        use Forgotten::{Closes, Ends, Trees, Unlocks, Watches};
        matches!(self, Closes | Unlocks | Ends | Watches | Trees)
    }

    fn is(self, record: &Record<'static>) -> bool {
        use outlast_smb::Record as Smb;
        match record {
            Record::IdsUpTo(_) => self == Forgotten::Ids,
            Record::ClockUpTo(_) => self == Forgotten::Clock,
            Record::WatchedUntil(_) => self == Forgotten::Watched,
            Record::Root { .. } => self == Forgotten::Roots,
            Record::Tcp(tcp) => match **tcp {
                Tcp::Consumed(_) => self == Forgotten::Consumed,
                Tcp::Sent { .. } => self == Forgotten::Sent,
                _ => false,
            },
            Record::Smb(smb) => match **smb {
                Smb::Nonce { .. } => self == Forgotten::Nonces,
                Smb::Locked { .. } => self == Forgotten::Locks,
                Smb::Oplock { .. } => self == Forgotten::Oplocks,
                Smb::Moved { .. } => self == Forgotten::Paths,
                Smb::Cursor { .. } => self == Forgotten::Cursors,
                Smb::DeletePending { .. } => self == Forgotten::DeletePending,
                Smb::Stopped { .. } => self == Forgotten::StoppedTimes,
                Smb::Answered { .. } => self == Forgotten::Answers,
                Smb::Admitted { .. } => self == Forgotten::MessageIds,
                Smb::Session { .. } => self == Forgotten::Sessions,
                Smb::Closed { .. } => self == Forgotten::Closes,
                Smb::Unlocked { .. } => self == Forgotten::Unlocks,
                Smb::SessionEnded { .. } | Smb::SessionLeft { .. } => self == Forgotten::Ends,
                Smb::Lease { .. } => self == Forgotten::Leases,
                Smb::Watch { .. } => self == Forgotten::Watches,
                Smb::TreeConnected { .. } => self == Forgotten::Trees,
                _ => false,
            },
            _ => false,
        }
    }
}

/// Makes acknowledgements of a server that forgets what it has reported as received (RFC 2018).
#[derive(Debug, Default)]
pub struct Forgetful {
    /// By the client's port.
    reported: BTreeMap<u16, (u32, u32)>,
}

impl Forgetful {
    /// The frame as such a server would have made it, if it had made another one. Its checksum is not put right.
    pub fn forget(&mut self, frame: &TxFrame) -> Option<TxFrame> {
        let mut header = frame.header.clone();
        let at = match header.get(12..14)? {
            [0x08, 0x00] => 14 + 20,
            [0x86, 0xdd] => 14 + 40,
            _ => return None,
        };
        let mut tcp = TcpPacket::new_checked(header.get_mut(at..)?).ok()?;
        let (port, ack) = (tcp.dst_port(), tcp.ack_number().0 as u32);
        let blocks = tcp.selective_ack_ranges();
        if let Some(block) = blocks.ok().and_then(|blocks| blocks[0]) {
            self.reported.insert(port, block);
            return None;
        }
        let (from, to) = self.reported.remove(&port)?;
        if (ack.wrapping_sub(to) as i32) < 0 {
            return None;
        }
        tcp.set_ack_number(TcpSeqNumber(from as i32));
        Some(TxFrame {
            header,
            ..frame.clone()
        })
    }
}
