//! Runs the client's load.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::silence::Progress;
use super::support::raw::{self, Client, FileId};

/// READs and WRITEs: their size, the MessageIds they take, the number in progress, and the part of the file that they
/// cover.
const IO_BYTES: u32 = 1 << 20;
const IO_CHARGE: u16 = 16;
const IO_DEPTH: usize = 4;
pub const FILE_BYTES: u64 = 64 << 20;

/// FILE_READ_DATA, FILE_WRITE_DATA and similar rights; opens an existing file, or makes it.
pub const ACCESS: u32 = 0x0012_019F;
pub const OPEN_IF: u32 = 3;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing; an ECHO just after the event.
    Idle,
    /// CREATE, WRITE, READ and CLOSE of 512 bytes, one request at a time.
    Small,
    /// READs of 1 MiB, four at a time.
    Download,
    /// WRITEs of 1 MiB, four at a time.
    Upload,
}

impl Load {
    pub const ALL: [Load; 4] = [Load::Idle, Load::Small, Load::Download, Load::Upload];

    pub fn progress(self) -> Progress {
        match self {
            Load::Upload => Progress::Acknowledgements,
            _ => Progress::Answers,
        }
    }

    /// Starts it on a logged-in connection, with an open file for reading or writing.
    pub fn start(self, mut client: Client, file: FileId) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let over = || stopped.load(Ordering::SeqCst);
            match self {
                Load::Idle => {}
                Load::Small => small(&mut client, over)?,
                Load::Download => stream(&mut client, over, |client, offset| {
                    let body = raw::read(file, offset, IO_BYTES);
                    client.charged(raw::READ, &body, IO_CHARGE)
                })?,
                Load::Upload => {
                    let data = vec![0x5A; IO_BYTES as usize];
                    stream(&mut client, over, |client, offset| {
                        let body = raw::write(file, offset, &data);
                        client.charged(raw::WRITE, &body, IO_CHARGE)
                    })?;
                }
            }
            Ok(client)
        });
        Running { stop, thread }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Load::Idle => "idle",
            Load::Small => "small requests",
            Load::Download => "download",
            Load::Upload => "upload",
        })
    }
}

/// A load under way.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Client>>,
}

impl Running {
    /// Returns whether it has ended by an error.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished() && !self.stop.load(Ordering::SeqCst)
    }

    /// Ends it, and returns the connection.
    pub fn stop(self) -> io::Result<Client> {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the load panicked")))
    }
}

fn small(client: &mut Client, over: impl Fn() -> bool) -> io::Result<()> {
    let create = raw::create("small", ACCESS, OPEN_IF, 0);
    let data = [0x77; 512];
    while !over() {
        let file = client.try_call(raw::CREATE, &create)?.well()?.file_id();
        let write = raw::write(file, 0, &data);
        client.try_call(raw::WRITE, &write)?.well()?;
        let read = raw::read(file, 0, 512);
        client.try_call(raw::READ, &read)?.well()?;
        client.try_call(raw::CLOSE, &raw::close(file))?.well()?;
    }
    Ok(())
}

fn stream(
    client: &mut Client,
    over: impl Fn() -> bool,
    request: impl Fn(&mut Client, u64) -> Vec<u8>,
) -> io::Result<()> {
    let (mut on_their_way, mut offset) = (0, 0);
    loop {
        while on_their_way < IO_DEPTH && !over() {
            let message = request(client, offset);
            client.send(&message)?;
            on_their_way += 1;
            offset = (offset + u64::from(IO_BYTES)) % FILE_BYTES;
        }
        if on_their_way == 0 {
            return Ok(());
        }
        let answer = client.receive()?;
        if answer.status != raw::STATUS_PENDING {
            answer.well()?;
            on_their_way -= 1;
        }
    }
}
