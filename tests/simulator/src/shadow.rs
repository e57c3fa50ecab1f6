//! Follows the committed records alone: by law 2 the resulting state is the server's.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use outlast::server::fold::fold;
use outlast::server::machine::Machine;
use outlast::server::record::{Global, Record};
use outlast_nvram::codec;
use outlast_smb::Smb;
use outlast_stack::Stack;

use crate::log_format::Entry;
use crate::volumes::Volumes;

/// The fold of the committed records.
pub struct Shadow {
    /// TCP.
    pub stack: Stack,
    smb: Smb,
    global: Option<Global>,
    /// The states in the snapshots of several records that have begun and are not complete.
    copies: BTreeMap<u64, Smb>,
    config: outlast_smb::Config,
    /// The objects whose state is known: a follower that begins in the middle of a log may find a snapshot without the
    /// state that it replaces.
    known: BTreeSet<u64>,
    /// A snapshot must be equal to the state.
    is_strict: bool,
}

impl Shadow {
    /// Makes the state of an empty log. `is_strict`: a snapshot must be equal to the state of the records before it.
    #[must_use]
    pub fn new(stack: outlast_stack::Config, smb: outlast_smb::Config, is_strict: bool) -> Shadow {
        Shadow {
            stack: Stack::new(stack, [0; 32], std::time::Duration::ZERO),
            smb: Smb::new(smb.clone()),
            global: None,
            copies: BTreeMap::new(),
            config: smb,
            known: BTreeSet::new(),
            is_strict,
        }
    }

    /// Applies committed records.
    ///
    /// # Panics
    /// A record cannot be decoded, or is out of place; or a snapshot differs from the state.
    pub fn follow(&mut self, entries: Vec<Entry>) {
        for Entry {
            object,
            kind,
            meta,
            data,
        } in entries
        {
            let record: Record<'static> = codec::decode(&meta).expect("a record");
            match (kind, record) {
                (4, Record::Copy { smb }) => self.begin_copy(object, smb.into_owned()),
                (5, Record::Smb(piece)) => {
                    let copy = self.copies.get_mut(&object);
                    copy.expect("a snapshot that has begun")
                        .apply(object, &piece);
                }
                (6, Record::Copied { tcp }) => self.complete_copy(object, tcp, data),
                (1..=3, record) => self.apply_record(object, kind, record, data),
                (kind, record) => panic!("{record:?} as kind {kind}"),
            }
        }
    }

    fn begin_copy(&mut self, object: u64, checkpoint: outlast_smb::Checkpoint) {
        let mut copy = Smb::new(self.config.clone());
        copy.restore(object, checkpoint);
        self.copies.insert(object, copy);
    }

    /// Replaces an object's state by its complete snapshot, which must be equal to it.
    fn complete_copy(
        &mut self,
        object: u64,
        tcp: Option<Cow<'static, outlast_stack::Checkpoint>>,
        data: bytes::Bytes,
    ) {
        let copy = self
            .copies
            .remove(&object)
            .expect("a snapshot that has begun");
        let copied = copy.checkpoint(object);
        let is_known = !self.known.insert(object);
        if is_known && self.is_strict {
            assert_eq!(
                copied,
                self.smb.checkpoint(object),
                "object {object}: its snapshot differs from its state"
            );
            assert_eq!(
                tcp.as_deref(),
                self.stack.checkpoint(object).as_ref(),
                "object {object}: its snapshot differs from its state"
            );
        }
        self.smb.restore(object, copied.expect("a restored state"));
        let record = Record::Copied { tcp };
        self.fold(object, record, data);
    }

    fn apply_record(&mut self, object: u64, kind: u8, record: Record<'static>, data: bytes::Bytes) {
        match kind {
            1 => drop(self.known.insert(object)),
            3 => drop(self.known.remove(&object)),
            _ => {}
        }
        if kind != 2 {
            self.copies.remove(&object);
        }
        match record {
            Record::Global(global) => self.global = Some(global),
            Record::ClockUpTo(mark) => self.global().clock_up_to = mark,
            Record::WatchedUntil(until) => self.global().watched_until = until,
            Record::IdsUpTo(mark) => self.global().ids_up_to = mark,
            Record::Root { share, key } => self.global().note_root(share, key),
            Record::Account { name, ids } => self.global().note_account(&name, ids),
            Record::Closed => {
                assert!(
                    self.stack.checkpoint(object).is_none(),
                    "object {object} ends while its connection lives"
                );
                self.smb.forget(object);
            }
            // The records about files are not part of the server's state. The files themselves show after a power cut
            // whether they are right.
            Record::Generation { .. }
            | Record::Effect(_)
            | Record::Remade { .. }
            | Record::Unsynced => {}
            record => {
                if let (Record::Smb(delta), Some(copy)) = (&record, self.copies.get_mut(&object)) {
                    copy.apply(object, delta);
                }
                self.fold(object, record, data);
            }
        }
    }

    fn fold(&mut self, object: u64, record: Record<'static>, data: bytes::Bytes) {
        fold(&mut self.stack, &mut self.smb, vec![(object, record, data)])
            .expect("a record in place");
    }

    fn global(&mut self) -> &mut Global {
        self.global
            .as_mut()
            .expect("object 0's snapshot comes first")
    }

    /// Law 2: compares the states after a commit.
    ///
    /// # Panics
    /// The server's state is not the fold of the records.
    pub fn compare(&self, machine: &Machine<Volumes>) {
        assert!(
            self.stack.durable().eq(machine.stack().durable()),
            "TCP's state is not the fold of the records"
        );
        let (folded, live) = (self.smb.durable(), machine.smb().durable());
        assert!(
            folded.eq(live),
            "SMB's state is not the fold of the records"
        );
        assert_eq!(
            self.global.as_ref(),
            Some(machine.journal().global()),
            "object 0 is not the fold of the records"
        );
    }
}
