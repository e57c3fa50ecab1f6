//! Collects the data of `outlast status`.

use std::time::Duration;

use outlast_smb::Smb;

use super::files::FileSystem;
use super::machine::Machine;
use crate::control::{
    ActivityStatus, AssignedStatus, ComparedStatus, ConnectionStatus, LogStatus, Outage,
    PairStatus, ReceiveStatus, Serves, SmbStatus, StandbyStatus, Status, TcpStatus,
};
use crate::metrics::{self, Counts};
use crate::pair;
use crate::supervisor::page::{Page, Standing};
use crate::system::own_memory_bytes;

/// The constant data of a worker.
#[derive(Debug)]
pub struct About {
    /// Whether it serves.
    pub serves: Serves,
    /// Why the worker has more rights than it needs, if so.
    pub sandbox: String,
    /// Process id of the supervisor.
    pub supervisor_pid: u32,
    /// The outage that ended when it began to serve.
    pub last_outage: Option<Outage>,
    /// The page in which the standby worker reports its state.
    pub standby: Option<Page>,
    /// Where workers and supervisor count.
    pub metrics: metrics::Page,
    /// What the supervisor says of the pair.
    pub pair: Option<pair::page::Page>,
}

/// The status of the machine. `uptime`: since this worker began.
pub fn status<F: FileSystem>(machine: &Machine<F>, about: &About, uptime: Duration) -> Status {
    let log = machine.journal.log();
    let superblock = log.map(outlast_nvram::Log::superblock);
    let connections = machine.stack.status();
    let connections = connections.into_iter().map(|tcp| {
        let log_bytes = machine.log_bytes(tcp.conn) as u64;
        ConnectionStatus {
            log_bytes,
            ..connection(tcp, &machine.smb)
        }
    });
    Status {
        trouble: None,
        flag: superblock.map_or_else(
            || "none".to_owned(),
            |superblock| superblock.flag.to_string(),
        ),
        epoch: superblock.map_or(0, |superblock| u64::from(superblock.epoch)),
        recoveries: superblock.map_or(0, |superblock| u64::from(superblock.recoveries)),
        supervisor_pid: about.supervisor_pid,
        worker_pid: std::process::id(),
        // the control thread fills it in
        executable: std::path::PathBuf::new(),
        uptime_seconds: uptime.as_secs_f64(),
        receive: receive(&machine.stack),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sandbox: about.sandbox.clone(),
        serves: Serves {
            trouble: machine.share_problems(),
            addresses: machine.addresses(),
            ..about.serves.clone()
        },
        log: log.map(|log| LogStatus {
            size_bytes: log.capacity(),
            used_bytes: log.used(),
            replay_records: log.replay_cost().records,
            replay_bytes: log.replay_cost().bytes,
            replay_deltas: log.replay_cost().deltas,
        }),
        last_outage: about.last_outage.clone(),
        standby: about
            .standby(machine.journal.committed().0)
            .map(|standby| StandbyStatus {
                memory_bytes: own_memory_bytes(standby.pid).unwrap_or(0),
                ..standby
            }),
        compared: about.compared(),
        activity: activity(&machine.counting.counts),
        returns: returns(&about.metrics),
        pair: pair(machine, about),
        assigned: assigned(machine),
        connections: connections.collect(),
    }
}

/// The addresses that the network has assigned.
fn assigned<F: FileSystem>(machine: &Machine<F>) -> Vec<AssignedStatus> {
    let all = machine.assigned().into_iter();
    all.map(|of| AssignedStatus {
        address: of.address,
        source: of.source.to_owned(),
        left_seconds: of.left.map(|left| left.as_secs()),
    })
    .collect()
}

/// The pair as the supervisor sees it, and the interconnect as this worker does.
fn pair<F: FileSystem>(machine: &Machine<F>, about: &About) -> Option<PairStatus> {
    let seen = about.pair.as_ref().and_then(pair::page::Page::read)?;
    let partner = machine.journal.partner().zip(machine.journal.log());
    Some(PairStatus {
        link: partner.and_then(|(partner, log)| partner.link(log)),
        ..seen
    })
}

impl About {
    /// The status of the standby worker, if the log ends at `committed`; its memory is not measured.
    pub(super) fn standby(&self, committed: u64) -> Option<StandbyStatus> {
        let Standing { pid, position } = self.standby.as_ref()?.standing();
        (pid != 0).then(|| StandbyStatus {
            pid,
            memory_bytes: 0,
            lag_bytes: committed.saturating_sub(position),
        })
    }

    pub(super) fn compared(&self) -> ComparedStatus {
        let compared = self.standby.as_ref().map(Page::compared);
        let compared = compared.unwrap_or_default();
        ComparedStatus {
            digests: compared.digests,
            differences: compared.differences,
        }
    }
}

fn activity(counts: &Counts) -> ActivityStatus {
    let ((_, received_bytes), (_, sent_bytes)) = (counts.received(), counts.sent());
    ActivityStatus {
        points: counts.points(),
        commits: counts.commits(),
        received_bytes,
        sent_bytes,
    }
}

fn returns(page: &metrics::Page) -> Vec<Outage> {
    let returns = page.last_returns().into_iter();
    let returns = returns.map(|it| Outage {
        began_unix_seconds: it.began_unix_ms as f64 / 1e3,
        seconds: it.gap_us as f64 / 1e6,
        cause: it.cause.name().to_owned(),
    });
    returns.collect()
}

fn receive(stack: &outlast_stack::Stack) -> ReceiveStatus {
    let usage = stack.usage();
    ReceiveStatus {
        total_bytes: stack.config().receive_total as u64,
        held_bytes: usage.receive_held as u64,
        in_window_dropped: usage.in_window_dropped,
    }
}

/// The status of one connection, from TCP and SMB.
pub(super) fn connection(tcp: outlast_stack::ConnStatus, smb: &Smb) -> ConnectionStatus {
    let state_bytes = smb.durable_bytes(tcp.conn) as u64;
    let smb = smb.status(tcp.conn);
    ConnectionStatus {
        client: tcp.client,
        server: tcp.server,
        tcp: TcpStatus {
            state: tcp.state.to_owned(),
            snd_una: tcp.snd_una,
            snd_nxt: tcp.snd_nxt,
            snd_wnd: tcp.snd_wnd,
            rcv_nxt: tcp.rcv_nxt,
            rcv_wnd: tcp.rcv_wnd,
            unacked_bytes: tcp.unacked_bytes as u64,
            srtt_us: tcp.srtt_us,
            cwnd: tcp.cwnd as u64,
        },
        smb: SmbStatus {
            dialect: Some(smb.dialect).filter(|dialect| !dialect.is_empty()),
            user: Some(smb.user).filter(|user| !user.is_empty()),
            signing: smb.signing,
            encryption: smb.encryption,
            trees: smb.trees.len() as u64,
            opens: smb.opens as u64,
            locks: smb.locks as u64,
            state_bytes,
        },
        log_bytes: state_bytes,
    }
}
