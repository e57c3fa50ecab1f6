//! Tests both ends of the interconnect, over the loopback.

use std::io::Read as _;
use std::net::Ipv4Addr;

use bytes::Bytes;
use outlast_nvram::copy::Beginning;
use outlast_nvram::{Flag, Home, Identity, Kind, Log, Memory as _, VecMemory};
use rustls::ClientConnection;

use super::super::sender::{Link, News, Target};
use super::*;
use crate::job_thread::wake;
use crate::pair::link::keys;
use crate::pair::role::Nodes;

const SIZE: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

fn incarnation(boot: u8) -> Incarnation {
    Incarnation {
        host: [1; 16],
        boot: [boot; 16],
    }
}

/// A directory with the keys of a pair.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("outlast-link-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        keys::make(&path, ["a", "b"]).unwrap();
        Scratch(path)
    }

    fn keys(&self, own: &str, partner: &str) -> Keys {
        let nodes = Nodes {
            own: own.into(),
            partner: partner.into(),
        };
        Keys::load(&self.0.join(format!("node-{own}.pem")), &nodes).unwrap()
    }

    fn nvram(&self) -> PathBuf {
        self.0.join("nvram")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Node b, on standby.
fn receiver(scratch: &Scratch) -> (Receiver, SocketAddr) {
    let address = free_address();
    let receiver = Receiver::start(Place {
        address,
        keys: scratch.keys("b", "a"),
        partner: "a".into(),
        nvram: scratch.nvram(),
        size_bytes: SIZE,
        incarnation: incarnation(2),
    });
    (receiver.unwrap(), address)
}

fn hello(epoch: u64) -> Hello {
    Hello {
        node: "a".into(),
        epoch,
        memory_len: SIZE,
    }
}

fn link(keys: Keys, address: SocketAddr, hello: Hello) -> Link {
    let target = Target {
        address,
        keys,
        hello,
        timeout: PATIENCE,
    };
    let link = Link::start(target, wake().unwrap()).unwrap();
    link.want(true);
    link
}

fn next(link: &mut Link) -> News {
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "no news");
        link.wait(Duration::from_millis(20));
        if let Some(news) = link.news() {
            return news;
        }
    }
}

fn refused(link: &mut Link) -> String {
    match next(link) {
        News::Down(why) => why,
        other => panic!("{other:?}"),
    }
}

/// A log of node a, in this term.
fn log(term: u64) -> Log {
    let identity = Identity {
        instance: [term as u8; 16],
        incarnation: incarnation(1),
    };
    let memory = Arc::new(VecMemory::new(SIZE as usize));
    let mut log = Log::format(memory, identity).unwrap();
    log.set_term(term);
    log.set_flag(Flag::NonElectiveTakeover);
    log
}

fn append(log: &mut Log, object: u64) {
    let kind = match object {
        1 => Kind::Snapshot,
        _ => Kind::Delta,
    };
    log.append(1, kind, b"meta", &[&[object as u8; 1000]])
        .unwrap();
    log.commit();
}

/// Ships until the copy is complete.
fn ship(log: &mut Log, link: &mut Link) {
    while let Some(batch) = log.next_batch(Home::Partner) {
        link.ship(batch);
        assert!(matches!(next(link), News::Done));
        log.batch_done(Home::Partner);
    }
    assert!(log.is_shipped(Home::Partner));
}

fn attach(log: &mut Log, link: &mut Link) -> bool {
    let News::Up(beginning) = next(link) else {
        panic!("not welcome");
    };
    if log
        .attach(Home::Partner, &Beginning::new(SIZE, beginning))
        .is_ok()
    {
        return true;
    }
    link.begin_anew();
    let News::Up(beginning) = next(link) else {
        panic!("not welcome");
    };
    log.attach(Home::Partner, &Beginning::new(SIZE, beginning))
        .unwrap();
    false
}

fn copied(scratch: &Scratch) -> outlast_nvram::Contents {
    let memory = Mapping::open_read_only(&scratch.nvram()).unwrap();
    Log::inspect(&memory).unwrap()
}

#[test]
fn a_log_is_copied_and_the_copy_continues_where_it_was() {
    let scratch = Scratch::new("copied");
    let (receiver, address) = receiver(&scratch);
    receiver.admit(Some(3));
    let mut log = log(3);
    (1..10).for_each(|object| append(&mut log, object));
    let mut first = link(scratch.keys("a", "b"), address, hello(3));
    attach(&mut log, &mut first);
    ship(&mut log, &mut first);
    assert_eq!(copied(&scratch).records.len(), 9);
    assert_eq!(copied(&scratch).superblock.term, 3);
    append(&mut log, 10);
    ship(&mut log, &mut first);
    assert_eq!(receiver.view().received, log.committed().0);
    drop(first);
    append(&mut log, 11);
    let mut second = link(scratch.keys("a", "b"), address, hello(3));
    assert!(
        attach(&mut log, &mut second),
        "it continues at its position"
    );
    ship(&mut log, &mut second);
    assert_eq!(copied(&scratch).records.len(), 11);
    // From now on no frame is acknowledged, and the NVRAM may be used otherwise.
    receiver.admit(None);
    append(&mut log, 12);
    second.ship(log.next_batch(Home::Partner).unwrap());
    refused(&mut second);
    assert_eq!(refused(&mut second), Refusal::NotNow.to_string());
    assert_eq!(copied(&scratch).records.len(), 11);
    let memory = Mapping::open(&scratch.nvram(), SIZE).unwrap();
    assert_eq!(memory.len(), SIZE);
    let standing = Standing::of(&memory).unwrap().unwrap();
    assert_eq!(standing.received_in, Some(incarnation(2)));
}

#[test]
fn another_log_is_copied_from_its_beginning() {
    let scratch = Scratch::new("another");
    let (receiver, address) = receiver(&scratch);
    receiver.admit(Some(3));
    for term in [3, 4] {
        let mut log = log(term);
        (1..4 + term).for_each(|object| append(&mut log, object));
        log.begin_epoch(incarnation(term as u8)).unwrap();
        let mut link = link(scratch.keys("a", "b"), address, hello(term));
        assert_eq!(attach(&mut log, &mut link), term == 3);
        ship(&mut log, &mut link);
        assert_eq!(copied(&scratch).records.len() as u64, 3 + term);
    }
}

#[test]
fn an_older_epoch_another_length_and_another_node_are_refused() {
    let scratch = Scratch::new("refused");
    let (receiver, address) = receiver(&scratch);
    let keys = || scratch.keys("a", "b");
    let mut early = link(keys(), address, hello(3));
    assert_eq!(refused(&mut early), Refusal::NotNow.to_string());
    receiver.admit(Some(4));
    assert!(matches!(next(&mut early), News::Superseded(4)));
    let longer = Hello {
        memory_len: 2 * SIZE,
        ..hello(4)
    };
    assert!(refused(&mut link(keys(), address, longer)).contains("nvram.size"));
    let other = Hello {
        node: "c".into(),
        ..hello(4)
    };
    assert!(refused(&mut link(keys(), address, other)).contains("not of c"));
    // Its own state is newer than the epoch of the arbiter.
    let mut log = log(9);
    append(&mut log, 1);
    let mut ninth = link(keys(), address, hello(9));
    attach(&mut log, &mut ninth);
    ship(&mut log, &mut ninth);
    drop(ninth);
    receiver.admit(None);
    receiver.admit(Some(5));
    assert!(matches!(
        next(&mut link(keys(), address, hello(6))),
        News::Superseded(9)
    ));
}

#[test]
fn a_peer_with_another_key_is_nobody() {
    let scratch = Scratch::new("keys");
    let others = Scratch::new("other-keys");
    let (receiver, address) = receiver(&scratch);
    receiver.admit(Some(1));
    let why = refused(&mut link(others.keys("a", "b"), address, hello(1)));
    assert!(!why.is_empty());
    assert!(!receiver.view().is_connected);
    // One peer without TLS, and one that is silent.
    let mut stranger = TcpStream::connect(address).unwrap();
    stranger.write_all(&[0xff; 4096]).unwrap();
    let _silent = TcpStream::connect(address).unwrap();
    let _ = stranger.read(&mut [0; 4096]);
    assert!(matches!(
        next(&mut link(scratch.keys("a", "b"), address, hello(1))),
        News::Up(_)
    ));
}

#[test]
fn keys_are_private_and_made_once() {
    let scratch = Scratch::new("private");
    let again = keys::make(&scratch.0, ["a", "b"]).unwrap_err();
    assert!(again.to_string().contains("is there already"), "{again}");
    let path = scratch.0.join("node-a.pem");
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let nodes = Nodes {
        own: "a".into(),
        partner: "b".into(),
    };
    mode(0o640);
    let open = Keys::load(&path, &nodes).unwrap_err();
    assert!(open.to_string().contains("chmod 600"), "{open}");
    mode(0o600);
    std::fs::write(&path, "nothing").unwrap();
    let broken = format!("{:#}", Keys::load(&path, &nodes).unwrap_err());
    assert!(broken.contains("outlast pair init"), "{broken}");
}

/// A hostile leader that has the key.
struct Hostile(StreamOwned<ClientConnection, TcpStream>);

impl Hostile {
    fn connect(scratch: &Scratch, address: SocketAddr) -> Hostile {
        let Keys {
            client, partner, ..
        } = scratch.keys("a", "b");
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Hostile(StreamOwned::new(
            ClientConnection::new(client, partner).unwrap(),
            socket,
        ))
    }

    fn say(&mut self, frame: &Frame) {
        frame.send(&mut self.0).unwrap();
        self.0.flush().unwrap();
    }

    fn hear(&mut self) -> Option<Frame> {
        Frame::receive(&mut self.0).ok()
    }
}

#[test]
fn a_frame_that_a_leader_may_not_send_ends_its_connection() {
    let scratch = Scratch::new("hostile");
    let (receiver, address) = receiver(&scratch);
    receiver.admit(Some(1));
    let write = |at, len| Frame::Write {
        at,
        bytes: Bytes::from(vec![0x5a; len]),
    };
    let mark = |tail: u64, head: u64| {
        let mut bytes = b"OUTLMARK".to_vec();
        bytes.extend([9, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([7; 16]);
        bytes.extend(tail.to_le_bytes());
        bytes.extend(head.to_le_bytes());
        bytes.extend([0; 12]);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        Frame::Write {
            at: 8704,
            bytes: bytes.into(),
        }
    };
    let complete = Frame::Complete { number: 1 };
    let deeds = [
        vec![write(8192, 8)],
        vec![write(SIZE, 1)],
        vec![write(u64::MAX, 8)],
        vec![mark(0, SIZE * 8), complete.clone()],
        vec![mark(800, 8), complete.clone()],
        vec![mark(0, 4), complete],
        vec![Frame::Heard],
        vec![Frame::Hello(hello(1))],
    ];
    for deed in deeds {
        let mut leader = Hostile::connect(&scratch, address);
        leader.say(&Frame::Hello(hello(1)));
        assert!(matches!(leader.hear(), Some(Frame::Welcome { .. })));
        deed.iter().for_each(|frame| leader.say(frame));
        assert!(matches!(leader.hear(), Some(Frame::Refused(_))), "{deed:?}");
        assert_eq!(leader.hear(), None, "{deed:?}");
    }
    let mut silent = Hostile::connect(&scratch, address);
    silent.say(&Frame::Anew);
    assert_eq!(silent.hear(), None);
    // The last connection with a valid greeting has the seat.
    let mut first = Hostile::connect(&scratch, address);
    first.say(&Frame::Hello(hello(1)));
    first.hear().unwrap();
    let mut second = Hostile::connect(&scratch, address);
    second.say(&Frame::Hello(hello(2)));
    second.hear().unwrap();
    assert_eq!(first.hear(), None);
    second.say(&Frame::Beat(Beat::default()));
    assert_eq!(second.hear(), Some(Frame::Heard));
    // From now on the older epoch is refused.
    let mut third = Hostile::connect(&scratch, address);
    third.say(&Frame::Hello(hello(1)));
    assert_eq!(third.hear(), Some(Frame::Refused(Refusal::Epoch(2))));
}
