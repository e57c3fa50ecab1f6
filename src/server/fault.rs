//! Crashes on demand, at the four points: what the tests of recovery arm.
//!
//! The environment variable `OUTLAST_FAULT` names a file that holds one line `point:when:operation:count`, such as
//! `2:before:create:3` (`*` for any operation). The third time a create comes to point 2, the file is removed and
//! the worker ends by SIGKILL, as if the machine had stopped there. With `:abort` at the end of the line it falls by its own fault
//! (SIGABRT) instead, and the file stays: so does every worker after it that comes there. `object:before:7:1:abort`
//! ends each worker that begins to fold or to copy object 7 of the log. Without the variable nothing is looked at.

use std::path::PathBuf;

use anyhow::{Context, bail};

/// A place where a test may end the worker: one of the four points at which state is saved (see
/// `docs/four-points.md`), or an object of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Received bytes, before TCP acknowledges them.
    One,
    /// The intent of an operation, before it is done.
    Two,
    /// The result and the reply, before it is sent.
    Three,
    /// SND.UNA, after the client acknowledged the reply.
    Four,
    /// Before an object is folded or copied; the operation is its id.
    Object,
}

/// Before or after the commit at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The records are appended, not committed.
    Before,
    /// The records are committed, nothing else has been done.
    After,
}

/// Told of every point the server passes. The simulator counts them; [`Armed`] ends the process at one.
pub trait Probe {
    /// The server is at `point`, before or after its commit, for `operation`.
    fn at(&mut self, point: Point, when: When, operation: &str);
}

/// Nothing happens at any point.
#[derive(Debug)]
pub struct Unarmed;

impl Probe for Unarmed {
    fn at(&mut self, _: Point, _: When, _: &str) {}
}

/// Ends the process at one point.
#[derive(Debug)]
pub struct Armed {
    file: PathBuf,
    point: Point,
    when: When,
    operation: String,
    remaining: u32,
    abort: bool,
}

/// The probe the environment asks for.
///
/// # Errors
/// The file named by `OUTLAST_FAULT` exists and is not of the form `point:when:operation:count[:abort]`.
pub fn from_environment() -> anyhow::Result<Box<dyn Probe>> {
    let Some(file) = std::env::var_os("OUTLAST_FAULT").map(PathBuf::from) else {
        return Ok(Box::new(Unarmed));
    };
    let line = match std::fs::read_to_string(&file) {
        Ok(line) => line,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Box::new(Unarmed)),
        Err(error) => {
            return Err(error).with_context(|| format!("{}: cannot be read", file.display()));
        }
    };
    let wrong = || {
        format!(
            "{}: must be point:when:operation:count, such as 2:before:create:3, and :abort if so wanted",
            file.display()
        )
    };
    let line = line.trim();
    let (line, abort) = match line.strip_suffix(":abort") {
        Some(line) => (line, true),
        None => (line, false),
    };
    let [point, when, operation, count] = line.split(':').collect::<Vec<_>>()[..] else {
        bail!(wrong())
    };
    let point = match point {
        "1" => Point::One,
        "2" => Point::Two,
        "3" => Point::Three,
        "4" => Point::Four,
        "object" => Point::Object,
        _ => bail!(wrong()),
    };
    let when = match when {
        "before" => When::Before,
        "after" => When::After,
        _ => bail!(wrong()),
    };
    let remaining = count.parse().with_context(wrong)?;
    Ok(Box::new(Armed {
        operation: operation.to_owned(),
        file,
        point,
        when,
        remaining,
        abort,
    }))
}

impl Probe for Armed {
    fn at(&mut self, point: Point, when: When, operation: &str) {
        if point != self.point
            || when != self.when
            || (self.operation != "*" && self.operation != operation)
        {
            return;
        }
        self.remaining = self.remaining.saturating_sub(1);
        if self.remaining == 0 && self.abort {
            std::process::abort();
        }
        // a fault fires once: the next worker must not find it armed
        if self.remaining == 0 && std::fs::remove_file(&self.file).is_ok() {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
    }
}
