//! Handles NEGOTIATE (MS-SMB2 3.3.5.4) and its SMB1 form (3.3.5.3).

use super::{Handled, Reply, Request};
use crate::auth;
use crate::config::{Config, Oplocks, Requirement};
use crate::context::Context;
use crate::crypto::{Cipher, PreauthHash, SigningAlgorithm};
use crate::record::Record;
use crate::state::Negotiation;
use crate::wire::negotiate::{self, HASH_SHA_512, capabilities};
use crate::wire::{Dialect, Response, smb1};
use bytes::Bytes;
use outlast_fsa::status::NtStatus;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// NOT_SUPPORTED without a common dialect, INVALID_PARAMETER and SMB_NO_PREAUTH_INTEGRITY_HASH_OVERLAP for unacceptable
/// negotiate contexts.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &negotiate::Request,
) -> Result<Handled, NtStatus> {
    // 3.3.5.4: a second NEGOTIATE ends the connection.
    if ctx.connection().negotiation.dialect.is_some() {
        return Ok(Handled::Drop);
    }
    let config = ctx.config();
    let dialect = greatest_common(config, &body.dialects).ok_or(NtStatus::NOT_SUPPORTED)?;
    let offered = Offered::of(&body.contexts);
    let encrypts = config.encryption != Requirement::Off;
    let mut contexts = Vec::new();
    let (mut cipher, mut preauth) = (None, None);
    let signing = match dialect {
        Dialect::Smb202 | Dialect::Smb210 => SigningAlgorithm::HmacSha256,
        Dialect::Smb300 | Dialect::Smb302 => {
            // 3.3.5.4: encryption is a capability of both sides.
            if encrypts && body.capabilities & capabilities::ENCRYPTION != 0 {
                cipher = Some(Cipher::Aes128Ccm);
            }
            SigningAlgorithm::AesCmac
        }
        Dialect::Smb311 => {
            let hashes = offered.hashes.ok_or(NtStatus::INVALID_PARAMETER)?;
            if !hashes.contains(&HASH_SHA_512) {
                return Err(NtStatus::SMB_NO_PREAUTH_INTEGRITY_HASH_OVERLAP);
            }
            let mut hash = PreauthHash::START;
            hash.update(&[&request.bytes]);
            preauth = Some(hash);
            if let Some(ciphers) = offered.ciphers.filter(|_| encrypts) {
                cipher = choose_cipher(ciphers);
                contexts.push(negotiate::Context::Encryption {
                    // 2.2.4.1.2: zero means that no cipher is common.
                    ciphers: vec![cipher.map_or(0, Cipher::id)],
                });
            }
            let algorithm = offered
                .signing
                .map_or(SigningAlgorithm::AesCmac, choose_signing);
            if offered.signing.is_some() {
                contexts.push(negotiate::Context::Signing {
                    algorithms: vec![algorithm.id()],
                });
            }
            algorithm
        }
    };
    if preauth.is_some() {
        let salt = ctx.random::<32>();
        contexts.insert(
            0,
            negotiate::Context::PreauthIntegrity {
                hash_algorithms: vec![HASH_SHA_512],
                salt: Bytes::copy_from_slice(&salt),
            },
        );
    }
    let mut response = response(ctx, dialect.revision(), dialect);
    if dialect >= Dialect::Smb210 {
        response.capabilities |= capabilities::LARGE_MTU;
        if ctx.config().oplocks == Oplocks::On {
            response.capabilities |= capabilities::LEASING;
        }
    }
    if dialect >= Dialect::Smb300 {
        response.capabilities |= body.capabilities & of_smb3(ctx);
    }
    // 2.2.4: with 3.1.1 the context states it instead.
    if cipher.is_some() && dialect < Dialect::Smb311 {
        response.capabilities |= capabilities::ENCRYPTION;
    }
    response.contexts = contexts;
    ctx.emit(Record::Negotiated(Box::new(Negotiation {
        dialect: Some(dialect),
        wildcard: false,
        client_guid: body.client_guid,
        client_capabilities: body.capabilities,
        client_security_mode: body.security_mode,
        capabilities: response.capabilities,
        security_mode: response.security_mode,
        cipher,
        signing: Some(signing),
        preauth,
    })));
    Ok(Handled::Reply(Reply::success(Response::Negotiate(
        response,
    ))))
}

/// Returns the greatest dialect that both the server and the client support (3.3.5.4, 3.3.5.15.12).
pub(super) fn greatest_common(config: &Config, dialects: &[u16]) -> Option<Dialect> {
    Dialect::ALL
        .into_iter()
        .filter(|dialect| (config.min_dialect..=config.max_dialect).contains(dialect))
        .rfind(|dialect| dialects.contains(&dialect.revision()))
}

/// The offers in the client's contexts.
#[derive(Default)]
struct Offered<'a> {
    hashes: Option<&'a [u16]>,
    ciphers: Option<&'a [u16]>,
    signing: Option<&'a [u16]>,
}

impl<'a> Offered<'a> {
    fn of(contexts: &'a [negotiate::Context]) -> Offered<'a> {
        let mut offered = Offered::default();
        for context in contexts {
            match context {
                negotiate::Context::PreauthIntegrity {
                    hash_algorithms, ..
                } => offered.hashes = Some(hash_algorithms),
                negotiate::Context::Encryption { ciphers } => offered.ciphers = Some(ciphers),
                negotiate::Context::Signing { algorithms } => offered.signing = Some(algorithms),
            }
        }
        offered
    }
}

/// Chooses GCM before CCM, which is many times slower; otherwise the client's order applies.
fn choose_cipher(ids: &[u16]) -> Option<Cipher> {
    let known = || ids.iter().filter_map(|id| Cipher::from_id(*id));
    known()
        .find(|cipher| matches!(cipher, Cipher::Aes128Gcm | Cipher::Aes256Gcm))
        .or_else(|| known().next())
}

/// Chooses GMAC, which is many times faster than the others, if it is offered. Without a common algorithm it is CMAC
/// (3.3.5.4).
fn choose_signing(ids: &[u16]) -> SigningAlgorithm {
    [
        SigningAlgorithm::AesGmac,
        SigningAlgorithm::AesCmac,
        SigningAlgorithm::HmacSha256,
    ]
    .into_iter()
    .find(|algorithm| ids.contains(&algorithm.id()))
    .unwrap_or(SigningAlgorithm::AesCmac)
}

/// Returns the capabilities of SMB 3.x that a client is granted if it asks for them (3.3.5.4).
fn of_smb3(ctx: &Context<'_>) -> u32 {
    let mut granted = 0;
    if ctx.config().oplocks == Oplocks::On {
        granted |= capabilities::DIRECTORY_LEASING;
    }
    let mut shares = ctx.config().shares.iter();
    if shares.any(|share| share.continuous_availability) {
        granted |= capabilities::PERSISTENT_HANDLES;
    }
    granted
}

/// Makes the fields that every response has. `limits`: the dialect whose limits hold.
fn response(ctx: &Context<'_>, dialect_revision: u16, limits: Dialect) -> negotiate::Response {
    let io_bytes = ctx.config().max_io(limits);
    let mut security_mode = negotiate::SIGNING_ENABLED;
    if ctx.config().signing == Requirement::Required {
        security_mode |= negotiate::SIGNING_REQUIRED;
    }
    negotiate::Response {
        security_mode,
        dialect_revision,
        server_guid: ctx.config().guid,
        capabilities: 0,
        max_transact_size: io_bytes,
        max_read_size: io_bytes,
        max_write_size: ctx.config().max_write(limits),
        system_time: ctx.clock.wall,
        // 3.3.5.4 allows zero. The start time would reveal a restart to clients, which must not notice it.
        server_start_time: 0,
        security_buffer: auth::offer().into(),
        contexts: Vec::new(),
    }
}

/// Answers SMB1's NEGOTIATE; `message` is the whole message. The reply is an SMB2 one with MessageId 0
/// (`Handled::Reply`), or SMB1's refusal (`Handled::Foreign`).
pub fn smb1(ctx: &mut Context<'_>, message: &Bytes) -> Handled {
    let negotiation = &ctx.connection().negotiation;
    // 3.3.5.3: only as the first message of a connection.
    if negotiation.dialect.is_some() || negotiation.wildcard {
        return Handled::Drop;
    }
    let Ok(offer) = smb1::Negotiate::parse(message) else {
        return Handled::Drop;
    };
    let config = ctx.config();
    let (revision, negotiation) = if offer.smb_2_wildcard && config.max_dialect >= Dialect::Smb210 {
        // 3.3.5.3.1: the client sends an SMB2 NEGOTIATE next.
        let wildcard = Negotiation {
            wildcard: true,
            ..Negotiation::default()
        };
        (Dialect::WILDCARD, wildcard)
    } else if offer.smb_2_002 && config.min_dialect == Dialect::Smb202 {
        // 3.3.5.3.2: the negotiation is complete.
        let settled = Negotiation {
            dialect: Some(Dialect::Smb202),
            signing: Some(SigningAlgorithm::HmacSha256),
            ..Negotiation::default()
        };
        (Dialect::Smb202.revision(), settled)
    } else {
        return Handled::Foreign(smb1::no_common_dialect(offer.echo));
    };
    let response = response(ctx, revision, Dialect::Smb202);
    ctx.emit(Record::Negotiated(Box::new(Negotiation {
        capabilities: response.capabilities,
        security_mode: response.security_mode,
        ..negotiation
    })));
    Handled::Reply(Reply::success(Response::Negotiate(response)))
}

/// Adds the response's final bytes (header and body) to the preauthentication hash.
pub fn answered(ctx: &mut Context<'_>, response: &[u8]) {
    let mut negotiation = ctx.connection().negotiation.clone();
    if let Some(preauth) = &mut negotiation.preauth {
        preauth.update(&[response]);
        ctx.emit(Record::Negotiated(Box::new(negotiation)));
    }
}

#[cfg(test)]
mod tests;
