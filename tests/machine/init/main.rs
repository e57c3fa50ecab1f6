//! Runs as the first process of a machine that `tests/machine` boots. It loads the kernel's modules; its argument
//! says what else the machine is for. With `serve` it bridges the network card with a TAP, mounts the disk and runs
//! `outlast serve` there; with `serve ADDRESS NETMASK` the bridge also has an address. With `client ADDRESS NETMASK`
//! it gives the card an address. Then it obeys the commands that a virtio port brings, one a line:
//!
//! ```text
//! run PROGRAM ARGUMENT...    runs it; the answer is what it prints and `= EXIT-CODE`
//! threads                    the answer is where the server's threads are, and `= 0`
//! load KERNEL INITRAMFS      loads a kernel for the next boot, with this one's parameters
//! crash                      the kernel panics
//! poweroff                   the server is ended by SIGTERM, the disk unmounted, and off it goes
//! ```
//!
//! A client's machine runs the same program: see [`work`].

mod network;
mod work;

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process};
use rustix::system::RebootCommand;
use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::Signals;

/// Modules to load, in order: absolute paths, one a line.
const MODULES: &str = "/lib/modules/load";
const DISK: &str = "/dev/vda";
const MOUNT_POINT: &str = "/mnt";
/// The devices that are virtio ports: there is one.
const PORTS: &str = "/sys/class/virtio-ports";
/// How long a device may take to appear, and the server to end.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if std::process::id() != 1 {
        return work::run(&arguments);
    }
    if let Err(error) = run(&arguments) {
        println!("init: {error:#}");
    }
    // the kernel panics when its first process ends
    power_off();
    ExitCode::FAILURE
}

fn run(role: &[String]) -> anyhow::Result<()> {
    for (kind, target) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/run"),
    ] {
        mount(kind, target, kind, MountFlags::empty(), None)
            .with_context(|| format!("mount {target}"))?;
    }
    let mut signals = Signals::new([SIGCHLD])?;
    load_modules()?;
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    let server = match role[..] {
        ["serve"] => Some(serve(None)?),
        ["serve", address, netmask] => Some(serve(Some((address.parse()?, netmask.parse()?)))?),
        ["client", address, netmask] => {
            network::join(address.parse()?, netmask.parse()?).context("the network")?;
            None
        }
        _ => bail!("no such role: {role:?}"),
    };
    let port = port()?;
    std::thread::spawn(move || {
        if let Err(error) = obey(&port, server) {
            println!("init: its orders: {error}");
        }
    });
    for _ in signals.forever() {
        reap(server);
    }
    Ok(())
}

fn serve(address: Option<(Ipv4Addr, Ipv4Addr)>) -> anyhow::Result<Pid> {
    // Written back within a second or two instead of half a minute, so that more is on the medium when the power is
    // cut, and in more states.
    for (setting, centiseconds) in [("dirty_expire", "100"), ("dirty_writeback", "50")] {
        let path = format!("/proc/sys/vm/{setting}_centisecs");
        std::fs::write(&path, centiseconds).context(path)?;
    }
    network::bridge(address).context("the network")?;
    mount_disk()?;
    let server = Command::new("/bin/outlast")
        .args(["serve", "--config", "/etc/outlast.toml"])
        .env("RUST_LOG_STYLE", "never")
        .spawn()
        .context("outlast serve")?;
    Ok(Pid::from_child(&server))
}

fn load_modules() -> anyhow::Result<()> {
    for path in std::fs::read_to_string(MODULES).context(MODULES)?.lines() {
        let image = std::fs::read(path).context(path.to_owned())?;
        match rustix::system::init_module(&image, c"") {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => bail!("{path}: {error}"),
        }
    }
    Ok(())
}

/// Checks the file system first, as any machine does after a power cut.
fn mount_disk() -> anyhow::Result<()> {
    wait_for(DISK)?;
    let check = Command::new("/sbin/e2fsck").args(["-p", DISK]).output();
    let check = check.context("e2fsck")?;
    print!("{}", String::from_utf8_lossy(&check.stdout));
    // 1: errors corrected, or a journal replayed
    if !matches!(check.status.code(), Some(0 | 1)) {
        bail!(
            "e2fsck: {}: {}",
            check.status,
            String::from_utf8_lossy(&check.stderr)
        );
    }
    mount(DISK, MOUNT_POINT, "ext4", MountFlags::empty(), None)
        .with_context(|| format!("mount {DISK}"))
}

fn port() -> anyhow::Result<File> {
    let mut ports = std::fs::read_dir(PORTS).context(PORTS)?;
    let port = ports.next().context("there is no virtio port")??;
    wait_for(&format!("/dev/{}", port.file_name().display()))
}

/// Opens a device as soon as it exists.
fn wait_for(device: &str) -> anyhow::Result<File> {
    let begun = std::time::Instant::now();
    loop {
        match File::options().read(true).write(true).open(device) {
            Err(_) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result.context(device.to_owned()),
        }
    }
}

/// Exit codes of children that have not been queried yet.
static ENDED: Mutex<Option<HashMap<Pid, WaitStatus>>> = Mutex::new(None);
static END: Condvar = Condvar::new();

/// Set when the server has to end.
static LEAVING: AtomicBool = AtomicBool::new(false);

fn reap(server: Option<Pid>) {
    let mut ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if Some(pid) == server && !LEAVING.load(Ordering::SeqCst) {
            println!("init: outlast serve has ended: {:?}", status.exit_status());
        }
        ended.get_or_insert_default().insert(pid, status);
    }
    END.notify_all();
}

/// Waits until a child has ended.
fn ended(child: Pid, patience: Duration) -> Option<WaitStatus> {
    let ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut ended, _) = END
        .wait_timeout_while(ended, patience, |ended| {
            !ended.get_or_insert_default().contains_key(&child)
        })
        .unwrap_or_else(PoisonError::into_inner);
    ended.as_mut()?.remove(&child)
}

/// Runs the commands that arrive over the port.
fn obey(port: &File, server: Option<Pid>) -> io::Result<()> {
    let mut answers = port;
    loop {
        for line in BufReader::new(port).lines() {
            let line = line?;
            let mut words = line.split(' ');
            match words.next() {
                Some("run") => match execute(words) {
                    Ok((text, code)) => write!(answers, "{text}\n= {code}\n")?,
                    Err(error) => write!(answers, "{error}\n= 127\n")?,
                },
                Some("threads") => writeln!(answers, "{}= 0", threads())?,
                Some("load") => match load_kernel(words) {
                    Ok(()) => writeln!(answers, "= 0")?,
                    Err(error) => write!(answers, "{error:#}\n= 1\n")?,
                },
                Some("crash") => std::fs::write("/proc/sysrq-trigger", "c")?,
                Some("poweroff") => leave(server),
                _ => write!(answers, "no such command\n= 127\n")?,
            }
        }
        // nothing is connected at the other end; that cannot be waited for
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Loads a kernel and its initramfs, as `kexec -l` does: kexec_file_load(2).
fn load_kernel<'a>(mut paths: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
    let mut next = || {
        let path = paths.next().context("a kernel and an initramfs")?;
        File::open(path).context(path.to_owned())
    };
    let (kernel, initramfs) = (next()?, next()?);
    let parameters = std::fs::read_to_string("/proc/cmdline")?;
    let parameters = CString::new(parameters.trim_end())?;
    let flags: libc::c_ulong = 0;
    // SAFETY: the system call reads the two files, and the parameters with the zero at their end.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initramfs.as_raw_fd(),
            parameters.as_bytes_with_nul().len(),
            parameters.as_ptr(),
            flags,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error()).context("kexec_file_load");
    }
    Ok(())
}

/// The name of each thread of the server, its state, and where in the kernel it waits (proc_pid_stat(5),
/// proc_pid_stack(5)).
fn threads() -> String {
    let mut text = String::new();
    let entries = |directory: &Path| std::fs::read_dir(directory).into_iter().flatten().flatten();
    for process in entries(Path::new("/proc")) {
        let process = process.path();
        let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
        if name.trim() != "outlast" {
            continue;
        }
        for thread in entries(&process.join("task")) {
            let read =
                |file: &str| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            let stat = read("stat");
            let state = stat.rsplit(')').next().unwrap_or_default();
            let state: String = state.chars().take(2).collect();
            text += &format!("{}:{state}\n{}", read("comm").trim(), read("stack"));
        }
    }
    text
}

/// Runs a program; returns its output and its exit code.
fn execute<'a>(mut words: impl Iterator<Item = &'a str>) -> io::Result<(String, i32)> {
    let (mut output, stdout) = io::pipe()?;
    let child = Command::new(words.next().unwrap_or_default())
        .args(words)
        .stdin(Stdio::null())
        .stderr(stdout.try_clone()?)
        .stdout(stdout)
        .spawn()?;
    let mut text = String::new();
    io::Read::read_to_string(&mut output, &mut text)?;
    let status = ended(Pid::from_child(&child), PATIENCE);
    let code = status.and_then(WaitStatus::exit_status).unwrap_or(-1);
    Ok((text.trim_end().to_owned(), code))
}

/// Ends the server, if there is one, so that it keeps its sessions; unmounts, and powers off.
fn leave(server: Option<Pid>) {
    LEAVING.store(true, Ordering::SeqCst);
    if let Some(server) = server {
        let _ = kill_process(server, Signal::TERM);
        if ended(server, PATIENCE).is_none() {
            println!("init: outlast serve does not end");
        }
    }
    power_off();
}

fn power_off() {
    if Path::new(MOUNT_POINT).join("lost+found").exists()
        && let Err(error) = unmount(MOUNT_POINT, UnmountFlags::empty())
    {
        println!("init: umount {MOUNT_POINT}: {error}");
    }
    rustix::fs::sync();
    if let Err(error) = rustix::system::reboot(RebootCommand::PowerOff) {
        println!("init: power off: {error}");
    }
}
