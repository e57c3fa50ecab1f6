use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam::channel::Receiver;
use rustix::event::{PollFd, PollFlags, poll};

use crate::config::Config;

use crate::config::sample::Sample;

use super::server::{REQUEST_MAX_BYTES, answer};
use super::*;

/// A directory that is removed with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path =
            std::env::temp_dir().join(format!("outlast-control-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn gate(config: &Path) -> Gate {
    Gate {
        config: Config::parse(config, &Sample::default().text()).unwrap(),
        supervisor_pid: std::os::unix::process::parent_id(),
        pulse: None,
        metrics: crate::metrics::Page::new().unwrap(),
        prober: None,
    }
}

fn way() -> (Submit, Receiver<ControlRequest>, Arc<OwnedFd>) {
    Submit::channel().unwrap()
}

fn status() -> Status {
    Status {
        trouble: None,
        flag: "non-elective-reboot".into(),
        epoch: 7,
        recoveries: 6,
        supervisor_pid: 1,
        worker_pid: 2,
        uptime_seconds: 1.5,
        executable: PathBuf::new(),
        receive: ReceiveStatus {
            total_bytes: 32 << 20,
            held_bytes: 70_000,
            in_window_dropped: 0,
        },
        version: "0.1.0".into(),
        sandbox: "landlock ABI 7, names may change beneath /srv".into(),
        serves: Serves {
            name: "OUTLAST".into(),
            addresses: vec!["10.77.0.1".parse().unwrap()],
            shares: vec!["pub".into()],
            durability: "process".into(),
            weaker: vec!["/srv (fuse): renames".into()],
            trouble: vec!["share pub: its directory is not there".into()],
        },
        log: Some(LogStatus {
            size_bytes: 256 << 20,
            used_bytes: 1 << 20,
            replay_records: 1000,
            replay_bytes: 1 << 20,
            replay_deltas: 900,
        }),
        activity: ActivityStatus {
            points: [1, 2, 3, 4],
            commits: 10,
            received_bytes: 1 << 30,
            sent_bytes: 1 << 20,
        },
        returns: Vec::new(),
        last_outage: Some(Outage {
            began_unix_seconds: 1e9,
            seconds: 0.25,
            cause: "planned restart".into(),
        }),
        pair: None,
        assigned: Vec::new(),
        standby: Some(StandbyStatus {
            pid: 4_194_302,
            memory_bytes: 12 << 20,
            lag_bytes: 4096,
        }),
        compared: ComparedStatus {
            digests: 7,
            differences: 1,
        },
        connections: vec![ConnectionStatus {
            log_bytes: 4096,
            client: "10.77.0.2:40000".parse().unwrap(),
            server: "[fd77::1]:445".parse().unwrap(),
            tcp: TcpStatus {
                state: "ESTABLISHED".into(),
                snd_una: u32::MAX,
                srtt_us: Some(120),
                ..TcpStatus::default()
            },
            smb: SmbStatus {
                dialect: Some("3.1.1".into()),
                ..SmbStatus::default()
            },
        }],
    }
}

/// Sends raw bytes to the thread's code, with a loop that answers `reply`; returns the answer.
fn exchange(request: &[u8], reply: Option<Reply>) -> (io::Result<()>, Vec<u8>) {
    let (mut client, server) = UnixStream::pair().unwrap();
    client.write_all(request).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let (submit, requests, _wake) = way();
    let event_loop = std::thread::spawn(move || {
        if let Ok(request) = requests.recv() {
            reply
                .into_iter()
                .for_each(|reply| request.reply.send(reply).unwrap());
        }
    });
    let result = answer(
        server,
        &submit,
        &gate(Path::new("/nowhere/o.toml")),
        &Answers::default(),
    );
    drop(submit);
    event_loop.join().unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    (result, answer)
}

#[test]
fn a_status_round_trips_over_the_socket() {
    let scratch = Scratch::new("round");
    let path = scratch.0.join("deep/er/control.sock");
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let (submit, requests, wake) = way();
    serve(
        listener.as_fd().try_clone_to_owned().unwrap().into(),
        submit,
        gate(&path),
    )
    .unwrap();
    let event_loop = std::thread::spawn(move || {
        // like the loop, which is woken when there is a request
        poll(&mut [PollFd::new(&wake, PollFlags::IN)], None).unwrap();
        let request = requests.try_recv().unwrap();
        assert_eq!(request.command, Command::Status);
        request
            .reply
            .send(Reply::Status(Box::new(status())))
            .unwrap();
    });
    let reply = client::request(&path, &Command::Status, Duration::from_secs(60)).unwrap();
    event_loop.join().unwrap();
    let Reply::Status(got) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(got.executable, std::env::current_exe().unwrap());
    assert_eq!(
        Status {
            executable: PathBuf::new(),
            ..*got
        },
        status()
    );
}

#[test]
fn a_worker_that_ends_has_answered() {
    let scratch = Scratch::new("last");
    let path = scratch.0.join("control.sock");
    let listener = Listener::bind(&path).unwrap();
    let (submit, requests, _wake) = way();
    let answers = serve(
        listener.as_fd().try_clone_to_owned().unwrap().into(),
        submit,
        gate(&path),
    )
    .unwrap();
    for _ in 0..200 {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"{\"command\":\"stop\"}\n").unwrap();
        let request = requests.recv().unwrap();
        let accepted = Reply::Accepted {
            epoch: 1,
            supervisor_pid: 2,
        };
        request.reply.send(accepted).unwrap();
        answers.wait();
        client.set_nonblocking(true).unwrap();
        let mut buffer = [0; 256];
        let n = client.read(&mut buffer).unwrap();
        assert_eq!(buffer[n - 1], b'\n');
    }
}

#[test]
fn the_keys_of_a_status_are_an_interface() {
    let value = serde_json::to_value(status()).unwrap();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    for key in [
        "flag",
        "epoch",
        "recoveries",
        "supervisor_pid",
        "worker_pid",
        "uptime_seconds",
        "receive",
        "version",
        "sandbox",
        "serves",
        "log",
        "last_outage",
        "standby",
        "compared",
        "connections",
    ] {
        assert!(keys(&value).iter().any(|k| k == key), "{key}");
    }
    let connection = &value["connections"][0];
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys.join(" ")
    };
    assert_eq!(sorted(keys(connection)), "client log_bytes server smb tcp");
    assert_eq!(
        sorted(keys(&connection["tcp"])),
        "cwnd rcv_nxt rcv_wnd snd_nxt snd_una snd_wnd srtt_us state unacked_bytes"
    );
    assert_eq!(
        sorted(keys(&connection["smb"])),
        "dialect encryption locks opens signing state_bytes trees user"
    );
}

#[test]
fn malformed_requests_are_refused() {
    for request in [
        &b"\n"[..],
        b"{}\n",
        b"[1]\n",
        b"{\"command\":\"shutdown\"}\n",
        b"\xff\xfe\n",
    ] {
        let (result, answer) = exchange(request, None);
        result.unwrap();
        let Reply::Refused { reason } = serde_json::from_slice(&answer).unwrap() else {
            panic!("{answer:?}");
        };
        assert!(reason.starts_with("the request is malformed"), "{reason}");
    }
}

#[test]
fn an_unfinished_or_endless_request_is_dropped() {
    let (result, answer) = exchange(b"{\"command\":", None);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert!(answer.is_empty());
    let (result, answer) = exchange(&vec![b' '; REQUEST_MAX_BYTES + 1], None);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(answer.is_empty());
}

#[test]
fn a_loop_that_ends_without_an_answer_is_reported() {
    let (result, answer) = exchange(b"{\"command\":\"stop\"}\n", None);
    result.unwrap();
    let reply: Reply = serde_json::from_slice(&answer).unwrap();
    assert!(
        matches!(reply, Reply::Refused { reason } if reason.starts_with("the server is ending"))
    );
}

#[test]
fn a_reboot_without_return_is_refused() {
    for (exec, reason) in [
        ("null", "/nowhere/o.toml: cannot be read"),
        ("\"/nowhere/outlast\"", "/nowhere/outlast cannot be run"),
        (
            r#""/nowhere/out\nlast""#,
            r"/nowhere/out\nlast cannot be run",
        ),
        (
            "\"/bin/true\"",
            "/bin/true cannot take over: it is not an outlast binary",
        ),
    ] {
        let request = format!("{{\"command\":\"reboot\",\"exec\":{exec},\"hold_seconds\":0}}\n");
        let (result, answer) = exchange(request.as_bytes(), None);
        result.unwrap();
        let Reply::Refused { reason: got } = serde_json::from_slice(&answer).unwrap() else {
            panic!("{answer:?}");
        };
        let got = got
            .strip_prefix("the reboot is refused, nothing has happened: ")
            .unwrap();
        assert!(got.starts_with(reason), "{got}");
    }
    let request = b"{\"command\":\"reboot\",\"exec\":null,\"hold_seconds\":-1}\n";
    let (_, answer) = exchange(request, None);
    assert!(
        String::from_utf8(answer)
            .unwrap()
            .contains("hold is not a number of seconds")
    );
}

#[test]
fn one_server_at_a_time_and_what_a_dead_one_left_is_removed() {
    let scratch = Scratch::new("bind");
    let path = scratch.0.join("control.sock");
    let live = Listener::bind(&path).unwrap();
    let error = Listener::bind(&path).unwrap_err().to_string();
    assert!(error.contains("a server is already running on"), "{error}");
    drop(live);
    assert!(!path.exists());

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(Listener::bind(&path).unwrap());

    std::fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&path).unwrap_err().to_string();
    assert!(error.contains("is not a socket"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_missing_server_is_reported_clearly() {
    let path = Path::new("/nowhere/control.sock");
    let error = client::request(path, &Command::Status, Duration::from_secs(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no server is running on /nowhere/control.sock; start it with `outlast serve`, or name its configuration \
         with --config"
    );
}

#[test]
fn a_server_that_does_not_answer_times_out() {
    let scratch = Scratch::new("silent");
    let path = scratch.0.join("control.sock");
    let _listener = Listener::bind(&path).unwrap();
    let error = client::request(&path, &Command::Status, Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, client::Error::NoAnswer(_)), "{error}");
}
