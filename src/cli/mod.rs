//! Parses the command line, and runs its commands.

mod capture;
mod check;
mod crash;
mod demo;
mod disconnect;
mod lab;
mod manual;
mod metrics;
mod nvram;
mod nvram_reset;
mod pair;
mod reboot;
mod serve;
pub(crate) mod status;
mod takeover;
mod top;
mod trace;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::control::{Command as Request, PROBE_ANSWER};
use crate::supervisor::worker::EXIT_ERROR;
use crate::supervisor::{self, WorkerArgs};

/// How long `status` waits for its answer.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);

/// The configuration that is used if no other is named.
const DEFAULT_CONFIG: &str = "/etc/outlast/outlast.toml";
/// The variable that names another.
const CONFIG_VARIABLE: &str = "OUTLAST_CONFIG";

#[derive(Parser)]
#[command(
    name = "outlast",
    version,
    about = "An SMB file server whose sessions outlast the server"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct ConfigArg {
    /// Configuration file [default: $OUTLAST_CONFIG, else /etc/outlast/outlast.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArg {
    fn path(&self) -> PathBuf {
        let from_environment = || {
            std::env::var_os(CONFIG_VARIABLE)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        };
        let path = self.config.clone().or_else(from_environment);
        path.unwrap_or_else(|| DEFAULT_CONFIG.into())
    }

    fn load(&self) -> Result<Config, crate::config::Error> {
        Config::load(&self.path())
    }
}

#[derive(Subcommand)]
enum Command {
    /// Serve files, in the foreground.
    Serve(serve::Serve),
    /// Run a command in a private network, with a server that it can reach.
    Lab(lab::Lab),
    /// Show the state of the running server and its connections.
    Status {
        #[command(flatten)]
        at: ConfigArg,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Watch the running server: connections, rates, the log, returns.
    Top {
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Print what the running server has counted, for Prometheus.
    Metrics {
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Write the frames of the running server into a file, across its restarts.
    Capture(capture::Capture),
    /// Restart the server as planned; the sessions continue.
    Reboot {
        #[command(flatten)]
        at: ConfigArg,
        /// Restart as this binary: an upgrade in place.
        #[arg(long, value_name = "PATH")]
        exec: Option<PathBuf>,
        /// Seconds to stay down.
        #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
        hold: Duration,
        /// Reboot the machine as well; the sessions continue when the server is started again.
        #[arg(long, conflicts_with_all = ["exec", "hold"])]
        system: bool,
    },
    /// Close all sessions properly and end the server.
    Stop {
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Move the service to the other node of the pair; the sessions continue there.
    Takeover {
        #[command(flatten)]
        at: ConfigArg,
        /// Move it to this node, which stands by, even if the other one does not leave: that one is fenced first.
        #[arg(long)]
        force: bool,
        /// Leave the service, and do not wait until the other node serves; for a cluster manager.
        #[arg(long, conflicts_with = "force")]
        leave: bool,
    },
    /// Move the service back to the node that this one took it over from.
    Giveback {
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Prepare a pair of servers.
    #[command(subcommand)]
    Pair(pair::Pair),
    /// Check a configuration and what it names. Needs no running server and changes nothing.
    Check {
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Kill the worker process (kill -9) and wait until the next one serves.
    Crash {
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Drop the connections of a client or of a user.
    Disconnect {
        /// Address of a client, with or without its port, or name of a user.
        #[arg(value_name = "CLIENT|USER")]
        client_or_user: String,
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Manage users.
    #[command(subcommand)]
    User(user::User),
    /// Inspect or remove a checkpoint file (NVRAM).
    #[command(subcommand)]
    Nvram(Nvram),
    /// Draw a TCP connection across an outage, from a capture: bytes against time.
    Trace(trace::Trace),
    /// Watch a download and an upload continue through kill -9 and reboots.
    Demo {
        /// Arguments of scripts/demo.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write man pages and shell completions into a directory; what makes the package runs it.
    #[command(hide = true)]
    Manual {
        /// The directory.
        directory: PathBuf,
    },
    /// What the supervisor runs.
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// Prove that this binary reads a configuration and its NVRAM; what a running server asks before it hands over.
    #[command(hide = true)]
    Probe {
        #[command(flatten)]
        at: ConfigArg,
    },
}

#[derive(Subcommand)]
enum Nvram {
    /// Show the contents of a checkpoint file; no secrets are printed.
    Show {
        /// Checkpoint file.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Wipe and remove a checkpoint file; its sessions are lost.
    Reset {
        /// Checkpoint file.
        file: PathBuf,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(hold) if hold <= Duration::from_secs(86_400) => Ok(hold),
        _ => Err("use 0 to 86400".into()),
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.command {
        Command::Serve(_) | Command::Worker(_) => "info",
        _ => "warn",
    };
    crate::logging::init(level);
    // The exit codes of `lab` are the command's, so its own errors have one apart.
    let failed = match cli.command {
        Command::Lab(_) => lab::EXIT_FAILED,
        _ => EXIT_ERROR,
    };
    match run(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // One line, whatever the error contains.
            let line = format!("{error:#}")
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
            eprintln!("outlast: {line}");
            ExitCode::from(failed)
        }
    }
}

fn run(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Serve(serve) => return serve::run(serve),
        Command::Lab(lab) => return lab::run(lab),
        Command::Worker(args) => return supervisor::entry::run(&args),
        Command::Status { at, json } => status::run(&at.load()?, json)?,
        Command::Top { at } => top::run(&at.load()?)?,
        Command::Metrics { at } => metrics::run(&at.load()?)?,
        Command::Capture(capture) => capture::run(&capture)?,
        Command::Manual { directory } => manual::run(&directory)?,
        Command::Reboot {
            at, system: true, ..
        } => reboot::reboot_system(&at.load()?)?,
        Command::Reboot { at, exec, hold, .. } => reboot::reboot(&at.load()?, exec, hold)?,
        Command::Stop { at } => reboot::stop(&at.load()?)?,
        Command::Takeover {
            at, leave: true, ..
        } => takeover::leave(&at.load()?)?,
        Command::Takeover { at, force, .. } => takeover::takeover(&at.load()?, force)?,
        Command::Giveback { at } => takeover::giveback(&at.load()?)?,
        Command::Pair(command) => pair::run(&command)?,
        Command::Check { at } => return check::run(&at.path()),
        Command::Crash { at } => crash::run(&at.load()?)?,
        Command::Disconnect { client_or_user, at } => disconnect::run(&at.load()?, client_or_user)?,
        Command::User(user) => user::run(user)?,
        Command::Nvram(Nvram::Show { file, json }) => nvram::show(&file, json)?,
        Command::Nvram(Nvram::Reset { file, yes }) => nvram_reset::run(&file, yes)?,
        Command::Trace(trace) => trace::run(&trace)?,
        Command::Demo { arguments } => demo::run(&arguments)?,
        Command::Probe { at } => probe(&at)?,
    }
    Ok(0)
}

/// Reads everything that a start would read.
fn probe(at: &ConfigArg) -> anyhow::Result<()> {
    let config = at.load()?;
    crate::preflight::would_take_over(&config)?;
    println!("{PROBE_ANSWER}");
    Ok(())
}

/// Asks the running server for its status.
fn ask_status(config: &Config) -> anyhow::Result<crate::control::Status> {
    use crate::control::{Reply, client};
    match client::request(
        &config.server.control_socket,
        &Request::Status,
        STATUS_PATIENCE,
    )? {
        Reply::Status(status) => Ok(*status),
        _ => Err(unexpected()),
    }
}

/// The error for a reply that does not fit the request.
fn unexpected() -> anyhow::Error {
    anyhow!("the server's answer does not fit the request")
}
