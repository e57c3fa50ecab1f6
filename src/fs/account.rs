//! Takes on an account's rights for one operation.
//!
//! Linux checks access to files by the thread's file system uid and gid and its groups; leaving uid 0 there also drops
//! the capabilities that override permissions (capabilities(7), "Effect of user ID changes"). Only the calling thread
//! changes.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outlast_fsa::status::NtStatus;
use rustix::process::{
    Gid, Pid, Signal, getegid, geteuid, getgroups, getppid, parent_process_death_signal,
    set_parent_process_death_signal,
};
use rustix::thread::set_thread_groups;

use crate::one_line::OneLine;
use crate::server::record::Ids;

/// How long the answer about an account is used.
const LOOKUP_AGE_MAX: Duration = Duration::from_secs(300);
/// How long the answer "no such account" is used: a new account is found soon.
const ABSENT_AGE_MAX: Duration = Duration::from_secs(10);
/// The delay after which a failed name service is asked again: each question may take seconds.
const RETRY: Duration = Duration::from_secs(5);
/// The largest number of groups of an account (NGROUPS_MAX).
const GROUPS_MAX: usize = 65_536;

/// A local account, as far as files are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    uid: u32,
    gid: u32,
    groups: Vec<Gid>,
}

/// The accounts looked up so far, and the server's own.
pub struct Accounts {
    own: Arc<Account>,
    /// Whether the server may take on other accounts: it is root, and not that of a user namespace with only its own
    /// account.
    may_change: bool,
    name_service: Box<dyn NameService>,
    found: HashMap<String, Found>,
    /// New answers, until they are in the log.
    learnt: Vec<(String, Option<Arc<Account>>)>,
}

/// A source of local accounts.
pub trait NameService {
    /// Finds the account of that name with all its groups; `None`: there is none.
    ///
    /// # Errors
    /// It cannot answer now.
    fn find(&mut self, name: &str) -> io::Result<Option<Account>>;
}

/// The system's name service (`getpwnam_r`, `getgrouplist`).
struct System;

/// The state of a name.
struct Found {
    /// The last answer; `None`: there has been none.
    known: Option<Option<Arc<Account>>>,
    /// When to ask again.
    until: Instant,
    /// The last question was not answered.
    is_doubtful: bool,
}

/// Why an operation has no account whose rights apply. Each is ACCESS_DENIED to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such account.
    Unknown,
    /// The name service has failed, and has never answered about this account.
    NotNow,
    /// Only root can take on another account.
    NotPermitted,
}

impl From<Refused> for NtStatus {
    fn from(_: Refused) -> NtStatus {
        NtStatus::ACCESS_DENIED
    }
}

impl Account {
    /// Its user id.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }
}

impl Accounts {
    /// Notes the server's own account.
    ///
    /// # Errors
    /// The kernel does not report the groups.
    pub fn new() -> Result<Accounts, rustix::io::Errno> {
        // user_namespaces(7): where an account has made a namespace for itself, groups cannot be set
        let namespace_of_one = std::fs::read_to_string("/proc/self/setgroups")
            .is_ok_and(|setgroups| setgroups.trim() == "deny");
        Ok(Accounts {
            may_change: geteuid().is_root() && !namespace_of_one,
            name_service: Box::new(System),
            own: Arc::new(Account {
                uid: geteuid().as_raw(),
                gid: getegid().as_raw(),
                groups: getgroups()?,
            }),
            found: HashMap::new(),
            learnt: Vec::new(),
        })
    }

    /// Notes the name service's last answer from before this process: it applies if the name service fails.
    pub fn expect(&mut self, name: &str, ids: &Ids) {
        let account = Account {
            uid: ids.uid,
            gid: ids.gid,
            groups: ids.groups.iter().copied().map(Gid::from_raw).collect(),
        };
        let found = Found {
            known: Some(Some(Arc::new(account))),
            until: Instant::now(),
            is_doubtful: false,
        };
        self.found.insert(name.to_owned(), found);
    }

    /// Returns the new answers since the last call.
    pub fn take_learnt(&mut self) -> Vec<(String, Option<Ids>)> {
        let learnt = self.learnt.drain(..);
        let ids = |account: Arc<Account>| Ids {
            uid: account.uid,
            gid: account.gid,
            groups: account.groups.iter().map(|group| group.as_raw()).collect(),
        };
        learnt.map(|(name, of)| (name, of.map(ids))).collect()
    }

    /// Chooses the account whose rights apply: the share's, otherwise the login's own (for a guest `nobody`) if the
    /// server is root, otherwise the server's.
    ///
    /// # Errors
    /// There is no such account, the name service does not answer, or the account cannot be taken on. Root's rights are
    /// never used instead.
    pub fn choose(
        &mut self,
        run_as: Option<&str>,
        user: Option<&str>,
    ) -> Result<Arc<Account>, Refused> {
        let share = run_as.filter(|name| !name.is_empty());
        if share.is_none() && !self.may_change {
            return Ok(Arc::clone(&self.own));
        }
        let account = self.look_up(share.unwrap_or(user.unwrap_or("nobody")), Instant::now())?;
        if account.uid != self.own.uid && !self.may_change {
            log::error!("run_as = {run_as:?}: only root can take on another account");
            return Err(Refused::NotPermitted);
        }
        Ok(account)
    }

    fn look_up(&mut self, name: &str, now: Instant) -> Result<Arc<Account>, Refused> {
        if self.found.get(name).is_none_or(|found| found.until <= now) {
            let answer = self.ask(name);
            self.take_note(name, answer, now);
        }
        match self.found.get(name).and_then(|found| found.known.as_ref()) {
            Some(Some(account)) => Ok(Arc::clone(account)),
            Some(None) => Err(Refused::Unknown),
            None => Err(Refused::NotNow),
        }
    }

    /// Asks for the name as given, then in lower case: Windows ignores the case of a login.
    fn ask(&mut self, name: &str) -> io::Result<Option<Arc<Account>>> {
        let found = match self.name_service.find(name)? {
            Some(account) => Some(account),
            None => self.name_service.find(&name.to_lowercase())?,
        };
        Ok(found.map(Arc::new))
    }

    /// Notes an answer. A failure says nothing about the account: the last answer applies until there is another.
    fn take_note(&mut self, name: &str, answer: io::Result<Option<Arc<Account>>>, now: Instant) {
        let before = self.found.remove(name);
        let was_doubtful = before.as_ref().is_some_and(|found| found.is_doubtful);
        let known = before.and_then(|found| found.known);
        let shown = OneLine(name);
        let found = match answer {
            Ok(account) => {
                if was_doubtful {
                    log::info!("account {shown}: the name service answers again");
                }
                if account.is_none() && !matches!(known, Some(None)) {
                    log::error!(
                        "account {shown}: there is no such local account, so what is done for it is refused: make one \
                         (useradd), or give the share a run_as"
                    );
                }
                // The answer "none" is recorded if there was one before.
                if known.clone().flatten() != account {
                    self.learnt.push((name.to_owned(), account.clone()));
                }
                let age = match account {
                    Some(_) => LOOKUP_AGE_MAX,
                    None => ABSENT_AGE_MAX,
                };
                Found {
                    known: Some(account),
                    until: now + age,
                    is_doubtful: false,
                }
            }
            Err(error) => {
                if !was_doubtful {
                    let meanwhile = match known {
                        Some(_) => "its last answer applies",
                        None => "operations for it are refused",
                    };
                    log::error!(
                        "account {shown}: the name service fails: {error}; until it answers, {meanwhile}"
                    );
                }
                Found {
                    known,
                    until: now + RETRY,
                    is_doubtful: true,
                }
            }
        };
        self.found.insert(name.to_owned(), found);
    }

    /// Takes on `account` until the guard is dropped.
    ///
    /// # Errors
    /// ACCESS_DENIED if the kernel refuses; the thread is then as before.
    pub fn assume(&self, account: &Arc<Account>) -> Result<Assumed, NtStatus> {
        Assumed::instead_of(&self.own, account)
    }

    /// The server's own account.
    #[must_use]
    pub fn own(&self) -> Arc<Account> {
        Arc::clone(&self.own)
    }
}

/// While it lives the thread has an account's rights; afterwards the server's own again.
pub struct Assumed(Option<Back>);

impl Assumed {
    /// Takes on `account` on this thread, whose own account is `own`.
    ///
    /// # Errors
    /// As [`Accounts::assume`].
    pub fn instead_of(own: &Arc<Account>, account: &Arc<Account>) -> Result<Assumed, NtStatus> {
        if account == own {
            return Ok(Assumed(None));
        }
        let back = Back {
            own: Arc::clone(own),
            parent: getppid(),
            death_signal: parent_process_death_signal().unwrap_or_default(),
        };
        if own.uid == 0 {
            // All or nothing: if it is refused there is nothing to restore.
            set_thread_groups(&account.groups).map_err(|error| {
                log::error!("setgroups: {error}");
                NtStatus::ACCESS_DENIED
            })?;
        }
        // From here on the guard restores everything, even halfway.
        let guard = Assumed(Some(back));
        if set_fs_ids(account.uid, account.gid) {
            Ok(guard)
        } else {
            log::error!("the kernel refuses uid {} gid {}", account.uid, account.gid);
            Err(NtStatus::ACCESS_DENIED)
        }
    }
}

/// The state that is restored.
struct Back {
    own: Arc<Account>,
    parent: Option<Pid>,
    death_signal: Option<Signal>,
}

impl Drop for Assumed {
    fn drop(&mut self) {
        let Some(back) = self.0.take() else { return };
        let ids = set_fs_ids(back.own.uid, back.own.gid);
        let groups = back.own.uid != 0 || set_thread_groups(&back.own.groups).is_ok();
        // Continuing with another account's rights would be worse than a restart.
        assert!(ids && groups, "the server's own account cannot be restored");
        // A change of ids clears the parent-death signal (prctl(2)), and the worker must not outlive its supervisor,
        // which may have died in between.
        if let Some(signal) = back.death_signal {
            let set = set_parent_process_death_signal(Some(signal));
            if set.is_err() || getppid() != back.parent {
                let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
            }
        }
    }
}

/// Sets the thread's file system ids; true if both are in force.
fn set_fs_ids(uid: u32, gid: u32) -> bool {
    // The calls return the previous value and no error: a call with an impossible id returns the current one
    // (setfsuid(2)). The gid is set first when dropping rights, and is permitted when regaining them, where CAP_SETGID
    // is kept. SAFETY: both take plain integers and change the calling thread's credentials only.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
        libc::setfsgid(u32::MAX) as u32 == gid && libc::setfsuid(u32::MAX) as u32 == uid
    }
}

impl NameService for System {
    fn find(&mut self, name: &str) -> io::Result<Option<Account>> {
        let Some(entry) = crate::account::lookup(name)? else {
            return Ok(None);
        };
        let c_name = CString::new(entry.name)?;
        Ok(Some(Account {
            uid: entry.uid,
            gid: entry.gid,
            groups: groups(&c_name, entry.gid)?,
        }))
    }
}

fn groups(name: &CStr, gid: u32) -> io::Result<Vec<Gid>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let room = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        let mut count = room;
        // SAFETY: the name is NUL-terminated, and `count` says how many ids `groups` has room for.
        let got =
            unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &mut count) };
        let count = usize::try_from(count).unwrap_or_default();
        if got >= 0 {
            groups.truncate(count);
            return Ok(groups.into_iter().map(Gid::from_raw).collect());
        }
        if count <= groups.len() || count > GROUPS_MAX {
            return Err(io::Error::other("its groups cannot be determined"));
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests;
