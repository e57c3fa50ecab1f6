//! Makes the server's configuration, which differs between its lives.

use std::collections::BTreeSet;

use outlast::server::windows::room_for_received;
use outlast_smb::auth::nt_hash;
use outlast_smb::{Dialect, Limits, Oplocks, Requirement, Share, User};
use outlast_stack::Capabilities;

use crate::mutation::Mutation;
use crate::net::{PORT, SERVER};
use crate::player::{PASSWORD, SECOND_SHARE, SHARE};
use crate::scenario::Scenario;

/// Makes the configuration of TCP/IP.
pub(crate) fn stack_config(scenario: &Scenario) -> outlast_stack::Config {
    outlast_stack::Config {
        addresses: SERVER.to_vec(),
        ports: vec![PORT],
        receive_buffer: 16 << 10,
        receive_total: receive_total(scenario),
        receive_reserve: 4 << 10,
        receive_least: 512,
        capabilities: Capabilities {
            checksum: scenario.offload,
            tso4: scenario.offload,
            tso6: scenario.offload,
        },
        ..outlast_stack::Config::default()
    }
}

/// Returns the bytes of the log that are reserved for receive windows.
pub(crate) fn receive_total(scenario: &Scenario) -> usize {
    let part = room_for_received(scenario.nvram_bytes as u64, scenario.power.is_some());
    part.max(8 << 10)
}

/// Makes the configuration of SMB. Each life has another list of shares and users, in which the clients' share and
/// users have other positions.
pub(crate) fn smb_config(scenario: &Scenario, life: u32) -> outlast_smb::Config {
    let share = |name: &str| Share {
        name: name.into(),
        comment: String::new(),
        read_only: false,
        guest: false,
        users: Vec::new(),
        directory: 0,
        continuous_availability: true,
        encryption: Requirement::Enabled,
    };
    let user = |name: &str| User {
        name: name.into(),
        nt_hash: nt_hash(PASSWORD),
    };
    let mut shares: Vec<Share> = (0..life % 3).map(|n| share(&format!("other{n}"))).collect();
    shares.push(share(SHARE));
    if scenario.sickness.is_some() {
        let place = if life.is_multiple_of(2) {
            shares.len()
        } else {
            0
        };
        shares.insert(place, share(SECOND_SHARE));
    }
    let mut users: Vec<User> = (0..life % 2).map(|n| user(&format!("other{n}"))).collect();
    let clients = scenario.users();
    let names: BTreeSet<&String> = clients.iter().collect();
    users.extend(names.into_iter().map(|name| user(name)));
    let mut config = outlast_smb::Config {
        name: "OUTLAST".into(),
        guid: [0; 16],
        min_dialect: Dialect::Smb202,
        max_dialect: Dialect::Smb311,
        signing: Requirement::Enabled,
        encryption: Requirement::Enabled,
        oplocks: Oplocks::On,
        shares,
        users,
        limits: Limits {
            io_bytes: 65_536,
            ..scenario
                .kind
                .limits()
                .map_or_else(Limits::default, |limits| {
                    limits.of_server(scenario.mutation)
                })
        },
    };
    let revocation = scenario.rules.revocation;
    let is_applied = scenario.mutation != Some(Mutation::PreviousConfiguration);
    if let Some(revocation) = revocation.filter(|it| it.from_life <= life && is_applied) {
        revocation.change(&mut config, &clients);
    }
    config
}

/// Returns the capabilities of the server's device in a scenario.
#[must_use]
pub fn capabilities(scenario: &Scenario) -> Capabilities {
    stack_config(scenario).capabilities
}
