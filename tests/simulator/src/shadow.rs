//! A follower that sees the committed records alone: law 2 says that what it comes to is the server's state.

use outlast::server::machine::Machine;
use outlast::server::record::{Global, Record};
use outlast::server::recover::fold;
use outlast_nvram::codec;
use outlast_smb::Smb;
use outlast_stack::Stack;

use crate::files::Files;
use crate::log_format::Entry;

/// The fold of what is committed.
pub struct Shadow {
    /// TCP.
    pub stack: Stack,
    smb: Smb,
    global: Option<Global>,
}

impl Shadow {
    /// Of an empty log.
    #[must_use]
    pub fn new(stack: outlast_stack::Config, smb: outlast_smb::Config) -> Shadow {
        Shadow {
            stack: Stack::new(stack, [0; 32], std::time::Duration::ZERO),
            smb: Smb::new(smb),
            global: None,
        }
    }

    /// Takes up what was committed.
    ///
    /// # Panics
    /// A record cannot be read, or is out of place.
    pub fn follow(&mut self, entries: Vec<Entry>) {
        for Entry {
            object, meta, data, ..
        } in entries
        {
            let record: Record<'static> = codec::decode(&meta).expect("a record");
            match record {
                Record::Global(global) => self.global = Some(global),
                Record::ClockUpTo(mark) => self.global().clock_up_to = mark,
                Record::IdsUpTo(mark) => self.global().ids_up_to = mark,
                Record::Closed => {
                    assert!(
                        self.stack.checkpoint(object).is_none(),
                        "object {object} ends while its connection lives"
                    );
                    self.smb.forget(object);
                }
                // What there is about files is no state of the server: whether it is right, the files say after a power cut.
                Record::Generation { .. } | Record::Effect(_) | Record::Remade { .. } => {}
                record => {
                    let replay = vec![(object, record, data)];
                    fold(&mut self.stack, &mut self.smb, replay).expect("a record in place");
                }
            }
        }
    }

    fn global(&mut self) -> &mut Global {
        self.global
            .as_mut()
            .expect("object 0's snapshot comes first")
    }

    /// Law 2, after a commit.
    ///
    /// # Panics
    /// The state is not the fold of the records.
    pub fn compare(&self, machine: &Machine<Files>) {
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
