//! `outlast nvram show`: what a checkpoint holds, read only.

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
    deltas: usize,
    meta_bytes: usize,
    data_bytes: usize,
}

/// What is printed.
#[derive(Serialize)]
struct Shown {
    file: String,
    version: u32,
    flag: Flag,
    epoch: u32,
    recoveries: u32,
    instance: String,
    boot_id: String,
    records: usize,
    objects: Vec<Object>,
    /// What the records say.
    #[serde(flatten)]
    saved: Saved,
}

/// Prints what the file holds.
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
        ..
    } = contents;
    Ok(Shown {
        file: file.display().to_string(),
        version: superblock.version,
        flag: superblock.flag,
        epoch: superblock.epoch,
        recoveries: superblock.recoveries,
        instance: hex(&superblock.instance),
        boot_id: hex(&superblock.boot_id),
        records: records.len(),
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
            Kind::Snapshot => object.snapshots += 1,
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
        "{}: format {}, flag {}, epoch {}, recoveries {}\ninstance {}, boot {}, service time {:.3} s, ids up to {}",
        shown.file,
        shown.version,
        shown.flag,
        shown.epoch,
        shown.recoveries,
        shown.instance,
        shown.boot_id,
        shown.saved.service_time_seconds,
        shown.saved.ids_up_to
    );
    let _ = writeln!(
        text,
        "{} records of {} objects",
        shown.records,
        shown.objects.len()
    );
    for object in &shown.objects {
        let _ = writeln!(
            text,
            "\nobject {}: {} snapshots, {} deltas, {} B of records, {} B of data",
            object.object, object.snapshots, object.deltas, object.meta_bytes, object.data_bytes
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
