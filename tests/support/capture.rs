//! The packets' verdict: SYNs, resets and FINs on port 445, from the wire (tcpdump).

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::lab::BROADCAST;
use super::{PATIENCE, wait_for};

/// Where the datagram goes that marks the capture's end (discard, RFC 863).
const MARKER_PORT: u16 = 9;
const MARKER: &[u8] = b"the capture ends here";

/// A tcpdump that keeps the segments with SYN, FIN or RST: few, so that none is lost to a full buffer.
pub struct Capture {
    child: Child,
    file: PathBuf,
}

/// What the capture holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Client port: sequence numbers of its SYNs (a retransmission repeats the number).
    pub syns: BTreeMap<u16, BTreeSet<u32>>,
    /// Client ports of connections with a reset, from either side.
    pub reset: BTreeSet<u16>,
    /// FINs of the server on connections whose client had not sent one.
    pub unasked_fins: u32,
}

impl Capture {
    pub fn start(dir: &Path) -> Capture {
        let file = dir.join("capture.pcap");
        let filter = format!(
            "(ip and tcp port 445 and tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0) \
             or (ip6 proto 6 and port 445 and ip6[53] & 7 != 0) or udp dst port {MARKER_PORT}"
        );
        let child = Command::new("tcpdump")
            .args([
                "-i",
                "tap0",
                "--immediate-mode",
                "-U",
                "-n",
                "-s",
                "160",
                "-Z",
                "root",
                "-w",
            ])
            .arg(&file)
            .arg(filter)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tcpdump (scripts/test installs it)");
        // the file's header is written once the filter is in place
        wait_for("tcpdump to listen", PATIENCE, || {
            std::fs::metadata(&file)
                .ok()
                .filter(|file| file.len() >= 24)
        });
        Capture { child, file }
    }

    /// Ends the capture and reads it. Somebody must hold the TAP (its link has to be up).
    pub fn verdict(mut self) -> Verdict {
        // packets come to the file in the order of the wire: once the marker is there, all before it is
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_broadcast(true).expect("broadcast");
        let pcap = wait_for("the capture's end", PATIENCE, || {
            socket
                .send_to(MARKER, (BROADCAST, MARKER_PORT))
                .expect("the marker leaves");
            let pcap = std::fs::read(&self.file).expect("the capture");
            pcap.windows(MARKER.len())
                .any(|bytes| bytes == MARKER)
                .then_some(pcap)
        });
        let _ = self.child.kill();
        let _ = self.child.wait();
        read(&pcap)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(pcap: &[u8]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut client_finished = BTreeSet::new();
    let word =
        |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    let mut rest = &pcap[24..];
    while rest.len() >= 16 {
        let length = word(rest, 8) as usize;
        let Some(frame) = rest.get(16..16 + length) else {
            break;
        };
        rest = &rest[16 + length..];
        let tcp = match (frame[12], frame[13]) {
            (0x08, 0x00) if frame[23] == 6 => &frame[14 + usize::from(frame[14] & 15) * 4..],
            (0x86, 0xDD) if frame[20] == 6 => &frame[54..],
            _ => continue,
        };
        let source = u16::from_be_bytes([tcp[0], tcp[1]]);
        let target = u16::from_be_bytes([tcp[2], tcp[3]]);
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        let from_server = source == 445;
        let (fin, syn, rst) = (tcp[13] & 1 != 0, tcp[13] & 2 != 0, tcp[13] & 4 != 0);
        if rst {
            verdict
                .reset
                .insert(if from_server { target } else { source });
        }
        if syn && !from_server {
            verdict.syns.entry(source).or_default().insert(sequence);
        }
        if fin && !from_server {
            client_finished.insert(source);
        }
        if fin && from_server && !client_finished.contains(&target) {
            verdict.unasked_fins += 1;
        }
    }
    verdict
}

impl Verdict {
    /// One SYN per connection, `connections` of them; no RST; no FIN from the server first.
    pub fn assert_untouched(&self, connections: usize) {
        assert!(self.reset.is_empty(), "resets on the wire: {self:?}");
        assert_eq!(self.unasked_fins, 0, "the server closed first: {self:?}");
        assert_eq!(self.syns.len(), connections, "connections: {self:?}");
        assert!(
            self.syns.values().all(|syns| syns.len() == 1),
            "a client connected again: {self:?}"
        );
    }
}
