//! The command line.

mod check;
mod crash;
mod demo;
mod disconnect;
mod nvram;
mod nvram_reset;
mod reboot;
mod status;
mod takeover;
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
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Serve, in the foreground: a supervisor and its worker.
    Serve {
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Show how the running server and its connections are.
    Status {
        #[command(flatten)]
        at: ConfigArg,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Reboot electively: the sessions go on afterwards.
    Reboot {
        #[command(flatten)]
        at: ConfigArg,
        /// Come back as this binary: an upgrade in place.
        #[arg(long, value_name = "PATH")]
        exec: Option<PathBuf>,
        /// Stay away this long.
        #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
        hold: Duration,
        /// Reboot the machine, too: the sessions go on when the server is started again.
        #[arg(long, conflicts_with_all = ["exec", "hold"])]
        system: bool,
    },
    /// Close the sessions properly and end the server.
    Stop {
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Move the service to the other node of the pair: the sessions go on there.
    Takeover {
        #[command(flatten)]
        at: ConfigArg,
        /// To this node, which stands by, also if the other one does not leave: that one is fenced first.
        #[arg(long)]
        force: bool,
    },
    /// Move the service back to the node that this one has taken it over from.
    Giveback {
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Check a configuration and all that it names; needs no running server, and changes nothing.
    Check {
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Kill the server's worker (kill -9), and wait until its successor serves.
    Crash {
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Drop the connections of a client or of a user.
    Disconnect {
        /// A client's address, with or without its port, or a user's name.
        #[arg(value_name = "CLIENT|USER")]
        whom: String,
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Keep the users file.
    #[command(subcommand)]
    User(user::User),
    /// Look into a checkpoint, offline.
    #[command(subcommand)]
    Nvram(Nvram),
    /// Watch a download and an upload go on through kill -9 and reboots.
    Demo {
        /// Handed to scripts/demo.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
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
    /// Show what a checkpoint holds. No secrets are printed.
    Show {
        /// The NVRAM file.
        file: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Wipe and remove a checkpoint, so that the server starts without the sessions in it.
    Reset {
        /// The NVRAM file.
        file: PathBuf,
        /// Do not ask.
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
        Command::Serve { .. } | Command::Worker(_) => "info",
        _ => "warn",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level))
        .format_timestamp_millis()
        .init();
    match run(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // One line, whatever is in it.
            let line = format!("{error:#}")
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
            eprintln!("outlast: {line}");
            ExitCode::from(EXIT_ERROR)
        }
    }
}

fn run(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Serve { at } => return supervisor::serve(&at.config),
        Command::Worker(args) => return supervisor::entry::run(&args),
        Command::Status { at, json } => status::run(&Config::load(&at.config)?, json)?,
        Command::Reboot {
            at, system: true, ..
        } => reboot::reboot_system(&Config::load(&at.config)?)?,
        Command::Reboot { at, exec, hold, .. } => {
            reboot::reboot(&Config::load(&at.config)?, exec, hold)?
        }
        Command::Stop { at } => reboot::stop(&Config::load(&at.config)?)?,
        Command::Takeover { at, force } => takeover::takeover(&Config::load(&at.config)?, force)?,
        Command::Giveback { at } => takeover::giveback(&Config::load(&at.config)?)?,
        Command::Check { at } => return check::run(&at.config),
        Command::Crash { at } => crash::run(&Config::load(&at.config)?)?,
        Command::Disconnect { whom, at } => disconnect::run(&Config::load(&at.config)?, whom)?,
        Command::User(user) => user::run(user)?,
        Command::Nvram(Nvram::Show { file, json }) => nvram::show(&file, json)?,
        Command::Nvram(Nvram::Reset { file, yes }) => nvram_reset::run(&file, yes)?,
        Command::Demo { arguments } => demo::run(&arguments)?,
        Command::Probe { at } => probe(&at)?,
    }
    Ok(0)
}

/// Reads everything a start would read.
fn probe(at: &ConfigArg) -> anyhow::Result<()> {
    let config = Config::load(&at.config)?;
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

/// The error of a reply that does not belong to what was asked.
fn unexpected() -> anyhow::Error {
    anyhow!("the server answers something else than was asked")
}
