//! `outlast status`.

use std::fmt::Write;

use crate::config::Config;
use crate::control::{ConnectionStatus, Status};

/// Prints how the running server is.
pub(super) fn run(config: &Config, json: bool) -> anyhow::Result<()> {
    let status = super::ask_status(config)?;
    let text = if json {
        serde_json::to_string_pretty(&status)? + "\n"
    } else {
        table(&status)
    };
    print(&text)
}

/// Writes to standard output; a reader that has had enough (`| head`) is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The status for people.
pub(super) fn table(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "flag {}, epoch {}, recoveries {}, supervisor {}, worker {}, up {:.1} s, connections {}",
        status.flag,
        status.epoch,
        status.recoveries,
        status.supervisor_pid,
        status.worker_pid,
        status.uptime_seconds,
        status.connections.len()
    );
    let dropped = status.receive.in_window_dropped;
    if dropped > 0 {
        let _ = writeln!(
            text,
            "{dropped} segments within a window were dropped for want of room: a client sends tiny segments"
        );
    }
    for connection in &status.connections {
        text.push('\n');
        describe(connection, &mut text);
    }
    text
}

/// One connection for people.
pub(super) fn describe(connection: &ConnectionStatus, text: &mut String) {
    let ConnectionStatus {
        client,
        server,
        tcp,
        smb,
    } = connection;
    let srtt = tcp.srtt_us.map_or("-".to_owned(), |us| format!("{us} us"));
    let _ = writeln!(text, "{client} -> {server}");
    let _ = writeln!(
        text,
        "  tcp  {}  snd_una {}  snd_nxt {}  snd_wnd {}  rcv_nxt {}  rcv_wnd {}  unacked {} B  srtt {srtt}  cwnd {} B",
        tcp.state,
        tcp.snd_una,
        tcp.snd_nxt,
        tcp.snd_wnd,
        tcp.rcv_nxt,
        tcp.rcv_wnd,
        tcp.unacked_bytes,
        tcp.cwnd
    );
    let _ = writeln!(
        text,
        "  smb  dialect {}  user {}  signing {}  encryption {}  trees {}  opens {}  locks {}  state {} B",
        smb.dialect.as_deref().unwrap_or("-"),
        smb.user.as_deref().unwrap_or("-"),
        smb.signing,
        smb.encryption,
        smb.trees,
        smb.opens,
        smb.locks,
        smb.state_bytes
    );
}
