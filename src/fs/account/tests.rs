use std::cell::Cell;
use std::rc::Rc;

use super::*;

/// A name service whose answers the test chooses.
#[derive(Clone, Default)]
struct Chosen {
    fails: Rc<Cell<bool>>,
    has_ann: Rc<Cell<bool>>,
    questions: Rc<Cell<u32>>,
}

impl NameService for Chosen {
    fn find(&mut self, name: &str) -> io::Result<Option<Account>> {
        self.questions.set(self.questions.get() + 1);
        if self.fails.get() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let ann = Account {
            uid: 1000,
            gid: 1000,
            groups: Vec::new(),
        };
        Ok(Some(ann).filter(|_| name == "ann" && self.has_ann.get()))
    }
}

/// The accounts of a server that is root.
fn accounts(chosen: &Chosen) -> Accounts {
    let own = Account {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };
    Accounts {
        own: Arc::new(own),
        may_change: true,
        name_service: Box::new(chosen.clone()),
        found: HashMap::new(),
        learnt: Vec::new(),
    }
}

#[test]
fn no_account_is_no_rights() {
    let chosen = Chosen::default();
    let mut accounts = accounts(&chosen);
    assert_eq!(accounts.choose(None, Some("ann")), Err(Refused::Unknown));
    // nor has a guest, if no account `nobody` exists
    assert_eq!(accounts.choose(None, None), Err(Refused::Unknown));
    assert_eq!(accounts.choose(Some("ann"), None), Err(Refused::Unknown));
    chosen.fails.set(true);
    assert_eq!(accounts.choose(None, Some("bob")), Err(Refused::NotNow));
    let refused = [Refused::Unknown, Refused::NotNow, Refused::NotPermitted];
    assert!(refused.map(NtStatus::from) == [NtStatus::ACCESS_DENIED; 3]);
    // A server that is not root has its own rights and no others, whatever the account.
    accounts.may_change = false;
    assert_eq!(accounts.choose(None, Some("bob")).map(|of| of.uid), Ok(0));
}

#[test]
fn a_failure_of_the_name_service_is_no_answer() {
    let chosen = Chosen::default();
    chosen.has_ann.set(true);
    let mut accounts = accounts(&chosen);
    let mut now = Instant::now();
    let uid = |accounts: &mut Accounts, now| accounts.look_up("ann", now).map(|of| of.uid);
    assert_eq!(uid(&mut accounts, now), Ok(1000));
    chosen.fails.set(true);
    for _ in 0..100 {
        now += RETRY;
        assert_eq!(
            uid(&mut accounts, now),
            Ok(1000),
            "the last known one applies"
        );
    }
    // It is not asked at each operation.
    let asked = chosen.questions.get();
    assert_eq!(uid(&mut accounts, now), Ok(1000));
    assert_eq!(chosen.questions.get(), asked);
    // Its answer applies at once when it answers again.
    chosen.fails.set(false);
    chosen.has_ann.set(false);
    now += RETRY;
    assert_eq!(uid(&mut accounts, now), Err(Refused::Unknown));
    chosen.has_ann.set(true);
    now += ABSENT_AGE_MAX;
    assert_eq!(uid(&mut accounts, now), Ok(1000), "made meanwhile");
}

#[test]
fn what_was_known_before_a_crash_applies_until_the_name_service_answers() {
    let chosen = Chosen::default();
    chosen.has_ann.set(true);
    let mut before = accounts(&chosen);
    let now = Instant::now();
    assert!(before.look_up("ann", now).is_ok());
    assert!(before.look_up("bob", now).is_err());
    let learnt = before.take_learnt();
    let [(name, Some(ids))] = &learnt[..] else {
        panic!("{learnt:?}");
    };
    assert_eq!((name.as_str(), ids.uid, ids.gid), ("ann", 1000, 1000));
    // The same answer again is not new.
    assert!(before.look_up("ann", now + LOOKUP_AGE_MAX).is_ok());
    assert_eq!(before.take_learnt(), []);
    chosen.fails.set(true);
    let mut after = accounts(&chosen);
    assert_eq!(after.look_up("ann", now), Err(Refused::NotNow));
    let mut after = accounts(&chosen);
    after.expect(name, ids);
    let now = Instant::now();
    let found = after.look_up("ann", now).map(|of| of.uid);
    assert_eq!(found, Ok(1000), "the last known one applies");
    assert_eq!(after.look_up("bob", now), Err(Refused::NotNow));
    chosen.fails.set(false);
    chosen.has_ann.set(false);
    let gone = after.look_up("ann", now + RETRY);
    assert_eq!(gone, Err(Refused::Unknown));
    assert_eq!(after.take_learnt(), [("ann".to_owned(), None)]);
}
