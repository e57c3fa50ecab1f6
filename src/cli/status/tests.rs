use crate::control::{ActivityStatus, ComparedStatus, Serves, SmbStatus, StandbyStatus, TcpStatus};

use super::*;

fn status() -> Status {
    let connection = ConnectionStatus {
        client: "[fd77:1234:5678:9abc:def0:1234:5678:9abc]:65535"
            .parse()
            .unwrap(),
        server: "[fd77:1234:5678:9abc:def0:1234:5678:9abd]:445"
            .parse()
            .unwrap(),
        tcp: TcpStatus {
            state: "ESTABLISHED".into(),
            snd_una: u32::MAX,
            snd_nxt: u32::MAX,
            snd_wnd: u32::MAX,
            rcv_nxt: u32::MAX,
            rcv_wnd: u32::MAX,
            unacked_bytes: 1 << 30,
            srtt_us: Some(1_000_000),
            cwnd: 1 << 30,
        },
        smb: SmbStatus {
            dialect: Some("3.1.1".into()),
            user: Some("somebody".into()),
            signing: "AES-CMAC".into(),
            encryption: "AES-128-GCM".into(),
            trees: 1024,
            opens: 65_536,
            locks: 65_536,
            state_bytes: 1 << 30,
        },
        log_bytes: 1 << 30,
    };
    Status {
        activity: ActivityStatus::default(),
        returns: Vec::new(),
        trouble: None,
        flag: "non-elective-reboot".into(),
        epoch: 12,
        recoveries: 11,
        supervisor_pid: 4_194_303,
        worker_pid: 4_194_304,
        uptime_seconds: 93.0,
        executable: "/usr/bin/outlast".into(),
        receive: Default::default(),
        version: "0.1.0".into(),
        sandbox: "landlock ABI 7, names may change beneath /srv, /var/lib/outlast".into(),
        serves: Serves {
            name: "OUTLAST".into(),
            addresses: vec!["10.77.0.1".parse().unwrap()],
            shares: vec!["pub".into(), "docs".into()],
            durability: "process".into(),
            weaker: vec![format!(
                "/srv/pool (fuse.mergerfs): {}",
                "a rename replaces ".repeat(8)
            )],
            trouble: vec![format!(
                "share docs: its file system {}",
                "fails ".repeat(12)
            )],
        },
        log: Some(LogStatus {
            size_bytes: 256 << 20,
            used_bytes: 64 << 20,
            ..LogStatus::default()
        }),
        last_outage: Some(Outage {
            began_unix_seconds: 1_000.0,
            seconds: 0.0123,
            cause: "the worker was killed".into(),
        }),
        pair: None,
        assigned: Vec::new(),
        standby: Some(StandbyStatus {
            pid: 4_194_302,
            memory_bytes: 12 << 20,
            lag_bytes: 4096,
        }),
        compared: ComparedStatus {
            digests: 70,
            differences: 2,
        },
        connections: vec![connection],
    }
}

#[test]
fn all_of_it_fits_a_terminal() {
    let text = table(&status(), Duration::from_secs(1_093));
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{line}");
    }
    for expected in [
        r"\\10.77.0.1\pub \\10.77.0.1\docs",
        "last outage 1 min 33 s ago: the worker was killed, 12.3 ms",
        "log 64 MiB of 256 MiB in use (25 %)\n      most by [",
        "its successor resumes every session",
        "worker 4194302 stands by: 12 MiB of memory, 4096 B behind",
        "standby: 2 of 70 digests of its state differed",
        "sandbox: landlock ABI 7, names may change beneath /srv, /var/lib/outlast",
        "weaker: /srv/pool (fuse.mergerfs): a rename",
        "trouble: share docs: its file system fails",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_server_without_clients_or_log_has_a_status() {
    let mut status = status();
    status.connections.clear();
    (status.log, status.last_outage, status.standby) = (None, None, None);
    status.flag = "none".into();
    let text = table(&status, Duration::ZERO);
    assert!(text.ends_with("connections 0\n"), "{text}");
    assert!(!text.contains("outage"), "{text}");
}
