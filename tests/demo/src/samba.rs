//! Kills Debian's Samba in the middle of a download, for comparison.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use outlast::trace::Picture;
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::CommandExt as _;

use crate::act::save;
use crate::client::Client;
use crate::fault::{ip, run, within};
use crate::place::Place;
use crate::screen::Screen;
use crate::watch::Watch;

const DEVICE: &str = "lo";
const SERVER: &str = "127.0.0.1";
const PASSWORD: &str = "demo password";
/// The time within which it must serve, and the client must notice its end.
const PATIENCE: Duration = Duration::from_secs(30);
const CLIENT_PATIENCE: Duration = Duration::from_secs(150);
/// The part of the file after which it is killed, in percent.
const PERCENT: u64 = 40;

/// Runs it. Reports if Samba is missing or cannot be started.
///
/// # Errors
/// It was started, and cannot continue.
pub fn play(
    place: &Place,
    output: &Path,
    screen: &Screen,
    ended: &AtomicBool,
) -> anyhow::Result<()> {
    screen.title("Samba, to compare");
    let Some(smbd) = find("smbd") else {
        screen
            .say("Samba is not installed here (apt install samba), so that this part is left out.");
        return Ok(());
    };
    let samba = match Samba::start(place, &smbd) {
        Ok(samba) => samba,
        Err(error) => {
            screen.say(&format!(
                "Samba cannot be started here, so that this part is left out: {error:#}"
            ));
            return Ok(());
        }
    };
    kill_it(samba, place, output, screen, ended)
}

fn kill_it(
    samba: Samba,
    place: &Place,
    output: &Path,
    screen: &Screen,
    ended: &AtomicBool,
) -> anyhow::Result<()> {
    let watch = Watch::start(DEVICE, None, screen.live())?;
    screen.say("Samba serves the file. smbclient downloads it.");
    let command = "get big from-samba";
    let login = (samba.user.as_str(), PASSWORD);
    let client = Client::start(SERVER, login, &place.client(), Some(command))?;
    within(PATIENCE, "smbclient's download from Samba", || {
        if ended.load(Ordering::SeqCst) {
            bail!("ended by a signal");
        }
        let percent = watch.bytes() * 100 / place.bytes.max(1);
        if let Some(error) = client.error() {
            bail!("smbclient: {error}");
        }
        Ok((percent >= PERCENT || client.is_complete()).then_some(()))
    })?;
    screen.fault("✗ kill -9 of Samba, all its processes");
    watch.mark();
    samba.kill()?;
    let (status, text) = client.finish(CLIENT_PATIENCE)?;
    let size = std::fs::metadata(place.client().join("from-samba")).map_or(0, |file| file.len());
    let last = text.lines().rev().find(|line| line.contains("NT_STATUS"));
    let last = last.or(text.lines().last()).unwrap_or_default();
    screen.bad(&format!(
        "smbclient is dead ({status}), with {} % of the file",
        size * 100 / place.bytes
    ));
    screen.say(&format!(
        "  it says: {}",
        last.trim_start_matches("smb: \\>").trim()
    ));
    let (connections, _) = watch.finish()?;
    let chosen = connections.busiest(Some(445));
    let picture = Picture::of("One TCP connection to Samba, which is killed", &chosen, &[]);
    save(
        &picture.context("nothing was captured")?,
        &output.join("samba.svg"),
        screen,
    )
}

/// Finds a program.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// smbd with its child processes, which are one group.
struct Samba {
    smbd: Child,
    user: String,
}

impl Samba {
    fn start(place: &Place, smbd: &Path) -> anyhow::Result<Samba> {
        place.share_file()?;
        ip("link set lo up")?;
        let user = run(Command::new("id").arg("-un"))?.trim().to_owned();
        let config = place.path("samba.conf");
        std::fs::write(&config, configuration(place, &user)?)?;
        set_password(&config, &user)?;
        let log = std::fs::File::create(place.path("samba.log"))?;
        let child = Command::new(smbd)
            .args(["-F", "--no-process-group", "-s"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("smbd")?;
        let mut samba = Samba { smbd: child, user };
        within(PATIENCE, "Samba", || {
            if let Some(status) = samba.smbd.try_wait()? {
                bail!("smbd ended: {status}");
            }
            Ok(std::net::TcpStream::connect((SERVER, 445)).ok())
        })?;
        Ok(samba)
    }

    fn kill(self) -> anyhow::Result<()> {
        kill_process_group(Pid::from_child(&self.smbd), Signal::KILL)
            .context("smbd cannot be killed")
    }
}

impl Drop for Samba {
    fn drop(&mut self) {
        // They may have ended.
        let _ = kill_process_group(Pid::from_child(&self.smbd), Signal::KILL);
        let _ = self.smbd.wait();
    }
}

/// All its files are in the directory of the demonstration, independent of the machine's own Samba.
fn configuration(place: &Place, user: &str) -> anyhow::Result<String> {
    let directory = place.path("samba");
    let mut text = format!(
        "[global]\nnetbios name = SAMBA\nserver role = standalone server\ndisable netbios = yes\nsmb ports = 445\n\
         interfaces = {SERVER}/8\nbind interfaces only = yes\nguest account = {user}\nload printers = no\n\
         disable spoolss = yes\nprintcap name = /dev/null\nusershare path =\nlog file = {}\n\
         passdb backend = tdbsam:{}\n",
        place.path("samba.log").display(),
        directory.join("private/passdb.tdb").display(),
    );
    for (option, name) in [
        ("private dir", "private"),
        ("lock directory", "lock"),
        ("state directory", "state"),
        ("cache directory", "cache"),
        ("pid directory", "pid"),
        ("ncalrpc dir", "ncalrpc"),
    ] {
        let path = directory.join(name);
        std::fs::create_dir_all(&path)?;
        text += &format!("{option} = {}\n", path.display());
    }
    text += &format!(
        "[pub]\npath = {}\nread only = no\n",
        place.share().display()
    );
    Ok(text)
}

fn set_password(config: &Path, user: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let pdbedit = find("pdbedit").context("pdbedit is not installed")?;
    let mut child = Command::new(pdbedit)
        .arg("-s")
        .arg(config)
        .args(["-a", "-t", "-u", user])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    write!(stdin, "{PASSWORD}\n{PASSWORD}\n")?;
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("pdbedit: {}", error.lines().last().unwrap_or_default());
    }
    Ok(())
}
