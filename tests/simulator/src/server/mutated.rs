//! Implements the actions that only mutated servers perform.

use std::time::Duration;

use outlast_stack::device::Device;
use outlast_stack::{Lost, RxFrame};

use super::{Life, Server};
use crate::configuration::stack_config;
use crate::surroundings::Nothing;

impl Server {
    /// Ends the connections of a server that crashes.
    pub(super) fn end_connections(&mut self, mut life: Life, now: Duration) {
        let mut frames = Vec::new();
        let time = life.time(now);
        life.machine.begin_closing(time);
        life.machine.turn(time, &mut frames);
        for frame in &frames {
            let _ = self.device.send(frame);
        }
    }

    /// Answers the arrived frames by a stack that does not know its connections yet.
    pub(super) fn answer_too_early(&mut self, now: Duration) {
        let mut stack = outlast_stack::Stack::new(stack_config(&self.scenario), [0; 32], now);
        let mut frames = Vec::new();
        stack.resume(now, Lost::Nothing, &mut Nothing, &mut frames);
        while let Ok(Some((length, checksum))) = self.device.receive(&mut self.buffer) {
            let bytes = &self.buffer[..length];
            stack.ingest(RxFrame { bytes, checksum }, now, &mut Nothing);
        }
        stack.poll(now, &mut Nothing, &mut frames);
        for frame in &frames {
            let _ = self.device.send(frame);
        }
    }
}
