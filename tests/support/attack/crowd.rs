//! Attacks by many connections that do little, driven by one thread.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{BIG, Field, Foe};
use crate::support::raw::{self, Client};

/// The largest READ or WRITE, and the MessageIds that it takes.
const IO_BYTES: u32 = 8 << 20;
const IO_CHARGE: u16 = 128;

/// The number of READs of one slow reader.
const READS: usize = 32;

/// Keeps `size` connections, and replaces those that the server drops, at most `fresh` in each round. Each has its turn
/// in each round; between rounds there is a pause.
fn crowd<'a, M>(
    field: &'a Field,
    (size, fresh, pause): (usize, usize, Duration),
    mut make: impl FnMut() -> io::Result<(Foe<'a>, M)>,
    mut turn: impl FnMut(&mut Foe<'a>, &mut M) -> io::Result<()>,
) {
    let mut foes: Vec<(Foe<'a>, M)> = Vec::new();
    let mut made = 0;
    while !field.over() {
        let before = foes.len();
        let hung_up = hung_up(&foes);
        let mut ended = hung_up.iter();
        foes.retain(|_| !ended.next().expect("one for each"));
        foes.retain_mut(|(foe, mind)| turn(foe, mind).is_ok());
        if !field.over() {
            field.count(|counts| &counts.dropped, before - foes.len());
        }
        for _ in foes.len()..size.min(foes.len() + fresh) {
            match make() {
                Ok(foe) => foes.push(foe),
                Err(_) if field.over() => return,
                Err(_) => field.count(|counts| &counts.dropped, 1),
            }
            made += 1;
        }
        if made >= size {
            field.steady();
        }
        field.pause(pause);
    }
}

/// Finds the connections that the server has ended.
fn hung_up<M>(foes: &[(Foe<'_>, M)]) -> Vec<bool> {
    let mut polled: Vec<_> = foes
        .iter()
        .map(|(foe, _)| PollFd::new(&foe.client.stream, PollFlags::RDHUP))
        .collect();
    // without waiting; an interruption reports none
    let _ = poll(&mut polled, Some(&Timespec::default()));
    polled.iter().map(|one| !one.revents().is_empty()).collect()
}

/// Connections that never log in; every second one negotiates. Dropped ones are replaced, at most `per_second`.
pub fn unauthenticated(field: &Field, connections: usize, per_second: usize) -> io::Result<()> {
    let rounds = per_second.min(50);
    let pause = Duration::from_secs(1) / u32::try_from(rounds).expect("few");
    let mut negotiates = false;
    let make = || {
        let mut foe = Foe::connect(field, None)?;
        negotiates = !negotiates;
        if negotiates {
            foe.call(raw::NEGOTIATE, &raw::negotiate())?;
        }
        Ok((foe, ()))
    };
    crowd(
        field,
        (connections, per_second / rounds, pause),
        make,
        |_, ()| Ok(()),
    );
    Ok(())
}

/// Connections that log in and do nothing more.
pub fn idlers(field: &Field, connections: usize) -> io::Result<()> {
    let make = || Ok((Foe::guest(field)?, ()));
    let pause = Duration::from_millis(100);
    crowd(field, (connections, connections, pause), make, |_, ()| {
        Ok(())
    });
    Ok(())
}

/// Guests that send one byte of an ECHO ten times a second.
pub fn trickle(field: &Field, connections: usize) -> io::Result<()> {
    let make = || {
        let foe = Foe::guest(field)?;
        foe.client.stream.set_nonblocking(true)?;
        Ok((foe, Vec::new().into_iter()))
    };
    let turn = |foe: &mut Foe<'_>, left: &mut std::vec::IntoIter<u8>| {
        let byte = match left.next() {
            Some(byte) => byte,
            None => {
                field.count(|counts| &counts.requests, 1);
                let echo = foe.client.message(raw::ECHO, &[4, 0, 0, 0]);
                *left = raw::frame(&echo).into_iter();
                left.next().expect("a byte")
            }
        };
        take(foe, 4096)?;
        unless_full(foe.client.stream.write(&[byte]))
    };
    let pause = Duration::from_millis(100);
    crowd(field, (connections, connections, pause), make, turn);
    Ok(())
}

/// Guests that ask for 256 MiB each and read very little of it: a byte four times a second, every second guest not even
/// that.
pub fn slow_readers(field: &Field, connections: usize) -> io::Result<()> {
    let mut takes = false;
    let make = || {
        let mut foe = Foe::connect(field, Some(4096))?.logged_in()?;
        foe.client.credits = 8192;
        let file = foe.open(&raw::create(BIG, 0x0012_0089, 1, 0))?;
        let body = raw::read(file, 0, IO_BYTES);
        for _ in 0..READS {
            let message = foe.client.charged(raw::READ, &body, IO_CHARGE);
            foe.client.send(&message)?;
        }
        field.count(|counts| &counts.requests, READS);
        foe.client.stream.set_nonblocking(true)?;
        takes = !takes;
        Ok((foe, takes))
    };
    let turn = |foe: &mut Foe<'_>, takes: &mut bool| if *takes { take(foe, 1) } else { Ok(()) };
    let pause = Duration::from_millis(250);
    crowd(field, (connections, connections, pause), make, turn);
    Ok(())
}

/// Reads what is there, up to so many bytes; an error at the connection's end.
fn take(foe: &mut Foe<'_>, bytes: usize) -> io::Result<()> {
    match foe.client.stream.read(&mut vec![0; bytes]) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        result => unless_full(result),
    }
}

fn unless_full(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// A guest that begins a WRITE of 8 MiB, sends all but its last bytes, and then one byte each second. (It blocks where
/// the server reads no more, so it needs a thread of its own.)
pub fn half_messages(field: &Field) -> io::Result<()> {
    const LAST: usize = 32;
    let mut foe = Foe::guest(field)?;
    let name = format!("half {}", field.number);
    let file = foe.open(&raw::create(&name, 0x0017_019F, 3, 0))?;
    let mut body = raw::write(file, 0, &[]);
    body[4..8].copy_from_slice(&IO_BYTES.to_le_bytes());
    let message = foe.client.charged(raw::WRITE, &body, IO_CHARGE);
    let length = u32::try_from(message.len()).expect("short") + IO_BYTES;
    foe.client.stream.write_all(&length.to_be_bytes())?;
    foe.client.stream.write_all(&message)?;
    field.count(|counts| &counts.requests, 1);
    let mut left = IO_BYTES as usize;
    while left > LAST {
        let chunk = [0; 64 << 10];
        let sent = chunk.len().min(left - LAST);
        foe.client.stream.write_all(&chunk[..sent])?;
        left -= sent;
        field.steady();
    }
    for _ in 0..left {
        field.pause(Duration::from_secs(1));
        ended(&foe.client)?;
        foe.client.stream.write_all(&[0])?;
    }
    let answer = foe.client.receive()?;
    foe.taken(&answer);
    Ok(())
}

/// An error if the server has ended the connection.
fn ended(client: &Client) -> io::Result<()> {
    let mut polled = [PollFd::new(&client.stream, PollFlags::RDHUP)];
    // without waiting
    poll(&mut polled, Some(&Timespec::default()))?;
    match polled[0].revents().is_empty() {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
