//! Serves metrics over HTTP for Prometheus: a thread of the supervisor listens on an address of the machine, and
//! requests the metrics over the server's control socket. While no worker serves, the request waits there.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use log::{debug, info, warn};

use crate::control::{Command, Reply, client};

/// The longest head of a request, in bytes.
const HEAD_MAX_BYTES: usize = 8 << 10;
/// The largest number of header fields of a request.
const FIELDS_MAX: usize = 64;
/// The time within which a client must send its request, and read the response.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
/// The time within which the server must answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The format of the text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Starts to listen. `control`: the server's control socket.
///
/// # Errors
/// The machine does not have the address, or another program listens there.
pub fn serve(listen: SocketAddr, control: &Path) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| {
        format!("metrics.listen: {listen} cannot be listened on: give an address of this machine and a free port")
    })?;
    let address = listener.local_addr().unwrap_or(listen);
    info!("metrics are served on http://{address}/metrics");
    let control = control.to_owned();
    let thread = std::thread::Builder::new().name("metrics".into());
    thread
        .spawn(move || accept(&listener, &control))
        .context("no thread can be started")?;
    Ok(())
}

fn accept(listener: &TcpListener, control: &Path) {
    loop {
        match listener.accept() {
            Ok((mut stream, from)) => {
                if let Err(error) = answer(&mut stream, || ask(control)) {
                    debug!("a client of the metrics ({from}) left early: {error}");
                }
            }
            Err(error) => {
                // Probably no descriptor is free; a later attempt may succeed.
                warn!("no client of the metrics can be accepted: {error}");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

/// Returns the text, or the reason for its lack.
fn ask(control: &Path) -> Result<String, String> {
    match client::request(control, &Command::Metrics, PATIENCE) {
        Ok(Reply::Metrics { text }) => Ok(text),
        Ok(_) => Err("the server answers something else than was asked".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Serves one connection: one request, one response (RFC 9112).
fn answer(stream: &mut TcpStream, ask: impl FnOnce() -> Result<String, String>) -> io::Result<()> {
    stream.set_write_timeout(Some(CLIENT_PATIENCE))?;
    let head = read_head(stream)?;
    let (status, kind, body) = match parse(&head) {
        Parsed::Metrics => match ask() {
            Ok(text) => ("200 OK", OPEN_METRICS, text),
            Err(why) => ("503 Service Unavailable", PLAIN, why + "\n"),
        },
        Parsed::Elsewhere => ("404 Not Found", PLAIN, "metrics are at /metrics\n".into()),
        Parsed::OtherMethod => ("405 Method Not Allowed", PLAIN, "use GET\n".into()),
        Parsed::Malformed => ("400 Bad Request", PLAIN, "this is not HTTP/1.1\n".into()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Reads the request up to the empty line.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + CLIENT_PATIENCE;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < HEAD_MAX_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => head.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
    Ok(head)
}

#[derive(Debug, PartialEq)]
enum Parsed {
    Metrics,
    Elsewhere,
    OtherMethod,
    Malformed,
}

fn parse(head: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) | Err(_) => return Parsed::Malformed,
    }
    let path = request.path.unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    match (request.method, path) {
        (Some("GET"), "/metrics") => Parsed::Metrics,
        (Some("GET"), _) => Parsed::Elsewhere,
        _ => Parsed::OtherMethod,
    }
}

#[cfg(test)]
mod tests;
