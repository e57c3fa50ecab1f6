//! What kills the worker again and again is not tried for ever (law 5): a request is answered with an error, and an
//! object that cannot be folded or copied is dropped. Either is kept for the developer.
//!
//! It counts whatever the signal was: a request for which the kernel has no memory ends the worker by SIGKILL each time. What counts is
//! that it is the very same work at each of these deaths, and that none of it was done between two of them: so a server that is killed
//! often while it is busy does not blame anyone.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use log::{error, warn};
use outlast_nvram::{Contents, Handled, Kind, Log, codec};
use outlast_smb::{ATTEMPTS, Task};

use super::fault::{Point, When};
use super::files::FileSystem;
use super::fold::Replay;
use super::machine::Machine;
use super::record::Record;

/// What is not tried again. A copy: it must not hold the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetAside {
    /// A request, as it came.
    Request(Vec<u8>),
    /// A connection: its id, and its records, each as two lengths of four bytes, meta, data.
    Object(u64, Vec<u8>),
}

/// What may be done to an object, as [`Handled`] has it.
pub(super) mod doing {
    /// Its records are applied.
    pub const FOLD: u8 = 0;
    /// It is written again at the head of the log.
    pub const COPY: u8 = 1;
    /// The client's oldest message is worked on.
    pub const MESSAGE: u8 = 2;
    /// A request that had to wait is worked on.
    pub const PARKED: u8 = 3;
    /// An open is closed.
    pub const CLOSE: u8 = 4;
    /// An oplock break has timed out.
    pub const BREAK: u8 = 5;
}

/// What this is called for a task, as [`doing`] has it.
pub(super) fn handled(task: Task) -> Handled {
    let (object, what) = match task {
        Task::Message(conn) => (conn, doing::MESSAGE),
        Task::Parked(conn, _) => (conn, doing::PARKED),
        Task::Close(conn, _) => (conn, doing::CLOSE),
        Task::Break(conn, _) => (conn, doing::BREAK),
    };
    Handled { object, what }
}

/// Whether the next death that is counted condemns an object: its records are needed then.
pub(super) fn is_condemned(contents: &Contents) -> bool {
    let at = contents
        .handled
        .filter(|at| matches!(at.what, doing::FOLD | doing::COPY));
    let suspect = contents
        .suspect
        .filter(|suspect| Some(suspect.handled) == at);
    suspect.is_some_and(|suspect| u32::from(suspect.deaths) + 1 >= ATTEMPTS)
}

/// The worker before died while it was at this. If it was folding or copying an object, and that for the third time, the object's records
/// are taken out of the replay.
pub(super) fn condemned(log: &Log, at: Handled, replay: &mut Replay) -> Option<SetAside> {
    if !matches!(at.what, doing::FOLD | doing::COPY) {
        // Deaths of a request are counted with the request.
        return None;
    }
    let (object, deaths) = (at.object, log.count_death(at));
    warn!("the worker died while it was at object {object}: {deaths} time(s) so far");
    let is_client = |(of, record, _): &(u64, Record<'_>, _)| {
        *of == object && matches!(record, Record::Client { .. } | Record::Copy { .. })
    };
    // What belongs to no client cannot be done without.
    if u32::from(deaths) < ATTEMPTS || !replay.iter().any(is_client) {
        return None;
    }
    let mut bytes = Vec::new();
    for (_, record, data) in replay.extract_if(.., |(of, ..)| *of == object) {
        let mut meta = Vec::new();
        codec::encode(&record, &mut meta);
        for part in [&meta[..], &data[..]] {
            // A part of a record is no longer than 16 MiB.
            bytes.extend((part.len() as u32).to_le_bytes());
        }
        bytes.extend(meta);
        bytes.extend(&data[..]);
    }
    Some(SetAside::Object(object, bytes))
}

impl<F: FileSystem> Machine<F> {
    /// An object is about to be folded or copied: on record before it is done, for what kills the worker has to be
    /// known.
    pub(super) fn handle(&mut self, object: u64, what: u8) {
        self.probe.beat();
        self.journal.handle(Some(Handled { object, what }));
        self.probe
            .at(Point::Object, When::Before, &object.to_string());
    }

    /// The object is no more. Its client's next segment is answered with a reset (RFC 9293, section 3.10.7.1).
    pub(super) fn drop_object(&mut self, condemned: &SetAside) {
        if let SetAside::Object(object, _) = condemned {
            self.journal.put(*object, Kind::End, &Record::Closed, &[]);
        }
    }
}

/// Writes it beside the NVRAM, for the developer, and says so.
pub(super) fn keep(nvram: &Path, epoch: u64, number: usize, set_aside: &SetAside) {
    let (what, bytes) = match set_aside {
        SetAside::Request(bytes) => (
            format!("a request killed the worker {ATTEMPTS} times and is not tried again"),
            bytes,
        ),
        SetAside::Object(object, bytes) => (
            format!(
                "connection {object} could not be taken up or copied: it killed the worker {ATTEMPTS} times, and is dropped"
            ),
            bytes,
        ),
    };
    let mut name = nvram.as_os_str().to_owned();
    name.push(format!(".felled-{epoch}-{number}"));
    match write(Path::new(&name), bytes) {
        Ok(()) => error!(
            "{what}; report it with its bytes, which are in {}",
            name.display()
        ),
        Err(error) => warn!("{what}; {} cannot be written: {error}", name.display()),
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}
