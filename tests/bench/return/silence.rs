//! Finds the longest silence of the server in a capture.

use std::time::Duration;

use super::support::timeline::{Frame, Segment, What};

/// The kind of progress of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bytes that it has never sent before: an answer, or more of one.
    Answers,
    /// An acknowledgement of bytes that it had not acknowledged before.
    Acknowledgements,
}

/// The beginning and the end of a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    pub from: Duration,
    pub until: Duration,
}

impl Silence {
    pub fn length(&self) -> Duration {
        self.until.saturating_sub(self.from)
    }
}

/// Returns whether `a` is behind `b` in sequence space (RFC 9293, section 3.4).
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// The server's segment in a frame, if it belongs to the connection.
fn of_server(what: &What, port: u16) -> Option<&Segment> {
    match what {
        What::Segment(segment) if segment.from_server && segment.client_port == port => {
            Some(segment)
        }
        _ => None,
    }
}

/// The times at which the server progressed with the client at `port`.
fn progress(frames: &[Frame], port: u16, which: Progress) -> Vec<Duration> {
    let mut reached: Option<u32> = None;
    let mut times = Vec::new();
    for frame in frames {
        let Some(segment) = of_server(&frame.what, port) else {
            continue;
        };
        let (from, to) = match which {
            Progress::Answers => (segment.seq, segment.seq.wrapping_add(segment.len)),
            Progress::Acknowledgements => (segment.ack, segment.ack),
        };
        // the position before the first is unknown
        let reached = reached.get_or_insert(from);
        if is_after(to, *reached) {
            *reached = to;
            times.push(frame.at);
        }
    }
    times
}

/// Returns whether the server progressed after that time.
pub fn has_progress(frames: &[Frame], port: u16, which: Progress, after: Duration) -> bool {
    progress(frames, port, which)
        .last()
        .is_some_and(|at| *at > after)
}

/// The longest silence that ends after `event`, of a client that waits for the server all the time.
pub fn longest(frames: &[Frame], port: u16, which: Progress, event: Duration) -> Option<Silence> {
    let times = progress(frames, port, which);
    times
        .windows(2)
        .map(|pair| Silence {
            from: pair[0],
            until: pair[1],
        })
        .filter(|silence| silence.until > event)
        .max_by_key(Silence::length)
}

/// The silence of a client that has asked at `from` and waits for the answer.
pub fn of_question(frames: &[Frame], port: u16, from: Duration) -> Option<Silence> {
    let times = progress(frames, port, Progress::Answers);
    let until = times.into_iter().find(|at| *at > from)?;
    Some(Silence { from, until })
}

/// The frames of a silence and of the time just before and after it, in milliseconds since `event`.
pub fn describe(frames: &[Frame], port: u16, event: Duration, silence: Silence) -> String {
    /// Lines before the silence's end, and after it.
    const BEFORE: usize = 40;
    const AFTER: usize = 12;
    let is_about = |frame: &&Frame| match &frame.what {
        What::Segment(segment) => segment.client_port == port,
        What::Other(..) => true,
    };
    let about: Vec<&Frame> = frames.iter().filter(is_about).collect();
    let begin = about.partition_point(|frame| frame.at < silence.from);
    let end = about.partition_point(|frame| frame.at < silence.until);
    let first = begin.saturating_sub(3).max(end.saturating_sub(BEFORE));
    let mut text = String::new();
    for frame in about.iter().skip(first).take(end - first + AFTER) {
        let ms = frame.at.as_secs_f64() * 1e3 - event.as_secs_f64() * 1e3;
        let line = match &frame.what {
            What::Segment(s) => format!(
                "{} seq {} len {} ack {} window {} flags {:02x}",
                if s.from_server { "server" } else { "client" },
                s.seq,
                s.len,
                s.ack,
                s.window,
                s.flags
            ),
            What::Other(ether_type, protocol) => {
                format!("EtherType {ether_type:04x} protocol {protocol}")
            }
        };
        text += &format!("  {ms:>10.3} {line}\n");
    }
    text
}
