//! Begins a life: the server recovers from what the previous one has left.

use std::time::Duration;

use outlast::server::eviction::EvictionLimits;
use outlast::server::recover::{Parts, recover};
use outlast_nvram::Incarnation;
use outlast_stack::addressing::Sources;
use outlast_stack::{Lost, RxFrame};

use super::{End, Life, Server, wall};
use crate::clock::Processor;
use crate::configuration::{smb_config, stack_config};
use crate::mutation::Mutation;
use crate::net::Net;
use crate::random::Random;
use crate::sink::SinkFile;
use crate::surroundings::{Saboteur, Seeded};
use crate::unauthenticated::{self, Unauthenticated};

/// The room for the longest reply of these workloads and its records.
const REPLY_ROOM: u64 = 5 << 10;
/// The room for the longest effect on files, and for all effects of a compound.
const EFFECT_ROOM: u64 = 5 << 10;

impl Server {
    pub(super) fn begin(&mut self, now: Duration, net: &Net) {
        log::debug!("the server begins at {now:?}");
        self.inspector.promises.begin_life();
        self.prepare_to_take_over();
        let lives = u64::from(self.lives());
        let seed = self.scenario.seed ^ (lives << 48);
        if lives > 0 && self.is(Mutation::SendsBeforeRecovery) {
            self.answer_too_early(now);
        }
        let (mut stack, smb) = self.configurations(self.lives());
        // The limits concern only the client that does not log in: the others may be silent for long when their TCP has
        // backed off.
        let limit = |of| match self.scenario.unauthenticated == Some(of) {
            true => unauthenticated::PATIENCE,
            false => Duration::from_secs(3600),
        };
        if self.is(Mutation::WindowsExceedRoom) {
            stack.receive_total *= 64;
            stack.receive_reserve = 0;
        }
        let fs = (self.disks).mount(&self.failing, &smb, &self.scenario, self.lives());
        let follower = self.standby.take();
        let is_followed = follower.is_some();
        self.disks.starting(true);
        let recovered = recover(Parts {
            memory: Some(self.nvram.clone()),
            follower,
            sink: self.sink.as_ref().map(SinkFile::open),
            partner: None,
            reply_room: REPLY_ROOM,
            effect_room: EFFECT_ROOM,
            wall: wall(now),
            uptime: now,
            sources: Sources::default(),
            incarnation: Incarnation {
                host: [self.machine(); 16],
                boot: [self.boot(); 16],
            },
            company: self.company(),
            takes_over: self.takes_over,
            copy_units: self.scenario.copy_units,
            // With one share only, the judge knows none that is isolated: such a start is refused, and repeated.
            sets_apart: self.scenario.sickness.is_some(),
            stack,
            smb,
            fs,
            entropy: Box::new(Seeded(Random::new(seed, "entropy"))),
            probe: Box::new(Saboteur {
                nvram: self.nvram.clone(),
                mutation: self.scenario.mutation,
            }),
            stopwatch: Box::new(Processor::new(
                self.scenario.speed,
                Random::new(seed, "processor"),
            )),
            crashed: !self.elective,
            eviction: EvictionLimits {
                login: limit(Unauthenticated::Silent),
                idle: None,
                stalled: limit(Unauthenticated::Halting),
                stalled_when_short: Duration::from_secs(3600),
                unauthenticated: 64,
                connections: 64,
                unread: self.scenario.unread,
            },
            lost: match self.elective {
                true => Lost::Nothing,
                false => self.scenario.lost,
            },
        });
        self.disks.starting(false);
        let recovered = match recovered {
            Ok(recovered) => recovered,
            Err(error) => {
                assert!(
                    self.disks.take_failure(),
                    "the server does not recover: {error:#}"
                );
                log::debug!("the server does not start: {error:#}");
                self.failed_starts += 1;
                self.end(now, End::Killed);
                self.loses_its_worker = false;
                return self.node_died();
            }
        };
        assert_eq!(
            recovered.was_followed, is_followed,
            "a follower does not take over"
        );
        let base = match self.scenario.mutation {
            Some(Mutation::OutageCountsAsTime) if lives > 0 => {
                recovered.service_time + self.scenario.outage
            }
            _ => recovered.service_time,
        };
        self.takes_over = false;
        self.life = Some(Life {
            machine: recovered.machine,
            base,
            began: self.clock.now(),
        });
        let revocation = self.scenario.rules.revocation;
        self.has_revoked = revocation.is_some_and(|it| it.from_life <= self.lives());
        self.check_state();
        self.send(&recovered.frames, net);
        self.take_left_frames(now);
        if self.life.is_some() {
            let (stack, smb) = self.configurations(self.lives() + 1);
            self.standby.begin(&self.nvram, stack, smb);
        }
    }

    /// Receives the frames that the previous worker had read, once, as the server's loop does.
    fn take_left_frames(&mut self, now: Duration) {
        let left = std::mem::take(&mut self.received);
        let Some(life) = &mut self.life else { return };
        let time = life.time(now);
        let frames = left.iter().map(|(bytes, checksum)| RxFrame {
            bytes,
            checksum: *checksum,
        });
        life.machine.ingest_kept(&frames.collect::<Vec<_>>(), time);
    }

    /// Returns the configurations of a life; `lives`: the number of lives before it.
    fn configurations(&self, lives: u32) -> (outlast_stack::Config, outlast_smb::Config) {
        let mut stack = stack_config(&self.scenario);
        if lives > 0 && self.scenario.smaller_window {
            stack.receive_buffer /= 2;
        }
        (stack, smb_config(&self.scenario, lives))
    }

    /// Returns the number of lives before this one.
    pub(super) fn lives(&self) -> u32 {
        self.crashes + self.reboots + self.failed_starts
    }
}
