//! Measures the cost of recovering a log: reading it, and folding its records. The files' part is not included, nor is
//! the network's.
//!
//! cargo bench --bench recovery -- [--records N]
//!
//! Each row is a log that clients have filled with so many small records, as a loop of `ls` does (nine records a
//! request), with NVRAM of the size named. In the first two nothing was relocated before half of the ring was in use,
//! as in a log of an earlier version. In the others the server's own rule decides what is relocated and when.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outlast::server::contents::saved;
use outlast::server::journal::Journal;
use outlast::server::record::{Global, Record};
use outlast_fsa::fileop::{Actor, FileKey};
use outlast_fsa::open::FileOpen;
use outlast_nvram::{Identity, Incarnation, Kind, Log, Memory, VecMemory};
use outlast_smb::copying::Cursor;
use outlast_smb::record::WorkId;
use outlast_smb::state::{Open, Related, Target};
use outlast_smb::{Config, Dialect, Limits, Oplocks, Requirement, Smb};
use outlast_stack::addressing::Acquired;
use outlast_stack::{Path, Promise, Record as Tcp, Seq};

const INCARNATION: Incarnation = Incarnation {
    host: [1; 16],
    boot: [2; 16],
};
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A row of the table.
struct Row {
    size_mib: u64,
    /// The number of connections, and of those that send requests.
    connections: u64,
    busy: u64,
    opens: u64,
    /// Objects are relocated by the server's rule.
    by_rule: bool,
}

struct Server {
    journal: Journal,
    smb: Smb,
    opens: u64,
    copies: u64,
}

impl Server {
    fn new(memory: Arc<dyn Memory>, opens: u64) -> Server {
        let capacity = memory.len();
        let identity = Identity {
            instance: [3; 16],
            incarnation: INCARNATION,
        };
        let log = Log::format(memory, identity).expect("a log");
        let global = Global {
            watched_until: 0,
            roots: Vec::new(),
            accounts: Vec::new(),
            acquired: Acquired::default(),
            anchor: None,
            clock_up_to: Duration::from_secs(3600),
            ids_up_to: 1 << 40,
            secret: [0; 32],
            guid: [0; 16],
        };
        let mut journal = Journal::new(Some(log), None, capacity, 10 << 20, global);
        journal.snapshot_global();
        Server {
            journal,
            smb: Smb::new(config()),
            opens,
            copies: 0,
        }
    }

    fn smb(&mut self, conn: u64, record: outlast_smb::Record) {
        self.smb.apply(conn, &record);
        let record = Record::Smb(Cow::Owned(record));
        self.journal.put(conn, Kind::Delta, &record, &[]);
    }

    fn tcp(&mut self, conn: u64, record: Tcp, data: &[u8]) {
        let record = Record::Tcp(Cow::Owned(record));
        self.journal.put(conn, Kind::Delta, &record, &[data]);
    }

    fn connect(&mut self, conn: u64) {
        let record = Record::Client {
            tcp: Some(Cow::Owned(checkpoint())),
            smb: None,
        };
        self.journal.put(conn, Kind::Snapshot, &record, &[]);
        self.smb(conn, outlast_smb::Record::Connected { client: CLIENT });
        for nth in 0..self.opens {
            self.smb(conn, opened(conn << 20 | nth));
        }
    }

    /// The records of one small request, as the server writes them.
    fn request(&mut self, conn: u64, number: u64) {
        let edge = Seq(number as u32);
        let promise = Some(Promise { edge, next: true });
        let received = Tcp::Received {
            ts_recent: Some(7),
            promise: None,
        };
        let acked = Tcp::Acked {
            snd_una: Seq(0),
            snd_wnd: 1 << 20,
            snd_wl1: Seq(0),
            snd_wl2: Seq(0),
            ts_recent: Some(7),
        };
        let work = WorkId::Message;
        self.tcp(conn, acked, &[]);
        self.tcp(conn, received, &[0; 120]);
        self.smb(conn, outlast_smb::Record::Begin);
        let ids = vec![(number, 1)];
        self.smb(conn, outlast_smb::Record::Admitted { ids, sealed: None });
        self.smb(conn, opened(conn << 20 | 0xfffff));
        let (answer, related, credits) = (None, Related::default(), 1);
        self.smb(
            conn,
            outlast_smb::Record::Answered {
                work,
                answer,
                related,
                credits,
            },
        );
        self.smb(conn, outlast_smb::Record::Done { work, credits: 0 });
        self.tcp(conn, Tcp::Consumed(120), &[]);
        self.tcp(conn, Tcp::Sent { promise }, &[0; 160]);
    }

    fn copy(&mut self, conn: u64) {
        self.copies += 1;
        if conn == 0 {
            return self.journal.snapshot_global();
        }
        let smb = Cow::Owned(self.smb.copy_begin(conn).expect("it is there"));
        self.journal
            .put(conn, Kind::Begin, &Record::Copy { smb }, &[]);
        let mut cursor = Cursor::default();
        while let Some(piece) = self.smb.copy_next(conn, &mut cursor) {
            let record = Record::Smb(Cow::Owned(piece));
            self.journal.put(conn, Kind::Part, &record, &[]);
        }
        let tcp = Some(Cow::Owned(checkpoint()));
        self.journal
            .put(conn, Kind::Complete, &Record::Copied { tcp }, &[]);
    }
}

fn opened(id: u64) -> outlast_smb::Record {
    let key = FileKey {
        dev: 1,
        ino: id,
        birth_ns: 1_700_000_000_000_000_000,
    };
    let path = format!("some directory/another one/a file of some name, number {id}");
    outlast_smb::Record::Opened(Box::new(Open {
        id,
        session: 1,
        tree: 1,
        actor: Actor {
            share: 0,
            user: Some("somebody".into()),
        },
        granted_access: 0x0012_019f,
        target: Target::File(FileOpen::new(key, path, false)),
        channel_sequence: 0,
        closing: None,
        durable: None,
        create: None,
    }))
}

fn checkpoint() -> outlast_stack::Checkpoint {
    let at = |port| SocketAddr::new(CLIENT, port);
    outlast_stack::Checkpoint {
        path: Path {
            local: at(445),
            remote: at(40_000),
            remote_mac: [2; 6],
        },
        state: outlast_stack::State::Established,
        options: outlast_stack::Options {
            peer_mss: 1460,
            window_scale: Some((7, 7)),
            sack: true,
            timestamps: true,
        },
        ts_offset: 0,
        iss: Seq(0),
        irs: Seq(0),
        snd_una: Seq(0),
        snd_wnd: 1 << 20,
        snd_wl1: Seq(0),
        snd_wl2: Seq(0),
        rcv_nxt: Seq(0),
        rcv_edge: Seq(0),
        last_ack_sent: Seq(0),
        prior_ack_sent: Seq(0),
        ts_recent: 0,
        fin_queued: false,
    }
}

fn config() -> Config {
    Config {
        name: String::new(),
        guid: [0; 16],
        min_dialect: Dialect::Smb202,
        max_dialect: Dialect::Smb311,
        signing: Requirement::Enabled,
        encryption: Requirement::Enabled,
        oplocks: Oplocks::On,
        shares: Vec::new(),
        users: Vec::new(),
        limits: Limits::default(),
    }
}

/// Fills a log and recovers it. Prints the row.
fn measure(row: &Row, records: u64) {
    let memory: Arc<dyn Memory> = Arc::new(VecMemory::new((row.size_mib << 20) as usize));
    let mut server = Server::new(memory.clone(), row.opens);
    for conn in 1..=row.connections {
        server.connect(conn);
    }
    let begun = Instant::now();
    let mut number = 0;
    while server.journal.records() < records {
        server.request(1 + number % row.busy, number / row.busy);
        number += 1;
        server.journal.commit(Duration::from_secs(3600));
        while let Some(wanted) = server.journal.wants_relocation(0)
            && (row.by_rule || wanted.for_room)
        {
            server.copy(wanted.object);
            server.journal.commit(Duration::from_secs(3600));
        }
    }
    let (written, copies) = (begun.elapsed(), server.copies);
    drop(server);
    let begun = Instant::now();
    let (log, contents) = Log::open(memory).expect("a log");
    let read = begun.elapsed();
    let (walked, counting) = (contents.walked, contents.records.len());
    let begun = Instant::now();
    let folded = saved(contents.records).expect("what it means");
    let fold = begun.elapsed();
    assert_eq!(folded.clients.len() as u64, row.connections);
    drop(log);
    println!(
        "{:5} MiB, {:4} connection(s) of {:4} opens, {:4} busy, {:>11} | {walked:9} records, {counting:9} count | \
         read {:8.1} ms, fold {:8.1} ms | {copies} copies, {:.2} us a record written",
        row.size_mib,
        row.connections,
        row.opens,
        row.busy,
        if row.by_rule {
            "by the rule"
        } else {
            "as before"
        },
        read.as_secs_f64() * 1e3,
        fold.as_secs_f64() * 1e3,
        written.as_secs_f64() * 1e6 / records as f64,
    );
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut records = 1_000_000;
    if let [option, value, ..] = &arguments[..]
        && option == "--records"
    {
        match value.parse() {
            Ok(number) => records = number,
            Err(error) => {
                eprintln!("--records {value}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    for (size_mib, connections, busy, opens, by_rule) in [
        (256, 1, 1, 10, false),
        (1024, 1, 1, 10, false),
        (256, 1, 1, 10, true),
        (1024, 1, 1, 10, true),
        (256, 100, 100, 10, true),
        (1024, 1000, 1, 10, true),
        (1024, 1000, 1000, 10, true),
        (256, 1, 1, 5000, true),
    ] {
        let row = Row {
            size_mib,
            connections,
            busy,
            opens,
            by_rule,
        };
        measure(&row, records);
    }
    ExitCode::SUCCESS
}
