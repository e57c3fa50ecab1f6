//! Runs the commands of a client's machine on the server's shares, by system calls only:
//!
//! ```text
//! mount SHARE DIRECTORY OPTIONS  mounts a share; the options are the kernel's own (mount.cifs(8))
//! unmount DIRECTORY...
//! count TIMES FILE...        for each file a process that adds so many to the number in it, one by one, each under
//!                            a lock; they begin when all of them have opened theirs
//! copy FROM TO               reads the one and writes the other
//! wait-for-change DIRECTORY  waits until the server reports a change there
//! show FILE...               prints them
//! kernel-log                 prints what the kernel has logged
//! ```

use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// The largest single read or write of a client, in bytes.
const PIECE: usize = 1 << 20;

/// Runs one of these commands.
pub fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match act(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}: {error:#}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn act(words: &[&str]) -> anyhow::Result<()> {
    match words {
        // a password may have a space in it
        ["mount", share, directory, options @ ..] => {
            mount_share(share, directory, &options.join(" "))
        }
        ["unmount", directories @ ..] => directories
            .iter()
            .try_for_each(|path| unmount(*path, UnmountFlags::empty()).context(path.to_string())),
        ["count", times, file] => count(times.parse()?, file),
        ["count", times, files @ ..] => count_in_all(times, files),
        ["copy", from, to] => copy(from, to),
        ["wait-for-change", directory] => wait_for_change(directory),
        ["show", files @ ..] => files.iter().try_for_each(|file| {
            print!(
                "{}",
                std::fs::read_to_string(file).context(file.to_string())?
            );
            Ok(())
        }),
        ["kernel-log"] => show_kernel_log(),
        _ => bail!(
            "this is the first process of a virtual machine, and what it does there: scripts/vm-demo"
        ),
    }
}

fn mount_share(share: &str, directory: &str, options: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)?;
    let options = CString::new(options)?;
    mount(share, directory, "cifs", MountFlags::empty(), &*options)?;
    Ok(())
}

/// Counts in all of the files at the same time, in one process each. They open their files one after the other: this
/// client does not answer the break of an oplock that arrives before its own open is complete.
fn count_in_all(times: &str, files: &[&str]) -> anyhow::Result<()> {
    let mut children = Vec::new();
    for file in files {
        let mut child = Command::new("/proc/self/exe")
            .args(["count", times, file])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // the line that says that the file is open
        let output = child.stdout.as_mut().context("its output")?;
        output.read_exact(&mut [0])?;
        children.push(child);
    }
    for child in &mut children {
        drop(child.stdin.take());
    }
    for child in children {
        let outcome = child.wait_with_output()?;
        if !outcome.status.success() {
            bail!("{}", String::from_utf8_lossy(&outcome.stdout));
        }
    }
    Ok(())
}

/// Opens the file, reports that by a line, waits for the end of its input, and increments the number one at a time,
/// under a lock of the whole file: fcntl(2), F_SETLKW.
fn count(times: u32, path: &str) -> anyhow::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    println!();
    std::io::stdin().read_to_end(&mut Vec::new())?;
    (0..times).try_for_each(|_| step(&file))
}

fn step(file: &File) -> anyhow::Result<()> {
    rustix::fs::fcntl_lock(file, FlockOperation::LockExclusive).context("lock")?;
    let mut digits = [0; 20];
    let length = file.read_at(&mut digits, 0).context("read")?;
    let number: u64 = str::from_utf8(&digits[..length])?.trim().parse()?;
    let number = (number + 1).to_string();
    file.write_all_at(number.as_bytes(), 0).context("write")?;
    rustix::fs::fcntl_lock(file, FlockOperation::Unlock).context("unlock")
}

/// Copies through this machine, not within the server as copy_file_range(2) does.
fn copy(from: &str, to: &str) -> anyhow::Result<()> {
    let mut from = File::open(from)?;
    let mut to = File::create(to)?;
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).context("read")?;
        if length == 0 {
            return to.sync_all().context("fsync");
        }
        to.write_all(&piece[..length]).context("write")?;
    }
}

/// cifs sends a CHANGE_NOTIFY for its own ioctl, not for inotify(7): CIFS_IOC_NOTIFY with a `struct smb3_notify` of
/// fs/smb/client/cifs_ioctl.h.
fn wait_for_change(directory: &str) -> anyhow::Result<()> {
    #[repr(C, packed)]
    struct Notify {
        completion_filter: u32,
        watch_tree: bool,
    }
    // _IOW(0xCF, 9, struct smb3_notify)
    const CIFS_IOC_NOTIFY: libc::Ioctl = 0x4005_CF09;
    const FILE_NOTIFY_CHANGE_FILE_NAME: u32 = 1;
    let directory = File::open(directory)?;
    let mut notify = Notify {
        completion_filter: FILE_NOTIFY_CHANGE_FILE_NAME,
        watch_tree: false,
    };
    // SAFETY: the ioctl reads a structure of this form.
    let result = unsafe {
        libc::ioctl(
            directory.as_raw_fd(),
            CIFS_IOC_NOTIFY,
            std::ptr::from_mut(&mut notify),
        )
    };
    if result < 0 {
        return Err(std::io::Error::last_os_error()).context("CIFS_IOC_NOTIFY");
    }
    Ok(())
}

/// syslog(2).
fn show_kernel_log() -> anyhow::Result<()> {
    const SYSLOG_ACTION_READ_ALL: libc::c_int = 3;
    let mut log = vec![0_u8; 1 << 18];
    let length = libc::c_int::try_from(log.len())?;
    // SAFETY: the kernel writes at most `length` bytes there.
    let length = unsafe { libc::klogctl(SYSLOG_ACTION_READ_ALL, log.as_mut_ptr().cast(), length) };
    let length = usize::try_from(length).context("syslog")?;
    print!("{}", String::from_utf8_lossy(&log[..length]));
    Ok(())
}
