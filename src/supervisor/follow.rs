//! Runs the standby worker: follows the log until the supervisor orders it to serve.

use std::io::{BufRead as _, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Context as _;

use super::page::{Page, Standing};
use super::worker::{Go, Message, Report};
use crate::server::Following;
use crate::server::digest::Mark;
use crate::server::following::Follower;

/// The interval at which a growing log is read.
const PACE: Duration = Duration::from_millis(5);
/// The same when it has not grown for a while.
const PACE_IDLE: Duration = Duration::from_millis(50);
/// The niceness of the following thread, relative to the serving one.
const NICENESS: i32 = 5;

/// What ends the wait.
enum News {
    /// The supervisor's order; `None`: it has ended, or has closed the pipe.
    Ordered(Option<Go>),
    /// The follower cannot continue.
    Failed(anyhow::Error),
}

/// Follows until the order arrives; `None`: it will not arrive.
///
/// # Errors
/// The log cannot be followed.
pub(super) fn until_ordered(
    following: Following,
    page: Option<Page>,
    report: &Report,
) -> anyhow::Result<Option<(Go, Following)>> {
    let (sender, news) = mpsc::channel();
    let is_over = Arc::new(AtomicBool::new(false));
    let follows = {
        let (sender, is_over, report) = (sender.clone(), is_over.clone(), report.clone());
        let thread = std::thread::Builder::new().name("follower".into());
        thread
            .spawn(move || {
                let followed = follow(following, page.as_ref(), &report, &is_over);
                followed.map_err(|error| drop(sender.send(News::Failed(error))))
            })
            .context("cannot start a thread")?
    };
    let listens = std::thread::Builder::new().name("orders".into());
    listens
        .spawn(move || drop(sender.send(News::Ordered(order()))))
        .context("cannot start a thread")?;
    let go = match news.recv() {
        Ok(News::Ordered(go)) => go,
        Ok(News::Failed(error)) => return Err(error),
        Err(_) => None,
    };
    is_over.store(true, Ordering::Release);
    follows.thread().unpark();
    match (go, follows.join()) {
        (Some(go), Ok(Ok(following))) => Ok(Some((go, following))),
        _ => Ok(None),
    }
}

/// Reads the supervisor's order, a line on standard input.
fn order() -> Option<Go> {
    let mut line = String::new();
    BufReader::new(std::io::stdin()).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

fn follow(
    mut following: Following,
    page: Option<&Page>,
    report: &Report,
    is_over: &AtomicBool,
) -> anyhow::Result<Following> {
    // A failure only costs the serving worker some time.
    let _ = rustix::process::nice(NICENESS);
    let mut pace = PACE;
    let mut compared = None;
    let mut reported = None;
    while !is_over.load(Ordering::Acquire) {
        while !advance(&mut following.follower, page, &mut compared, report)?
            && !is_over.load(Ordering::Acquire)
        {}
        let position = following.follower.position();
        if reported.is_none() {
            report.send(&Message::Follows)?;
        }
        let has_grown = reported.replace(position) != Some(position);
        pace = if has_grown {
            PACE
        } else {
            (pace * 2).min(PACE_IDLE)
        };
        if let Some(page) = page.filter(|_| has_grown) {
            page.stand(Standing {
                pid: std::process::id(),
                position,
            });
        }
        std::thread::park_timeout(pace);
    }
    Ok(following)
}

/// Reads on, and compares the state where the serving worker has left a mark. False: there is more.
fn advance(
    follower: &mut Follower,
    page: Option<&Page>,
    compared: &mut Option<Mark>,
    report: &Report,
) -> anyhow::Result<bool> {
    let mark = page.and_then(Page::mark);
    let mark = mark.filter(|mark| compared.as_ref() != Some(mark));
    let is_there = follower.advance(mark.as_ref().map(|mark| mark.position))?;
    let Some((mark, page)) = mark.zip(page) else {
        return Ok(is_there);
    };
    let Some(agrees) = follower.agrees(&mark) else {
        return Ok(is_there);
    };
    page.count_comparison();
    if !agrees {
        let (what, position) = (mark.from.to_string(), mark.position);
        report.send(&Message::Differs { what, position })?;
        anyhow::bail!("its state differs from that of the serving worker");
    }
    *compared = Some(mark);
    Ok(is_there)
}
