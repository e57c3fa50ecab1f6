//! Generates several busy uploads at the same time, on a log that is too small for them; in some scenarios one client
//! reads, and takes its replies slowly.

use super::{Maker, Op, Verb, disposition, home};
use crate::rules::Rules;

/// The maximum size of a request or a reply, in bytes: the log must have room for one at a time, however small it is.
const PIECE: u64 = 3000;

/// Generates a workload of `length` requests for each client. `reader`: the client that mostly reads.
#[must_use]
pub fn generate(seed: u64, clients: usize, length: usize, reader: Option<usize>) -> Vec<Op> {
    let mut maker = Maker::new(seed, clients, Rules::default());
    for client in 0..clients {
        maker.make_home(client);
    }
    let handles: Vec<_> = (0..clients)
        .map(|client| {
            let path = format!("{}/f", home(client));
            let mut open = maker.create(&path, disposition::CREATE, 0);
            if let Verb::Create { appends, .. } = &mut open {
                *appends = client % 3 == 1;
            }
            maker.push(client, vec![open], false);
            maker.last_handle
        })
        .collect();
    for round in 0..length as u64 {
        for (client, handle) in handles.iter().copied().enumerate() {
            let reads = match reader == Some(client) {
                true => round > 0,
                false => maker.random.percent(5),
            };
            let verb = match reads {
                true => Verb::Read {
                    handle,
                    offset: 0,
                    length: PIECE as u32,
                },
                false => maker.upload(handle, round),
            };
            maker.push(client, vec![verb], false);
        }
    }
    for (client, handle) in handles.into_iter().enumerate() {
        maker.push(client, vec![Verb::Close { handle }], false);
    }
    maker.ops
}

impl Maker {
    fn upload(&mut self, handle: super::Handle, round: u64) -> Verb {
        let length = match self.random.percent(80) {
            true => PIECE,
            false => 1 + self.random.below(PIECE),
        };
        Verb::Write {
            handle,
            offset: (!self.judge.appends(handle)).then_some(round * PIECE),
            length: length as usize,
            fill: self.random.draw() as u8,
        }
    }
}
