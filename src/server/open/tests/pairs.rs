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
    while let Some(batch) = log.next_batch() {
        let medium = medium.as_mut().unwrap();
        medium.begin(batch);
        medium.wait();
        log.batch_done();
    }
    log
}

fn memory() -> Arc<VecMemory> {
    Arc::new(VecMemory::new(LEN))
}

//= patent claim-12, claim-13, claim-14, claim-15, claim-33, claim-34, claim-35, claim-36
#[test]
fn the_flag_says_who_resumes() {
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
