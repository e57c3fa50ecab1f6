//! `outlast status`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::Config;
use crate::control::{ConnectionStatus, LinkStatus, LogStatus, Outage, PairStatus, Status};

/// Width of the output in columns: a terminal's usual width.
const WIDTH: usize = 80;
/// The indentation of continued lines.
const INDENTED: &str = "\n      ";

/// Prints the status of the running server.
pub(super) fn run(config: &Config, json: bool) -> anyhow::Result<()> {
    let status = super::ask_status(config)?;
    let text = if json {
        serde_json::to_string_pretty(&status)? + "\n"
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        table(&status, now.unwrap_or_default())
    };
    print(&text)
}

/// Writes to standard output; a reader that has ended (`| head`) is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The status as a text for people; `now`: time since 1970.
pub(super) fn table(status: &Status, now: Duration) -> String {
    let mut text = String::new();
    if let Some(trouble) = &status.trouble {
        return filled(&[
            trouble.clone(),
            format!(
                "(supervisor {}, worker {}); nothing else is known until it continues, or the next worker serves",
                status.supervisor_pid, status.worker_pid
            ),
        ]);
    }
    let mut line = |words: &[String]| text += &filled(words);
    if let Some(pair) = &status.pair {
        pair_words(pair).iter().for_each(|words| line(words));
        if status.worker_pid == 0 {
            line(&[
                format!("Outlast {},", status.version),
                format!("up {},", length(status.uptime_seconds)),
                format!("supervisor {}", status.supervisor_pid),
            ]);
            if let Some(standby) = &status.standby {
                line(&[
                    format!("worker {} follows the log:", standby.pid),
                    format!("{} of memory,", size(standby.memory_bytes)),
                    format!("{} behind", size(standby.lag_bytes)),
                ]);
            }
            return text;
        }
    }
    let serves = &status.serves;
    line(&[
        format!("{} (Outlast {}) serves", serves.name, status.version),
        serves.unc_paths().collect::<Vec<_>>().join(" "),
    ]);
    if serves.addresses.is_empty() {
        line(&["the network has assigned no address yet".to_owned()]);
    }
    for of in &status.assigned {
        let left = of
            .left_seconds
            .map_or_else(|| "without end".to_owned(), |left| format!("{left} s left"));
        line(&[format!("address {} by {},", of.address, of.source), left]);
    }
    line(&[
        format!("up {},", length(status.uptime_seconds)),
        format!("worker {},", status.worker_pid),
        format!("supervisor {},", status.supervisor_pid),
        format!("epoch {},", status.epoch),
        format!("recoveries {}", status.recoveries),
    ]);
    if let Some(standby) = &status.standby {
        line(&[
            format!("worker {} stands by:", standby.pid),
            format!("{} of memory,", size(standby.memory_bytes)),
            format!("{} behind", size(standby.lag_bytes)),
        ]);
    }
    let compared = &status.compared;
    if compared.differences > 0 {
        let (differed, all) = (compared.differences, compared.digests);
        line(&[
            format!("standby: {differed} of {all} digests of its state differed"),
            "from the server's; see the server's log".to_owned(),
        ]);
    }
    if let Some(outage) = &status.last_outage {
        line(&[last_outage(outage, now)]);
    }
    line(&[
        format!("durability {},", serves.durability),
        format!("flag {}:", status.flag),
        meaning(&status.flag).to_owned(),
    ]);
    let trouble = serves.trouble.iter().map(|what| ("trouble:", what));
    let weaker = serves.weaker.iter().map(|what| ("weaker:", what));
    for (head, what) in trouble.chain(weaker) {
        let words = [head].into_iter().chain(what.split(' '));
        line(&words.map(str::to_owned).collect::<Vec<_>>());
    }
    line(&sandbox_words(&status.sandbox));
    if let Some(log) = &status.log {
        line(&log_words(log, &status.connections));
    }
    let dropped = status.receive.in_window_dropped;
    if dropped > 0 {
        line(&[
            format!("{dropped} segments within a window were dropped for lack of room:"),
            "a client sends tiny segments".to_owned(),
        ]);
    }
    line(&[format!("connections {}", status.connections.len())]);
    for connection in &status.connections {
        text.push('\n');
        describe(connection, &mut text);
    }
    text
}

/// The lines about a pair.
fn pair_words(pair: &PairStatus) -> Vec<Vec<String>> {
    let holder = pair.holder.as_ref();
    let mut lines = vec![vec![
        format!("node {}: {},", pair.node, pair.role),
        holder.map_or("no node serves,".to_owned(), |holder| {
            format!("node {holder} has the service,")
        }),
        format!("epoch {},", pair.epoch),
        match pair.partner_runs {
            true => format!("node {} runs", pair.partner),
            false => format!("node {} does not run", pair.partner),
        },
    ]];
    let since = UNIX_EPOCH + Duration::from_secs(pair.in_step_since_unix_seconds);
    let for_so_long = SystemTime::now().duration_since(since).unwrap_or_default();
    let for_so_long = length(for_so_long.as_secs_f64());
    lines.push(match (pair.in_step, pair.in_step_since_unix_seconds) {
        (true, _) => vec![format!("in step for {for_so_long}")],
        (false, 0) => vec!["not in step: no node ever served".to_owned()],
        (false, _) => vec![format!("NOT IN STEP for {for_so_long}")],
    });
    lines.extend(pair.link.as_ref().map(link_words));
    let head = "if this server died now:".to_owned();
    let words = pair.if_died.split(' ').map(str::to_owned);
    lines.push(std::iter::once(head).chain(words).collect());
    if let Some(trouble) = &pair.trouble {
        let words = trouble.split(' ').map(str::to_owned);
        lines.push(
            std::iter::once("trouble:".to_owned())
                .chain(words)
                .collect(),
        );
    }
    lines
}

fn link_words(link: &LinkStatus) -> Vec<String> {
    let last_frame = match link.heard_ms_ago {
        Some(ms) => format!("last frame {} ago", length(ms as f64 / 1e3)),
        None => "no frame received".to_owned(),
    };
    match link.is_connected {
        true => vec![
            "interconnect: connected,".to_owned(),
            match link.lag_bytes {
                Some(bytes) => format!("{} behind,", size(bytes)),
                None => "not compared yet,".to_owned(),
            },
            format!("{} us there and back,", link.round_trip_us),
            last_frame,
        ],
        false => {
            let why = link.problem.as_deref().unwrap_or("no node answers");
            let words = ["interconnect:", "NOT", "CONNECTED,"].into_iter();
            let words = words.map(str::to_owned).chain([format!("{last_frame}:")]);
            words.chain(why.split(' ').map(str::to_owned)).collect()
        }
    }
}

fn sandbox_words(sandbox: &str) -> Vec<String> {
    let sandbox = match sandbox {
        "" => "none: the worker's version has none",
        sandbox => sandbox,
    };
    let words = ["sandbox:"].into_iter().chain(sandbox.split(' '));
    words.map(str::to_owned).collect()
}

/// The meaning of the flag for a running server.
fn meaning(flag: &str) -> &'static str {
    match flag {
        "none" => "sessions end with the process",
        "non-elective-reboot" => "if it dies now, its successor resumes every session",
        "elective-reboot" => "it is ending; its successor resumes every session",
        "clean" => "it is ending its sessions",
        "elective-takeover" => "it is ending; the other node resumes every session",
        "non-elective-takeover" => "if it dies now, the other node resumes every session",
        _ => "unknown",
    }
}

fn last_outage(outage: &Outage, now: Duration) -> String {
    let ago = now.as_secs_f64() - outage.began_unix_seconds;
    format!(
        "last outage {} ago: {}, {}",
        length(ago),
        outage.cause,
        length(outage.seconds)
    )
}

fn log_words(log: &LogStatus, connections: &[ConnectionStatus]) -> Vec<String> {
    let percent = log.used_bytes * 100 / log.size_bytes.max(1);
    let (used, size) = (size(log.used_bytes), size(log.size_bytes));
    let mut words = vec![format!("log {used} of {size} in use ({percent} %)")];
    let largest = connections
        .iter()
        .max_by_key(|connection| connection.log_bytes);
    if let Some(largest) = largest {
        let user = largest.smb.user.as_deref().unwrap_or("not logged in");
        let bytes = self::size(largest.log_bytes);
        words.push(format!("most by {} ({user}):", largest.client));
        words.push(bytes);
    }
    words
}

/// Describes one connection.
pub(super) fn describe(connection: &ConnectionStatus, text: &mut String) {
    let ConnectionStatus {
        client,
        server,
        tcp,
        smb,
        log_bytes,
    } = connection;
    let srtt = tcp.srtt_us.map_or("-".to_owned(), |us| format!("{us} us"));
    let mut line = |words: &[String]| *text += &filled(words);
    line(&[client.to_string(), format!("-> {server}")]);
    line(&[
        format!("  smb  dialect {}", smb.dialect.as_deref().unwrap_or("-")),
        format!(" user {}", smb.user.as_deref().unwrap_or("-")),
        format!(" signing {}", smb.signing),
        format!(" encryption {}", smb.encryption),
        format!(" trees {}", smb.trees),
        format!(" opens {}", smb.opens),
        format!(" locks {}", smb.locks),
        format!(" state {}", size(smb.state_bytes)),
        format!(" log {}", size(*log_bytes)),
    ]);
    line(&[
        format!("  tcp  {}", tcp.state),
        format!(" snd_una {}", tcp.snd_una),
        format!(" snd_nxt {}", tcp.snd_nxt),
        format!(" snd_wnd {}", tcp.snd_wnd),
        format!(" rcv_nxt {}", tcp.rcv_nxt),
        format!(" rcv_wnd {}", tcp.rcv_wnd),
        format!(" unacked {} B", tcp.unacked_bytes),
        format!(" srtt {srtt}"),
        format!(" cwnd {} B", tcp.cwnd),
    ]);
}

/// Joins words by spaces, on lines that fit a terminal if possible; continued lines are indented.
fn filled(words: &[String]) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in words.iter().filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if column > 0 {
            let fits = column + 1 + length <= WIDTH;
            text += if fits { " " } else { INDENTED };
            column = if fits { column + 1 } else { INDENTED.len() - 1 };
        }
        text += word;
        column += length;
    }
    text + "\n"
}

/// A time for people.
pub(crate) fn length(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0 => format!("{:.1} ms", seconds.max(0.0) * 1e3),
        1..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests;
