//! Implements `outlast capture`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::ConfigArg;
use crate::control::{Command, Reply, client};

/// The time within which the server must answer, even while a worker is replaced.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(super) struct Capture {
    /// File to write, in pcapng format.
    #[arg(value_name = "FILE", required_unless_present = "stop")]
    file: Option<PathBuf>,
    /// Write only the headers of each frame.
    #[arg(long)]
    headers: bool,
    /// End the capture; its file is then complete.
    #[arg(long, conflicts_with_all = ["file", "headers"])]
    stop: bool,
    #[command(flatten)]
    at: ConfigArg,
}

/// Has the running server begin or end a capture.
pub(super) fn run(capture: &Capture) -> anyhow::Result<()> {
    let config = capture.at.load()?;
    let file = capture.file.as_ref().map(std::path::absolute).transpose()?;
    let command = Command::Capture {
        file: file.clone(),
        headers_only: capture.headers,
    };
    match client::request(&config.server.control_socket, &command, TIMEOUT)? {
        Reply::Done => {}
        _ => return Err(super::unexpected()),
    }
    let text = match file {
        Some(file) => format!(
            "frames are captured into {}; `outlast capture --stop` ends it\n",
            file.display()
        ),
        None => "the capture has ended\n".to_owned(),
    };
    super::status::print(&text)
}
