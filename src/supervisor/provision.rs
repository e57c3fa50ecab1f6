//! What every worker is given: the TAP, the control socket, the configuration and the users. The TAP is attached to again when it was deleted
//! and made anew; a new configuration is on trial until a worker serves by it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context as _;
use log::{error, info};

use super::process::{Inherited, Paired};
use super::settings::Settings;
use crate::config::{Config, Durability};
use crate::control::Listener;
use crate::tap::Tap;

/// The supervisor's side of it.
pub(super) trait Provision {
    /// Makes everything ready for a worker. `renew`: by the configuration and the users as their files are now, if they are good; else by
    /// those of the last worker that served. True: frames were lost since the last worker, as the TAP was not held.
    ///
    /// # Errors
    /// What is not there, and may come back.
    fn prepare(&mut self, renew: bool) -> anyhow::Result<bool>;

    /// What the worker inherits.
    /// # Errors
    /// It is not ready.
    fn inherited(&self) -> anyhow::Result<Inherited<'_>>;

    /// The control socket.
    fn control(&self) -> BorrowedFd<'_>;

    /// The worker serves.
    fn proven(&mut self);

    /// Configuration and users that the worker after a reboot would be given, as their files are now, if one that
    /// stands by can take over with them. `is_new`: the binary is another one, which proves so that it can.
    fn successor(&self, is_new: bool) -> Option<Rc<Settings>>;

    /// Is another worker to stand by?
    fn stands_by(&self) -> bool;
}

/// The real one.
pub(super) struct Held {
    path: PathBuf,
    control: Listener,
    /// Where the serving worker keeps the frames of its turn.
    received: OwnedFd,
    /// `None`: it was deleted.
    tap: Option<Tap>,
    /// By which the last worker served.
    kept: Rc<Settings>,
    config: Config,
    /// By which the next one is to serve.
    trial: Option<(Rc<Settings>, Config)>,
    /// `None`: the server is alone.
    pair: Option<Paired>,
}

impl Held {
    /// What the first worker is given.
    ///
    /// # Errors
    /// There is no memory for the frames of a turn.
    pub(super) fn new(
        config: &Config,
        kept: Settings,
        control: Listener,
        tap: Tap,
    ) -> io::Result<Held> {
        Ok(Held {
            path: config.path.clone(),
            control,
            received: crate::tap::memory()?,
            tap: Some(tap),
            kept: Rc::new(kept),
            config: config.clone(),
            trial: None,
            pair: None,
        })
    }

    /// The same of one node of a pair. It hears nothing before [`Held::hear`].
    pub(super) fn of_pair(self, pair: Paired) -> anyhow::Result<Held> {
        self.tap.iter().try_for_each(|tap| tap.set_deaf(true))?;
        Ok(Held {
            pair: Some(pair),
            ..self
        })
    }

    /// Frames are kept for the next worker, or dropped.
    pub(super) fn hear(&self, yes: bool) -> anyhow::Result<()> {
        if yes {
            // What came before this node went deaf was for connections that have gone on elsewhere, and may have ended.
            self.tap.iter().try_for_each(Tap::discard)?;
        }
        self.tap.iter().try_for_each(|tap| tap.set_deaf(!yes))?;
        Ok(())
    }

    /// By which the last worker served, or the first one is to.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Takes the files as they are now, while no worker serves. False: they are as before.
    ///
    /// # Errors
    /// One of them is wrong, or they are of another pair.
    pub(super) fn read_again(&mut self) -> anyhow::Result<bool> {
        let (settings, config) = Settings::read(&self.path)?;
        if settings == *self.kept {
            return Ok(false);
        }
        anyhow::ensure!(
            config.partner == self.config.partner
                && config.server.control_socket == self.config.server.control_socket
                && config.network.tap == self.config.network.tap
                && (config.nvram == self.config.nvram || !has_interconnect(&config)),
            "{}: partner, server.control_socket and network.tap stay as they are while the server runs, and with an \
             interconnect nvram does: end it and start it again, or undo the change",
            self.path.display()
        );
        (self.kept, self.config) = (Rc::new(settings), config);
        Ok(true)
    }

    /// The configuration and the users as their files are now, and the TAP they name.
    fn renew(&mut self) -> anyhow::Result<bool> {
        let (settings, config) = Settings::read(&self.path)?;
        let (name, offload) = (&config.network.tap, config.network.offload);
        let network = &self.config.network;
        let is_other = *name != network.tap || offload != network.offload;
        if is_other {
            if *name == network.tap {
                // One descriptor at a time may be attached.
                self.tap = None;
            }
            let tap = Tap::open(name, offload);
            self.tap = Some(tap.with_context(|| format!("{}: network.tap", self.path.display()))?);
        }
        if settings != *self.kept {
            self.trial = Some((Rc::new(settings), config));
        }
        Ok(is_other)
    }

    /// Attaches to the TAP again, if it is not the one that the network has.
    fn attach(&mut self) -> anyhow::Result<bool> {
        let config = self.trial.as_ref().map_or(&self.config, |trial| &trial.1);
        let network = &config.network;
        let is_there = |tap: &Tap| tap.name() == network.tap && tap.is_attached();
        if self.tap.as_ref().is_some_and(is_there) {
            return Ok(false);
        }
        self.tap = None;
        let tap = Tap::open(&network.tap, network.offload)?;
        info!("attached to the TAP {} again", tap.name());
        self.tap = Some(tap);
        Ok(true)
    }
}

/// Where the other node's log goes to is known since the start.
fn has_interconnect(config: &Config) -> bool {
    let partner = config.partner.as_ref();
    partner.is_some_and(|partner| partner.interconnect.is_some())
}

impl Provision for Held {
    fn prepare(&mut self, renew: bool) -> anyhow::Result<bool> {
        self.trial = None;
        let mut is_fresh = false;
        if renew {
            match self.renew() {
                Ok(fresh) => is_fresh = fresh,
                Err(why) => error!("the configuration and the users are those of before: {why:#}"),
            }
        }
        Ok(self.attach()? || is_fresh)
    }

    fn inherited(&self) -> anyhow::Result<Inherited<'_>> {
        let tap = self.tap.as_ref().context("no TAP is attached")?;
        Ok(Inherited {
            // This very binary, also when the file has been replaced meanwhile.
            program: Path::new("/proc/self/exe"),
            config: self.path.clone(),
            tap: tap.as_fd(),
            control: self.control.as_fd(),
            received: self.received.as_fd(),
            settings: self.trial.as_ref().map_or(&self.kept, |trial| &trial.0),
            pair: self.pair.as_ref(),
        })
    }

    fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    fn proven(&mut self) {
        if let Some((settings, config)) = self.trial.take() {
            self.kept = settings;
            self.config = config;
        }
    }

    fn successor(&self, is_new: bool) -> Option<Rc<Settings>> {
        let (settings, config) = match Settings::read(&self.path) {
            Ok((settings, config)) if settings != *self.kept => (Rc::new(settings), config),
            // The start says what is wrong with them.
            Ok(_) | Err(_) => (self.kept.clone(), self.config.clone()),
        };
        let (old, new) = (&self.config, &config);
        let has_its_log = old.nvram.durability != Durability::None
            && new.nvram.durability != Durability::None
            && (&old.nvram.path, old.nvram.size_bytes) == (&new.nvram.path, new.nvram.size_bytes);
        let has_its_tap =
            (&old.network.tap, old.network.offload) == (&new.network.tap, new.network.offload);
        let is_wanted = is_new || new.server.standby;
        (has_its_log && has_its_tap && is_wanted).then_some(settings)
    }

    fn stands_by(&self) -> bool {
        self.config.server.standby && self.config.nvram.durability != Durability::None
    }
}
