//! Holds the state of `outlast top`: the last two states of the server, and the values derived from them.

use std::net::SocketAddr;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::control::{ActivityStatus, ConnectionStatus, Status};

/// A state of the server, and its time.
#[derive(Debug)]
struct Sample {
    at: Duration,
    status: Status,
}

/// An action that the user requests.
#[derive(Debug, PartialEq)]
pub(super) enum Wish {
    Leave,
    /// Drop the connections of this client.
    Disconnect(String),
}

/// The rates of a connection, in bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    /// The rate of RCV.NXT.
    pub received: f64,
    /// The rate of SND.UNA.
    pub acknowledged: f64,
}

/// The server's activity per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pace {
    /// The rate at which it passed each of the four points.
    pub points: [f64; 4],
    pub commits: f64,
    pub received_bytes: f64,
    pub sent_bytes: f64,
}

/// The state to show.
#[derive(Debug, Default)]
pub(super) struct Model {
    now: Option<Sample>,
    before: Option<Sample>,
    /// The reason why the server does not answer, if it does not.
    silence: Option<String>,
    selected: usize,
    /// The client that is dropped if the user confirms.
    asked: Option<SocketAddr>,
    /// The result of the last action.
    result: String,
}

impl Model {
    /// Processes a state of the server, or the reason for its lack.
    pub fn update(&mut self, answer: Result<Status, String>, at: Duration) {
        match answer {
            Ok(status) if status.trouble.is_none() => {
                self.before = self.now.replace(Sample { at, status });
                self.silence = None;
                let last = self.connections().len().saturating_sub(1);
                self.selected = self.selected.min(last);
            }
            Ok(status) => self.silence = status.trouble,
            Err(why) => self.silence = Some(why),
        }
    }

    /// Shows the result of an action.
    pub fn show_result(&mut self, text: String) {
        self.result = text;
    }

    /// Returns the last state of the server.
    pub fn status(&self) -> Option<&Status> {
        self.now.as_ref().map(|sample| &sample.status)
    }

    /// Returns its connections.
    pub fn connections(&self) -> &[ConnectionStatus] {
        self.status().map_or(&[], |status| &status.connections)
    }

    /// Returns the index of the selected connection.
    pub fn selected(&self) -> usize {
        self.selected
    }

    /// Returns the reason why the server does not answer, if it does not.
    pub fn silence(&self) -> Option<&str> {
        self.silence.as_deref()
    }

    /// Returns the last line of the screen.
    pub fn prompt(&self) -> String {
        match (&self.asked, self.result.as_str()) {
            (Some(client), _) => format!("disconnect {client}? y: yes, any other key: no"),
            (None, "") => "q: leave   up, down: select   d: disconnect the selected client".into(),
            (None, result) => result.to_owned(),
        }
    }

    /// Returns the rates of a connection of the last state.
    pub fn rate(&self, connection: &ConnectionStatus) -> Rate {
        let Some((before, seconds)) = self.before() else {
            return Rate::default();
        };
        let is_same = |it: &&ConnectionStatus| {
            (it.client, it.server) == (connection.client, connection.server)
        };
        let Some(before) = before.connections.iter().find(is_same) else {
            return Rate::default();
        };
        // RFC 9293, section 3.4: sequence numbers wrap around.
        let moved = |now: u32, before: u32| f64::from(now.wrapping_sub(before)) / seconds;
        Rate {
            received: moved(connection.tcp.rcv_nxt, before.tcp.rcv_nxt),
            acknowledged: moved(connection.tcp.snd_una, before.tcp.snd_una),
        }
    }

    /// Returns the server's activity per second.
    pub fn pace(&self) -> Pace {
        let (Some(now), Some((before, seconds))) = (self.status(), self.before()) else {
            return Pace::default();
        };
        // Counts restart at zero when the server was ended and started.
        let per_second = |count: fn(&ActivityStatus) -> u64| {
            let more = count(&now.activity).saturating_sub(count(&before.activity));
            more as f64 / seconds
        };
        Pace {
            points: [
                per_second(|it| it.points[0]),
                per_second(|it| it.points[1]),
                per_second(|it| it.points[2]),
                per_second(|it| it.points[3]),
            ],
            commits: per_second(|it| it.commits),
            received_bytes: per_second(|it| it.received_bytes),
            sent_bytes: per_second(|it| it.sent_bytes),
        }
    }

    /// Returns the preceding state, and the seconds since then.
    fn before(&self) -> Option<(&Status, f64)> {
        let (now, before) = (self.now.as_ref()?, self.before.as_ref()?);
        let seconds = now.at.saturating_sub(before.at).as_secs_f64();
        (seconds > 0.0).then_some((&before.status, seconds))
    }

    /// Processes a key.
    pub fn press(&mut self, key: KeyEvent) -> Option<Wish> {
        self.result.clear();
        if let Some(client) = self.asked.take() {
            return (key.code == KeyCode::Char('y')).then(|| Wish::Disconnect(client.to_string()));
        }
        let last = self.connections().len().saturating_sub(1);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Wish::Leave),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Some(Wish::Leave);
            }
            KeyCode::Up => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down => self.selected = (self.selected + 1).min(last),
            KeyCode::Char('d') => {
                let selected = self.connections().get(self.selected);
                self.asked = selected.map(|connection| connection.client);
            }
            _ => {}
        }
        None
    }
}
