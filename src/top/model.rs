//! What `outlast top` knows: the last two states of the server, and what follows from them.

use std::net::SocketAddr;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::control::{ActivityStatus, ConnectionStatus, Status};

/// What is heard at one moment.
#[derive(Debug)]
struct Sample {
    at: Duration,
    status: Status,
}

/// What the user wants.
#[derive(Debug, PartialEq)]
pub(super) enum Wish {
    Leave,
    /// To drop the connection of this client.
    Disconnect(String),
}

/// How fast a connection is, in bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    /// RCV.NXT moves so fast.
    pub received: f64,
    /// SND.UNA moves so fast.
    pub acknowledged: f64,
}

/// What the server did in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pace {
    /// How often it saved state, at each of the four points.
    pub points: [f64; 4],
    pub commits: f64,
    pub received_bytes: f64,
    pub sent_bytes: f64,
}

/// What is shown.
#[derive(Debug, Default)]
pub(super) struct Model {
    now: Option<Sample>,
    before: Option<Sample>,
    /// The server does not answer, and why.
    silence: Option<String>,
    selected: usize,
    /// It is asked whether this client is to be dropped.
    asked: Option<SocketAddr>,
    /// What came of the last wish.
    said: String,
}

impl Model {
    /// Takes an answer of the server's, or the reason why there is none.
    pub fn hear(&mut self, answer: Result<Status, String>, at: Duration) {
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

    /// Shows what came of a wish.
    pub fn say(&mut self, text: String) {
        self.said = text;
    }

    /// The state of the server as it was heard last.
    pub fn status(&self) -> Option<&Status> {
        self.now.as_ref().map(|sample| &sample.status)
    }

    /// Its connections.
    pub fn connections(&self) -> &[ConnectionStatus] {
        self.status().map_or(&[], |status| &status.connections)
    }

    /// The number of the connection that is selected.
    pub fn selected(&self) -> usize {
        self.selected
    }

    /// Why the server does not answer, if it does not.
    pub fn silence(&self) -> Option<&str> {
        self.silence.as_deref()
    }

    /// The last line.
    pub fn prompt(&self) -> String {
        match (&self.asked, self.said.as_str()) {
            (Some(client), _) => format!("disconnect {client}? y: yes, any other key: no"),
            (None, "") => "q: leave   up, down: select   d: disconnect the selected client".into(),
            (None, said) => said.to_owned(),
        }
    }

    /// How fast a connection of now is.
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

    /// What the server does in a second.
    pub fn pace(&self) -> Pace {
        let (Some(now), Some((before, seconds))) = (self.status(), self.before()) else {
            return Pace::default();
        };
        // Counts begin anew when the server was ended and started.
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

    /// The state before, and how many seconds lie between.
    fn before(&self) -> Option<(&Status, f64)> {
        let (now, before) = (self.now.as_ref()?, self.before.as_ref()?);
        let seconds = now.at.saturating_sub(before.at).as_secs_f64();
        (seconds > 0.0).then_some((&before.status, seconds))
    }

    /// The user has pressed a key.
    pub fn press(&mut self, key: KeyEvent) -> Option<Wish> {
        self.said.clear();
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
