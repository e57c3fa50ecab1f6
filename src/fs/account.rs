//! Taking on an account's rights for one operation.
//!
//! Linux decides on files by the thread's file system uid and gid and its groups; leaving uid 0 there also lays down the
//! capabilities that override permissions (capabilities(7), "Effect of user ID changes"). The calling thread alone changes.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outlast_smb::status::NtStatus;
use rustix::process::{
    Gid, Pid, Signal, getegid, geteuid, getgroups, getppid, parent_process_death_signal,
    set_parent_process_death_signal,
};
use rustix::thread::set_thread_groups;

/// How long a looked-up account is believed.
const LOOKUP_AGE_MAX: Duration = Duration::from_secs(300);
/// More groups than this no account has (NGROUPS_MAX).
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
    /// The server may take on others: it is root, and not that of a user namespace which holds its own account alone.
    may_change: bool,
    found: HashMap<String, (Instant, Option<Arc<Account>>)>,
}

impl Account {
    /// Its user id.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }
}

impl Accounts {
    /// Notes the account the server runs as.
    ///
    /// # Errors
    /// If the kernel does not tell the groups.
    pub fn new() -> Result<Accounts, rustix::io::Errno> {
        // user_namespaces(7): where an account has made a namespace for itself, groups cannot be set
        let namespace_of_one = std::fs::read_to_string("/proc/self/setgroups")
            .is_ok_and(|setgroups| setgroups.trim() == "deny");
        Ok(Accounts {
            may_change: geteuid().is_root() && !namespace_of_one,
            own: Arc::new(Account {
                uid: geteuid().as_raw(),
                gid: getegid().as_raw(),
                groups: getgroups()?,
            }),
            found: HashMap::new(),
        })
    }

    /// The account whose rights count: the share's, else the login's own (a guest's: `nobody`'s) when the server is root, else the server's.
    ///
    /// # Errors
    /// ACCESS_DENIED if the share's account does not exist or cannot be taken on.
    pub fn choose(
        &mut self,
        run_as: Option<&str>,
        user: Option<&str>,
    ) -> Result<Arc<Account>, NtStatus> {
        if let Some(name) = run_as.filter(|name| !name.is_empty()) {
            let account = self.look_up(name).ok_or_else(|| {
                log::error!("run_as = {name:?}: there is no such local account");
                NtStatus::ACCESS_DENIED
            })?;
            if account.uid != self.own.uid && !self.may_change {
                log::error!("run_as = {name:?}: only root can take on another account");
                return Err(NtStatus::ACCESS_DENIED);
            }
            return Ok(account);
        }
        // a guest of a server that is root has nobody's rights, not root's
        if self.may_change
            && let Some(account) = self.look_up(user.unwrap_or("nobody"))
        {
            return Ok(account);
        }
        Ok(Arc::clone(&self.own))
    }

    /// By the name as given, else in lower case: Windows does not mind the case of a login.
    fn look_up(&mut self, name: &str) -> Option<Arc<Account>> {
        if let Some((when, account)) = self.found.get(name)
            && when.elapsed() < LOOKUP_AGE_MAX
        {
            return account.clone();
        }
        let account = find(name)
            .or_else(|| find(&name.to_lowercase()))
            .map(Arc::new);
        self.found
            .insert(name.to_owned(), (Instant::now(), account.clone()));
        account
    }

    /// Takes on `account` until the guard is dropped.
    ///
    /// # Errors
    /// ACCESS_DENIED if the kernel refuses; the thread is then as before.
    pub fn assume(&self, account: &Arc<Account>) -> Result<Assumed, NtStatus> {
        Assumed::instead_of(&self.own, account)
    }

    /// The account the server runs as.
    #[must_use]
    pub fn own(&self) -> Arc<Account> {
        Arc::clone(&self.own)
    }
}

/// While it lives the thread has an account's rights; when dropped, the server's own again.
pub struct Assumed(Option<Back>);

impl Assumed {
    /// Takes on `account` on this thread, which acts as `own` otherwise.
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
            // All or nothing: if it is refused there is nothing to put back.
            set_thread_groups(&account.groups).map_err(|error| {
                log::error!("setgroups: {error}");
                NtStatus::ACCESS_DENIED
            })?;
        }
        // From here on the guard puts everything back, also half way.
        let guard = Assumed(Some(back));
        if set_fs_ids(account.uid, account.gid) {
            Ok(guard)
        } else {
            log::error!("the kernel refuses uid {} gid {}", account.uid, account.gid);
            Err(NtStatus::ACCESS_DENIED)
        }
    }
}

/// What is put back.
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
        // Working on with someone else's rights would be worse than a restart.
        assert!(
            ids && groups,
            "the server's own account cannot be taken on again"
        );
        // A change of ids takes the parent-death signal away (prctl(2)), and the worker must not outlive its supervisor: also not
        // one that died in between.
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
    // The calls tell the previous value and no error: asking with an impossible id shows what is in force (setfsuid(2)). The gid
    // goes first on the way down and is allowed on the way up, where CAP_SETGID is kept.
    // SAFETY: both take plain integers and change the calling thread's credentials only.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
        libc::setfsgid(u32::MAX) as u32 == gid && libc::setfsuid(u32::MAX) as u32 == uid
    }
}

/// The account of that name with all its groups.
fn find(name: &str) -> Option<Account> {
    let entry = crate::account::lookup(name)
        .inspect_err(|error| log::error!("account {name:?}: {error}"))
        .ok()??;
    let c_name = CString::new(entry.name).ok()?;
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).ok()?;
        // SAFETY: the name is NUL-terminated, and `count` says how many ids `groups` has room for.
        let got = unsafe {
            libc::getgrouplist(c_name.as_ptr(), entry.gid, groups.as_mut_ptr(), &mut count)
        };
        let count = usize::try_from(count).ok()?;
        if got >= 0 {
            groups.truncate(count);
            return Some(Account {
                uid: entry.uid,
                gid: entry.gid,
                groups: groups.into_iter().map(Gid::from_raw).collect(),
            });
        }
        if count <= groups.len() || count > GROUPS_MAX {
            log::error!("account {name:?}: its groups cannot be told");
            return None;
        }
        groups.resize(count, 0);
    }
}
