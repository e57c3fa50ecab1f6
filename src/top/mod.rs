//! Implements `outlast top`: shows the running server on a terminal, updated twice a second.
//!
//! [`model`] holds the received states and the values derived from them, [`view`] draws them; [`run`] connects both to
//! the terminal. A thread requests the server's state, so that keys work while the server does not answer.

mod model;
#[cfg(test)]
mod tests;
mod view;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::control::{Command, Reply, Status, client};
use model::{Model, Wish};

/// The interval of requests.
const PACE: Duration = Duration::from_millis(500);
/// The longest wait for a key before new states are drawn.
const FRAME: Duration = Duration::from_millis(100);
/// The time within which the server must answer, even while a worker is replaced.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Shows the server that has this control socket, until the user leaves.
///
/// # Errors
/// No server is running, or standard output is no terminal.
pub fn run(control: &Path) -> anyhow::Result<()> {
    // A missing server is reported before the screen is changed.
    let first = ask(control)?;
    let mut terminal =
        ratatui::try_init().context("standard output is no terminal: use `outlast status`")?;
    let answers = listen(control.to_owned());
    let begun = Instant::now();
    let mut model = Model::default();
    model.update(Ok(first), begun.elapsed());
    let ended = loop {
        for answer in answers.try_iter() {
            model.update(answer, begun.elapsed());
        }
        let step = terminal
            .draw(|frame| view::draw(frame, &model))
            .map(|_| ())
            .and_then(|()| next_key(&mut model));
        match step {
            Ok(None) => {}
            Ok(Some(Wish::Leave)) => break Ok(()),
            Ok(Some(Wish::Disconnect(client))) => model.show_result(disconnect(control, client)),
            Err(error) => break Err(error),
        }
    };
    ratatui::restore();
    ended.context("the terminal")
}

fn next_key(model: &mut Model) -> std::io::Result<Option<Wish>> {
    if !event::poll(FRAME)? {
        return Ok(None);
    }
    Ok(match event::read()? {
        Event::Key(key) if key.kind == KeyEventKind::Press => model.press(key),
        _ => None,
    })
}

/// Requests the state repeatedly, until the receiver is dropped.
fn listen(control: PathBuf) -> mpsc::Receiver<Result<Status, String>> {
    let (answers, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(PACE);
            let answer = ask(&control).map_err(|error| error.to_string());
            if answers.send(answer).is_err() {
                return;
            }
        }
    });
    receiver
}

fn ask(control: &Path) -> Result<Status, client::Error> {
    match client::request(control, &Command::Status, TIMEOUT)? {
        Reply::Status(status) => Ok(*status),
        _ => Ok(Status::unknown()),
    }
}

/// Drops the connections of a client; returns a message for the user.
fn disconnect(control: &Path, client: String) -> String {
    let command = Command::Disconnect {
        client_or_user: client.clone(),
    };
    match client::request(control, &command, TIMEOUT) {
        Ok(Reply::Disconnected { connections: 0 }) => format!("{client} is not connected"),
        Ok(_) => format!("{client} was disconnected"),
        Err(error) => error.to_string(),
    }
}
