//! Provides what every worker inherits: the TAP, the control socket, the configuration and the users. If the TAP was
//! deleted and made again, the supervisor attaches to the new one; a new configuration is on trial until a worker
//! serves with it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context as _;
use log::{debug, error, info};

use super::listening::Listening;
use super::process::{Inherited, Paired};
use super::service_manager::Manager;
use super::settings::Settings;
use crate::config::{Config, Durability};
use crate::control::Listener;
use crate::tap::{Passing, Received, Tap};

/// The supervisor's interface to it.
pub(super) trait Provision {
    /// Prepares everything for a worker. `renew`: use the current configuration and users files, if they are valid;
    /// otherwise those of the last worker that served. True: frames were lost since the last worker, as the TAP was not
    /// held.
    ///
    /// # Errors
    /// Something is missing, and may return.
    fn prepare(&mut self, renew: bool) -> anyhow::Result<bool>;

    /// The descriptors that the worker inherits.
    ///
    /// # Errors
    /// They are not prepared.
    fn inherited(&self) -> anyhow::Result<Inherited<'_>>;

    /// The control socket.
    fn control(&self) -> BorrowedFd<'_>;

    /// Notes that the worker serves.
    fn proven(&mut self);

    /// The configuration and users of the worker after a reboot, from the current files, if a standby worker can take
    /// over with them. `is_new`: the binary is another one, and the standby worker proves that it can.
    fn successor(&self, is_new: bool) -> Option<Rc<Settings>>;

    /// Returns whether a standby worker is wanted.
    fn stands_by(&self) -> bool;

    /// The TAP has been held since a worker served from it, though that was another supervisor's.
    fn is_tap_kept(&self) -> bool {
        false
    }

    /// Has the service manager keep what the next supervisor can continue with.
    fn keep(&mut self, manager: &Manager) {
        let _ = manager;
    }
}

/// The real implementation.
pub(super) struct Held {
    path: PathBuf,
    control: Listener,
    /// The memory for the received frames of a turn.
    received: OwnedFd,
    /// `None`: it was deleted.
    tap: Option<Tap>,
    /// The settings of the last worker that served.
    kept: Rc<Settings>,
    config: Config,
    /// The settings of the next worker, while on trial.
    trial: Option<(Rc<Settings>, Config)>,
    /// `None`: the server is not part of a pair.
    pair: Option<Paired>,
    /// Keeps what the TAP receives while this node is on standby.
    listening: Option<Listening>,
    /// The TAP comes from a supervisor before this one, and has been held ever since.
    is_tap_kept: bool,
    /// The service manager keeps this TAP.
    is_stored: bool,
}

impl Held {
    /// Prepares for the first worker.
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
            listening: None,
            is_tap_kept: false,
            is_stored: false,
        })
    }

    /// The TAP is the one that a supervisor before this one had, and `received` is that one's memory.
    pub(super) fn continue_with(&mut self, received: Option<OwnedFd>) {
        self.is_tap_kept = true;
        self.is_stored = received.is_some();
        if let Some(received) = received {
            self.received = received;
        }
    }

    /// Takes another TAP. What was received from the one before is lost with it.
    fn set_tap(&mut self, tap: Tap) -> io::Result<()> {
        self.received = crate::tap::memory()?;
        self.tap = Some(tap);
        (self.is_tap_kept, self.is_stored) = (false, false);
        Ok(())
    }

    /// Prepares for one node of a pair, which is on standby.
    pub(super) fn of_pair(self, pair: Paired) -> anyhow::Result<Held> {
        let mut held = Held {
            pair: Some(pair),
            ..self
        };
        held.listen()?;
        Ok(held)
    }

    /// Keeps the last segments that clients send to this service, if the network delivers them to a node on standby.
    pub(super) fn listen(&mut self) -> anyhow::Result<()> {
        let Some(tap) = &self.tap else {
            return Ok(());
        };
        tap.pass(Passing::To(self.config.network.mac))?;
        let copy = Tap::inherit(tap.as_fd().try_clone_to_owned()?)?;
        let listening = Listening::start(copy);
        self.listening = match listening {
            Ok(listening) => Some(listening),
            Err(error) => {
                // Nothing would read them before they are old.
                tap.pass(Passing::Nothing)?;
                return Err(error).context("a node on standby keeps no frames");
            }
        };
        Ok(())
    }

    /// Lets the next worker have what arrives, and the segments that were kept until now.
    pub(super) fn take_service(&mut self) -> anyhow::Result<()> {
        self.tap.iter().try_for_each(|tap| tap.pass(Passing::All))?;
        let kept = self.listening.take().map_or_else(Vec::new, Listening::end);
        let memory = self.received.try_clone()?;
        let left = Received::new(Some(memory))?.leave(kept.iter());
        debug!("{left} segment(s) have been received while on standby");
        Ok(())
    }

    /// The settings of the last worker that served, or of the first.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the files again, while no worker serves. False: they are unchanged.
    ///
    /// # Errors
    /// One of them is invalid, or they are of another pair.
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

    /// Reads the configuration and the users, and attaches to the TAP that they name.
    fn renew(&mut self) -> anyhow::Result<bool> {
        let (settings, config) = Settings::read(&self.path)?;
        let (name, offload) = (&config.network.tap, config.network.offload);
        let network = &self.config.network;
        let is_other = *name != network.tap || offload != network.offload;
        if is_other {
            if *name == network.tap {
                // Only one descriptor at a time may be attached.
                self.tap = None;
            }
            let tap = Tap::open(name, offload);
            self.set_tap(tap.with_context(|| format!("{}: network.tap", self.path.display()))?)?;
        }
        if settings != *self.kept {
            self.trial = Some((Rc::new(settings), config));
        }
        Ok(is_other)
    }

    /// Attaches to the TAP again if it is not the existing one.
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
        self.set_tap(tap)?;
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
                Err(why) => error!("the previous configuration and users are kept: {why:#}"),
            }
        }
        Ok(self.attach()? || is_fresh)
    }

    fn inherited(&self) -> anyhow::Result<Inherited<'_>> {
        let tap = self.tap.as_ref().context("no TAP is attached")?;
        Ok(Inherited {
            // This very binary, even if the file has been replaced meanwhile.
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
            // The next start reports what is wrong with them.
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

    fn is_tap_kept(&self) -> bool {
        self.is_tap_kept
    }

    fn keep(&mut self, manager: &Manager) {
        // A node of a pair that has ended must not receive frames: the other one serves.
        if self.pair.is_some() || std::mem::replace(&mut self.is_stored, true) {
            return;
        }
        if let Some(tap) = &self.tap {
            manager.keep(tap.as_fd(), self.received.as_fd());
        }
    }
}
