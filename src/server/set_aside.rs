//! Sets aside requests and objects that kill the worker repeatedly (law 5): a request is answered with an error, and an
//! object that cannot be folded or copied is dropped. Both are kept for the developer.
//!
//! Every signal counts: a request for which the kernel has no memory ends the worker by SIGKILL each time. Deaths count
//! only if the very same work was in progress at each of them, and no part of it was finished between two of them. So a
//! busy server that is killed often blames no request.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use log::{error, warn};
use outlast_nvram::{Contents, Handled, Kind, Log, codec};
use outlast_smb::{ATTEMPTS, Task};

use super::fault::{Point, Probe, When};
use super::files::FileSystem;
use super::fold::Replay;
use super::machine::Machine;
use super::record::Record;

/// Something that is not tried again, as a copy that holds no part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetAside {
    /// A request, as received.
    Request(Vec<u8>),
    /// A connection: its id, and its records, each as two lengths of four bytes, meta, data.
    Object(u64, Vec<u8>),
}

/// The kinds of operation on an object, for [`Handled`].
pub(super) mod doing {
    /// Its records are applied.
    pub const FOLD: u8 = 0;
    /// It is copied to the head of the log.
    pub const COPY: u8 = 1;
    /// The client's oldest message is processed.
    pub const MESSAGE: u8 = 2;
    /// A request that had to wait is processed.
    pub const PARKED: u8 = 3;
    /// An open is closed.
    pub const CLOSE: u8 = 4;
    /// An oplock break has timed out.
    pub const BREAK: u8 = 5;
}

/// Returns the [`Handled`] of a task.
pub(super) fn handled(task: Task) -> Handled {
    let (object, what) = match task {
        Task::Message(conn) => (conn, doing::MESSAGE),
        Task::Parked(conn, _) => (conn, doing::PARKED),
        Task::Close(conn, _) => (conn, doing::CLOSE),
        Task::Break(conn, _) => (conn, doing::BREAK),
    };
    Handled { object, what }
}

/// Returns whether the next death makes an object be set aside: its records are needed then.
pub(super) fn is_condemned(contents: &Contents) -> bool {
    let at = contents
        .handled
        .filter(|at| matches!(at.what, doing::FOLD | doing::COPY));
    let suspect = contents
        .suspect
        .filter(|suspect| Some(suspect.handled) == at);
    suspect.is_some_and(|suspect| u32::from(suspect.deaths) + 1 >= ATTEMPTS)
}

/// Counts a death during the operation `at`. If an object was being folded or copied, for the third time, its records
/// are taken out of the replay.
pub(super) fn condemned(log: &Log, at: Handled, replay: &mut Replay) -> Option<SetAside> {
    if !matches!(at.what, doing::FOLD | doing::COPY) {
        // Deaths during a request are counted with the request.
        return None;
    }
    let (object, deaths) = (at.object, log.count_death(at));
    warn!(
        "the worker died while it was folding or copying object {object}: {deaths} time(s) so far"
    );
    let is_client = |(of, record, _): &(u64, Record<'_>, _)| {
        *of == object && matches!(record, Record::Client { .. } | Record::Copy { .. })
    };
    // An object that belongs to no client is indispensable.
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

/// Records that an object is about to be folded, reopened or copied, so that it is known if this kills the worker.
pub(super) fn handle(probe: &mut dyn Probe, log: Option<&Log>, object: u64, what: u8) {
    probe.beat();
    if let Some(log) = log {
        log.handle(Some(Handled { object, what }));
    }
    probe.at(Point::Object, When::Before, &object.to_string());
}

impl<F: FileSystem> Machine<F> {
    /// Ends the object. Its client's next segment is answered with a reset (RFC 9293, section 3.10.7.1).
    pub(super) fn drop_object(&mut self, condemned: &SetAside) {
        if let SetAside::Object(object, _) = condemned {
            self.journal.put(*object, Kind::End, &Record::Closed, &[]);
        }
    }
}

/// Writes it to a file beside the NVRAM, for the developer, and logs that.
pub(super) fn keep(nvram: &Path, epoch: u64, number: usize, set_aside: &SetAside) {
    let (what, bytes) = match set_aside {
        SetAside::Request(bytes) => (
            format!("a request killed the worker {ATTEMPTS} times and is not tried again"),
            bytes,
        ),
        SetAside::Object(object, bytes) => (
            format!(
                "connection {object} could not be recovered or copied: it killed the worker {ATTEMPTS} times, and is \
                 dropped"
            ),
            bytes,
        ),
    };
    let mut name = nvram.as_os_str().to_owned();
    name.push(format!(".crash-{epoch}-{number}"));
    match write(Path::new(&name), bytes) {
        Ok(()) => error!(
            "{what}; report it together with the file {}",
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
