//! Derives scenarios: everything that a run depends on, from one seed.

use std::time::Duration;

use outlast_smb::Dialect;
use outlast_smb::crypto::{Cipher, SigningAlgorithm};
use outlast_stack::Lost;
use outlast_stack::device::Faults;

use crate::client::Profile;
use crate::clock::Speed;
use crate::kinds::Kind;
use crate::mutation::Mutation;
use crate::pair::Plan;
use crate::player::USER;
use crate::random::Random;
use crate::revocation;
use crate::rules::{Lacks, Rules};
use crate::sickness::{self, Sickness};
use crate::unauthenticated::Unauthenticated;
use crate::workload::{self, Op};

/// The size of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// One or two clients and a few requests: for every pair of crashes.
    Small,
    /// Two or three clients: for every single crash.
    Usual,
}

/// The input of a run, except for the steps of its crashes.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed that it is derived from.
    pub seed: u64,
    /// The clients.
    pub profiles: Vec<Profile>,
    /// Their operations.
    pub ops: Vec<Op>,
    /// Its kind.
    pub kind: Kind,
    /// The faults of the network.
    pub faults: Faults,
    /// Whether frames are lost while the server is down.
    pub lost: Lost,
    /// The length of the outage after a crash.
    pub outage: Duration,
    /// The size of the NVRAM in bytes.
    pub nvram_bytes: usize,
    /// Files can be opened by handle.
    pub handles: bool,
    /// The clients use IPv6.
    pub ipv6: bool,
    /// The clients' TCP sends timestamps.
    pub timestamps: bool,
    /// The server's device segments TCP (TSO) and computes checksums.
    pub offload: bool,
    /// Durability is `power`.
    pub power: Option<Power>,
    /// The plan of a pair of two servers, if it is one.
    pub pair: Option<Plan>,
    /// An elective reboot begins at this step.
    pub reboot_at: Option<u64>,
    /// After the first outage the receive window is smaller.
    pub smaller_window: bool,
    /// The speed of the processor: on a slow one work is interrupted, and other clients have their turn.
    pub speed: Speed,
    /// The limit of unread reply bytes, at which a client has to wait.
    pub unread: usize,
    /// The minimum amount of a snapshot that one turn copies: either so little that a connection takes several turns,
    /// or all of it at once.
    pub copy_units: u64,
    /// One more client connects and does not log in.
    pub unauthenticated: Option<Unauthenticated>,
    /// Rules that the judge needs.
    pub rules: Rules,
    /// The features that the file system lacks.
    pub lacks: Lacks,
    /// The share is missing for a while in later lives.
    pub has_outages_of_share: bool,
    /// There are two shares on two file systems, and the second one is sick for a while.
    pub sickness: Option<Sickness>,
    /// The mutation of the server.
    pub mutation: Option<Mutation>,
    /// The state is compared with the fold of the records, and each frame with the committed state. If not, only the
    /// clients and the wire show faults.
    pub sees_inside: bool,
}

/// The additional input of a run under durability `power`.
#[derive(Clone, Copy, Debug)]
pub struct Power {
    /// The percentage of crashes that are power cuts; the others are deaths of the server alone.
    pub cuts_percent: u64,
    /// An elective reboot restarts the machine.
    pub system_reboots: bool,
    /// When the clients have left, two syncs in a row fail, so that the share is isolated.
    pub fails_twice: bool,
    /// The time that the clients wait between two operations of the list, so that consistency points occur among them.
    pub pause: Duration,
}

/// The durability of scenarios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Every third scenario has durability `power`.
    #[default]
    Any,
    /// `process`: only the server crashes.
    Process,
    /// `power`.
    Power,
}

impl Scenario {
    /// Derives the scenario of a seed.
    #[must_use]
    pub fn new(seed: u64, size: Size) -> Scenario {
        Scenario::with(seed, size, Durability::Any)
    }

    /// Derives the scenario of a seed with a durability that may differ from the seed's own.
    #[must_use]
    pub fn with(seed: u64, size: Size, durability: Durability) -> Scenario {
        let mut scenario = Scenario::without_power(seed, size).of_kind(size);
        if let Some(revocation) = scenario.rules.revocation {
            revocation.prepare(&mut scenario);
        }
        match durability {
            Durability::Any if !seed.is_multiple_of(3) => scenario.with_outages_of_share(),
            Durability::Process => scenario.with_outages_of_share(),
            Durability::Any | Durability::Power => scenario.under_power().with_two_file_systems(),
        }
    }

    /// Derives the scenario of a seed with two servers. Frames that arrive while neither serves are lost.
    #[must_use]
    pub fn of_pair(seed: u64, size: Size) -> Scenario {
        let durability = match seed.is_multiple_of(3) {
            true => Durability::Power,
            false => Durability::Process,
        };
        let scenario = Scenario::with(seed, size, durability);
        Scenario {
            pair: Some(Plan::of(seed, scenario.power.is_some())),
            lost: Lost::Frames,
            outage: scenario.outage.min(Duration::from_secs(1)),
            ..scenario
        }
    }

    /// Returns the login names of the clients: one for all of them, or one for each.
    pub(crate) fn users(&self) -> Vec<String> {
        let Rules {
            without_account,
            revocation,
            ..
        } = self.rules;
        let has_own = without_account.is_some() || revocation.is_some();
        let name = |client| match has_own {
            true => format!("{USER}{client}"),
            false => USER.to_owned(),
        };
        (0..self.profiles.len()).map(name).collect()
    }

    /// Returns the profiles of `count` clients: those of the scenario, and more of them if they are too few.
    pub(crate) fn clients(&self, count: usize) -> Vec<Profile> {
        let mut random = Random::new(self.seed, "more clients");
        let more = std::iter::repeat_with(|| profile(&mut random));
        self.profiles
            .iter()
            .copied()
            .chain(more)
            .take(count)
            .collect()
    }

    /// Returns the scenario with durability `power`.
    fn under_power(self) -> Scenario {
        let mut random = Random::new(self.seed, "power");
        Scenario {
            power: Some(Power {
                cuts_percent: *random.pick(&[70, 100]),
                system_reboots: random.percent(60),
                fails_twice: matches!(self.seed % 8, 0 | 3 | 7),
                pause: Duration::from_millis(*random.pick(&[0, 0, 700, 2500])),
            }),
            // The effects on files need room, too.
            nvram_bytes: *random.pick(&[88, 88, 104, 128]) << 10,
            // `power` requires handles, and a file system that has birth times and RENAME_NOREPLACE.
            handles: true,
            lacks: Lacks {
                births: false,
                noreplace: false,
                ..self.lacks
            },
            ..self
        }
    }

    /// Derives the scenario of a seed, with durability `process`.
    fn without_power(seed: u64, size: Size) -> Scenario {
        let mut random = Random::new(seed, "scenario");
        let (clients, length) = match size {
            Size::Small => (1 + random.index(2), 3 + random.index(4)),
            Size::Usual => (1 + random.index(3), 12 + random.index(16)),
        };
        let clients = match revocation::is_of(seed) || sickness::is_of(seed) {
            true => clients.max(2),
            false => clients,
        };
        let rules = Rules::of(seed, clients);
        let lacks = Lacks::of(seed);
        let profiles: Vec<Profile> = (0..clients).map(|_| profile(&mut random)).collect();
        let faulty = random.percent(50);
        let percent = |of: u64| (of * 10_000) as u32;
        let faults = Faults {
            loss_ppm: if faulty { percent(random.below(6)) } else { 0 },
            duplicate_ppm: if faulty { percent(random.below(5)) } else { 0 },
            reorder_ppm: if faulty { percent(random.below(5)) } else { 0 },
            corrupt_ppm: if faulty { percent(random.below(3)) } else { 0 },
            delay: Duration::from_micros(50 + random.below(500)),
            jitter: Duration::from_micros(if faulty { random.below(300) } else { 0 }),
            reorder_delay: Duration::from_millis(2),
            queue_limit: 0,
        };
        let lost = if random.percent(50) {
            Lost::Frames
        } else {
            Lost::Nothing
        };
        // Where frames are lost, the clients' TCP backs off for as long as the outage lasted. After a long outage that
        // would exceed the timeout of an oplock break.
        let outages: &[u64] = match lost {
            Lost::Frames => &[1, 50, 1000],
            Lost::Nothing => &[1, 50, 1000, 40_000],
        };
        let mut turns = Random::new(seed, "turns");
        // MS-SMB2 3.3.5.9.8: from 2.1 on. A revocation may still change a client's dialect.
        let leases: Vec<bool> = (profiles.iter())
            .map(|profile| profile.dialect != Dialect::Smb202 && !revocation::is_of(seed))
            .collect();
        Scenario {
            seed,
            ops: workload::generate(seed, &leases, length, rules),
            profiles,
            kind: Kind::Mixed,
            faults,
            lost,
            outage: Duration::from_millis(*random.pick(outages)),
            nvram_bytes: *random.pick(&[60, 64, 72, 104, 256]) << 10,
            handles: random.percent(70) && !lacks.births,
            rules,
            lacks,
            timestamps: random.percent(70),
            offload: random.percent(30),
            smaller_window: random.percent(25),
            power: None,
            pair: None,
            ipv6: seed % 5 == 4,
            speed: match (turns.percent(50), seed % 6) {
                (_, 1) => Speed::Slow,
                (true, _) => Speed::Unsteady,
                (false, _) => Speed::Fast,
            },
            unread: *turns.pick(&[100, 16 << 20]),
            copy_units: *Random::new(seed, "copies").pick(&[1, 2, 4, 512]),
            unauthenticated: match seed % 14 {
                3 => Some(Unauthenticated::Silent),
                10 => Some(Unauthenticated::Halting),
                _ => None,
            },
            has_outages_of_share: false,
            sickness: None,
            mutation: None,
            sees_inside: true,
            reboot_at: random.percent(30).then(|| 50 + random.below(600)),
        }
    }
}

/// Derives the profile of a client.
fn profile(random: &mut Random) -> Profile {
    use Dialect::{Smb202, Smb210, Smb300, Smb302, Smb311};
    let dialect = *random.pick(&[
        Smb202, Smb210, Smb300, Smb302, Smb311, Smb311, Smb311, Smb311,
    ]);
    let ciphers = [
        Cipher::Aes128Gcm,
        Cipher::Aes256Gcm,
        Cipher::Aes128Ccm,
        Cipher::Aes256Ccm,
    ];
    let signing = [
        SigningAlgorithm::AesGmac,
        SigningAlgorithm::AesCmac,
        SigningAlgorithm::HmacSha256,
    ];
    Profile {
        dialect,
        cipher: *random.pick(&ciphers),
        signing: *random.pick(&signing),
        sealed: dialect >= Smb300 && random.percent(50),
        depth: 1 + random.index(4),
        logs_off: random.percent(60),
    }
}
