//! Makes the server's DNS records (RFC 6763): its host name with its addresses, and its services.

use std::net::IpAddr;

use simple_dns::rdata::{A, AAAA, PTR, RData, SRV, TXT};
use simple_dns::{CLASS, Label, Name, ResourceRecord, SimpleDnsError};

/// RFC 6762, section 10: the TTL of records with a host's name, and of others.
const HOST_TTL_SECONDS: u32 = 120;
const OTHER_TTL_SECONDS: u32 = 4500;

/// The port of direct TCP (MS-SMB2 2.1).
const SMB_PORT: u16 = 445;
/// The model that the Finder shows with the icon of a server.
const MODEL: &str = "model=RackMac";

/// A record, and whether it is unique.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub record: ResourceRecord<'static>,
    /// RFC 6762, section 2: no other host may have a record of this name and type.
    pub is_unique: bool,
}

/// The server's names.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The host name, such as `outlast.local`.
    pub host: Name<'static>,
    /// The service instance, such as `OUTLAST._smb._tcp.local`.
    pub smb: Name<'static>,
    device: Name<'static>,
}

impl Names {
    /// Makes the names of a server. `number`: 1, or more if other hosts have the names with lower numbers.
    pub fn new(name: &str, number: u32) -> Result<Names, SimpleDnsError> {
        // RFC 6762, section 9: the number follows a hyphen in a host's name, and a blank in a service's.
        let (host, instance) = match number {
            1 => (name.to_lowercase(), name.to_owned()),
            _ => (
                format!("{}-{number}", name.to_lowercase()),
                format!("{name} ({number})"),
            ),
        };
        Ok(Names {
            host: labels(&[&host, "local"])?,
            smb: labels(&[&instance, "_smb", "_tcp", "local"])?,
            device: labels(&[&instance, "_device-info", "_tcp", "local"])?,
        })
    }

    /// Returns all records of these names.
    pub fn records(&self, addresses: &[IpAddr]) -> Result<Vec<Own>, SimpleDnsError> {
        let service = labels(&["_smb", "_tcp", "local"])?;
        // RFC 6763, section 9: a browser enumerates the service types by these records.
        let kinds = labels(&["_services", "_dns-sd", "_udp", "local"])?;
        let server = SRV {
            priority: 0,
            weight: 0,
            port: SMB_PORT,
            target: self.host.clone(),
        };
        // RFC 6763, section 6.1: a service without attributes has a record with one empty string.
        let mut all = vec![
            shared(&kinds, RData::PTR(PTR(service.clone()))),
            shared(&service, RData::PTR(PTR(self.smb.clone()))),
            unique(&self.smb, HOST_TTL_SECONDS, RData::SRV(server)),
            unique(
                &self.smb,
                OTHER_TTL_SECONDS,
                RData::TXT(TXT::new().with_string("")?),
            ),
            unique(
                &self.device,
                OTHER_TTL_SECONDS,
                RData::TXT(TXT::new().with_string(MODEL)?),
            ),
        ];
        all.extend(addresses.iter().map(|address| {
            let data = match address {
                IpAddr::V4(v4) => RData::A(A::from(*v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA::from(*v6)),
            };
            unique(&self.host, HOST_TTL_SECONDS, data)
        }));
        Ok(all)
    }
}

fn labels(labels: &[&str]) -> Result<Name<'static>, SimpleDnsError> {
    let labels = labels
        .iter()
        .map(|label| Label::new(label.as_bytes().to_vec()));
    let labels: Vec<Label<'static>> = labels.collect::<Result<_, _>>()?;
    Ok(Name::new_with_labels(&labels))
}

fn shared(name: &Name<'static>, data: RData<'static>) -> Own {
    Own {
        record: ResourceRecord::new(name.clone(), CLASS::IN, OTHER_TTL_SECONDS, data),
        is_unique: false,
    }
}

fn unique(name: &Name<'static>, ttl: u32, data: RData<'static>) -> Own {
    Own {
        record: ResourceRecord::new(name.clone(), CLASS::IN, ttl, data),
        is_unique: true,
    }
}
