use super::*;

const CLIENT: &str = "10.77.0.2:50000";
const SERVER: &str = "10.77.0.1:445";

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A builder of a capture.
pub(crate) struct Story {
    pub connections: Connections,
    client: SocketAddr,
    /// The next sequence numbers of the client and of the server.
    next: [u32; 2],
}

impl Story {
    pub(crate) fn new(isn: u32) -> Story {
        Story {
            connections: Connections::default(),
            client: CLIENT.parse().unwrap(),
            next: [isn; 2],
        }
    }

    fn segment(&self, at: u64, from_server: bool, back: u32, payload_bytes: u32) -> Segment {
        let server = SERVER.parse().unwrap();
        let (source, destination) = match from_server {
            true => (server, self.client),
            false => (self.client, server),
        };
        Segment {
            at: ms(at),
            source,
            destination,
            seq: self.next[usize::from(from_server)].wrapping_sub(back),
            ack: Some(self.next[usize::from(!from_server)]),
            payload_bytes,
            syn: false,
            fin: false,
            rst: false,
        }
    }

    /// Adds the handshake, from this port of the client.
    pub(crate) fn connect(&mut self, at: u64, port: u16, isn: u32) {
        self.client.set_port(port);
        self.next = [isn; 2];
        for from_server in [false, true] {
            let mut syn = self.segment(at, from_server, 0, 0);
            syn.syn = true;
            syn.ack = syn.ack.filter(|_| from_server);
            self.connections.add(&syn);
            self.next[usize::from(from_server)] = isn.wrapping_add(1);
        }
    }

    pub(crate) fn syn(&mut self, at: u64) {
        let mut syn = self.segment(at, false, 1, 0);
        (syn.syn, syn.ack) = (true, None);
        self.connections.add(&syn);
    }

    pub(crate) fn sends(&mut self, at: u64, from_server: bool, bytes: u32) {
        let segment = self.segment(at, from_server, 0, bytes);
        self.connections.add(&segment);
        let next = &mut self.next[usize::from(from_server)];
        *next = next.wrapping_add(bytes);
    }

    pub(crate) fn resends(&mut self, at: u64, from_server: bool, bytes: u32) {
        let segment = self.segment(at, from_server, bytes, bytes);
        self.connections.add(&segment);
    }

    pub(crate) fn resets(&mut self, at: u64, from_server: bool) {
        let mut segment = self.segment(at, from_server, 0, 0);
        segment.rst = true;
        self.connections.add(&segment);
    }

    fn only(&self) -> &Connection {
        assert_eq!(self.connections.all().len(), 1);
        &self.connections.all()[0]
    }
}

fn lengths_ms(connection: &Connection) -> Vec<u128> {
    let silences = connection.silences.iter();
    silences.map(|one| one.length().as_millis()).collect()
}

#[test]
fn offsets_continue_where_sequence_numbers_wrap_around() {
    let mut story = Story::new(0);
    story.connect(0, 50_000, 0xFFFF_0000);
    // more than 4 GiB
    for at in 0..70_000 {
        story.sends(at, true, 65_536);
    }
    story.resends(70_000, true, 65_536);
    let one = story.only();
    assert_eq!(one.to_client.bytes(), 70_000 * 65_536);
    let resent: Vec<_> = one
        .to_client
        .points
        .iter()
        .filter(|point| point.is_resent)
        .collect();
    assert_eq!(resent.len(), 1);
    assert_eq!(resent[0].offset, 70_000 * 65_536);
}

#[test]
fn the_silence_of_a_download_begins_with_the_last_byte() {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    story.sends(1, false, 100); // asks for much
    for at in 2..10 {
        story.sends(at, true, 1000);
    }
    story.sends(250, true, 1000);
    assert_eq!(*lengths_ms(story.only()).iter().max().unwrap(), 241);
    let silence = story.only().longest_silence_after(ms(100)).unwrap();
    assert_eq!((silence.from, silence.until), (ms(9), ms(250)));
}

#[test]
fn the_silence_of_an_upload_ends_with_the_first_acknowledgement() {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    story.sends(1, false, 1000);
    story.sends(2, true, 0);
    story.sends(3, false, 1000);
    story.resends(103, false, 1000);
    story.resends(203, false, 1000);
    story.sends(300, true, 0);
    let silence = story.only().longest_silence_after(ms(2)).unwrap();
    assert_eq!((silence.from, silence.until), (ms(2), ms(300)));
}

#[test]
fn an_acknowledgement_is_not_a_reply_for_a_client_that_downloads() {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    story.sends(1, false, 100);
    story.sends(2, true, 10_000);
    story.sends(3, false, 100); // asks for more
    story.sends(103, true, 0);
    story.sends(203, true, 10_000);
    let silence = story.only().longest_silence_after(ms(50)).unwrap();
    assert_eq!((silence.from, silence.until), (ms(2), ms(203)));
}

#[test]
fn a_client_that_has_nothing_to_ask_does_not_wait() {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    story.sends(1, false, 100);
    story.sends(2, true, 100);
    story.sends(10_000, false, 100);
    story.sends(10_003, true, 100);
    assert_eq!(lengths_ms(story.only()), [2, 3]);
    assert_eq!(story.only().silence_until(ms(20_000)), None);
    story.sends(20_000, false, 100);
    let open = story.only().silence_until(ms(20_500)).unwrap();
    assert_eq!(open.length(), ms(500));
}

#[test]
fn a_death_is_a_reset_and_another_connection() {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    story.sends(1, true, 1000);
    story.resets(2, true);
    story.connect(1000, 50_001, 9);
    story.sends(1001, true, 10);
    let both = story.connections.busiest(Some(445));
    assert_eq!(both.len(), 2);
    assert!(both[0].was_reset() && !both[1].was_reset());
    assert_eq!(both.iter().map(|one| one.syns()).sum::<usize>(), 2);
}

#[test]
fn a_port_that_is_used_again_is_another_connection() {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    story.syn(1); // the first SYN once more
    assert_eq!(story.only().syns(), 2);
    story.connect(5, 50_000, 900);
    assert_eq!(story.connections.all().len(), 2);
}

#[test]
fn the_busiest_pair_is_chosen_unless_a_port_is_named() {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    story.sends(1, true, 1000);
    let mut other = story.segment(2, true, 0, 5000);
    other.source.set_port(80);
    other.destination.set_port(40_000);
    story.connections.add(&other);
    assert_eq!(story.connections.busiest(None)[0].server.port(), 80);
    assert_eq!(story.connections.busiest(Some(445))[0].server.port(), 445);
    assert_eq!(story.connections.busiest(Some(40_000))[0].server.port(), 80);
    assert!(story.connections.busiest(Some(1)).is_empty());
}

#[test]
fn a_keep_alive_is_not_sent_again() {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    story.sends(1, false, 100);
    let probe = story.segment(2, false, 1, 1);
    story.connections.add(&probe);
    assert_eq!(story.only().to_server.points.len(), 1);
}
