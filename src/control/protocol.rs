//! Requests and answers of the control socket.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A request to the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Report the status.
    Status,
    /// Drain, save, flag `elective-reboot`, end; the supervisor starts a worker again.
    Reboot {
        /// The binary to restart with, absolute; `None`: the same. It has proven to the supervisor that it reads this
        /// format before the loop receives the request.
        exec: Option<PathBuf>,
        /// How long to stay down, in seconds.
        hold_seconds: f64,
    },
    /// The same, and the machine is rebooted. The control thread has checked that the state survives that.
    RebootSystem,
    /// Close the sessions properly, flag `clean`, end.
    Stop,
    /// To a serving node: drain, save, flag `elective-takeover`, and let the other node serve. To a standby node, with
    /// `force`: take over the service, after fencing the other node if it does not release it.
    Takeover {
        /// Even if the other node does not release it.
        force: bool,
    },
    /// As `Takeover` for a serving node, back to the node from which the service was taken over.
    Giveback,
    /// What is counted, as text for Prometheus.
    Metrics,
    /// Begin or end to write frames into a file.
    Capture {
        /// The file, absolute; `None`: end.
        file: Option<PathBuf>,
        /// Of each frame only the headers.
        headers_only: bool,
    },
    /// Drop the connections of a client, by its address with or without port, or of a user.
    Disconnect {
        /// The address or the user's name.
        client_or_user: String,
    },
    /// SIGTERM: as `Reboot`, but no worker is started again. Sent by the signal thread, never over the socket.
    #[serde(skip)]
    Shutdown,
}

/// An answer of the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `Status`.
    Status(Box<Status>),
    /// To `Reboot`, `RebootSystem`, `Stop`, `Takeover`, `Giveback` and `Shutdown`: it has begun, in this epoch.
    Accepted {
        /// The epoch that ends.
        epoch: u64,
        /// The supervisor.
        supervisor_pid: u32,
    },
    /// To `Disconnect`: the connections were dropped.
    Disconnected {
        /// Their number.
        connections: u64,
    },
    /// To `Metrics`.
    Metrics {
        /// OpenMetrics.
        text: String,
    },
    /// To `Capture`: it has begun or ended.
    Done,
    /// It cannot be done; nothing has happened.
    Refused {
        /// Why, and what to do, in one line.
        reason: String,
    },
}

/// The status of the server, as printed by `outlast status --json`. The keys are an interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// How long, and why, the worker has taken no turn: then only this, the process ids, the epoch and the uptime are
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The NVRAM's flag, as `non-elective-reboot`.
    pub flag: String,
    /// The NVRAM's epoch, which each start raises.
    pub epoch: u64,
    /// Recoveries since the NVRAM was formatted.
    pub recoveries: u64,
    /// Process id of the supervisor.
    pub supervisor_pid: u32,
    /// Process id of the worker.
    pub worker_pid: u32,
    /// Time since this worker began.
    pub uptime_seconds: f64,
    /// The binary the worker runs; the control thread fills it in.
    #[serde(default)]
    pub executable: PathBuf,
    /// Room for what clients send.
    #[serde(default)]
    pub receive: ReceiveStatus,
    /// The server's version.
    #[serde(default)]
    pub version: String,
    /// The worker's sandbox: `landlock ABI 7` and more, or `none:` and why.
    #[serde(default)]
    pub sandbox: String,
    /// What it serves, from its configuration.
    #[serde(default)]
    pub serves: Serves,
    /// The checkpoint log; `None` under durability `none`.
    #[serde(default)]
    pub log: Option<LogStatus>,
    /// The outage before this worker; `None`: it is the first of its supervisor.
    #[serde(default)]
    pub last_outage: Option<Outage>,
    /// The standby worker; `None`: there is none now.
    #[serde(default)]
    pub standby: Option<StandbyStatus>,
    /// Comparison of its state with that of the serving worker, since the supervisor began.
    #[serde(default)]
    pub compared: ComparedStatus,
    /// What it has done since its supervisor began.
    #[serde(default)]
    pub activity: ActivityStatus,
    /// The last returns of a worker, the latest first.
    #[serde(default)]
    pub returns: Vec<Outage>,
    /// The pair to which this server belongs; `None`: it is alone.
    #[serde(default)]
    pub pair: Option<PairStatus>,
    /// The addresses that the network has assigned.
    #[serde(default)]
    pub assigned: Vec<AssignedStatus>,
    /// One for each TCP connection.
    pub connections: Vec<ConnectionStatus>,
}

/// A pair, as one of its nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairStatus {
    /// This node.
    pub node: String,
    /// The other one.
    pub partner: String,
    /// `serving`; `taking over`; `standing by`: the other node has the service; `waiting`: no node has it.
    pub role: String,
    /// The node that has the service; `None`: none.
    pub holder: Option<String>,
    /// The arbiter's epoch, raised each time that a node takes the service.
    pub epoch: u64,
    /// Whether the other node has everything that the holder has committed.
    pub in_step: bool,
    /// The time of the last change of that; 0: no node ever served.
    pub in_step_since_unix_seconds: u64,
    /// Whether the other node runs.
    pub partner_runs: bool,
    /// A cluster manager orders which node serves.
    #[serde(default)]
    pub by_order: bool,
    /// This node has everything that the last holder has committed, or is that holder.
    #[serde(default)]
    pub has_state: bool,
    /// The node that the holder has taken the service over from.
    pub taken_from: Option<String>,
    /// What happens if this server crashes now.
    pub if_died: String,
    /// The reason that prevents this node from taking the service, or from ending it.
    pub trouble: Option<String>,
    /// The status of the interconnect; `None`: there is none.
    #[serde(default)]
    pub link: Option<LinkStatus>,
}

/// The interconnect of a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The nodes are connected.
    pub is_connected: bool,
    /// The reason why they are not.
    pub problem: Option<String>,
    /// Bytes of the log that the standby node does not have yet; `None`: unknown.
    pub lag_bytes: Option<u64>,
    /// The round trip of the last batch, in microseconds.
    pub round_trip_us: u64,
    /// The time since the other node's last frame, in milliseconds; `None`: it has sent none.
    pub heard_ms_ago: Option<u64>,
}

/// The standby worker, which follows the log and is ready to take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyStatus {
    /// Its process id.
    pub pid: u32,
    /// Bytes of its own memory, without the log's file.
    pub memory_bytes: u64,
    /// Bytes of the log that it has not read yet.
    pub lag_bytes: u64,
}

/// The results of comparing digests of the durable state.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ComparedStatus {
    /// The number of digests compared.
    pub digests: u64,
    /// The number of those that differed: a fault of the server, described in its log.
    pub differences: u64,
}

impl Status {
    /// A status in which nothing is known.
    #[must_use]
    pub fn unknown() -> Status {
        Status {
            trouble: None,
            flag: "unknown".to_owned(),
            epoch: 0,
            recoveries: 0,
            supervisor_pid: 0,
            worker_pid: 0,
            uptime_seconds: 0.0,
            executable: PathBuf::new(),
            receive: ReceiveStatus::default(),
            version: String::new(),
            sandbox: String::new(),
            serves: Serves::default(),
            log: None,
            last_outage: None,
            standby: None,
            compared: ComparedStatus::default(),
            activity: ActivityStatus::default(),
            returns: Vec::new(),
            pair: None,
            assigned: Vec::new(),
            connections: Vec::new(),
        }
    }
}

/// An address that the network has assigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedStatus {
    /// The address.
    pub address: IpAddr,
    /// Its source: `dhcp` or `router-advertisements`.
    pub source: String,
    /// The time until it ends, in seconds; `None`: it does not end.
    pub left_seconds: Option<u64>,
}

/// Room in the log for what clients send, over all connections.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReceiveStatus {
    /// Bytes that are set aside.
    pub total_bytes: u64,
    /// Bytes of them that are in use: received and not processed yet, or offered to clients.
    pub held_bytes: u64,
    /// Segments within a window that were dropped for lack of room since this worker began: an attack.
    pub in_window_dropped: u64,
}

/// What a server serves, and with which durability.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Serves {
    /// Its NetBIOS name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The names of its shares.
    pub shares: Vec<String>,
    /// `none`, `process` or `power`.
    pub durability: String,
    /// The restrictions of the shares' file systems compared with ext4, XFS and btrfs: a sentence each, with the
    /// directory.
    #[serde(default)]
    pub weaker: Vec<String>,
    /// What keeps shares from being served now: a sentence each, with the share.
    #[serde(default)]
    pub trouble: Vec<String>,
}

impl Serves {
    /// The shares as clients name them: `\\10.77.0.1\pub`.
    pub fn unc_paths(&self) -> impl Iterator<Item = String> {
        let address = self.addresses.first();
        let host = address.map_or_else(|| self.name.clone(), IpAddr::to_string);
        self.shares
            .iter()
            .map(move |share| format!(r"\\{host}\{share}"))
    }
}

/// The fill level of the log.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogStatus {
    /// Its capacity in bytes.
    pub size_bytes: u64,
    /// Bytes from its tail to its head.
    pub used_bytes: u64,
    /// Records that a recovery would read now.
    #[serde(default)]
    pub replay_records: u64,
    /// Bytes that a recovery would read now.
    #[serde(default)]
    pub replay_bytes: u64,
    /// Deltas that a recovery would apply now.
    #[serde(default)]
    pub replay_deltas: u64,
}

/// What a server has done since its supervisor began; it continues through deaths of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ActivityStatus {
    /// How often state was saved at each of the four points.
    pub points: [u64; 4],
    /// Commits of the log.
    pub commits: u64,
    /// Bytes of the Ethernet frames that were received.
    pub received_bytes: u64,
    /// Bytes of the Ethernet frames that were sent.
    pub sent_bytes: u64,
}

/// A time during which no worker served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// When it began, in seconds since 1970.
    pub began_unix_seconds: f64,
    /// From the end of the worker before to the first frame of this one.
    pub seconds: f64,
    /// How the worker before ended.
    pub cause: String,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The server's address and port.
    pub server: SocketAddr,
    /// TCP (names of RFC 9293).
    pub tcp: TcpStatus,
    /// SMB.
    pub smb: SmbStatus,
    /// Bytes of the log that it holds: its state, requests not processed yet, and replies not acknowledged yet.
    #[serde(default)]
    pub log_bytes: u64,
}

/// TCP of one connection (RFC 9293, 3.3.1).
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TcpStatus {
    /// State, as `ESTABLISHED`.
    pub state: String,
    /// SND.UNA.
    pub snd_una: u32,
    /// SND.NXT.
    pub snd_nxt: u32,
    /// SND.WND in bytes.
    pub snd_wnd: u32,
    /// RCV.NXT.
    pub rcv_nxt: u32,
    /// RCV.WND in bytes.
    pub rcv_wnd: u32,
    /// Bytes given to TCP that the client has not acknowledged.
    pub unacked_bytes: u64,
    /// Smoothed round-trip time (RFC 6298); `None` before the first sample.
    pub srtt_us: Option<u64>,
    /// Congestion window in bytes.
    pub cwnd: u64,
}

/// SMB of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SmbStatus {
    /// Dialect, as `3.1.1`; `None` before negotiation.
    pub dialect: Option<String>,
    /// The users' names, `(guest)` and `(anonymous)` for those without; `None` before the first login.
    pub user: Option<String>,
    /// Signing in use: the algorithm's name, or `off`.
    pub signing: String,
    /// Encryption in use: the cipher's name, or `off`.
    pub encryption: String,
    /// Number of tree connects.
    pub trees: u64,
    /// Number of opens.
    pub opens: u64,
    /// Number of byte-range locks.
    pub locks: u64,
    /// Upper bound of the bytes of the log that its durable state takes.
    pub state_bytes: u64,
}
