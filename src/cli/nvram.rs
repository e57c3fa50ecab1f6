//! `outlast nvram show`: prints the content of a checkpoint file, read-only.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::anyhow;
use outlast_nvram::{Contents, Flag, Kind, Log, Mapping, Replayed};
use serde::Serialize;

use crate::server::contents::{self, Saved};

/// What one object takes in the log.
#[derive(Default, Serialize)]
struct Object {
    object: u64,
    snapshots: usize,
    /// Records of its snapshot after the first.
    parts: usize,
    deltas: usize,
    meta_bytes: usize,
    data_bytes: usize,
}

/// The printed data.
#[derive(Serialize)]
struct Shown {
    file: String,
    version: u32,
    flag: Flag,
    epoch: u32,
    recoveries: u32,
    instance: String,
    host_id: String,
    boot_id: String,
    /// Records from tail to head, of which `records` are live.
    walked: u64,
    records: usize,
    /// The object that a worker was folding or copying when it ended.
    handled: Option<u64>,
    /// The object during whose handling workers died, and their number.
    suspect: Option<(u64, u8)>,
    objects: Vec<Object>,
    /// The decoded records.
    #[serde(flatten)]
    saved: Saved,
}

/// Prints the content of the file.
pub(super) fn show(file: &Path, json: bool) -> anyhow::Result<()> {
    let memory = Mapping::open_read_only(file)?;
    let contents = Log::inspect(&memory).map_err(|error| anyhow!("{}: {error}", file.display()))?;
    let shown = gather(file, contents).map_err(|error| anyhow!("{}: {error:#}", file.display()))?;
    let text = if json {
        serde_json::to_string_pretty(&shown)? + "\n"
    } else {
        table(&shown)
    };
    super::status::print(&text)
}

fn gather(file: &Path, contents: Contents) -> anyhow::Result<Shown> {
    let Contents {
        superblock,
        records,
        walked,
        handled,
        suspect,
        ..
    } = contents;
    Ok(Shown {
        file: file.display().to_string(),
        version: superblock.version,
        flag: superblock.flag,
        epoch: superblock.epoch,
        recoveries: superblock.recoveries,
        instance: hex(&superblock.instance),
        host_id: hex(&superblock.incarnation.host),
        boot_id: hex(&superblock.incarnation.boot),
        walked,
        records: records.len(),
        handled: handled.map(|handled| handled.object),
        suspect: suspect.map(|suspect| (suspect.handled.object, suspect.deaths)),
        objects: objects(&records),
        saved: contents::saved(records)?,
    })
}

fn objects(records: &[Replayed]) -> Vec<Object> {
    let mut objects: BTreeMap<u64, Object> = BTreeMap::new();
    for record in records {
        let object = objects.entry(record.object).or_default();
        object.object = record.object;
        match record.kind {
            Kind::Snapshot | Kind::Begin => object.snapshots += 1,
            Kind::Part | Kind::Complete => object.parts += 1,
            Kind::Delta => object.deltas += 1,
            // An ended object is not read back.
            Kind::End => {}
        }
        object.meta_bytes += record.meta.len();
        object.data_bytes += record.data.len();
    }
    objects.into_values().collect()
}

fn table(shown: &Shown) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{}: format {}, flag {}, epoch {}, recoveries {}\ninstance {}, host {}, boot {}, service time {:.3} s, ids \
         up to {}",
        shown.file,
        shown.version,
        shown.flag,
        shown.epoch,
        shown.recoveries,
        shown.instance,
        shown.host_id,
        shown.boot_id,
        shown.saved.service_time_seconds,
        shown.saved.ids_up_to
    );
    let _ = writeln!(
        text,
        "{} live records of {} objects, of {} in the log",
        shown.records,
        shown.objects.len(),
        shown.walked
    );
    if let Some(object) = shown.handled {
        let _ = writeln!(text, "object {object} is being recovered, served or copied");
    }
    if let Some((object, deaths)) = shown.suspect {
        let _ = writeln!(
            text,
            "object {object} has killed {deaths} worker(s) in a row"
        );
    }
    for object in &shown.objects {
        let _ = writeln!(
            text,
            "\nobject {}: {} snapshots with {} parts, {} deltas, {} B of records, {} B of data",
            object.object,
            object.snapshots,
            object.parts,
            object.deltas,
            object.meta_bytes,
            object.data_bytes
        );
        let client = shown
            .saved
            .clients
            .iter()
            .find(|client| client.object == object.object);
        let Some(client) = client else { continue };
        match &client.connection {
            Some(connection) => super::status::describe(connection, &mut text),
            None => text.push_str("no connection any more; its files are still to be closed\n"),
        }
        for open in &client.open_files {
            let user = open.user.as_deref().unwrap_or("(guest)");
            let _ = writeln!(
                text,
                "  open {:?} by {user}, access {:#010x}",
                open.path, open.granted_access
            );
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
