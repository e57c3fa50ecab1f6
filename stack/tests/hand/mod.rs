//! Plays a peer by hand: passes one segment at a time to the stack, and returns its answers.

#![allow(dead_code)] // each test uses its part

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use outlast_stack::{
    Config, ConnId, Event, Journal, Lost, Record, RxChecksum, RxFrame, Stack, TxFrame,
};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, TcpOption,
    TcpPacket, TcpSeqNumber,
};

pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const PORT: u16 = 445;
pub const MS: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);
pub const SECRET: [u8; 32] = [9; 32];
/// The peer's initial sequence number, chosen so that its data wraps soon.
pub const IRS: u32 = u32::MAX - 100;

#[derive(Clone, Default)]
pub struct Log {
    pub records: Vec<(ConnId, Record, Bytes)>,
    pub room: Option<usize>,
    next_id: ConnId,
}

impl Journal for Log {
    fn append(&mut self, conn: ConnId, record: &Record, data: &[&[u8]]) -> Bytes {
        let bytes = Bytes::from(data.concat());
        self.records.push((conn, record.clone(), bytes.clone()));
        bytes
    }

    fn room(&self, _conn: ConnId) -> usize {
        self.room.unwrap_or(usize::MAX)
    }

    fn unique_id(&mut self) -> ConnId {
        self.next_id += 1;
        self.next_id
    }
}

/// A segment, either way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seg {
    pub port: u16,
    pub client: u16,
    pub seq: u32,
    pub ack: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub psh: bool,
    /// The urgent pointer, if the URG bit is set.
    pub urgent: Option<u16>,
    pub window: u16,
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub sack_permitted: bool,
    pub sack: [Option<(u32, u32)>; 3],
    pub timestamp: Option<(u32, u32)>,
    /// Raw option bytes that precede the others.
    pub raw_options: Vec<u8>,
    pub data: Vec<u8>,
}

pub struct Bench {
    pub stack: Stack,
    pub log: Log,
    pub now: Duration,
    pub config: Config,
    /// The connection under test: our and the peer's next sequence numbers, whether timestamps are on.
    pub conn: ConnId,
    pub iss: u32,
    pub timestamps: bool,
    /// Sent frames that are not TCP.
    pub others: Vec<Vec<u8>>,
}

pub fn config() -> Config {
    Config {
        addresses: vec![(SERVER.into(), 24)],
        ports: vec![PORT],
        receive_buffer: 60_000,
        ..Config::default()
    }
}

impl Bench {
    /// A stack that is open, and no connection.
    pub fn new(config: Config) -> Bench {
        let mut bench = Bench {
            stack: Stack::new(config.clone(), SECRET, Duration::from_secs(100)),
            log: Log::default(),
            now: Duration::from_secs(100),
            config,
            conn: 0,
            iss: 0,
            timestamps: false,
            others: Vec::new(),
        };
        bench.resume(Lost::Nothing);
        bench
    }

    /// An established connection with SACK and the options given.
    pub fn established(config: Config, scale: Option<u8>, timestamps: bool) -> Bench {
        let mut bench = Bench::new(config);
        bench.connect(scale, timestamps, 50_000);
        bench
    }

    /// The same without window scaling and timestamps.
    pub fn plain() -> Bench {
        Bench::established(config(), None, false)
    }

    pub fn connect(&mut self, scale: Option<u8>, timestamps: bool, window: u16) {
        self.timestamps = timestamps;
        let mut syn = self.syn(1000);
        syn.scale = scale;
        syn.timestamp = timestamps.then_some((1, 0));
        let answer = self.exchange(&syn);
        assert_eq!(answer.len(), 1);
        assert!(answer[0].syn && answer[0].ack == Some(IRS.wrapping_add(1)));
        self.iss = answer[0].seq;
        let mut ack = self.seg(0, 0);
        ack.window = window;
        assert_eq!(self.exchange(&ack), []);
        self.conn = self.log.records[0].0;
        let events: Vec<Event> = self.stack.events().collect();
        assert_eq!(events, [Event::Accepted(self.conn)]);
    }

    /// A connection opened by `syn`, the peer's window 60,000 bytes; and our SYN-ACK.
    pub fn open(config: Config, syn: &Seg) -> (Bench, Seg) {
        let mut bench = Bench::new(config);
        let answer = bench.exchange(syn);
        bench.iss = answer[0].seq;
        bench.timestamps = syn.timestamp.is_some();
        let mut ack = bench.seg(0, 0);
        ack.window = 60_000 >> syn.scale.map_or(0, |shift| shift.min(14));
        bench.exchange(&ack);
        bench.conn = bench.log.records[0].0;
        assert_eq!(bench.state(), "ESTABLISHED");
        (bench, answer[0].clone())
    }

    pub fn syn(&self, client: u16) -> Seg {
        Seg {
            port: PORT,
            client,
            seq: IRS,
            syn: true,
            window: 50_000,
            mss: Some(1000),
            sack_permitted: true,
            ..Seg::default()
        }
    }

    /// An acknowledgement of `acked` of our bytes at `offset` of the peer's stream.
    pub fn seg(&self, offset: u32, acked: u32) -> Seg {
        Seg {
            port: PORT,
            client: 1000,
            seq: IRS.wrapping_add(1).wrapping_add(offset),
            ack: Some(self.iss.wrapping_add(1).wrapping_add(acked)),
            window: 50_000,
            timestamp: self.timestamps.then_some((10, 0)),
            ..Seg::default()
        }
    }

    /// An acknowledgement that shuts the peer's window.
    pub fn shut(&self, acked: u32) -> Seg {
        Seg {
            window: 0,
            ..self.seg(0, acked)
        }
    }

    pub fn data(&self, offset: u32, len: usize) -> Seg {
        Seg {
            data: vec![7; len],
            ..self.seg(offset, 0)
        }
    }

    /// Our sequence number as an offset into our stream.
    pub fn ours(&self, seq: u32) -> i32 {
        seq.wrapping_sub(self.iss.wrapping_add(1)) as i32
    }

    /// The peer's sequence number as an offset into its stream.
    pub fn theirs(&self, ack: Option<u32>) -> i32 {
        ack.unwrap().wrapping_sub(IRS.wrapping_add(1)) as i32
    }

    pub fn ingest(&mut self, seg: &Seg) {
        self.ingest_frame(&frame(seg));
    }

    pub fn ingest_frame(&mut self, bytes: &[u8]) {
        let frame = RxFrame {
            bytes,
            checksum: RxChecksum::Verify,
        };
        self.stack.ingest(frame, self.now, &mut self.log);
    }

    /// Ingests segments that were kept.
    pub fn ingest_kept(&mut self, segs: &[Seg]) {
        let frames: Vec<Vec<u8>> = segs.iter().map(frame).collect();
        let frames = frames.iter().map(|bytes| RxFrame {
            bytes,
            checksum: RxChecksum::Verify,
        });
        self.stack
            .ingest_kept(&frames.collect::<Vec<_>>(), self.now, &mut self.log);
    }

    /// Ingests a segment, and returns what is sent at once.
    pub fn exchange(&mut self, seg: &Seg) -> Vec<Seg> {
        self.ingest(seg);
        self.poll()
    }

    pub fn poll(&mut self) -> Vec<Seg> {
        let mut out = Vec::new();
        self.stack.poll(self.now, &mut self.log, &mut out);
        self.check_fold();
        self.sort(out)
    }

    /// Advances time to the next deadline, not beyond `limit`, and returns what is sent then.
    pub fn wait(&mut self, limit: Duration) -> Vec<Seg> {
        let end = self.now + limit;
        loop {
            match self.stack.next_deadline().filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => {
                    self.now = end;
                    return Vec::new();
                }
            }
            let sent = self.poll();
            if !sent.is_empty() {
                return sent;
            }
        }
    }

    pub fn send(&mut self, len: usize) -> Vec<Seg> {
        self.stack.send(self.conn, &[&vec![1; len]], &mut self.log);
        self.poll()
    }

    pub fn close(&mut self) -> Vec<Seg> {
        self.stack.close(self.conn, &mut self.log);
        self.poll()
    }

    pub fn resume(&mut self, lost: Lost) -> Vec<Seg> {
        let mut out = Vec::new();
        self.stack.resume(self.now, lost, &mut self.log, &mut out);
        self.sort(out)
    }

    /// Makes everything again from the records.
    pub fn crash(&mut self) {
        self.stack = Stack::new(self.config.clone(), SECRET, self.now);
        for (conn, record, data) in &self.log.records {
            self.stack.apply(*conn, record, data.clone());
        }
    }

    /// Writes the connection again, as the event loop does.
    pub fn relocate(&mut self) {
        if let Some(checkpoint) = self.stack.checkpoint(self.conn) {
            let record = Record::Opened(Box::new(checkpoint));
            self.log.append(self.conn, &record, &[]);
            self.stack.relocate(self.conn, &mut self.log);
            self.check_fold();
        }
    }

    pub fn check_fold(&self) {
        let mut fold = Stack::new(self.config.clone(), SECRET, self.now);
        for (conn, record, data) in &self.log.records {
            fold.apply(*conn, record, data.clone());
        }
        assert!(
            fold.durable().eq(self.stack.durable()),
            "state is not the fold of the records"
        );
    }

    pub fn state(&self) -> &'static str {
        self.stack
            .status()
            .iter()
            .find(|status| status.conn == self.conn)
            .map_or("CLOSED", |status| status.state)
    }

    /// ICMP messages sent.
    pub fn icmp(&self) -> usize {
        let is_icmp = |frame: &&Vec<u8>| frame[12..14] == [8, 0] && frame[23] == 1;
        self.others.iter().filter(is_icmp).count()
    }

    pub fn events(&mut self) -> Vec<Event> {
        self.stack.events().collect()
    }

    fn sort(&mut self, frames: Vec<TxFrame>) -> Vec<Seg> {
        let mut segs = Vec::new();
        for frame in frames {
            let mut bytes = frame.header;
            frame
                .payload
                .iter()
                .for_each(|part| bytes.extend_from_slice(part));
            match read(&bytes) {
                Some(seg) => segs.push(seg),
                None => self.others.push(bytes),
            }
        }
        segs
    }
}

pub fn frame(seg: &Seg) -> Vec<u8> {
    let mut options: Vec<TcpOption<'_>> = Vec::new();
    options.extend(seg.mss.map(TcpOption::MaxSegmentSize));
    options.extend(seg.scale.map(TcpOption::WindowScale));
    options.extend(seg.sack_permitted.then_some(TcpOption::SackPermitted));
    options.extend(
        seg.timestamp
            .map(|(tsval, tsecr)| TcpOption::TimeStamp { tsval, tsecr }),
    );
    options.extend(
        seg.sack[0]
            .is_some()
            .then_some(TcpOption::SackRange(seg.sack)),
    );
    let options_len: usize =
        options.iter().map(TcpOption::buffer_len).sum::<usize>() + seg.raw_options.len();
    let header_len = 20 + options_len.next_multiple_of(4);
    let mut bytes = vec![0; 34 + header_len + seg.data.len()];
    let mut tcp = TcpPacket::new_unchecked(&mut bytes[34..]);
    tcp.set_src_port(seg.client);
    tcp.set_dst_port(seg.port);
    tcp.set_seq_number(TcpSeqNumber(seg.seq as i32));
    tcp.set_header_len(header_len as u8);
    tcp.set_ack(seg.ack.is_some());
    tcp.set_ack_number(TcpSeqNumber(seg.ack.unwrap_or(0) as i32));
    tcp.set_syn(seg.syn);
    tcp.set_fin(seg.fin);
    tcp.set_rst(seg.rst);
    tcp.set_psh(seg.psh);
    tcp.set_urg(seg.urgent.is_some());
    tcp.set_urgent_at(seg.urgent.unwrap_or(0));
    tcp.set_window_len(seg.window);
    let (raw, mut rest) = tcp.options_mut().split_at_mut(seg.raw_options.len());
    raw.copy_from_slice(&seg.raw_options);
    for option in &options {
        rest = option.emit(rest);
    }
    if !rest.is_empty() {
        TcpOption::EndOfList.emit(rest);
    }
    tcp.payload_mut().copy_from_slice(&seg.data);
    tcp.fill_checksum(&IpAddress::from(CLIENT), &IpAddress::from(SERVER));
    let total = bytes.len() - 14;
    let mut ip = Ipv4Packet::new_unchecked(&mut bytes[14..]);
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_total_len(total as u16);
    ip.set_hop_limit(64);
    ip.set_next_header(IpProtocol::Tcp);
    ip.set_src_addr(CLIENT);
    ip.set_dst_addr(SERVER);
    ip.fill_checksum();
    let mut ethernet = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.set_src_addr(EthernetAddress([2, 0, 0, 0, 0, 0x20]));
    ethernet.set_dst_addr(EthernetAddress([2, 0, 0, 0, 0, 0x10]));
    ethernet.set_ethertype(EthernetProtocol::Ipv4);
    bytes
}

pub fn read(bytes: &[u8]) -> Option<Seg> {
    let ethernet = EthernetFrame::new_checked(bytes).unwrap();
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
    if ip.next_header() != IpProtocol::Tcp {
        return None;
    }
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    let options = tcp.options_summary().unwrap();
    Some(Seg {
        port: tcp.src_port(),
        client: tcp.dst_port(),
        seq: tcp.seq_number().0 as u32,
        ack: tcp.ack().then(|| tcp.ack_number().0 as u32),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        psh: tcp.psh(),
        urgent: tcp.urg().then(|| tcp.urgent_at()),
        window: tcp.window_len(),
        mss: options.max_segment_size,
        scale: options.window_scale,
        sack_permitted: options.sack_permitted,
        sack: options.sack_ranges,
        timestamp: options.timestamp,
        raw_options: Vec::new(),
        data: tcp.payload().to_vec(),
    })
}
