//! `outlast nvram show`: what a checkpoint holds, read only.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use outlast_nvram::{Contents, Kind, Log, Mapping, Replayed};
use serde::Serialize;

/// One object of the log.
#[derive(Default, Serialize)]
struct Object {
    object: u64,
    snapshots: usize,
    deltas: usize,
    meta_bytes: usize,
    data_bytes: usize,
    /// What its records say, where they can be read.
    content: Vec<String>,
}

/// What is printed.
#[derive(Serialize)]
struct Shown {
    file: String,
    version: u32,
    flag: &'static str,
    epoch: u32,
    recoveries: u32,
    instance: String,
    boot_id: String,
    service_time_seconds: f64,
    records: usize,
    objects: Vec<Object>,
}

/// Prints what the file holds. `describe` says what a record means, without secrets, if it can.
pub(super) fn show(
    file: &Path,
    json: bool,
    describe: impl Fn(&Replayed) -> Option<String>,
) -> anyhow::Result<()> {
    let memory = Mapping::open_read_only(file)?;
    let contents =
        Log::inspect(&memory).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    let shown = gather(file, &contents, describe);
    let text = if json {
        serde_json::to_string_pretty(&shown)? + "\n"
    } else {
        table(&shown)
    };
    super::status::print(&text)
}

fn gather(
    file: &Path,
    contents: &Contents,
    describe: impl Fn(&Replayed) -> Option<String>,
) -> Shown {
    let mut objects: BTreeMap<u64, Object> = BTreeMap::new();
    for record in &contents.records {
        let object = objects.entry(record.object).or_default();
        object.object = record.object;
        match record.kind {
            Kind::Snapshot => object.snapshots += 1,
            Kind::Delta => object.deltas += 1,
            Kind::End => {}
        }
        object.meta_bytes += record.meta.len();
        object.data_bytes += record.data.len();
        object.content.extend(describe(record));
    }
    let superblock = &contents.superblock;
    Shown {
        file: file.display().to_string(),
        version: superblock.version,
        flag: superblock.flag.name(),
        epoch: superblock.epoch,
        recoveries: superblock.recoveries,
        instance: hex(&superblock.instance),
        boot_id: hex(&superblock.boot_id),
        service_time_seconds: superblock.clock_anchor.as_secs_f64(),
        records: contents.records.len(),
        objects: objects.into_values().collect(),
    }
}

fn table(shown: &Shown) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{}: format {}, flag {}, epoch {}, recoveries {}\ninstance {}, boot {}, service time {:.3} s",
        shown.file,
        shown.version,
        shown.flag,
        shown.epoch,
        shown.recoveries,
        shown.instance,
        shown.boot_id,
        shown.service_time_seconds
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
        for line in &object.content {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
