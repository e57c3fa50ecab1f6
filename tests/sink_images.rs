//! Tests the whole machine over a sink that is cut off in the middle of any batch, with any of its sectors on the
//! medium: the next server continues from its content, on the same connection, and the client gets the answers that it
//! would have got.
//!
//! The test drives the machine over a wire in memory; the client's TCP is smoltcp's. Files are real, in a directory of
//! their own.

mod support;

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use outlast::fs::{Fs, ShareRoot};
use outlast::job_thread::wake;
use outlast::server::clock::{Ticking, Time};
use outlast::server::copying::COPY_UNITS;
use outlast::server::eviction::EvictionLimits;
use outlast::server::fault::Unarmed;
use outlast::server::journal::{EFFECT_ROOM, REPLY_ROOM};
use outlast::server::machine::Machine;
use outlast::server::medium::Medium;
use outlast::server::open::Sink;
use outlast::server::recover::{Parts, Recovered, recover};
use outlast_nvram::sink::Batch;
use outlast_nvram::{Incarnation, Memory, VecMemory};
use outlast_smb::{Dialect, Entropy, Limits, Oplocks, Requirement, Share};
use outlast_stack::addressing::Sources;
use outlast_stack::device::{Device, Faults, MAX_FRAME_LEN, MemoryDevice, SmoltcpPort, pair};
use outlast_stack::{Capabilities, Lost, RxFrame, TxFrame};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
use support::{Rng, files, raw};

/// A record is a third of the log at most, and there must be room for what the largest request may append.
const MEMORY_BYTES: usize = 96 << 20;
const WALL: u64 = 133_000_000_000_000_000;
const SERVER: [u8; 4] = [10, 77, 0, 1];
const CLIENT: [u8; 4] = [10, 77, 0, 2];
const SECTOR_BYTES: u64 = 512;

/// The payload with which the test's power cut unwinds.
struct Cut;

/// The medium, and the batches in which the power is cut.
struct World {
    sink: Arc<VecMemory>,
    under_way: Option<Batch>,
    /// The number of polls before it reports that it is done.
    lag: u32,
    batches: u64,
    /// The batches in which the power is cut.
    cuts: Vec<u64>,
    rng: Rng,
}

impl World {
    fn apply(&mut self) {
        if let Some(batch) = self.under_way.take() {
            for (at, bytes) in &batch.writes {
                self.sink.write(*at, bytes);
            }
        }
    }

    /// Writes some sectors of a batch to the medium.
    fn apply_some(&mut self, batch: &Batch) {
        for (at, bytes) in &batch.writes {
            let mut done = 0;
            while done < bytes.len() {
                let from = at + done as u64;
                let len = ((SECTOR_BYTES - from % SECTOR_BYTES) as usize).min(bytes.len() - done);
                if self.rng.below(4) > 0 {
                    self.sink.write(from, &bytes[done..done + len]);
                }
                done += len;
            }
        }
    }
}

struct TestMedium(Rc<RefCell<World>>);

impl Medium for TestMedium {
    fn begin(&mut self, batch: Batch) {
        let mut world = self.0.borrow_mut();
        world.batches += 1;
        let number = world.batches;
        if world.cuts.contains(&number) {
            world.apply_some(&batch);
            drop(world);
            resume_unwind(Box::new(Cut));
        }
        world.lag = u32::try_from(world.rng.below(3)).expect("small");
        world.under_way = Some(batch);
    }

    fn poll(&mut self) -> bool {
        let mut world = self.0.borrow_mut();
        if world.lag > 0 {
            world.lag -= 1;
            return false;
        }
        world.apply();
        true
    }

    fn wait(&mut self) {
        self.0.borrow_mut().apply();
    }
}

/// The same numbers for the same seed.
struct Seeded(Rng);

impl Entropy for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill(buffer);
    }
}

struct Server {
    world: Rc<RefCell<World>>,
    share: PathBuf,
    device: MemoryDevice,
    /// `None`: the power is off.
    machine: Option<Machine<Fs>>,
    /// Service time minus the wire's.
    ahead: Duration,
    boot: u8,
    power_cuts: u32,
}

impl Server {
    fn start(&mut self, now: Duration) -> Vec<TxFrame> {
        self.boot += 1;
        let sink = Sink {
            image: self.world.borrow().sink.clone(),
            medium: Box::new(TestMedium(self.world.clone())),
            name: "the sink".to_owned(),
            in_use: true,
        };
        let root = ShareRoot {
            path: self.share.clone(),
            read_only: false,
            run_as: None,
        };
        let parts = Parts {
            follower: None,
            // the mapping's content is lost with the page cache
            memory: Some(Arc::new(VecMemory::new(MEMORY_BYTES))),
            sink: Some(sink),
            partner: None,
            reply_room: REPLY_ROOM,
            effect_room: EFFECT_ROOM,
            wall: WALL,
            uptime: Duration::ZERO,
            sources: Sources::default(),
            incarnation: Incarnation {
                host: [1; 16],
                boot: [self.boot; 16],
            },
            company: outlast::server::open::Company::Alone,
            takes_over: false,
            copy_units: COPY_UNITS,
            sets_apart: true,
            stack: outlast_stack::Config {
                addresses: vec![(SERVER.into(), 24)],
                ports: vec![445],
                capabilities: Capabilities::default(),
                receive_buffer: 64 << 10,
                receive_total: 1 << 20,
                ..outlast_stack::Config::default()
            },
            smb: smb(),
            fs: Fs::new(&[root], wake().expect("an eventfd")).expect("the share"),
            entropy: Box::new(Seeded(Rng::named(&format!("boot {}", self.boot)))),
            probe: Box::new(Unarmed),
            stopwatch: Box::new(Ticking::default()),
            crashed: false,
            eviction: EvictionLimits {
                login: Duration::from_secs(600),
                idle: None,
                stalled: Duration::from_secs(600),
                stalled_when_short: Duration::from_secs(600),
                unauthenticated: 16,
                connections: 64,
                unread: 16 << 20,
            },
            lost: Lost::Frames,
        };
        let Recovered {
            machine,
            service_time,
            frames,
            ..
        } = recover(parts).expect("recovered");
        self.ahead = service_time.saturating_sub(now);
        self.machine = Some(machine);
        frames
    }

    fn turn(&mut self, now: Duration) {
        let worked = catch_unwind(AssertUnwindSafe(|| self.work(now)));
        let Err(payload) = worked else { return };
        self.died(payload);
    }

    fn died(&mut self, payload: Box<dyn Any + Send>) {
        if !payload.is::<Cut>() {
            resume_unwind(payload);
        }
        self.power_cuts += 1;
        self.machine = None;
        self.world.borrow_mut().under_way = None;
        // nothing holds the queue
        self.device.discard();
    }

    fn work(&mut self, now: Duration) {
        let mut frames = if self.machine.is_none() {
            self.start(now)
        } else {
            Vec::new()
        };
        let time = Time {
            now: now + self.ahead,
            wall: WALL,
            uptime: now,
        };
        let Some(machine) = &mut self.machine else {
            return;
        };
        let mut buffer = vec![0; MAX_FRAME_LEN];
        while let Ok(Some((len, checksum))) = self.device.receive(&mut buffer) {
            machine.ingest(
                RxFrame {
                    bytes: &buffer[..len],
                    checksum,
                },
                time,
            );
        }
        machine.turn(time, &mut frames);
        for frame in &frames {
            self.device.send(frame).expect("sent");
        }
    }
}

fn smb() -> outlast_smb::Config {
    outlast_smb::Config {
        name: "OUTLAST".into(),
        guid: [0; 16],
        min_dialect: Dialect::Smb202,
        max_dialect: Dialect::Smb311,
        signing: Requirement::Enabled,
        encryption: Requirement::Enabled,
        oplocks: Oplocks::On,
        shares: vec![Share {
            name: "pub".into(),
            comment: String::new(),
            read_only: false,
            guest: true,
            users: Vec::new(),
            directory: 0,
            continuous_availability: false,
            encryption: Requirement::Enabled,
        }],
        users: Vec::new(),
        limits: Limits::default(),
    }
}

/// One connection for a script of requests, each sent when the one before is answered.
struct Client {
    port: SmoltcpPort<MemoryDevice>,
    iface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    outbox: Vec<u8>,
    inbox: Vec<u8>,
    message_id: u64,
    session: u64,
    tree: u32,
    file: raw::FileId,
    step: usize,
    answers: Vec<(u32, Vec<u8>)>,
}

/// The request of a step, given the open file.
type Request = Box<dyn Fn(raw::FileId) -> (u16, Vec<u8>)>;

impl Client {
    fn new(device: MemoryDevice) -> Client {
        let mut port = SmoltcpPort::new(device, 1500);
        let mac = EthernetAddress([2, 0, 0, 0, 0, 0x20]);
        let config = Config::new(HardwareAddress::Ethernet(mac));
        let mut iface = Interface::new(config, &mut port, Instant::ZERO);
        let address = IpAddress::from(std::net::Ipv4Addr::from(CLIENT));
        iface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address, 24)).expect("room");
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 64 << 10]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        let remote = (IpAddress::from(std::net::Ipv4Addr::from(SERVER)), 445);
        socket
            .connect(iface.context(), remote, 49_152)
            .expect("connecting");
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Client {
            port,
            iface,
            sockets,
            handle,
            outbox: Vec::new(),
            inbox: Vec::new(),
            message_id: 0,
            session: 0,
            tree: 0,
            file: [0; 16],
            step: 0,
            answers: Vec::new(),
        }
    }

    fn turn(&mut self, now: Duration, script: &[Request]) {
        let instant = Instant::from_micros(i64::try_from(now.as_micros()).expect("short"));
        self.iface.poll(instant, &mut self.port, &mut self.sockets);
        let socket: &mut tcp::Socket = self.sockets.get_mut(self.handle);
        assert!(
            socket.is_open(),
            "the connection was ended in step {}",
            self.step
        );
        while socket.can_recv() {
            let bytes = socket.recv(|bytes| (bytes.len(), bytes.to_vec()));
            self.inbox.extend(bytes.expect("received"));
        }
        self.take_answers();
        if self.answers.len() == self.step
            && let Some(request) = script.get(self.step)
        {
            let (command, body) = request(self.file);
            let mut message =
                raw::header(command, self.message_id, self.session, self.tree).to_vec();
            message.extend(body);
            self.message_id += 1;
            self.step += 1;
            self.outbox.extend(raw::frame(&message));
        }
        let socket: &mut tcp::Socket = self.sockets.get_mut(self.handle);
        if socket.can_send() {
            let sent = socket.send_slice(&self.outbox).expect("sent");
            self.outbox.drain(..sent);
        }
        self.iface.poll(instant, &mut self.port, &mut self.sockets);
    }

    fn take_answers(&mut self) {
        while self.inbox.len() >= 4 {
            let len = u32::from_be_bytes(self.inbox[..4].try_into().expect("four")) as usize;
            if self.inbox.len() < 4 + len {
                return;
            }
            let message: Vec<u8> = self.inbox.drain(..4 + len).skip(4).collect();
            let word =
                |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().expect("four"));
            let id = u64::from_le_bytes(message[24..32].try_into().expect("eight"));
            assert_eq!(
                id,
                self.answers.len() as u64,
                "each request is answered once, in its turn"
            );
            let (status, command) = (word(8), word(12) & 0xffff);
            match u16::try_from(command).expect("16 bits") {
                raw::SESSION_SETUP => {
                    self.session = u64::from_le_bytes(message[40..48].try_into().expect("eight"));
                }
                raw::TREE_CONNECT => self.tree = word(36),
                raw::CREATE if status == 0 => {
                    self.file = message[128..144].try_into().expect("a FileId");
                }
                _ => {}
            }
            let body = match u16::try_from(command).expect("16 bits") {
                raw::READ => message[80..].to_vec(),
                _ => Vec::new(),
            };
            self.answers.push((status, body));
        }
    }
}

const ALL_ACCESS: u32 = 0x0017_019F;

/// A session with some of each operation that must not be done twice.
fn script() -> Vec<Request> {
    fn ask(command: u16, body: Vec<u8>) -> Request {
        Box::new(move |_| (command, body.clone()))
    }
    fn on(request: impl Fn(raw::FileId) -> (u16, Vec<u8>) + 'static) -> Request {
        Box::new(request)
    }
    let create = |name: &str, disposition: u32, options: u32| {
        ask(
            raw::CREATE,
            raw::create(name, ALL_ACCESS, disposition, options),
        )
    };
    let write = |offset: u64, byte: u8, len: usize| {
        on(move |file| (raw::WRITE, raw::write(file, offset, &vec![byte; len])))
    };
    let close = || on(|file| (raw::CLOSE, raw::close(file)));
    let rename = |to: &str| {
        let to = raw::utf16(to);
        on(move |file| {
            let mut buffer = vec![0; 16];
            buffer.extend(u32::try_from(to.len()).expect("short").to_le_bytes());
            buffer.extend(&to);
            (raw::SET_INFO, raw::set_info(file, 1, 10, 0, &buffer))
        })
    };
    let mut negotiate = vec![36, 0, 1, 0, 1, 0, 0, 0];
    negotiate.extend([0; 4 + 16 + 8]);
    negotiate.extend(0x0210_u16.to_le_bytes());
    let path = raw::utf16(r"\\10.77.0.1\pub");
    let mut tree = vec![9, 0, 0, 0, 72, 0];
    tree.extend(u16::try_from(path.len()).expect("short").to_le_bytes());
    tree.extend(path);
    vec![
        ask(raw::NEGOTIATE, negotiate),
        ask(
            raw::SESSION_SETUP,
            raw::session_setup(&raw::ntlm_negotiate()),
        ),
        ask(raw::SESSION_SETUP, raw::session_setup(&raw::ntlm_guest())),
        ask(raw::TREE_CONNECT, tree),
        create("d", 2, 1),
        close(),
        // exclusive: the second time it exists
        create(r"d\a", 2, 0),
        write(0, 1, 3000),
        write(3000, 2, 40_000),
        write(100, 3, 50),
        on(|file| {
            let length = 42_000_u64.to_le_bytes();
            (raw::SET_INFO, raw::set_info(file, 1, 20, 0, &length))
        }),
        rename("b"),
        close(),
        create(r"d\a", 2, 0),
        write(0, 4, 5000),
        close(),
        create("b", 2, 0),    // collides
        create(r"d\a", 5, 0), // overwritten
        write(7, 5, 10),
        close(),
        create("gone", 2, 0),
        write(0, 6, 2000),
        on(|file| (raw::SET_INFO, raw::set_info(file, 1, 13, 0, &[1]))),
        close(),
        create("b", 1, 0),
        on(|file| (raw::READ, raw::read(file, 0, 50_000))),
        close(),
    ]
}

/// The client's answers, and the final content of the share.
type Outcome = (Vec<(u32, Vec<u8>)>, files::Tree);

/// Runs the script with the power cut in these batches. Returns the numbers of batches and of power cuts too.
fn run(dir: &Path, cuts: &[u64], seed: &str) -> (Outcome, u64, u32) {
    let share = dir.join("share");
    let _ = std::fs::remove_dir_all(&share);
    std::fs::create_dir_all(&share).expect("the share");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&share, std::fs::Permissions::from_mode(0o777)).expect("its mode");
    let capabilities = || Capabilities::default();
    let (server, client) = pair([capabilities(), capabilities()], Faults::default(), 1);
    let world = Rc::new(RefCell::new(World {
        sink: Arc::new(VecMemory::new(MEMORY_BYTES)),
        under_way: None,
        lag: 0,
        batches: 0,
        cuts: cuts.to_vec(),
        rng: Rng::named(seed),
    }));
    let mut server = Server {
        world: world.clone(),
        share: share.clone(),
        device: server,
        machine: None,
        ahead: Duration::ZERO,
        boot: 0,
        power_cuts: 0,
    };
    let mut client = Client::new(client);
    let script = script();
    let mut now = Duration::ZERO;
    for _ in 0..200_000 {
        now += Duration::from_millis(1);
        server.device.advance(now);
        server.turn(now);
        client.turn(now, &script);
        if client.answers.len() == script.len() {
            break;
        }
    }
    assert_eq!(
        client.answers.len(),
        script.len(),
        "cuts {cuts:?}: the session came no further"
    );
    let mut tree = files::tree(&share);
    tree.remove(".outlast-marker");
    let batches = world.borrow().batches;
    ((client.answers, tree), batches, server.power_cuts)
}

#[test]
fn the_machine_continues_from_any_image_of_its_sink() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sink_images");
    let (undisturbed, batches, _) = run(&dir, &[], "none");
    let answered = undisturbed.0.iter().filter(|(status, _)| *status == 0);
    // all except the login's first step and the create that collides
    assert_eq!(answered.count(), script().len() - 2);
    assert!(batches > 40, "{batches}");
    let mut power_cuts = 0;
    for cut in 1..=batches {
        let seed = format!("cut in {cut}");
        let (once, ..) = run(&dir, &[cut], &seed);
        assert!(once == undisturbed, "{seed}: the outcome differs");
        power_cuts += 1;
        if cut % 4 != 0 {
            continue;
        }
        // and again, during the recovery or soon after it
        let again = cut + 1 + cut % 7;
        let (twice, _, cuts) = run(&dir, &[cut, again], &seed);
        assert!(
            twice == undisturbed,
            "{seed} and {again}: the outcome differs"
        );
        power_cuts += cuts;
    }
    println!("{batches} batches, {power_cuts} power cuts");
    let _ = std::fs::remove_dir_all(&dir);
}
