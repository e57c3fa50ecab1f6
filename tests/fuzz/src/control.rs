//! Writes to the control socket as another process of the same account may, and reads answers of a server.

use crate::input::Input;
use outlast::config::Config;
use outlast::control::{Answers, Command, Gate, Reply, Submit, answer};
use outlast::metrics;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;

const REQUESTS: [&str; 7] = [
    r#"{"command":"status"}"#,
    r#"{"command":"stop"}"#,
    r#"{"command":"reboot","exec":null,"hold_seconds":0.5}"#,
    r#"{"command":"reboot","exec":"/nowhere/outlast","hold_seconds":-1e308}"#,
    r#"{"command":"shutdown"}"#,
    r#"{"command":"metrics"}"#,
    r#"{"command":"capture","file":"/nowhere/x","headers_only":true}"#,
];

const CONFIG: &str = "[network]\ntap = \"tap0\"\naddresses = [\"10.77.0.1/24\"]\n\
    [nvram]\npath = \"nvram\"\n[[share]]\nname = \"pub\"\npath = \"/\"\n";

const REPLY: &str = concat!(
    r#"{"status":{"flag":"clean","epoch":1,"recoveries":0,"supervisor_pid":1,"worker_pid":2,"#,
    r#""uptime_seconds":1.5,"executable":"/x","connections":[{"client":"10.77.0.2:40000","#,
    r#""server":"[fd77::1]:445","tcp":{"state":"ESTABLISHED","snd_una":1,"snd_nxt":1,"snd_wnd":1,"rcv_nxt":1,"#,
    r#""rcv_wnd":1,"unacked_bytes":0,"srtt_us":null,"cwnd":1},"smb":{"dialect":"3.1.1","user":null,"#,
    r#""signing":"off","encryption":"off","trees":0,"opens":0,"locks":0}}]}}"#,
);

/// The channel to a loop that accepts every request.
fn submit() -> &'static Submit {
    static SUBMIT: OnceLock<Submit> = OnceLock::new();
    SUBMIT.get_or_init(|| {
        let (submit, requests, _) = Submit::channel().expect("an eventfd");
        std::thread::spawn(move || {
            for request in requests {
                assert!(
                    request.command != Command::Shutdown,
                    "a signal's command came by the socket"
                );
                let reply = Reply::Accepted {
                    epoch: 1,
                    supervisor_pid: 1,
                };
                // A client that has gone reads no answer.
                let _ = request.reply.send(reply);
            }
        });
        submit
    })
}

/// A whole line gets one answer of one line, anything else none; and nothing is begun that was not requested exactly.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(4) {
        0 => reply(input.rest()),
        1 => {
            let mut sent = REPLY.as_bytes().to_vec();
            input.edit(&mut sent);
            reply(&sent);
        }
        2 => request(input.rest()),
        _ => {
            let mut sent = input.pick(&REQUESTS).as_bytes().to_vec();
            input.edit(&mut sent);
            sent.push(b'\n');
            request(&sent);
        }
    }
}

/// What a client reads.
fn reply(bytes: &[u8]) {
    if let Ok(reply) = serde_json::from_slice::<Reply>(bytes) {
        let again = serde_json::to_vec(&reply).expect("a reply can be written");
        serde_json::from_slice::<Reply>(&again).expect("and read again");
    }
}

fn request(sent: &[u8]) {
    // A socket holds less than this before it is read; longer lines are refused by their length alone.
    let sent = &sent[..sent.len().min(64 << 10)];
    let line = sent.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let command = serde_json::from_slice::<Command>(line);
    // An existing program would be run: that is the command's purpose.
    if let Ok(Command::Reboot {
        exec: Some(exec), ..
    }) = &command
        && std::fs::symlink_metadata(exec).is_ok()
    {
        return;
    }
    let (mut client, server) = UnixStream::pair().expect("a socket");
    client.write_all(sent).expect("room in the socket");
    client.shutdown(Shutdown::Write).expect("an end");
    let gate = Gate {
        config: Config::parse(Path::new("/nowhere/outlast.toml"), CONFIG).expect("a configuration"),
        supervisor_pid: 1,
        pulse: None,
        metrics: metrics::Page::new().expect("memory"),
        prober: None,
    };
    let done = answer(server, submit(), &gate, &Answers::default());
    let mut answered = Vec::new();
    client
        .read_to_end(&mut answered)
        .expect("an answer or an end");
    if done.is_err() {
        assert!(answered.is_empty());
        return;
    }
    let text = answered.strip_suffix(b"\n").expect("a line");
    assert!(!text.contains(&b'\n'), "more than one line");
    match serde_json::from_slice(text).expect("a reply") {
        Reply::Refused { reason } => {
            assert!(
                !reason.contains(['\n', '\r', '\0']),
                "{reason:?} is not one line"
            );
        }
        Reply::Accepted { .. }
        | Reply::Disconnected { .. }
        | Reply::Status(_)
        | Reply::Metrics { .. }
        | Reply::Done => {
            assert!(command.is_ok(), "{line:?} was taken for a command");
        }
    }
}

/// Every request and a reply.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![[&[0], REPLY.as_bytes()].concat(), vec![1], vec![3]];
    for request in REQUESTS {
        seeds.push([&[2], request.as_bytes(), b"\n"].concat());
    }
    seeds.push([&[2], [b'['; 20_000].as_slice(), b"\n"].concat());
    seeds.push([&[2], [b'['; 10_000].as_slice(), b"\n"].concat());
    seeds
}
