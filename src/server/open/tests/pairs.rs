//! Nodes of a pair, on one machine and on two.

use super::*;

const IN_STEP: Company = Company::Pair { in_step: true };

/// The log that a server in this company, of this boot, recovers, and the medium to which it is shipped.
fn opened(
    memory: &Arc<VecMemory>,
    image: Option<&Arc<VecMemory>>,
    boot: u8,
    company: Company,
) -> Result<Opened, String> {
    let sink = image.map(|image| sink(image, 99));
    let opened = open(
        memory.clone(),
        None,
        sink,
        incarnation(boot),
        company,
        &mut Counting(boot),
    );
    opened.map_err(|error| format!("{error:#}"))
}

/// Accepts a client.
fn admit(opened: Opened, client: u64) -> Log {
    let Opened {
        mut log,
        mut medium,
        ..
    } = opened;
    let record = Record::Client {
        tcp: None,
        smb: None,
    };
    let mut encoded = Vec::new();
    codec::encode(&record, &mut encoded);
    log.append(client, Kind::Snapshot, &encoded, &[]).unwrap();
    log.commit();
    while let Some(batch) = log.next_batch(Home::Sink) {
        let medium = medium.as_mut().unwrap();
        medium.begin(batch);
        medium.wait();
        log.batch_done(Home::Sink);
    }
    log
}

fn memory() -> Arc<VecMemory> {
    Arc::new(VecMemory::new(LEN))
}

//= patent claim-12, claim-13, claim-14, claim-15, claim-33, claim-34, claim-35, claim-36
#[test]
fn the_flag_names_the_server_that_resumes() {
    let apart = Company::Pair { in_step: false };
    for (company, flag) in [
        (Company::Alone, Flag::NonElectiveReboot),
        (apart, Flag::NonElectiveReboot),
        (IN_STEP, Flag::NonElectiveTakeover),
    ] {
        let memory = memory();
        let first = opened(&memory, None, 1, company).unwrap();
        assert_eq!(first.log.superblock().flag, flag);
        drop(admit(first, 1));
        let second = opened(&memory, None, 1, company).unwrap();
        assert_eq!(second.log.superblock().flag, flag);
        assert_eq!(second.state.clients(), 1);
    }
}

//= patent claim-16, claim-17, claim-37, claim-38
#[test]
fn a_lone_server_does_not_recover_what_a_partner_may_have() {
    for flag in [Flag::NonElectiveTakeover, Flag::ElectiveTakeover] {
        let memory = memory();
        admit(opened(&memory, None, 1, IN_STEP).unwrap(), 1).set_flag(flag);
        for boot in [1, 2] {
            let refused = opened(&memory, None, boot, Company::Alone).err().unwrap();
            assert!(refused.contains("put [partner] back"), "{refused}");
        }
        assert_eq!(
            opened(&memory, None, 1, IN_STEP).unwrap().state.clients(),
            1
        );
    }
}

#[test]
fn a_planned_takeover_reaches_another_machine() {
    for (persisted, clients) in [(true, 1), (false, 0)] {
        let memory = memory();
        let mut log = admit(opened(&memory, None, 1, IN_STEP).unwrap(), 1);
        match persisted {
            true => log.persist_with_flag(Flag::ElectiveTakeover).unwrap(),
            false => log.set_flag(Flag::ElectiveTakeover),
        }
        drop(log);
        let taken = opened(&memory, None, 2, IN_STEP).unwrap();
        assert_eq!(taken.state.clients(), clients);
    }
}

#[test]
fn what_the_other_machine_has_shipped_is_newer() {
    let (of_a, of_b, image) = (memory(), memory(), memory());
    drop(admit(opened(&of_a, Some(&image), 1, IN_STEP).unwrap(), 1));
    let taken = opened(&of_b, Some(&image), 2, IN_STEP).unwrap();
    assert_eq!(taken.state.clients(), 1);
    drop(admit(taken, 2));
    // Node a's mapping is of this boot of its machine, and lacks the second client.
    let back = opened(&of_a, Some(&image), 1, IN_STEP).unwrap();
    assert_eq!(back.state.clients(), 2);
    drop(admit(back, 3));
    // Its own state is the newest again, although the sink lacks the last commit.
    let mut log = opened(&of_a, Some(&image), 1, IN_STEP).unwrap().log;
    let mut encoded = Vec::new();
    let record = Record::Client {
        tcp: None,
        smb: None,
    };
    codec::encode(&record, &mut encoded);
    log.append(4, Kind::Snapshot, &encoded, &[]).unwrap();
    log.commit();
    drop(log);
    let again = opened(&of_a, Some(&image), 1, IN_STEP).unwrap();
    assert_eq!(again.state.clients(), 4);
}

fn mirror(term: u64, resumes: Option<u64>) -> Company {
    Company::Mirror {
        in_step: false,
        term,
        resumes,
    }
}

/// Ships all of a log to the memory of a machine in this boot.
fn copy_to(log: &mut Log, copied: &Arc<VecMemory>, boot: u8) {
    let mut copy = copy::Copy::open(copied.clone(), incarnation(boot)).unwrap();
    let beginning = copy::Beginning::new(LEN as u64, copy.beginning());
    log.attach(Home::Partner, &beginning).unwrap();
    while let Some(batch) = log.next_batch(Home::Partner) {
        for (at, bytes) in &batch.writes {
            copy.write(*at, bytes).unwrap();
        }
        copy.complete().unwrap();
        log.batch_done(Home::Partner);
    }
}

//= patent fig4-413
#[test]
fn with_an_nvram_each_the_term_says_which_state_counts() {
    let (of_a, of_b) = (memory(), memory());
    let mut log = admit(opened(&of_a, None, 1, mirror(1, None)).unwrap(), 1);
    copy_to(&mut log, &of_b, 2);
    drop(log);
    let clients =
        |memory, boot, company| opened(memory, None, boot, company).unwrap().state.clients();
    // The worker of node a that comes next.
    assert_eq!(clients(&of_a, 1, mirror(1, None)), 1);
    // Node b, which has the copy; then it is its own log.
    let taken = opened(&of_b, None, 2, mirror(2, Some(1))).unwrap();
    assert_eq!((taken.state.clients(), taken.is_of_this_boot), (1, false));
    let mut log = admit(taken, 2);
    let standing = Standing::of(&*of_b).unwrap().unwrap();
    assert_eq!((standing.superblock.term, standing.received_in), (2, None));
    assert_eq!(clients(&of_b, 2, mirror(2, Some(1))), 2);
    // What node a has is of a term that is over.
    let old = Arc::new(of_a.image());
    assert_eq!(clients(&old, 1, mirror(3, Some(2))), 0);
    // Now it has the newer one.
    copy_to(&mut log, &of_a, 1);
    drop(log);
    assert_eq!(clients(&of_a, 1, mirror(3, Some(2))), 2);
}

#[test]
fn a_copy_of_another_boot_is_not_resumed_and_a_sink_is() {
    let (of_a, of_b, image) = (memory(), memory(), memory());
    let mut log = admit(opened(&of_a, Some(&image), 1, mirror(1, None)).unwrap(), 1);
    copy_to(&mut log, &of_b, 2);
    drop(log);
    let lost = opened(&of_b, None, 3, mirror(2, Some(1))).unwrap();
    assert_eq!(lost.state.clients(), 0);
    // Both machines have lost power, and this one has its sink.
    let kept = opened(&of_a, Some(&image), 4, mirror(2, Some(1))).unwrap();
    assert_eq!(kept.state.clients(), 1);
    // A sink of this node's that is older than the state that it resumes gives way.
    let (other, stale) = (memory(), memory());
    drop(admit(
        opened(&other, Some(&stale), 5, mirror(1, None)).unwrap(),
        1,
    ));
    let mut log = kept.log;
    copy_to(&mut log, &other, 5);
    let taken = opened(&other, Some(&stale), 5, mirror(3, Some(2))).unwrap();
    assert_eq!(taken.state.clients(), 1);
}
