//! Tests the example `key-value`, another protocol on `outlast-stack` and `outlast-nvram`. Its TCP connections survive
//! kill -9 of the service, and a second process with a TAP of its own takes them over.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::lab::{Lab, SERVER};
use support::{PATIENCE, Rng, can_run, wait_for};

fn program() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_outlast"));
    binary.with_file_name("examples").join("key-value")
}

/// A process of the service, on this TAP.
struct Service(Child);

impl Service {
    fn start(lab: &Lab, tap: &str) -> Service {
        let child = Command::new(program())
            .args([tap, SERVER])
            .arg(lab.path("log"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example");
        Service(child)
    }

    fn await_service(&mut self) {
        let mut line = String::new();
        let output = self.0.stdout.as_mut().expect("piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("its output");
        assert_eq!(line, "serves\n");
    }

    /// kill -9.
    fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("its end");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect() -> Client {
        let stream = wait_for("the service", PATIENCE, || {
            TcpStream::connect((SERVER, 7000)).ok()
        });
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time limit");
        Client(BufReader::new(stream))
    }

    fn say(&mut self, line: &str) {
        let text = format!("{line}\n");
        self.0.get_mut().write_all(text.as_bytes()).expect("sent");
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }
}

#[test]
fn another_protocol_survives_kills_and_a_takeover() {
    let name = "another_protocol_survives_kills_and_a_takeover";
    if !can_run(name) {
        return;
    }
    let lab = Lab::new();
    lab.bridge();
    let mut first = Service::start(&lab, "tap0");
    first.await_service();
    let mut second = Service::start(&lab, "tap1");
    let mut client = Client::connect();
    assert_eq!(client.ask("get color"), "none");
    assert_eq!(client.ask("set color blue and green"), "ok");
    assert_eq!(client.ask("nonsense").split(':').next(), Some("error"));
    // A line in two parts, of which the service has only one when it is killed.
    client.0.get_mut().write_all(b"get co").expect("sent");
    wait_for("the part to be acknowledged", PATIENCE, || {
        (unacknowledged(&client) == 0).then_some(())
    });
    first.kill();
    second.await_service();
    client.say("lor");
    assert_eq!(client.hear(), "blue and green");
    // Many commands are in flight while the service is killed repeatedly: each is executed once, and answered in order.
    let mut rng = Rng::named(name);
    let (mut running, mut asked, mut heard) = (second, 0, 0);
    for round in 0..6 {
        for _ in 0..500 + rng.below(500) {
            client.say(&format!("set k{} v{asked}", asked % 100));
            client.say(&format!("get k{}", asked % 100));
            asked += 1;
        }
        while heard < asked - rng.below(400) {
            assert_eq!(client.hear(), "ok");
            assert_eq!(client.hear(), format!("v{heard}"));
            heard += 1;
        }
        running.kill();
        running = Service::start(&lab, ["tap0", "tap1"][round % 2]);
        running.await_service();
    }
    while heard < asked {
        assert_eq!(client.hear(), "ok");
        assert_eq!(client.hear(), format!("v{heard}"));
        heard += 1;
    }
    assert_eq!(client.ask("set color red"), "ok");
    assert_eq!(client.ask("get color"), "red");
    // A new connection finds the recovered state.
    drop(client);
    let last = asked - 1;
    let found = Client::connect().ask(&format!("get k{}", last % 100));
    assert_eq!(found, format!("v{last}"));
    // The service drops a client that sends an endless line, and no other one.
    let mut endless = Client::connect();
    let sent = endless.0.get_mut().write_all(&[b'x'; 5000]);
    sent.expect("sent");
    assert_eq!(endless.hear(), "");
}

/// Bytes in the client's socket that the service has not acknowledged (SIOCOUTQ of tcp(7)).
fn unacknowledged(client: &Client) -> i32 {
    use std::os::fd::AsRawFd as _;
    let mut bytes = -1;
    // SAFETY: the call writes one int, which lives across it; the socket is open.
    let asked = unsafe { libc::ioctl(client.0.get_ref().as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    assert_eq!(asked, 0);
    bytes
}
