//! Crashes on demand, at the four points, for tests of recovery.
//!
//! The environment variable `OUTLAST_FAULT` names a file with one line `point:when:operation:count`, such as
//! `2:before:create:3` (`*` for any operation). The third time that a create reaches point 2, the file is removed and
//! the worker ends by SIGKILL, as if the machine had stopped there. With `:abort` at the end of the line it ends by its
//! own fault (SIGABRT) instead, and the file stays, so every later worker that gets there ends too. With `:kill` each
//! of them ends by SIGKILL, as by the kernel's when memory is short; with `:spin` one loops there, until its supervisor
//! ends it. `object:before:7:1:abort` ends each worker that begins to fold or to copy object 7 of the log. Without the
//! variable nothing happens.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::supervisor::pulse::Heart;

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

/// An observer that is called at every point. The simulator counts them; [`Armed`] ends the process at one.
pub trait Probe {
    /// The server is at `point`, before or after its commit, for `operation`.
    fn at(&mut self, point: Point, when: When, operation: &str);
    /// The loop has completed a turn, or a recovery has progressed.
    fn beat(&mut self) {}
    /// The gates are open.
    fn serve(&mut self) {}
    /// A file operation, or a wait for a medium, begins or has ended.
    fn at_disk(&mut self, yes: bool) {
        let _ = yes;
    }
}

/// Reports the progress of the loop to the supervisor too.
pub struct Watched {
    /// The probe for the points.
    pub probe: Box<dyn Probe>,
    /// The counter that the supervisor watches.
    pub heart: Heart,
}

impl Probe for Watched {
    fn at(&mut self, point: Point, when: When, operation: &str) {
        self.probe.at(point, when, operation);
    }

    fn beat(&mut self) {
        self.heart.beat();
    }

    fn serve(&mut self) {
        self.heart.serve();
    }

    fn at_disk(&mut self, yes: bool) {
        self.heart.at_disk(yes);
    }
}

/// A probe that does nothing.
#[derive(Debug)]
pub struct Unarmed;

impl Probe for Unarmed {
    fn at(&mut self, _: Point, _: When, _: &str) {}
}

/// A probe that ends or blocks the process at one point.
#[derive(Debug)]
pub struct Armed {
    file: PathBuf,
    point: Point,
    when: When,
    operation: String,
    remaining: u32,
    action: Action,
}

/// What happens at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The process is killed (SIGKILL) the first time.
    KillOnce,
    /// It loops without end the first time.
    SpinOnce,
    /// It is killed each time.
    KillAlways,
    /// It aborts each time.
    AbortAlways,
}

/// Makes the probe that the environment asks for.
///
/// # Errors
/// The file named by `OUTLAST_FAULT` exists and is not of the form `point:when:operation:count[:abort|:kill|:spin]`.
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
            "{}: must be point:when:operation:count, such as 2:before:create:3, and :abort, :kill or :spin if so \
             wanted",
            file.display()
        )
    };
    let line = line.trim();
    let abort = line
        .strip_suffix(":abort")
        .map(|line| (line, Action::AbortAlways));
    let kill = line
        .strip_suffix(":kill")
        .map(|line| (line, Action::KillAlways));
    let spin = line
        .strip_suffix(":spin")
        .map(|line| (line, Action::SpinOnce));
    let (line, action) = abort.or(kill).or(spin).unwrap_or((line, Action::KillOnce));
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
        action,
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
        if self.remaining > 0 {
            return;
        }
        let is_armed = match self.action {
            Action::AbortAlways => std::process::abort(),
            Action::KillAlways => true,
            // The next worker must not find the file.
            Action::KillOnce | Action::SpinOnce => std::fs::remove_file(&self.file).is_ok(),
        };
        if is_armed && self.action == Action::SpinOnce {
            loop {
                std::hint::spin_loop();
            }
        }
        if is_armed {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
    }
}
