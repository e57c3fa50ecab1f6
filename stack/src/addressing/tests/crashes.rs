//! Crashes the client after every record and every frame of random exchanges: the state is the fold of the records, and
//! the next client continues with it.

use super::*;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The client's next deadline. Its messages reach the server, which answers or not.
    Deadline { answers: bool },
    /// The client crashes; the outage lasts this long.
    Crash { seconds: u64 },
}

/// A server that assigns one address, and refuses when it has been told to.
struct Server {
    refuses: bool,
    lease: u32,
    /// The time until which the client may use the address.
    until: Duration,
}

impl Server {
    fn answer(&mut self, asked: &Asked, now: Duration) -> Option<Answer> {
        let answer = match asked.kind {
            DhcpMessageType::Discover => Answer::offer(asked.xid),
            DhcpMessageType::Request if self.refuses => {
                Answer::new(DhcpMessageType::Nak, asked.xid)
            }
            DhcpMessageType::Request => {
                self.until = now + seconds(self.lease.into());
                Answer::ack(asked.xid)
            }
            _ => return None,
        };
        Some(answer.lease(self.lease))
    }
}

fn run(events: &[Event], refusals: u32) {
    let mut world = World::dhcp();
    let mut server = Server {
        refuses: false,
        lease: 600,
        until: Duration::ZERO,
    };
    for (number, event) in events.iter().enumerate() {
        server.refuses = refusals.rotate_right(number as u32) & 7 == 7;
        let before = world.now;
        match *event {
            Event::Deadline { answers } => {
                for frame in world.next() {
                    let Some(asked) = parse(&frame) else { continue };
                    let answer = server.answer(&asked, world.now);
                    if let Some(answer) = answer.filter(|_| answers) {
                        world.deliver(&answer.frame());
                    }
                }
            }
            Event::Crash { seconds: outage } => world.crash(seconds(outage)),
        }
        assert!(world.now >= before);
        assert_eq!(world.fold(), *world.client.acquired(), "event {number}");
        // At each moment another client would continue with the same addresses.
        let mut next = Client::new(world.sources, MAC, world.fold());
        let (mut records, now) = (Vec::new(), world.now);
        next.expire(&mut Context {
            now,
            random: &mut || 4,
            journal: &mut |record| records.push(*record),
        });
        let expired = world
            .client
            .acquired()
            .lease
            .is_some_and(|of| of.expires_at <= now);
        assert_eq!(records.contains(&Record::LeaseEnded), expired);
        // No address is used after the server's lease has ended.
        if !next.addresses().is_empty() {
            assert!(now < server.until, "event {number}: {now:?}");
        }
    }
}

#[test]
fn the_state_is_the_fold_of_the_records_at_every_crash() {
    let mut random = 3_u64;
    let mut draw = move |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..2000 {
        let events: Vec<Event> = (0..40)
            .map(|_| match draw(5) {
                0 => Event::Crash { seconds: draw(400) },
                1 => Event::Deadline { answers: false },
                _ => Event::Deadline { answers: true },
            })
            .collect();
        run(&events, draw(1 << 32) as u32);
    }
}

#[test]
fn an_exchange_survives_a_crash_at_each_event() {
    let whole = [Event::Deadline { answers: true }; 12];
    for at in 0..whole.len() {
        for outage in [0, 1, 299, 301, 526, 599, 600, 10_000] {
            let mut events = whole.to_vec();
            events.insert(at, Event::Crash { seconds: outage });
            run(&events, 0);
        }
    }
}
