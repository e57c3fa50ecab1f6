//! Draws the screen of `outlast top`.

use std::time::{SystemTime, UNIX_EPOCH};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, TableState};

use super::model::{Model, Pace};
use crate::cli::status::{length, size};
use crate::control::{ConnectionStatus, LogStatus, Outage, PairStatus, StandbyStatus, Status};

/// The number of returns that are shown.
const RETURNS: usize = 5;
/// The usage of the log, in percent, above which it is highlighted.
const FULL: u64 = 80;

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let head = head(model);
    let returns = returns(model);
    let layout = Layout::vertical([
        Constraint::Length(u16::try_from(head.len()).unwrap_or(u16::MAX)),
        Constraint::Length(u16::try_from(returns.len()).unwrap_or(u16::MAX)),
        Constraint::Min(3),
        Constraint::Length(1),
    ]);
    let [top, middle, table, bottom] = layout.areas(frame.area());
    frame.render_widget(Paragraph::new(head), top);
    frame.render_widget(Paragraph::new(returns), middle);
    connections(frame, model, table);
    frame.render_widget(Line::from(model.prompt()).dim(), bottom);
}

fn head(model: &Model) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(why) = model.silence() {
        lines.push(Line::from(why.to_owned()).red());
    }
    let Some(status) = model.status() else {
        return lines;
    };
    lines.push(title(status));
    lines.extend(status.pair.as_ref().map(pair));
    lines.push(standby(status.standby.as_ref()));
    lines.extend(status.log.as_ref().map(log));
    let pace = model.pace();
    lines.push(points(pace));
    lines.push(traffic(pace));
    lines.extend(
        status
            .serves
            .trouble
            .iter()
            .map(|text| Line::from(text.clone()).red()),
    );
    lines
}

fn title(status: &Status) -> Line<'static> {
    let Status {
        serves,
        version,
        uptime_seconds,
        worker_pid,
        epoch,
        recoveries,
        ..
    } = status;
    Line::from(vec![
        serves.name.clone().bold(),
        Span::from(format!(
            " (Outlast {version})  up {}  worker {worker_pid}  epoch {epoch}  recoveries {recoveries}  {}",
            length(*uptime_seconds),
            serves.durability
        )),
    ])
}

fn pair(pair: &PairStatus) -> Line<'static> {
    let runs = if pair.partner_runs {
        "runs"
    } else {
        "does not run"
    };
    let text = format!(
        "node {}: {}, partner {} {runs}, ",
        pair.node, pair.role, pair.partner
    );
    let step = match pair.in_step {
        true => "in step".green(),
        false => "NOT IN STEP".red(),
    };
    Line::from(vec![Span::from(text), step])
}

fn standby(standby: Option<&StandbyStatus>) -> Line<'static> {
    match standby {
        Some(it) => Line::from(format!(
            "standby  worker {}, {} behind",
            it.pid,
            size(it.lag_bytes)
        )),
        None => Line::from("standby  none").yellow(),
    }
}

fn log(log: &LogStatus) -> Line<'static> {
    let percent = log.used_bytes * 100 / log.size_bytes.max(1);
    let fill = Span::from(format!("{percent:>3} % of {}", size(log.size_bytes)));
    let replay = format!(
        "   next replay: {} records, {}, {} deltas",
        log.replay_records,
        size(log.replay_bytes),
        log.replay_deltas
    );
    Line::from(vec![
        Span::from("log     "),
        if percent >= FULL { fill.red() } else { fill },
        Span::from(replay),
    ])
}

fn points(pace: Pace) -> Line<'static> {
    let points = pace.points.iter().enumerate();
    let points = points.map(|(n, rate)| format!("{} {rate:.0}/s", n + 1));
    let points: Vec<String> = points.collect();
    Line::from(format!(
        "points   {}   commits {:.0}/s",
        points.join("   "),
        pace.commits
    ))
}

fn traffic(pace: Pace) -> Line<'static> {
    let (received, sent) = (speed(pace.received_bytes), speed(pace.sent_bytes));
    Line::from(format!("frames   received {received}   sent {sent}"))
}

/// Formats a rate in bytes per second.
fn speed(bytes: f64) -> String {
    format!("{}/s", size(bytes as u64))
}

fn returns(model: &Model) -> Vec<Line<'static>> {
    let returns = model.status().map_or(&[][..], |status| &status.returns);
    if returns.is_empty() {
        return Vec::new();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    let shown = returns.iter().take(RETURNS).map(|it: &Outage| {
        let ago = length(now - it.began_unix_seconds);
        format!("{} after {} ({ago} ago)", length(it.seconds), it.cause)
    });
    let head = [Line::from("returns")];
    head.into_iter()
        .chain(shown.map(|text| Line::from(format!("         {text}"))))
        .collect()
}

/// Titles and widths of the columns.
const COLUMNS: [(&str, u16); 11] = [
    ("CLIENT", 21),
    ("USER", 12),
    ("DIALECT", 7),
    ("IN", 10),
    ("OUT", 10),
    ("SND_UNA", 10),
    ("RCV_NXT", 10),
    ("UNACKED", 9),
    ("WINDOW", 9),
    ("OPENS", 5),
    ("LOCKS", 5),
];

fn connections(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let rows = model
        .connections()
        .iter()
        .map(|connection| row(model, connection));
    let title = format!(" connections {} ", model.connections().len());
    let widths = COLUMNS.map(|(_, width)| Constraint::Length(width));
    let header = Row::new(COLUMNS.map(|(title, _)| title)).style(Style::new().bold());
    let table = Table::new(rows, widths)
        .header(header)
        .row_highlight_style(Style::new().reversed())
        .block(Block::bordered().title(title));
    let mut state = TableState::new().with_selected(Some(model.selected()));
    frame.render_stateful_widget(table, area, &mut state);
}

fn row(model: &Model, connection: &ConnectionStatus) -> Row<'static> {
    let ConnectionStatus {
        client, tcp, smb, ..
    } = connection;
    let rate = model.rate(connection);
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let cells = [
        client.to_string(),
        or_dash(&smb.user),
        or_dash(&smb.dialect),
        speed(rate.received),
        speed(rate.acknowledged),
        tcp.snd_una.to_string(),
        tcp.rcv_nxt.to_string(),
        size(tcp.unacked_bytes),
        size(tcp.snd_wnd.into()),
        smb.opens.to_string(),
        smb.locks.to_string(),
    ];
    Row::new(cells.map(Cell::from))
}
