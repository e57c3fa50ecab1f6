//! Which state is taken up: the mapping's, the sink's, or none.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use log::{error, info, warn};
use outlast_nvram::copy::{self, Standing};
use outlast_nvram::sink;
use outlast_nvram::{Contents, Error, Flag, Home, Identity, Incarnation, Log, Memory, Superblock};
use outlast_smb::Entropy;

use super::fold::{Fold, Replay, decode};
use super::following::{Follower, TakenOver};
use super::medium::Medium;
use super::record::GLOBAL;
use super::set_aside;

/// A sink, opened.
pub struct Sink {
    /// What is in it. Everything ever written to it is on the medium.
    pub image: Arc<dyn Memory>,
    /// What brings bytes there.
    pub medium: Box<dyn Medium>,
    /// Its name, for messages.
    pub name: String,
    /// Durability is `power`. Else it is one that was used before, and is made blank: it will not be kept up to date.
    pub in_use: bool,
}

/// A log to go on with, and what it holds.
pub(super) struct Opened {
    pub log: Log,
    /// Its state.
    pub state: State,
    /// What was read for them.
    pub walked: Walked,
    /// Its state is of this boot of the kernel.
    pub is_of_this_boot: bool,
    /// Where the log is shipped to, under durability `power`.
    pub medium: Option<Box<dyn Medium>>,
}

/// The state that a log holds.
pub(super) enum State {
    /// As the records that count.
    Read(Replay),
    /// As a follower has folded them; so many were still to be folded.
    Followed(Box<Fold>, u64),
}

/// What a log consists of, from tail to head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walked {
    pub records: u64,
    pub bytes: u64,
}

/// Whose state it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Mapping,
    Sink,
    /// Nobody's.
    Fresh,
}

/// What was followed, if it is as good as what would be read.
fn take_over(follower: Option<Follower>) -> Option<TakenOver> {
    match follower?.take_over() {
        // What is taken out of the replay has to be read first.
        Ok(taken) => (!set_aside::is_condemned(&taken.contents)).then_some(taken),
        Err(why) => {
            warn!("the log is read from its tail, as its follower cannot take over: {why:#}");
            None
        }
    }
}

/// Whether the server is alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// It is.
    Alone,
    /// It is the node of a pair that the arbiter has admitted.
    Pair {
        /// The other node would have all that this one commits.
        in_step: bool,
    },
    /// The same, where each node has an NVRAM of its own.
    Mirror {
        /// The other node has all that anybody was shown.
        in_step: bool,
        /// The epoch of the arbiter that this node was admitted in: logs that are begun now are of this term.
        term: u64,
        /// The state that this node goes on with is of this term; `None`: there is none.
        resumes: Option<u64>,
    },
}

impl Company {
    /// What the log says while the server runs: who resumes should it die.
    //= patent claim-12, claim-13, claim-14, claim-15
    #[must_use]
    pub fn flag(self) -> Flag {
        match self {
            Company::Pair { in_step: true } | Company::Mirror { in_step: true, .. } => {
                Flag::NonElectiveTakeover
            }
            Company::Alone
            | Company::Pair { in_step: false }
            | Company::Mirror { in_step: false, .. } => Flag::NonElectiveReboot,
        }
    }

    /// The term of logs that are begun now.
    fn term(self) -> u64 {
        match self {
            Company::Alone | Company::Pair { .. } => 0,
            Company::Mirror { term, .. } => term,
        }
    }

    /// May a server in this company take up what this flag says?
    //= patent claim-16, claim-17
    fn may_take_up(self, flag: Flag) -> anyhow::Result<()> {
        let is_of_a_pair = matches!(flag, Flag::NonElectiveTakeover | Flag::ElectiveTakeover);
        anyhow::ensure!(
            self != Company::Alone || !is_of_a_pair,
            "the log's flag is {flag}: it is of a pair, and the node that the arbiter names resumes it: put [partner] \
             back, and end the pair with `outlast stop` or SIGTERM"
        );
        Ok(())
    }
}

/// Opens the log, or makes one. The state of a log that may not be taken up is dropped, loudly. `follower`: what has
/// followed it until now.
pub(super) fn open(
    memory: Arc<dyn Memory>,
    follower: Option<Follower>,
    mut sink: Option<Sink>,
    incarnation: Incarnation,
    company: Company,
    entropy: &mut dyn Entropy,
) -> anyhow::Result<Opened> {
    let (taken, mut followed) = match take_over(follower) {
        Some(TakenOver {
            log,
            contents,
            fold,
            replayed,
        }) => (Some((log, contents)), Some((fold, replayed))),
        None => (None, None),
    };
    let mapped = match taken.map_or_else(|| Log::open(memory.clone()), Ok) {
        // Of an earlier version, but nobody's: it is formatted anew.
        Err(Error::Blank | Error::OlderVersion { clean: true, .. }) => Ok(None),
        // One that holds sessions is left alone, whatever else there is.
        Err(error @ Error::OlderVersion { .. }) => return Err(error.into()),
        opened => opened.map(Some),
    };
    let shipped = match &sink {
        Some(sink) => shipped(sink)?,
        None => None,
    };
    let of_mapping = mapped
        .iter()
        .flatten()
        .map(|(_, contents)| contents.superblock.flag);
    for flag in of_mapping.chain(shipped.iter().map(|shipped| shipped.flag)) {
        company.may_take_up(flag)?;
    }
    // It is whole, whatever a power cut has made of the rest.
    let superblock = sink::superblock(&*memory).ok();
    let origin = match company {
        Company::Mirror { term, resumes, .. } => {
            let known = Known {
                standing: Standing::of(&*memory).ok().flatten(),
                shipped: shipped
                    .as_ref()
                    .filter(|_| sink.as_ref().is_some_and(|it| it.in_use)),
                incarnation,
            };
            known.of_term(term, resumes)
        }
        Company::Alone | Company::Pair { .. } => origin(
            &mapped,
            superblock.as_ref(),
            shipped.as_ref(),
            sink.as_ref(),
            incarnation,
            company,
        )?,
    };
    if origin != Origin::Mapping {
        followed = None;
    }
    let opened = match (origin, mapped) {
        (Origin::Mapping, mapped) => mapped?,
        (Origin::Sink, mapped) => {
            drop(mapped);
            let sink = sink.as_ref().context("there is no sink")?;
            sink::restore(&*sink.image, &*memory).context(sink.name.clone())?;
            info!("the state is taken up from {}", sink.name);
            Some(Log::open(memory.clone())?)
        }
        (Origin::Fresh, _) => None,
    };
    let (mut log, state, walked, is_of_this_boot) = match opened {
        Some((mut log, contents)) => {
            let Contents {
                superblock,
                records,
                walked: records_walked,
                tail,
                head,
                ..
            } = contents;
            let state = match followed.take() {
                Some((fold, replayed)) => State::Followed(Box::new(fold), replayed),
                None => State::Read(decode(records)?),
            };
            info!(
                "flag {}: taking up {} connection(s) of epoch {}",
                superblock.flag,
                state.clients(),
                superblock.epoch
            );
            let walked = Walked {
                records: records_walked,
                bytes: head.0 - tail.0,
            };
            log.set_term(company.term());
            log.begin_epoch(incarnation)?;
            copy::adopt(&*memory);
            log.set_flag(company.flag());
            if is_elective(superblock.flag) {
                // No power cut may bring the old flag back, with a state that is an older one by then.
                log.persist_superblock()?;
            }
            (log, state, walked, superblock.incarnation == incarnation)
        }
        None => {
            // The old log goes from the sink first: there is no instant at which the two belong to different ones.
            if shipped.is_some()
                && let Some(sink) = &mut sink
            {
                erase(sink);
            }
            (
                format(memory, incarnation, company, entropy)?,
                State::Read(Vec::new()),
                Walked::default(),
                true,
            )
        }
    };
    let mut medium = None;
    match sink {
        Some(mut sink) if sink.in_use => {
            attach(&mut log, &mut sink, company).context(sink.name)?;
            medium = Some(sink.medium);
        }
        Some(mut sink) => {
            if shipped.is_some() {
                erase(&mut sink);
            }
            log.detach(Home::Sink);
        }
        None => log.detach(Home::Sink),
    }
    Ok(Opened {
        log,
        state,
        walked,
        is_of_this_boot,
        medium,
    })
}

/// From now on the log is shipped to the sink.
fn attach(log: &mut Log, sink: &mut Sink, company: Company) -> Result<(), Error> {
    match log.attach(Home::Sink, &*sink.image) {
        // The sink is this node's own, and whose state counts was decided by the arbiter's epoch.
        Err(Error::AnotherLog | Error::SinkAhead) if matches!(company, Company::Mirror { .. }) => {
            erase(sink);
            log.attach(Home::Sink, &*sink.image)
        }
        attached => attached,
    }
}

/// What a node that has an NVRAM of its own finds at its start.
struct Known<'a> {
    standing: Option<Standing>,
    /// In a sink that is in use.
    shipped: Option<&'a Superblock>,
    incarnation: Incarnation,
}

impl Known<'_> {
    /// The state of these terms, wherever it is whole. What is of another one is older, or was given up.
    fn of_term(&self, term: u64, resumes: Option<u64>) -> Origin {
        let is_wanted =
            |superblock: &Superblock| superblock.term == term || resumes == Some(superblock.term);
        let of_memory = self.standing.iter();
        let of_memory = of_memory
            .filter(|it| it.is_of(self.incarnation))
            .map(|it| &it.superblock);
        let all = of_memory
            .map(|superblock| (superblock, Origin::Mapping))
            .chain(self.shipped.map(|superblock| (superblock, Origin::Sink)));
        match all.clone().find(|(superblock, _)| is_wanted(superblock)) {
            Some((superblock, _)) if superblock.flag == Flag::Clean => Origin::Fresh,
            Some((_, origin)) => origin,
            None => {
                let mut flags = self.standing.iter().map(|it| it.superblock.flag);
                if flags.any(|flag| flag != Flag::Clean) {
                    error!(
                        "the state in this node's NVRAM is not the one that the pair goes on with: its sessions are \
                         dropped"
                    );
                }
                Origin::Fresh
            }
        }
    }
}

/// The superblock of what the sink holds; `None`: nothing.
fn shipped(sink: &Sink) -> anyhow::Result<Option<Superblock>> {
    match sink::superblock(&*sink.image) {
        Ok(superblock) => Ok(Some(superblock)),
        Err(Error::Blank | Error::OlderVersion { clean: true, .. }) => Ok(None),
        Err(error) => Err(error).context(sink.name.clone()),
    }
}

fn erase(sink: &mut Sink) {
    sink.medium.begin(sink::erasure());
    sink.medium.wait();
}

/// The server left after a drain.
fn is_elective(flag: Flag) -> bool {
    matches!(flag, Flag::ElectiveReboot | Flag::ElectiveTakeover)
}

/// Whose state is taken up. A mapping of this boot is the newest there is. After another boot it may be any older one, or nothing; then
/// the sink's counts, which has all that was ever shown to anyone.
fn origin(
    mapped: &Result<Option<(Log, Contents)>, Error>,
    superblock: Option<&Superblock>,
    shipped: Option<&Superblock>,
    sink: Option<&Sink>,
    incarnation: Incarnation,
    company: Company,
) -> anyhow::Result<Origin> {
    let of_mapping = |contents: &Contents| match contents.superblock.flag {
        Flag::Clean => Origin::Fresh,
        _ => Origin::Mapping,
    };
    // In a pair the other node may have served since, on another machine: then the sink is its, and newer.
    let is_others = |shipped: &Superblock| {
        let is_pair = company != Company::Alone && sink.is_some_and(|sink| sink.in_use);
        is_pair && shipped.incarnation != incarnation
    };
    let mapping = match mapped {
        Ok(Some((_, contents))) if contents.superblock.incarnation == incarnation => {
            return Ok(match shipped.filter(|shipped| is_others(shipped)) {
                Some(shipped) if shipped.flag == Flag::Clean => Origin::Fresh,
                Some(_) => Origin::Sink,
                None => of_mapping(contents),
            });
        }
        Ok(mapping) => mapping.as_ref().map(|(_, contents)| contents),
        Err(_) => None,
    };
    let in_use = sink.is_some_and(|sink| sink.in_use);
    if let Some(shipped) = shipped.filter(|_| in_use) {
        if mapped.is_err() && shipped.incarnation == incarnation {
            // Damaged while this kernel ran: no power cut did that.
            return Ok(Origin::Mapping);
        }
        let elective = mapping
            .map(|contents| &contents.superblock)
            .filter(|superblock| is_elective(superblock.flag) && !superblock.shipped);
        return match elective {
            // The sink's is older still.
            Some(superblock) if !superblock.persisted && shipped.flag != Flag::Clean => {
                dropped("its connections");
                Ok(Origin::Fresh)
            }
            // A planned reboot of a time when nothing was shipped.
            Some(superblock) if superblock.instance == shipped.instance => Ok(Origin::Mapping),
            Some(_) if shipped.flag != Flag::Clean => Err(Error::AnotherLog)
                .context(sink.map_or_else(String::new, |sink| sink.name.clone())),
            Some(_) => Ok(Origin::Mapping),
            None if shipped.flag == Flag::Clean => Ok(Origin::Fresh),
            None => Ok(Origin::Sink),
        };
    }
    let outlived = |superblock: &Superblock| {
        superblock.flag != Flag::Clean && superblock.incarnation != incarnation
    };
    let Some(contents) = mapping else {
        return Ok(match (mapped, superblock) {
            (Ok(_), _) => Origin::Fresh,
            // The power was cut while the log was made.
            (Err(_), Some(superblock))
                if superblock.flag == Flag::Clean && superblock.incarnation != incarnation =>
            {
                Origin::Fresh
            }
            // Of what was in memory when the machine went down, parts came to the medium; or it is an elective end's, and damaged since.
            (Err(_), Some(superblock)) if outlived(superblock) && !superblock.shipped => {
                dropped("its connections");
                Origin::Fresh
            }
            // The problem with the mapping.
            (Err(_), _) => Origin::Mapping,
        });
    };
    let is_whole = is_elective(contents.superblock.flag) && contents.superblock.persisted;
    if is_whole || contents.superblock.flag == Flag::Clean {
        return Ok(of_mapping(contents));
    }
    // Stores to a mapping survive the process, not the machine: after a reboot that was not elective, or that came before all was on the
    // medium, the file may be an older prefix of what was committed, and nonces would step back.
    let clients = clients(&contents.records);
    if contents.superblock.shipped && clients > 0 {
        bail!(
            "the machine was rebooted without notice, and the state of {clients} connection(s) is in the sink, {}: {}; or remove \
             nvram.path, and its sessions are dropped",
            if in_use {
                "which is missing"
            } else {
                "which is not used"
            },
            if in_use {
                "put it back"
            } else {
                "set nvram.durability to \"power\" again"
            },
        );
    }
    dropped(&format!("{clients} connection(s)"));
    Ok(Origin::Fresh)
}

impl State {
    fn clients(&self) -> usize {
        match self {
            State::Followed(fold, _) => fold.clients(),
            State::Read(replay) => {
                let objects = replay.iter().map(|(object, ..)| *object);
                let clients = objects.filter(|object| *object != GLOBAL);
                clients.collect::<BTreeSet<_>>().len()
            }
        }
    }
}

fn dropped(whose: &str) {
    error!(
        "the machine went down before `outlast reboot --system`, SIGTERM or `outlast stop` had brought the server's state onto the medium, \
         or it was damaged there: the state of {whose} is in no sink (nvram.durability), cannot be trusted and is dropped"
    );
}

fn clients(records: &[outlast_nvram::Replayed]) -> usize {
    let clients = records.iter().filter(|record| record.object != GLOBAL);
    clients
        .map(|record| record.object)
        .collect::<BTreeSet<_>>()
        .len()
}

fn format(
    memory: Arc<dyn Memory>,
    incarnation: Incarnation,
    company: Company,
    entropy: &mut dyn Entropy,
) -> anyhow::Result<Log> {
    let mut instance = [0; 16];
    entropy.fill(&mut instance);
    let identity = Identity {
        instance,
        incarnation,
    };
    let mut log = Log::format(memory.clone(), identity)?;
    // From now on one slot is whole at least, whatever a power cut makes of the other, and says that nothing is lost.
    log.persist_superblock()?;
    copy::adopt(&*memory);
    log.set_term(company.term());
    log.set_flag(company.flag());
    Ok(log)
}

#[cfg(test)]
mod tests;
