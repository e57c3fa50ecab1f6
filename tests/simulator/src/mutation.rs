//! Defines mutations: servers that break a law, which show that the sweep finds such faults. The server's own code
//! contains none of them: each is a wrapper around the machine's surroundings (NVRAM, disk, clock, frames), or a change
//! of the log between two lives of the server, which has the effect of a server that does not write or does not recover
//! a part of its state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outlast::server::record::Record;
use outlast_nvram::{Flag, Identity, Kind, Log, Memory, VecMemory, codec};
use outlast_stack::device::Faults;
use outlast_stack::{Lost, Record as Tcp, TxFrame};
use smoltcp::wire::{TcpPacket, TcpSeqNumber};

use crate::failing;
use crate::kinds;
use crate::scenario::Scenario;
use crate::workload::Verb;

/// A fault of a mutated server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Law 1: the frames of a turn leave before its commits.
    FramesBeforeCommit,
    /// Law 1: point 2 is omitted for operations of this name.
    NoIntent(&'static str),
    /// Law 2: records of this kind are not recovered.
    Forgets(Forgotten),
    /// Law 2: each record is committed by itself, not in its group.
    RecordsApart,
    /// Law 2: the commit word reaches the memory before the records it commits.
    CommitFirst,
    /// Law 3: replies that wait in the send queue are built again, so that they have other bytes.
    RepliesMadeAgain,
    /// Law 4: a server that crashes ends its connections.
    LastWords,
    /// Law 4: a server answers before its connections are recovered.
    AnswersTooEarly,
    /// Law 5: a redo does not check which open has created a file.
    StampIgnored,
    /// Law 5: the redo of an append writes at the present end of the file.
    AppendsAgain,
    /// Law 5: the redo of a rename that has been done already is an error.
    RenamesOnce,
    /// Law 5: the redo of a copy within one file reads its source again.
    CopiesAgain,
    /// Law 6: timers count the time of an outage.
    OutageIsTime,
    /// Law 7: when the log fills, the oldest connection is dropped.
    OldestGivenUp,
    /// Law 1 under `power`: output leaves before its commit is on the medium.
    FlushNotAwaited,
    /// Law 5 under `power`: an operation is done before its intent is on the medium.
    IntentNotAwaited,
    /// A consistency point is on record before the file systems are synced.
    SyncNotAwaited,
    /// A failed sync is reported as a success.
    FailedSyncBelieved,
    /// The second of two syncs that fail in a row is reported as a success.
    SecondFailureBelieved,
    /// After a power cut an error of the disk is treated as a deleted file.
    FaultTakenForGone,
    /// An operation that fails midway, when it is done once more, is treated as done.
    MidwayTakenForDone,
    /// An operation that fails midway, when it is done once more, is treated as one on a deleted file.
    MidwayTakenForGone,
    /// Of two file systems only the first one's sync counts.
    OneSyncCounts,
    /// The failed sync of one file system is treated as a failure of all.
    FailureOfAll,
    /// The marker of another file system is read.
    MarkerOfAnother,
    /// After a power cut operations of this name are not repeated.
    RedoWithout(&'static str),
    /// The marker reaches the medium before the changes that it covers.
    MarkerFirst,
    /// The marker, which says how many changes the file system has kept, is not read.
    MarkerIgnored,
    /// The checksums of the records in the sink are not verified.
    ChecksumsIgnored,
    /// Law 8: the right edge is not on record, and windows are smaller after the recovery.
    PromiseForgotten,
    /// The windows offered exceed the room for them.
    WindowsWithoutRoom,
    /// Data that arrived out of order are reported as received (SACK), and then discarded.
    ReportedForgotten,
    /// A segment that is in order and within the window is dropped occasionally.
    InOrderDropped,
    /// After a restart nothing is sent for some seconds.
    SilentAfterReturn,
    /// This limit is one higher than configured.
    OneTooMany(Limited),
    /// An error of the disk is not reported: the write is answered with success.
    ErrorSwallowed,
    /// A copy that fails midway is answered with success.
    ErrorMidwaySwallowed,
    /// A share whose directory is missing is treated as one whose files are deleted.
    AwayTakenForGone,
    /// A handle is closed when its file cannot be opened again at the first attempt.
    HandleLost,
    /// An operation for an account that cannot be looked up is done as root.
    UnknownIsRoot,
    /// A file without a stamp, which was created on a file system with neither links nor renames that replace nothing,
    /// is treated as another open's.
    UnstampedTakenForAnothers,
    /// Sessions and tree connects are recovered by the previous configuration.
    OldConfiguration,
    /// The new tail is not recorded, so that it lies in a part that has been overwritten.
    TailStands,
    /// A standby worker takes over without the last commit.
    FollowerBehind,
    /// Frames that a killed worker had read and not recorded are lost, though the machine keeps all frames.
    ReceivedForgotten,
    /// The state of a standby worker differs from the server's.
    FollowerDiffers,
}

/// The object of a limit.
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
    /// All mutations.
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
            MidwayTakenForDone,
            MidwayTakenForGone,
            OneSyncCounts,
            FailureOfAll,
            MarkerOfAnother,
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

    /// Returns whether no well-behaved client can notice it, or hardly any client of the workload. With forgotten
    /// MessageIds a client could use one twice, but none does. Forgotten stopped times matter only if the open writes
    /// after the crash.
    #[must_use]
    pub fn is_hidden(self) -> bool {
        matches!(
            self,
            Mutation::Forgets(Forgotten::MessageIds | Forgotten::StoppedTimes)
        )
    }

    /// Returns whether it concerns power cuts.
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
                | Mutation::MidwayTakenForDone
                | Mutation::MidwayTakenForGone
                | Mutation::OneSyncCounts
                | Mutation::FailureOfAll
                | Mutation::MarkerOfAnother
                | Mutation::RedoWithout(_)
                | Mutation::MarkerFirst
                | Mutation::MarkerIgnored
                | Mutation::ChecksumsIgnored
        )
    }

    /// Gives a scenario the properties that the mutation needs to have an effect: by the seed only some scenarios have
    /// them.
    pub fn choose_surroundings(self, scenario: &mut Scenario) {
        match self {
            Mutation::OutageIsTime => {
                scenario.outage = Duration::from_secs(40);
                scenario.lost = Lost::Nothing;
            }
            Mutation::Forgets(what) => {
                scenario.timestamps |= what == Forgotten::Clock;
                // In a small log a change is soon part of a snapshot of its connection, and is then not forgotten.
                scenario.nvram_bytes = 256 << 10;
            }
            Mutation::OldestGivenUp => scenario.nvram_bytes = 64 << 10,
            Mutation::PromiseForgotten => scenario.smaller_window = true,
            Mutation::AnswersTooEarly | Mutation::ReceivedForgotten => {
                scenario.lost = Lost::Nothing;
            }
            // Where the wire loses frames, the time that a client waits is not checked.
            Mutation::SilentAfterReturn => scenario.faults = Faults::default(),
            Mutation::ReportedForgotten => scenario.faults.reorder_ppm = 100_000,
            _ => {}
        }
    }

    /// Returns whether the mutation may have an effect in a scenario: it may in those of every seed, or of one kind.
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
                failing::is_of(scenario.seed)
            }
            Mutation::SecondFailureBelieved => scenario.power.is_some_and(|it| it.fails_twice),
            Mutation::OneSyncCounts | Mutation::FailureOfAll | Mutation::MarkerOfAnother => {
                scenario.sickness.is_some()
            }
            Mutation::UnstampedTakenForAnothers => scenario.lacks.links,
            Mutation::ErrorMidwaySwallowed => scenario.ops.iter().any(|op| {
                let failure = op.failure.map(|failure| failure.what);
                failure == Some(failing::What::Rest)
            }),
            Mutation::AwayTakenForGone | Mutation::Forgets(Forgotten::Roots) => {
                scenario.has_outages_of_share
            }
            Mutation::OldConfiguration => scenario.rules.revocation.is_some(),
            _ => true,
        }
    }

    /// Returns whether it changes the log between two lives.
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

    /// Returns the log as a mutated server would have left it. `None`: there is no log yet.
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
    /// Returns whether records of this kind begin or end something that a limit counts.
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

/// Changes the acknowledgements of a server into those of one that discards data that it has reported as received (RFC
/// 2018).
#[derive(Debug, Default)]
pub struct Forgetful {
    /// The last reported block, by the client's port.
    reported: BTreeMap<u16, (u32, u32)>,
}

impl Forgetful {
    /// Returns the frame that such a server would send instead, if it differs. Its checksum is not corrected.
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
