//! Opens the log and decides which state is recovered: the mapping's, the sink's, or none.

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
    /// Its content. Everything ever written to it is on the medium.
    pub image: Arc<dyn Memory>,
    /// Writes batches to it.
    pub medium: Box<dyn Medium>,
    /// Its name, for messages.
    pub name: String,
    /// Whether the durability is `power`. Otherwise the sink was used before and is made blank, since it will not be
    /// kept up to date.
    pub in_use: bool,
}

/// An opened log, and its state.
pub(super) struct Opened {
    pub log: Log,
    /// Its state.
    pub state: State,
    /// Statistics of what was read.
    pub walked: Walked,
    /// Whether its state is of this boot of the kernel.
    pub is_of_this_boot: bool,
    /// The medium to which the log is shipped, under durability `power`.
    pub medium: Option<Box<dyn Medium>>,
}

/// The state that a log holds.
pub(super) enum State {
    /// As the live records.
    Read(Replay),
    /// As folded by a follower; the number of records that it still had to fold.
    Followed(Box<Fold>, u64),
}

/// Statistics of a log from tail to head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walked {
    pub records: u64,
    pub bytes: u64,
}

/// The origin of the state that is recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Mapping,
    Sink,
    /// There is none: a fresh start.
    Fresh,
}

/// Takes over the follower's state, if it is as good as what would be read.
fn take_over(follower: Option<Follower>) -> Option<TakenOver> {
    match follower?.take_over() {
        // Records that have to be taken out of the replay have to be read first.
        Ok(taken) => (!set_aside::is_condemned(&taken.contents)).then_some(taken),
        Err(why) => {
            warn!("the log is read from its tail, because its follower cannot take over: {why:#}");
            None
        }
    }
}

/// Whether the server is one node of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// It is not.
    Alone,
    /// It is the node of a pair that the arbiter has admitted.
    Pair {
        /// Whether the other node would have everything that this one commits.
        in_step: bool,
    },
    /// The same, where each node has an NVRAM of its own.
    Mirror {
        /// The other node has everything that was sent.
        in_step: bool,
        /// The epoch of the arbiter that this node was admitted in: logs that are begun now are of this term.
        term: u64,
        /// The term of the state that this node resumes; `None`: there is none.
        resumes: Option<u64>,
    },
}

impl Company {
    /// The flag while the server runs, which names the server that resumes if it crashes.
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

    /// Checks whether a server in this company may recover the state that this flag describes.
    //= patent claim-16, claim-17
    fn may_recover(self, flag: Flag) -> anyhow::Result<()> {
        let is_of_a_pair = matches!(flag, Flag::NonElectiveTakeover | Flag::ElectiveTakeover);
        anyhow::ensure!(
            self != Company::Alone || !is_of_a_pair,
            "the log's flag is {flag}: it is of a pair, and the node that the arbiter names resumes it: put [partner] \
             back, and end the pair with `outlast stop` or SIGTERM"
        );
        Ok(())
    }
}

/// Opens the log, or makes one. State that may not be recovered is dropped, with an error in the log. `follower`: what
/// has followed it until now.
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
        // A log of an earlier version without any server's state is formatted.
        Err(Error::Blank | Error::OlderVersion { clean: true, .. }) => Ok(None),
        // One that holds sessions is left unchanged, whatever else there is.
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
        company.may_recover(flag)?;
    }
    // It is whole, whatever a power cut has done to the rest.
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
            info!("the state is recovered from {}", sink.name);
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
                "flag {}: recovering {} connection(s) of epoch {}",
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
                // No power cut may restore the old flag, with a state that is outdated by then.
                log.persist_superblock()?;
            }
            (log, state, walked, superblock.incarnation == incarnation)
        }
        None => {
            // The old log is erased from the sink first, so that the two never belong to different logs.
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
                        "the state in this node's NVRAM is not the one that the pair has resumed: its sessions are \
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

/// The server ended after a drain.
fn is_elective(flag: Flag) -> bool {
    matches!(flag, Flag::ElectiveReboot | Flag::ElectiveTakeover)
}

/// Decides which state is recovered. A mapping of this boot is the newest. After another boot it may be any older
/// state, or none; then the sink decides, which has everything that was ever shown to a client.
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
    // In a pair the other node may have served since, on another machine: then the sink has its state, which is newer.
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
            // It was damaged while this kernel ran, so not by a power cut.
            return Ok(Origin::Mapping);
        }
        let elective = mapping
            .map(|contents| &contents.superblock)
            .filter(|superblock| is_elective(superblock.flag) && !superblock.shipped);
        return match elective {
            // The sink's state is older still.
            Some(superblock) if !superblock.persisted && shipped.flag != Flag::Clean => {
                dropped("its connections");
                Ok(Origin::Fresh)
            }
            // A planned reboot while nothing was shipped.
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
            // Parts of what was in memory when the machine stopped reached the medium; or it is of an elective end, and
            // damaged since.
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
    // Stores to a mapping survive the process, not the machine: after a reboot that was not elective, or that happened
    // before everything was on the medium, the file may be an older prefix of what was committed, and nonces would be
    // repeated.
    let clients = clients(&contents.records);
    if contents.superblock.shipped && clients > 0 {
        bail!(
            "the machine was rebooted without notice, and the state of {clients} connection(s) is in the sink, {}: {}; \
             or remove nvram.path, and its sessions are dropped",
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
        "the machine stopped before `outlast reboot --system`, SIGTERM or `outlast stop` had written the server's \
         state to the medium, or it was damaged there: the state of {whose} is in no sink (nvram.durability), cannot \
         be trusted and is dropped"
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
