//! Shows lines, and at a terminal one changing line below them. A recording has the content of a terminal, even without
//! one.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

#[cfg(test)]
mod tests;

/// Size of the terminal that a recording shows.
const COLUMNS: u16 = 110;
const ROWS: u16 = 36;
/// The largest rate at which the changing line is drawn, per second.
const DRAWN_HZ: u8 = 20;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// The destinations of lines.
pub struct Screen {
    /// Standard output, if it is not a terminal.
    plain: bool,
    /// The terminal, the recording.
    bars: Vec<ProgressBar>,
}

/// The changing line; another thread may draw it.
#[derive(Clone)]
pub struct Live(Vec<ProgressBar>);

impl Live {
    /// Shows this text.
    pub fn show(&self, text: &str) {
        for bar in &self.0 {
            bar.set_message(text.to_owned());
        }
    }
}

impl Screen {
    /// Shows on standard output, and records to this file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(record: Option<&Path>) -> anyhow::Result<Screen> {
        let is_terminal = io::stdout().is_terminal();
        let mut bars = Vec::new();
        if is_terminal {
            bars.push(bar(ProgressDrawTarget::stdout_with_hz(DRAWN_HZ)));
        }
        if let Some(path) = record {
            let recording = File::create(path)
                .and_then(|file| Recording::new(Box::new(file)))
                .with_context(|| format!("--record: {}", path.display()))?;
            bars.push(bar(ProgressDrawTarget::term_like_with_hz(
                Box::new(recording),
                DRAWN_HZ,
            )));
        }
        Ok(Screen {
            plain: !is_terminal,
            bars,
        })
    }

    /// Returns the changing line.
    pub fn live(&self) -> Live {
        Live(self.bars.clone())
    }

    fn line(&self, color: &str, text: &str) {
        if self.plain {
            println!("{text}");
        }
        let reset = if color.is_empty() { "" } else { PLAIN };
        for bar in &self.bars {
            bar.println(format!("{color}{text}{reset}"));
        }
    }

    /// Shows the title of a part.
    pub fn title(&self, text: &str) {
        self.line("", "");
        self.line(BOLD, text);
    }

    /// Shows a line.
    pub fn say(&self, text: &str) {
        self.line("", &format!("   {text}"));
    }

    /// Shows a fault.
    pub fn fault(&self, text: &str) {
        self.line(RED, &format!("   {text}"));
    }

    /// Shows a correct result.
    pub fn good(&self, text: &str) {
        self.line(GREEN, &format!("   ✓ {text}"));
    }

    /// Shows a wrong result.
    pub fn bad(&self, text: &str) {
        self.line(RED, &format!("   ✗ {text}"));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        for bar in &self.bars {
            bar.finish_and_clear();
        }
    }
}

fn bar(target: ProgressDrawTarget) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(None, target).with_style(style)
}

/// An asciinema recording (asciicast v2): a line of JSON about it, then one for each piece of output.
#[derive(Clone)]
struct Recording(Arc<Mutex<Tape>>);

struct Tape {
    to: BufWriter<Box<dyn io::Write + Send>>,
    begun: Instant,
    /// Output of the same moment is one piece.
    piece: String,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recording")
    }
}

impl Recording {
    fn new(to: Box<dyn io::Write + Send>) -> io::Result<Recording> {
        let mut to = BufWriter::new(to);
        let header = serde_json::json!({
            "version": 2, "width": COLUMNS, "height": ROWS, "title": "Outlast",
            "env": { "TERM": "xterm-256color" },
        });
        writeln!(to, "{header}")?;
        to.flush()?;
        Ok(Recording(Arc::new(Mutex::new(Tape {
            to,
            begun: Instant::now(),
            piece: String::new(),
        }))))
    }

    fn add(&self, text: &str) -> io::Result<()> {
        let mut tape = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tape.piece += text;
        Ok(())
    }

    fn moved(&self, count: usize, letter: char) -> io::Result<()> {
        match count {
            0 => Ok(()),
            _ => self.add(&format!("\x1b[{count}{letter}")),
        }
    }
}

impl TermLike for Recording {
    fn width(&self) -> u16 {
        COLUMNS
    }

    fn height(&self) -> u16 {
        ROWS
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(&format!("{text}\r\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let mut tape = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tape.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut tape.piece);
        let seconds = tape.begun.elapsed().as_secs_f64();
        let line = serde_json::json!([seconds, "o", piece]);
        writeln!(tape.to, "{line}")?;
        tape.to.flush()
    }
}
