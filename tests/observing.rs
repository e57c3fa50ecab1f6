//! Tests metrics, captures, JSON logs and `outlast top`, also across crashes of the server.

mod support;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use support::client::{self, SMB3_1_1, Session, smbclient};
use support::lab::Lab;
use support::server::{Server, Setup, error};
use support::{PATIENCE, can_run, wait_for};

/// Samples by name and labels, as they are in the text.
fn samples(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect(line);
        (name.to_owned(), value.parse().expect(line))
    };
    lines.map(sample).collect()
}

fn metrics(server: &Server) -> BTreeMap<String, f64> {
    let output = server.outlast(&["metrics"]);
    assert!(output.status.success(), "{}", error(&output));
    samples(&String::from_utf8_lossy(&output.stdout))
}

/// The response that Prometheus receives.
fn scrape(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").ok()?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard).ok()?;
    let (head, text) = heard.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200 ").then(|| text.to_owned())
}

#[test]
fn what_is_counted_continues_when_a_worker_dies() {
    if !can_run("what_is_counted_continues_when_a_worker_dies") {
        return;
    }
    let lab = Lab::new();
    let address: SocketAddr = "127.0.0.1:9445".parse().expect("an address");
    let setup = Setup {
        more: "[metrics]\nlisten = \"127.0.0.1:9445\"\n".into(),
        ..Setup::default()
    };
    let server = Server::start(&lab, setup);
    let local = lab.make_dir("local");
    std::fs::write(local.join("data"), vec![7; 1 << 20]).expect("a file");
    client::run(smbclient(SMB3_1_1), &local, "put data; get data copy").well();
    let mut session = Session::holding(smbclient(SMB3_1_1), server.share(), "held", &local);
    let before = metrics(&server);
    let of = |samples: &BTreeMap<String, f64>, name: &str| {
        *samples
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not among {samples:#?}"))
    };
    let megabyte = f64::from(1 << 20);
    for (name, least) in [
        ("outlast_answers_total{command=\"READ\"}", 1.0),
        ("outlast_replies_bytes_total{command=\"READ\"}", megabyte),
        ("outlast_requests_bytes_total{command=\"WRITE\"}", megabyte),
        ("outlast_request_seconds_count{command=\"WRITE\"}", 1.0),
        ("outlast_received_bytes_total", megabyte),
        ("outlast_sent_bytes_total", megabyte),
        ("outlast_points_total{point=\"1\"}", 1.0),
        ("outlast_points_total{point=\"2\"}", 1.0),
        ("outlast_points_total{point=\"3\"}", 1.0),
        ("outlast_points_total{point=\"4\"}", 1.0),
        ("outlast_commits_total", 4.0),
    ] {
        assert!(of(&before, name) >= least, "{name}: {}", of(&before, name));
    }
    let held = wait_for("the open to be measured", PATIENCE, || {
        let now = metrics(&server);
        (of(&now, "outlast_opens") >= 1.0).then_some(now)
    });
    assert!(of(&held, "outlast_connections") >= 1.0);
    assert!(of(&held, "outlast_replay_records") >= 1.0);
    assert!(of(&held, "outlast_log_size_bytes") > 200.0 * megabyte);

    let worker = server.status().worker_pid;
    server.kill_worker(worker);
    server.successor_of(worker);
    // The supervisor is the last process to learn that the next worker serves.
    let after = wait_for("the return to be counted", PATIENCE, || {
        server
            .try_status()
            .filter(|status| !status.returns.is_empty())
    });
    let killed = metrics(&server);
    let returns = "outlast_return_gap_seconds_count{cause=\"killed\"}";
    assert_eq!(of(&killed, returns), 1.0);
    assert!(of(&killed, "outlast_return_gap_seconds_sum{cause=\"killed\"}") > 0.0);
    // Each count is at least what it was before.
    for (name, value) in before.iter().filter(|(name, _)| name.contains("_total")) {
        assert!(of(&killed, name) >= *value, "{name} began anew");
    }
    assert_eq!(after.returns.len(), 1);
    assert_eq!(after.returns[0].cause, "killed");
    assert!(after.activity.commits >= of(&before, "outlast_commits_total") as u64);

    // The same over HTTP, also while a worker is replaced.
    let text = scrape(address).expect("metrics");
    assert_eq!(samples(&text).len(), killed.len());
    server.kill_worker(after.worker_pid);
    let text = scrape(address).expect("metrics, after a wait");
    assert!(of(&samples(&text), "outlast_commits_total") > 0.0);

    let dropped = server.outlast(&["disconnect", "alice"]);
    assert!(dropped.status.success(), "{}", error(&dropped));
    wait_for("the client's end", PATIENCE, || {
        session.has_ended().then_some(())
    });
    wait_for("the eviction", PATIENCE, || {
        let count = of(
            &metrics(&server),
            "outlast_evictions_total{reason=\"disconnected\"}",
        );
        (count >= 1.0).then_some(())
    });
    server.assert_sound();
}

#[test]
fn a_port_that_is_taken_is_named() {
    if !can_run("a_port_that_is_taken_is_named") {
        return;
    }
    let lab = Lab::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let setup = Setup {
        more: format!("[metrics]\nlisten = \"{address}\"\n"),
        ..Setup::default()
    };
    let server = Server::prepare(&lab, setup);
    let output = server.outlast(&["serve"]);
    assert!(!output.status.success());
    let said = error(&output);
    let expected = format!("metrics.listen: {address} cannot be listened on");
    assert!(said.contains(&expected), "{said}");
}

/// Where TCP's payload begins in a frame of IPv4, and the sequence number of it; `None`: it is another frame.
fn segment(frame: &[u8], port_at: usize) -> Option<(u32, usize)> {
    if frame.get(12..14)? != [8, 0] || *frame.get(23)? != 6 {
        return None;
    }
    let tcp = 14 + usize::from(frame[14] & 15) * 4;
    let number = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    if number(tcp + port_at)? != 445 {
        return None;
    }
    let total = usize::from(number(16)?);
    let payload = tcp + usize::from(frame.get(tcp + 12)? >> 4) * 4;
    let sequence = u32::from_be_bytes(frame.get(tcp + 4..tcp + 8)?.try_into().ok()?);
    let len = (14 + total).saturating_sub(payload);
    (len > 0).then_some((sequence, len))
}

/// Each byte of an upload is in the capture, although the worker is killed repeatedly.
#[test]
fn a_capture_has_each_byte_of_a_transfer_across_deaths() {
    if !can_run("a_capture_has_each_byte_of_a_transfer_across_deaths") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let bytes = 48 << 20;
    std::fs::write(local.join("data"), vec![7; bytes]).expect("a file");
    let file = lab.path("frames.pcapng");
    let name = file.to_str().expect("UTF-8");
    let begun = server.outlast(&["capture", name]);
    assert!(begun.status.success(), "{}", error(&begun));
    let again = server.outlast(&["capture", name]);
    assert!(
        error(&again).contains("already captured into"),
        "{}",
        error(&again)
    );

    let mut session = Session::start(smbclient(SMB3_1_1), &local, "put data");
    let mut worker = server.status().worker_pid;
    for _ in 0..4 {
        server.kill_worker(worker);
        worker = server.successor_of(worker).worker_pid;
    }
    wait_for("the upload", 2 * PATIENCE, || {
        session.has_ended().then_some(())
    });
    session.finish().well();
    let ended = server.outlast(&["capture", "--stop"]);
    assert!(ended.status.success(), "{}", error(&ended));
    let none = server.outlast(&["capture", "--stop"]);
    assert!(
        error(&none).contains("there is no capture"),
        "{}",
        error(&none)
    );

    let mut reader =
        PcapNgReader::new(std::fs::File::open(&file).expect("the file")).expect("pcapng");
    // The pieces of the stream in each direction, joined where they are adjacent.
    let mut uploaded: BTreeMap<u32, usize> = BTreeMap::new();
    let mut lost = 0;
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(frame) = block.expect("a block") else {
            continue;
        };
        for option in &frame.options {
            if let EnhancedPacketOption::DropCount(count) = option {
                lost += count;
            }
        }
        let inbound = frame.options.contains(&EnhancedPacketOption::Flags(1));
        if let Some((sequence, len)) = segment(&frame.data, 2).filter(|_| inbound) {
            let known = uploaded.entry(sequence).or_default();
            *known = (*known).max(len);
        }
    }
    assert_eq!(lost, 0, "the ring had no room");
    let first = *uploaded.keys().next().expect("segments");
    // The begin of the stream; sequence numbers may wrap around.
    let begin = uploaded
        .keys()
        .copied()
        .min_by_key(|sequence| sequence.wrapping_sub(first).min(u32::MAX / 2))
        .expect("segments");
    let mut ordered: Vec<(u32, usize)> = uploaded
        .into_iter()
        .map(|(sequence, len)| (sequence.wrapping_sub(begin), len))
        .collect();
    ordered.sort_unstable();
    let mut end = 0_usize;
    for (offset, len) in ordered {
        let offset = offset as usize;
        assert!(offset <= end, "{} bytes are missing at {end}", offset - end);
        end = end.max(offset + len);
    }
    assert!(end > bytes, "{end} bytes of the upload are in the capture");
    server.assert_sound();
}

#[test]
fn the_log_is_json_where_the_configuration_says_so() {
    if !can_run("the_log_is_json_where_the_configuration_says_so") {
        return;
    }
    let lab = Lab::new();
    let setup = Setup {
        more: "[log]\nformat = \"json\"\n".into(),
        ..Setup::default()
    };
    let mut server = Server::start(&lab, setup);
    let worker = server.status().worker_pid;
    server.kill_worker(worker);
    server.successor_of(worker);
    server.terminate();
    let log = server.log();
    assert!(log.lines().count() > 3, "{log}");
    let mut pids = std::collections::BTreeSet::new();
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(object["message"].is_string(), "{line}");
        pids.insert(object["pid"].as_u64());
    }
    assert!(pids.len() >= 3, "the supervisor and two workers: {log}");
}

/// On a terminal of its own (script(1)) it shows the server, and ends at a key.
#[test]
fn top_shows_the_server_on_a_terminal() {
    if !can_run("top_shows_the_server_on_a_terminal") {
        return;
    }
    let is_there = Command::new("script").arg("--version").output().is_ok();
    if !support::has(
        "top_shows_the_server_on_a_terminal",
        &[(is_there, "script (util-linux)")],
    ) {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let mut session = Session::holding(smbclient(SMB3_1_1), server.share(), "held", &local);
    let shown = lab.path("shown");
    let top = format!(
        "stty cols 150 rows 30; exec {} top --config {}",
        env!("CARGO_BIN_EXE_outlast"),
        server.config().display()
    );
    let mut script = Command::new("script")
        .args(["-qfec", &top])
        .arg(&shown)
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("script");
    wait_for("the connection on the screen", PATIENCE, || {
        let screen = std::fs::read(&shown).unwrap_or_default();
        let screen = String::from_utf8_lossy(&screen).into_owned();
        (screen.contains("10.77.0.2:") && screen.contains("alice")).then_some(())
    });
    let mut keys = script.stdin.take().expect("piped");
    keys.write_all(b"dy").expect("keys");
    wait_for("the client's end", PATIENCE, || {
        session.has_ended().then_some(())
    });
    keys.write_all(b"q").expect("a key");
    assert!(script.wait().expect("script").success());

    // Without a terminal the error names the alternative.
    let output = server.outlast(&["top"]);
    assert!(!output.status.success());
    server.assert_sound();
}

/// A question of Multicast DNS for the addresses of a name.
fn question(host: &str) -> Vec<u8> {
    let name: Vec<u8> = [host, "local"]
        .iter()
        .flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat())
        .collect();
    [
        &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
        &name,
        &[0, 0, 1, 0, 1],
    ]
    .concat()
}

/// A question of the NetBIOS name service for the address of a file server of this name (RFC 1002, section 4.2.12).
fn netbios_question(name: &str) -> Vec<u8> {
    let padded = format!("{name:<15} ");
    let letters = padded
        .bytes()
        .flat_map(|byte| [b'A' + (byte >> 4), b'A' + (byte & 15)]);
    let head = [0, 99, 1, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 32];
    head.into_iter()
        .chain(letters)
        .chain([0, 0, 0x20, 0, 1])
        .collect()
}

/// Repeats a query until it is answered; returns whether the answer is the server's address.
fn is_found(question: &[u8], to: &str) -> bool {
    let to: SocketAddr = to.parse().expect("an address");
    let socket = std::net::UdpSocket::bind("10.77.0.2:0").expect("a socket");
    socket.set_broadcast(true).expect("a socket");
    let pace = std::time::Duration::from_millis(100);
    socket.set_read_timeout(Some(pace)).expect("a timeout");
    let begun = std::time::Instant::now();
    while begun.elapsed() < PATIENCE {
        socket.send_to(question, to).expect("sent");
        let mut answer = [0; 1500];
        if let Ok((len, from)) = socket.recv_from(&mut answer) {
            let is_the_servers = from == SocketAddr::new([10, 77, 0, 1].into(), to.port());
            return is_the_servers && answer[..len].ends_with(&[10, 77, 0, 1]);
        }
    }
    false
}

#[test]
fn a_server_is_found_by_its_name_also_after_a_crash() {
    if !can_run("a_server_is_found_by_its_name_also_after_a_crash") {
        return;
    }
    let lab = Lab::new();
    let setup = Setup {
        more: "[discovery]\nmdns = true\nnetbios = true\n".into(),
        ..Setup::default()
    };
    let mut server = Server::start(&lab, setup);
    let is_known = || {
        assert!(
            is_found(&question("outlast"), "224.0.0.251:5353"),
            "{}",
            server.log()
        );
        assert!(
            is_found(&netbios_question("OUTLAST"), "10.77.0.255:137"),
            "{}",
            server.log()
        );
    };
    is_known();
    let worker = server.status().worker_pid;
    server.kill_worker(worker);
    server.successor_of(worker);
    is_known();
    server.terminate();
    assert!(server.log().contains("mDNS: the server is outlast.local"));
    server.assert_sound();
}
