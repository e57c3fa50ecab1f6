//! Makes the picture as plain data: bytes against time, with the gaps, the retransmissions, and the begins and ends of
//! connections.

use std::time::Duration;

use super::connection::{Connection, Event, Point, Silence};
use super::words;

#[cfg(test)]
mod tests;

/// The largest number of gaps that are shown, the longest ones.
const GAPS_MAX: usize = 12;
/// The shortest gap, and its smallest ratio to the median silence, unless the user gives a length.
const GAP_MIN: Duration = Duration::from_millis(20);
const GAP_MEDIANS: u32 = 10;
/// The smallest number of silences for a meaningful median.
const SILENCES_FOR_A_MEDIAN: usize = 10;
/// The columns of a panel; the first and the last point of each column are kept.
const COLUMNS: usize = 900;
const COLUMNS_OF_DETAIL: usize = 120;
/// The largest number of gaps shown in detail, and their largest part of the whole time.
const DETAILS_MAX: usize = 8;
const DETAIL_PART: f64 = 0.03;
/// The part of the bytes below which a direction is not drawn.
const DIRECTION_PART: f64 = 0.02;
/// The part of the panel's width that a label needs for each character.
const LABEL_PART: f64 = 0.0075;
/// The largest number of rows of labels.
const ROWS_MAX: usize = 6;

/// A time-sequence picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// Its title.
    pub title: String,
    /// A line below it.
    pub subtitle: String,
    /// The whole time.
    pub whole: Panel,
    /// Short gaps, with some time before and after them.
    pub details: Vec<Panel>,
}

/// Lines in a window of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    /// Its title; that of the whole time is empty.
    pub title: String,
    /// Begin and end, in seconds since the capture's first segment.
    pub seconds: (f64, f64),
    /// The lowest and the highest offset.
    pub bytes: (f64, f64),
    /// The lines.
    pub lines: Vec<Line>,
    /// The gaps.
    pub gaps: Vec<Shade>,
    /// Retransmitted segments: seconds and offset.
    pub resent: Vec<(f64, f64)>,
    /// How connections began and ended.
    pub flags: Vec<Flag>,
}

/// The progress of one side of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The number of the connection, from zero.
    pub connection: usize,
    /// It is the server's stream.
    pub from_server: bool,
    /// Seconds and offset, both rising.
    pub points: Vec<(f64, f64)>,
}

/// A gap, shaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Shade {
    /// Begin and end.
    pub seconds: (f64, f64),
    /// Its label.
    pub label: String,
    /// The row of the label, from zero, so that labels do not overlap.
    pub row: usize,
}

/// A segment with SYN, FIN or RST.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// Its time.
    pub seconds: f64,
    /// The offset of the connection at that time.
    pub offset: f64,
    /// Its kind.
    pub event: Event,
    /// It is the beginning of another connection, or an unwanted end.
    pub is_bad: bool,
    /// Its label.
    pub label: String,
}

/// A silence to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Its time.
    pub silence: Silence,
    /// Its cause, if known.
    pub cause: Option<String>,
}

impl Gap {
    fn label(&self) -> String {
        let length = words::duration(self.silence.length());
        match &self.cause {
            Some(cause) => format!("{cause}: {length}"),
            None => length,
        }
    }
}

/// Returns the gaps of these connections: silences of at least this length, or, without one, those that stand out; at
/// most the longest dozen, in the order of time.
#[must_use]
pub fn gaps(connections: &[&Connection], at_least: Option<Duration>) -> Vec<Gap> {
    let end = connections
        .iter()
        .filter_map(|one| span(one))
        .map(|(_, end)| end)
        .max();
    let mut silences: Vec<Silence> = Vec::new();
    for one in connections {
        silences.extend(&one.silences);
        // The last silence has no end, unless the connection has ended.
        let open = end.and_then(|end| one.silence_until(end));
        silences.extend(open.filter(|_| !one.was_reset()));
    }
    silences.sort_by_key(Silence::length);
    let middle = silences
        .get(silences.len() / 2)
        .filter(|_| silences.len() >= SILENCES_FOR_A_MEDIAN);
    let median = middle.map_or(Duration::ZERO, Silence::length);
    let least = at_least.unwrap_or(GAP_MIN.max(median * GAP_MEDIANS));
    silences.retain(|silence| silence.length() >= least);
    let mut longest = silences.split_off(silences.len().saturating_sub(GAPS_MAX));
    longest.sort_by_key(|silence| silence.from);
    let gap = |silence| Gap {
        silence,
        cause: None,
    };
    longest.into_iter().map(gap).collect()
}

/// Returns the times of the first and last segment that are drawn.
fn span(connection: &Connection) -> Option<(Duration, Duration)> {
    let points = [&connection.to_client, &connection.to_server].into_iter();
    let points = points.flat_map(|stream| [stream.points.first(), stream.points.last()]);
    let points = points.flatten().map(|point| point.at);
    let marks = [connection.marks.first(), connection.marks.last()];
    let times = points.chain(marks.into_iter().flatten().map(|mark| mark.at));
    times.fold(None, |span, at| match span {
        None => Some((at, at)),
        Some((begin, end)) => Some((at.min(begin), at.max(end))),
    })
}

impl Picture {
    /// Makes the picture of connections that follow one another, with these gaps. `None`: they have no segment.
    #[must_use]
    pub fn of(title: &str, connections: &[&Connection], gaps: &[Gap]) -> Option<Picture> {
        let spans: Vec<_> = connections.iter().filter_map(|one| span(one)).collect();
        let begin = spans.iter().map(|(begin, _)| *begin).min()?;
        let end = spans.iter().map(|(_, end)| *end).max()?;
        let ends = gaps.iter().map(|gap| gap.silence.until);
        let end = ends.fold(end, Duration::max);
        let scene = Scene {
            connections,
            begin,
            drawn: drawn(connections),
        };
        let whole = scene.whole(end, gaps);
        let details = scene.details(&whole, gaps);
        Some(Picture {
            title: title.to_owned(),
            subtitle: subtitle(connections, end.saturating_sub(begin)),
            whole,
            details,
        })
    }
}

/// Returns the subtitle: one line about the connections.
fn subtitle(connections: &[&Connection], length: Duration) -> String {
    let bytes = connections.iter().map(|one| one.bytes()).sum();
    let syns: usize = connections.iter().map(|one| one.syns()).sum();
    let resets = connections.iter().filter(|one| one.was_reset()).count();
    let plural = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {one}s"),
    };
    format!(
        "{} in {}: {}, {} of the client, {}",
        words::bytes(bytes),
        words::duration(length),
        plural(connections.len(), "connection"),
        plural(syns, "SYN"),
        match resets {
            0 => "no RST".to_owned(),
            resets => format!("{resets} ended by RST"),
        }
    )
}

/// Returns the directions to draw: connection, and whether it is the server's.
fn drawn(connections: &[&Connection]) -> Vec<(usize, bool)> {
    let total = |from_server: bool| -> u64 {
        let bytes = connections
            .iter()
            .map(|one| stream_of(one, from_server).bytes());
        bytes.sum()
    };
    let least = (total(true).max(total(false)) as f64 * DIRECTION_PART) as u64;
    let directions: Vec<bool> = [true, false]
        .into_iter()
        .filter(|from_server| total(*from_server) >= least.max(1))
        .collect();
    let all = 0..connections.len();
    all.flat_map(|index| {
        directions
            .iter()
            .map(move |from_server| (index, *from_server))
    })
    .collect()
}

fn stream_of(connection: &Connection, from_server: bool) -> &super::connection::Stream {
    match from_server {
        true => &connection.to_client,
        false => &connection.to_server,
    }
}

struct Scene<'a> {
    connections: &'a [&'a Connection],
    begin: Duration,
    drawn: Vec<(usize, bool)>,
}

impl Scene<'_> {
    fn seconds(&self, at: Duration) -> f64 {
        at.as_secs_f64() - self.begin.as_secs_f64()
    }

    fn whole(&self, end: Duration, gaps: &[Gap]) -> Panel {
        // The picture of a single segment has a width, too.
        let seconds = (0.0, self.seconds(end).max(1e-6) * 1.02);
        let lines = self.lines(seconds, COLUMNS);
        let top = lines.iter().filter_map(|line| line.points.last());
        let top = top.map(|(_, offset)| *offset).fold(1.0, f64::max);
        let mut shades: Vec<Shade> = gaps.iter().map(|gap| self.shade(gap)).collect();
        arrange(&mut shades, seconds);
        Panel {
            title: String::new(),
            seconds,
            bytes: (0.0, top * 1.04),
            resent: self.resent(seconds, top, COLUMNS),
            lines,
            gaps: shades,
            flags: self.flags(),
        }
    }

    fn details(&self, whole: &Panel, gaps: &[Gap]) -> Vec<Panel> {
        let longest = (whole.seconds.1 - whole.seconds.0) * DETAIL_PART;
        let is_short = |gap: &&Gap| gap.silence.length().as_secs_f64() < longest;
        let short = gaps.iter().filter(is_short).take(DETAILS_MAX);
        short.map(|gap| self.detail(gap)).collect()
    }

    /// Makes the panel of a gap, with equal time before and after it.
    fn detail(&self, gap: &Gap) -> Panel {
        let shade = self.shade(gap);
        let (from, until) = shade.seconds;
        let seconds = (2.0 * from - until, 2.0 * until - from);
        let mut lines = self.lines(seconds, COLUMNS_OF_DETAIL);
        // The panel shows the direction that moves more.
        let rise = |line: &Line| match (line.points.first(), line.points.last()) {
            (Some(first), Some(last)) => last.1 - first.1,
            _ => 0.0,
        };
        lines.sort_by(|a, b| rise(b).total_cmp(&rise(a)));
        lines.truncate(1);
        let offsets = lines.iter().flat_map(|line| &line.points);
        let offsets = offsets.map(|(_, offset)| *offset);
        let low = offsets.clone().fold(f64::INFINITY, f64::min);
        let high = offsets.fold(low, f64::max);
        let margin = ((high - low) * 0.05).max(1.0);
        Panel {
            title: shade.label.clone(),
            seconds,
            bytes: (low - margin, high + margin),
            lines,
            gaps: vec![shade],
            ..Panel::default()
        }
    }

    fn shade(&self, gap: &Gap) -> Shade {
        Shade {
            seconds: (
                self.seconds(gap.silence.from),
                self.seconds(gap.silence.until),
            ),
            label: gap.label(),
            row: 0,
        }
    }

    fn lines(&self, seconds: (f64, f64), columns: usize) -> Vec<Line> {
        let line = |(connection, from_server): &(usize, bool)| {
            let one = self.connections[*connection];
            let points = &stream_of(one, *from_server).points;
            let points = self.thinned(points, seconds, columns);
            (!points.is_empty()).then_some(Line {
                connection: *connection,
                from_server: *from_server,
                points,
            })
        };
        self.drawn.iter().filter_map(line).collect()
    }

    /// Returns the points in this window of time, at most three for each column: the first and the last, and after an
    /// empty column the last offset before it, because the line is a step and not a slope.
    fn thinned(&self, points: &[Point], window: (f64, f64), columns: usize) -> Vec<(f64, f64)> {
        let width = (window.1 - window.0) / columns as f64;
        let column = |seconds: f64| ((seconds - window.0) / width).floor();
        let fresh = points.iter().filter(|point| !point.is_resent);
        let mut fresh = fresh
            .map(|point| (self.seconds(point.at), point.offset as f64))
            .peekable();
        let mut thin: Vec<(f64, f64)> = Vec::new();
        while let Some((_, offset)) = fresh.next_if(|(seconds, _)| *seconds < window.0) {
            thin = vec![(window.0, offset)];
        }
        while let Some(point) = fresh.next_if(|(seconds, _)| *seconds <= window.1) {
            let is_in_column = |other: &(f64, f64)| column(other.0) == column(point.0);
            if let [.., before, last] = thin.as_mut_slice()
                && is_in_column(before)
                && is_in_column(last)
            {
                *last = point;
                continue;
            }
            if let Some(last) = thin.last()
                && column(last.0) + 1.0 < column(point.0)
            {
                let level = (point.0, last.1);
                thin.push(level);
            }
            thin.push(point);
        }
        if let (Some(last), Some(_)) = (thin.last(), fresh.next()) {
            let level = (window.1, last.1);
            thin.push(level);
        }
        thin
    }

    /// Returns the retransmissions, at most one in each cell of a grid.
    fn resent(&self, seconds: (f64, f64), top: f64, columns: usize) -> Vec<(f64, f64)> {
        let cell = |(at, offset): (f64, f64)| {
            let of = |part: f64| (part * columns as f64 / 4.0).floor();
            (
                of((at - seconds.0) / (seconds.1 - seconds.0)),
                of(offset / top),
            )
        };
        let mut all: Vec<(f64, f64)> = Vec::new();
        for (connection, from_server) in &self.drawn {
            let stream = stream_of(self.connections[*connection], *from_server);
            for point in stream.points.iter().filter(|point| point.is_resent) {
                let dot = (self.seconds(point.at), point.offset as f64);
                if all.last().is_none_or(|last| cell(*last) != cell(dot)) {
                    all.push(dot);
                }
            }
        }
        all
    }

    fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        for (index, one) in self.connections.iter().enumerate() {
            let mut is_closing = false;
            for mark in &one.marks {
                let side = if mark.from_server { "server" } else { "client" };
                let (is_bad, label) = match mark.event {
                    Event::Syn if mark.from_server => continue,
                    Event::Syn if index == 0 => (false, "SYN".to_owned()),
                    Event::Syn => (true, "new SYN".to_owned()),
                    Event::SynAgain => (true, "SYN again".to_owned()),
                    Event::Reset => (true, format!("RST from the {side}")),
                    // An end that the client has begun is wanted.
                    Event::Fin if is_closing => continue,
                    Event::Fin => (mark.from_server, format!("FIN from the {side}")),
                };
                is_closing |= mark.event == Event::Fin;
                flags.push(Flag {
                    seconds: self.seconds(mark.at),
                    offset: self.height(index, mark.at),
                    event: mark.event,
                    is_bad,
                    label,
                });
            }
        }
        flags
    }

    /// Returns the offset of the highest line of a connection at a time.
    fn height(&self, index: usize, at: Duration) -> f64 {
        let own = self
            .drawn
            .iter()
            .filter(|(connection, _)| *connection == index);
        let streams = own.map(|(_, from_server)| stream_of(self.connections[index], *from_server));
        let reached = streams.map(|stream| {
            let before = stream.points.partition_point(|point| point.at <= at);
            let points = stream.points[..before].iter();
            points.map(|point| point.offset).max().unwrap_or(0)
        });
        reached.max().unwrap_or(0) as f64
    }
}

/// Assigns to each label a row in which the preceding label does not overlap it.
fn arrange(shades: &mut [Shade], (begin, end): (f64, f64)) {
    let mut ends = [f64::NEG_INFINITY; ROWS_MAX];
    for shade in shades {
        let middle = (shade.seconds.0 + shade.seconds.1) / 2.0;
        let middle = (middle - begin) / (end - begin);
        let half = shade.label.chars().count() as f64 * LABEL_PART / 2.0;
        let free = ends.iter().position(|taken| *taken <= middle - half);
        shade.row = free.unwrap_or(ROWS_MAX - 1);
        ends[shade.row] = middle + half;
    }
}
