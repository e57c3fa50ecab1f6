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
    NotRecovered(RecordKind),
    /// Law 2: each record is committed by itself, not in its group.
    RecordsCommittedSingly,
    /// Law 2: the commit word reaches the memory before the records it commits.
    CommitBeforeRecords,
    /// Law 3: replies that wait in the send queue are built again, so that they have other bytes.
    RepliesRebuilt,
    /// Law 4: a server that crashes ends its connections.
    ConnectionsEndedByCrash,
    /// Law 4: a server answers before its connections are recovered.
    SendsBeforeRecovery,
    /// Law 5: a redo does not check which open has created a file.
    StampIgnored,
    /// Law 5: the redo of an append writes at the present end of the file.
    AppendAtPresentEnd,
    /// Law 5: the redo of a rename that has been done already is an error.
    RenameRedoFails,
    /// Law 5: the redo of a copy within one file reads its source again.
    CopyRereadsSource,
    /// Law 6: timers count the time of an outage.
    OutageCountsAsTime,
    /// Law 7: when the log fills, the oldest connection is dropped.
    OldestConnectionDropped,
    /// Law 1 under `power`: output leaves before its commit is on the medium.
    SinkNotAwaited,
    /// Law 5 under `power`: an operation is done before its intent is on the medium.
    IntentNotAwaited,
    /// A consistency point is on record before the file systems are synced.
    SyncNotAwaited,
    /// A failed sync is reported as a success.
    FailedSyncReportedDone,
    /// The second of two syncs that fail in a row is reported as a success.
    SecondFailedSyncReportedDone,
    /// After a power cut an error of the disk is treated as a deleted file.
    DiskErrorTreatedAsDeleted,
    /// An operation that fails midway, when it is done once more, is treated as done.
    PartialFailureTreatedAsDone,
    /// An operation that fails midway, when it is done once more, is treated as one on a deleted file.
    PartialFailureTreatedAsDeleted,
    /// Of two file systems only the first one's sync counts.
    OnlyFirstSyncCounts,
    /// The failed sync of one file system is treated as a failure of all.
    OneFailedSyncFailsAll,
    /// The marker of another file system is read.
    MarkerOfOtherFileSystem,
    /// After a power cut operations of this name are not repeated.
    RedoOmits(&'static str),
    /// The marker reaches the medium before the changes that it covers.
    MarkerBeforeChanges,
    /// The marker, which says how many changes the file system has kept, is not read.
    MarkerIgnored,
    /// The checksums of the records in the sink are not verified.
    ChecksumsIgnored,
    /// Law 8: the right edge is not on record, and windows are smaller after the recovery.
    WindowEdgeNotRecovered,
    /// The windows offered exceed the room for them.
    WindowsExceedRoom,
    /// Data that arrived out of order are reported as received (SACK), and then discarded.
    SackedDataDiscarded,
    /// A segment that is in order and within the window is dropped occasionally.
    InOrderSegmentDropped,
    /// After a restart nothing is sent for some seconds.
    SilentAfterRestart,
    /// This limit is one higher than configured.
    LimitOneTooHigh(LimitKind),
    /// An error of the disk is not reported: the write is answered with success.
    DiskErrorAnsweredSuccess,
    /// A copy that fails midway is answered with success.
    PartialCopyAnsweredSuccess,
    /// A share whose directory is missing is treated as one whose files are deleted.
    MissingShareTreatedAsDeleted,
    /// A handle is closed when its file cannot be opened again at the first attempt.
    HandleClosedAtFirstFailure,
    /// An operation for an account that cannot be looked up is done as root.
    UnknownAccountIsRoot,
    /// A file without a stamp, which was created on a file system with neither links nor renames that replace nothing,
    /// is treated as another open's.
    UnstampedTreatedAsAnotherOpens,
    /// Sessions and tree connects are recovered by the previous configuration.
    PreviousConfiguration,
    /// The new tail is not recorded, so that it lies in a part that has been overwritten.
    TailNotRecorded,
    /// A standby worker takes over without the last commit.
    FollowerMissesLastCommit,
    /// Frames that a killed worker had read and not recorded are lost, though the machine keeps all frames.
    ReceivedFramesLost,
    /// The state of a standby worker differs from the server's.
    FollowerDiffers,
}

/// The object of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the limits' names
pub enum LimitKind {
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
pub enum RecordKind {
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
        use self::RecordKind as K;
        use Mutation::*;
        &[
            FramesBeforeCommit,
            NoIntent("create"),
            NoIntent("rename"),
            NoIntent("delete"),
            NoIntent("write"),
            NotRecovered(K::Nonces),
            NotRecovered(K::Ids),
            NotRecovered(K::Clock),
            NotRecovered(K::Consumed),
            NotRecovered(K::Sent),
            NotRecovered(K::Locks),
            NotRecovered(K::Oplocks),
            NotRecovered(K::Leases),
            NotRecovered(K::Paths),
            NotRecovered(K::Cursors),
            NotRecovered(K::DeletePending),
            NotRecovered(K::StoppedTimes),
            NotRecovered(K::Answers),
            NotRecovered(K::MessageIds),
            NotRecovered(K::Sessions),
            NotRecovered(K::Watched),
            NotRecovered(K::Roots),
            RecordsCommittedSingly,
            CommitBeforeRecords,
            RepliesRebuilt,
            ConnectionsEndedByCrash,
            SendsBeforeRecovery,
            StampIgnored,
            AppendAtPresentEnd,
            RenameRedoFails,
            CopyRereadsSource,
            OutageCountsAsTime,
            OldestConnectionDropped,
            WindowEdgeNotRecovered,
            SinkNotAwaited,
            IntentNotAwaited,
            SyncNotAwaited,
            FailedSyncReportedDone,
            SecondFailedSyncReportedDone,
            DiskErrorTreatedAsDeleted,
            PartialFailureTreatedAsDone,
            PartialFailureTreatedAsDeleted,
            OnlyFirstSyncCounts,
            OneFailedSyncFailsAll,
            MarkerOfOtherFileSystem,
            RedoOmits("rename"),
            RedoOmits("link"),
            RedoOmits("delete"),
            RedoOmits("write"),
            RedoOmits("truncate"),
            RedoOmits("times"),
            MarkerBeforeChanges,
            MarkerIgnored,
            ChecksumsIgnored,
            NotRecovered(K::Closes),
            NotRecovered(K::Unlocks),
            NotRecovered(K::Ends),
            NotRecovered(K::Watches),
            NotRecovered(K::Trees),
            WindowsExceedRoom,
            SackedDataDiscarded,
            InOrderSegmentDropped,
            SilentAfterRestart,
            LimitOneTooHigh(LimitKind::Opens),
            LimitOneTooHigh(LimitKind::AllOpens),
            LimitOneTooHigh(LimitKind::Locks),
            LimitOneTooHigh(LimitKind::Pending),
            LimitOneTooHigh(LimitKind::Watches),
            LimitOneTooHigh(LimitKind::Trees),
            LimitOneTooHigh(LimitKind::Sessions),
            DiskErrorAnsweredSuccess,
            PartialCopyAnsweredSuccess,
            MissingShareTreatedAsDeleted,
            HandleClosedAtFirstFailure,
            UnknownAccountIsRoot,
            UnstampedTreatedAsAnotherOpens,
            PreviousConfiguration,
            TailNotRecorded,
            FollowerMissesLastCommit,
            ReceivedFramesLost,
            FollowerDiffers,
        ]
    };

    /// Returns whether no well-behaved client can notice it, or hardly any client of the workload. With forgotten
    /// MessageIds a client could use one twice, but none does. RecordKind stopped times matter only if the open writes
    /// after the crash.
    #[must_use]
    pub fn is_hidden(self) -> bool {
        matches!(
            self,
            Mutation::NotRecovered(RecordKind::MessageIds | RecordKind::StoppedTimes)
        )
    }

    /// Returns whether it concerns power cuts.
    #[must_use]
    pub fn is_of_power(self) -> bool {
        matches!(
            self,
            Mutation::SinkNotAwaited
                | Mutation::IntentNotAwaited
                | Mutation::SyncNotAwaited
                | Mutation::FailedSyncReportedDone
                | Mutation::SecondFailedSyncReportedDone
                | Mutation::DiskErrorTreatedAsDeleted
                | Mutation::PartialFailureTreatedAsDone
                | Mutation::PartialFailureTreatedAsDeleted
                | Mutation::OnlyFirstSyncCounts
                | Mutation::OneFailedSyncFailsAll
                | Mutation::MarkerOfOtherFileSystem
                | Mutation::RedoOmits(_)
                | Mutation::MarkerBeforeChanges
                | Mutation::MarkerIgnored
                | Mutation::ChecksumsIgnored
        )
    }

    /// Gives a scenario the properties that the mutation needs to have an effect: by the seed only some scenarios have
    /// them.
    pub fn choose_surroundings(self, scenario: &mut Scenario) {
        match self {
            Mutation::OutageCountsAsTime => {
                scenario.outage = Duration::from_secs(40);
                scenario.lost = Lost::Nothing;
            }
            Mutation::NotRecovered(what) => {
                scenario.timestamps |= what == RecordKind::Clock;
                // In a small log a change is soon part of a snapshot of its connection, and is then not forgotten.
                scenario.nvram_bytes = 256 << 10;
            }
            Mutation::OldestConnectionDropped => scenario.nvram_bytes = 64 << 10,
            Mutation::WindowEdgeNotRecovered => scenario.smaller_window = true,
            Mutation::SendsBeforeRecovery | Mutation::ReceivedFramesLost => {
                scenario.lost = Lost::Nothing;
            }
            // Where the wire loses frames, the time that a client waits is not checked.
            Mutation::SilentAfterRestart => scenario.faults = Faults::default(),
            Mutation::SackedDataDiscarded => scenario.faults.reorder_ppm = 100_000,
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
            | Mutation::RenameRedoFails
            | Mutation::RedoOmits("rename") => asks(|verb| matches!(verb, Verb::Rename { .. })),
            // A file that can be opened by its handle is found without its path.
            Mutation::NotRecovered(RecordKind::Paths) => {
                !scenario.handles && asks(|verb| matches!(verb, Verb::Rename { .. }))
            }
            Mutation::NotRecovered(RecordKind::StoppedTimes) | Mutation::RedoOmits("times") => {
                asks(|verb| matches!(verb, Verb::SetTime { .. }))
            }
            Mutation::RedoOmits("link") => asks(|verb| matches!(verb, Verb::Link { .. })),
            Mutation::RedoOmits("truncate") => asks(|verb| matches!(verb, Verb::SetEnd { .. })),
            Mutation::CopyRereadsSource => asks(|verb| matches!(verb, Verb::Copy { .. })),
            Mutation::LimitOneTooHigh(_) => is_of_limits,
            Mutation::NotRecovered(what) if what.gives_back() => is_of_limits,
            Mutation::WindowsExceedRoom => matches!(scenario.kind, kinds::Kind::Uploads { .. }),
            Mutation::DiskErrorAnsweredSuccess
            | Mutation::HandleClosedAtFirstFailure
            | Mutation::UnknownAccountIsRoot => failing::is_of(scenario.seed),
            Mutation::SecondFailedSyncReportedDone => {
                scenario.power.is_some_and(|it| it.fails_twice)
            }
            Mutation::OnlyFirstSyncCounts
            | Mutation::OneFailedSyncFailsAll
            | Mutation::MarkerOfOtherFileSystem => scenario.sickness.is_some(),
            Mutation::UnstampedTreatedAsAnotherOpens => scenario.lacks.links,
            Mutation::PartialCopyAnsweredSuccess => scenario.ops.iter().any(|op| {
                let failure = op.failure.map(|failure| failure.what);
                failure == Some(failing::What::Rest)
            }),
            Mutation::MissingShareTreatedAsDeleted | Mutation::NotRecovered(RecordKind::Roots) => {
                scenario.has_outages_of_share
            }
            Mutation::PreviousConfiguration => scenario.rules.revocation.is_some(),
            _ => true,
        }
    }

    /// Returns whether it changes the log between two lives.
    #[must_use]
    pub fn changes_log(self) -> bool {
        matches!(
            self,
            Mutation::NotRecovered(_)
                | Mutation::RepliesRebuilt
                | Mutation::OldestConnectionDropped
                | Mutation::WindowEdgeNotRecovered
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
        let given_up = oldest.filter(|_| is_full && self == Mutation::OldestConnectionDropped);
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
            Mutation::NotRecovered(what) if what.is(&record) => return None,
            Mutation::NotRecovered(RecordKind::Ids) => {
                if let Record::Global(global) = &mut record {
                    global.ids_up_to = 2;
                }
            }
            Mutation::NotRecovered(RecordKind::Clock) => {
                if let Record::Global(global) = &mut record {
                    global.clock_up_to = Duration::ZERO;
                }
            }
            Mutation::NotRecovered(RecordKind::Watched) => {
                if let Record::Global(global) = &mut record {
                    global.watched_until = 0;
                }
            }
            Mutation::NotRecovered(RecordKind::Roots) => {
                if let Record::Global(global) = &mut record {
                    for root in &mut global.roots {
                        root.key = None;
                    }
                }
            }
            Mutation::RepliesRebuilt => {
                let sent = |tcp: &Tcp| matches!(tcp, Tcp::Sent { .. } | Tcp::RequeuedSent);
                if let (Record::Tcp(tcp), Some(last)) = (&record, data.last_mut())
                    && sent(tcp)
                {
                    *last ^= 1;
                }
            }
            Mutation::WindowEdgeNotRecovered => match &mut record {
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

impl RecordKind {
    /// Returns whether records of this kind begin or end something that a limit counts.
    fn gives_back(self) -> bool {
        use RecordKind::{Closes, Ends, Trees, Unlocks, Watches};
        matches!(self, Closes | Unlocks | Ends | Watches | Trees)
    }

    fn is(self, record: &Record<'static>) -> bool {
        use outlast_smb::Record as Smb;
        match record {
            Record::IdsUpTo(_) => self == RecordKind::Ids,
            Record::ClockUpTo(_) => self == RecordKind::Clock,
            Record::WatchedUntil(_) => self == RecordKind::Watched,
            Record::Root { .. } => self == RecordKind::Roots,
            Record::Tcp(tcp) => match **tcp {
                Tcp::Consumed(_) => self == RecordKind::Consumed,
                Tcp::Sent { .. } => self == RecordKind::Sent,
                _ => false,
            },
            Record::Smb(smb) => match **smb {
                Smb::Nonce { .. } => self == RecordKind::Nonces,
                Smb::Locked { .. } => self == RecordKind::Locks,
                Smb::Oplock { .. } => self == RecordKind::Oplocks,
                Smb::Moved { .. } => self == RecordKind::Paths,
                Smb::Cursor { .. } => self == RecordKind::Cursors,
                Smb::DeletePending { .. } => self == RecordKind::DeletePending,
                Smb::Stopped { .. } => self == RecordKind::StoppedTimes,
                Smb::Answered { .. } => self == RecordKind::Answers,
                Smb::Admitted { .. } => self == RecordKind::MessageIds,
                Smb::Session { .. } => self == RecordKind::Sessions,
                Smb::Closed { .. } => self == RecordKind::Closes,
                Smb::Unlocked { .. } => self == RecordKind::Unlocks,
                Smb::SessionEnded { .. } | Smb::SessionLeft { .. } => self == RecordKind::Ends,
                Smb::Lease { .. } => self == RecordKind::Leases,
                Smb::Watch { .. } => self == RecordKind::Watches,
                Smb::TreeConnected { .. } => self == RecordKind::Trees,
                _ => false,
            },
            _ => false,
        }
    }
}

/// Changes the acknowledgements of a server into those of one that discards data that it has reported as received (RFC
/// 2018).
#[derive(Debug, Default)]
pub struct Reneging {
    /// The last reported block, by the client's port.
    reported: BTreeMap<u16, (u32, u32)>,
}

impl Reneging {
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
