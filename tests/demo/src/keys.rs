//! Reads keys of a terminal as they are pressed.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::stdin;
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// The terminal of standard input, which does not wait for the end of a line and does not show what is typed.
pub struct Keys {
    before: Option<Termios>,
}

impl Keys {
    /// Without a terminal no key is ever pressed.
    pub fn new() -> Keys {
        let before = isatty(stdin()).then(|| tcgetattr(stdin()).ok()).flatten();
        if let Some(before) = &before {
            let mut modes = before.clone();
            modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            // If it fails, a key counts with the end of its line.
            let _ = tcsetattr(stdin(), OptionalActions::Now, &modes);
        }
        Keys { before }
    }

    /// Returns whether there is a terminal.
    pub fn are_there(&self) -> bool {
        self.before.is_some()
    }

    /// Waits this long for a key.
    pub fn next(&self, limit: Duration) -> Option<char> {
        if !self.are_there() {
            std::thread::sleep(limit);
            return None;
        }
        let limit = Timespec::try_from(limit).ok()?;
        let ready = poll(&mut [PollFd::new(&stdin(), PollFlags::IN)], Some(&limit));
        if !ready.is_ok_and(|count| count > 0) {
            return None;
        }
        let mut byte = [0];
        match rustix::io::read(stdin(), &mut byte).map_err(io::Error::from) {
            Ok(1) => Some(char::from(byte[0])),
            _ => None,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}
