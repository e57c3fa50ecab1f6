//! What kills the worker again and again is not tried for ever (law 5): a request is answered with an error, and an
//! object that cannot be folded or copied is dropped. Either is kept for the developer.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use log::{error, warn};
use outlast_nvram::{Kind, Log, Suspect, codec};
use outlast_smb::ATTEMPTS;

use super::fault::{Point, When};
use super::files::FileSystem;
use super::machine::Machine;
use super::record::Record;
use super::recover::Replay;

/// What is not tried again. A copy: it must not hold the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetAside {
    /// A request, as it came.
    Request(Vec<u8>),
    /// A connection: its id, and its records, each as two lengths of four bytes, meta, data.
    Object(u64, Vec<u8>),
}

/// The worker before died by its own fault, perhaps while it was folding or copying an object. At the third time that
/// object's records are taken out of the replay.
pub(super) fn condemned(log: &Log, felled: bool, replay: &mut Replay) -> Option<SetAside> {
    if !felled {
        // It was killed: nothing is known of what it was at.
        log.handle(None);
        return None;
    }
    let Suspect { object, deaths } = log.count_death()?;
    warn!(
        "the worker died by its own fault while it was at object {object}: {deaths} time(s) so far"
    );
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
    pub(super) fn handle(&mut self, object: u64) {
        self.journal.handle(Some(object));
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
