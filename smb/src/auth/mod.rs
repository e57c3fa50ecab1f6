//! Authenticates clients: an acceptor of NTLMv2, within SPNEGO or bare.
//!
//! A [`Handshake`] is the state between two SESSION_SETUP requests. It is part of the durable state: a crash between
//! them must not change the challenge that the client has already received.

#[cfg(any(test, feature = "client"))]
pub mod client;
mod der;
mod ntlm;
mod spnego;

#[cfg(test)]
mod tests;

pub use ntlm::nt_hash;

use serde::{Deserialize, Serialize};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::config::Config;
use crate::crypto::Secret;
use crate::entropy::Entropy;
use crate::size;
use ntlm::{Authenticate, Signer, flags};
use outlast_fsa::fileop::FileTime;
use spnego::{NegState, Token};

/// The longest list of mechanisms, in bytes of DER: initiators name four or five, of a dozen bytes each.
const MAX_MECH_TYPES: usize = 512;

/// The number of characters of a name that a log shows: no user has a longer one.
const MAX_LOGGED_NAME: usize = 256;

/// The longest NEGOTIATE message, in bytes: 40, and the names of a workstation and its domain (MS-NLMP 2.2.1.1).
const MAX_NEGOTIATE: usize = 1024;

/// Returns the user name in a client's AUTHENTICATE token, if this is one. For logs: the name is not verified.
#[must_use]
pub fn claimed_user(token: &[u8]) -> Option<String> {
    let ntlm = match spnego::parse(token) {
        _ if token.starts_with(ntlm::SIGNATURE) => Some(token),
        Some(Token::Resp(resp)) => resp.token,
        Some(Token::Init(_)) | None => None,
    };
    let name = Authenticate::parse(ntlm?)?.user;
    Some(name.chars().take(MAX_LOGGED_NAME).collect())
}

/// The reason for a failed authentication. The client receives only LOGON_FAILURE or INVALID_PARAMETER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a token of this mechanism, or not at its place in the exchange.
    #[error("security token is malformed or out of order")]
    Malformed,
    /// No mechanism, character set or response in common: Kerberos alone, no Unicode, NTLMv1.
    #[error("no mechanism in common, or one too old")]
    Unsupported,
    /// Unknown user, wrong password, wrong or missing MIC.
    #[error("wrong user name, password or message integrity code")]
    LogonFailure,
}

/// The account that logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A user, by the name in the users file.
    User(String),
    /// "guest", if the users file does not contain it.
    Guest,
    /// An anonymous login.
    Anonymous,
}

/// The result of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Another round follows: send this token with MORE_PROCESSING_REQUIRED.
    Continue {
        /// The token.
        token: Vec<u8>,
    },
    /// The authentication is complete.
    Complete {
        /// The last token; empty if the mechanism has none.
        token: Vec<u8>,
        /// The identity. The caller decides whether guests are admitted.
        identity: Identity,
        /// The session key; `None` for guest and anonymous.
        session_key: Option<Secret>,
    },
}

/// The server's CHALLENGE and the client's NEGOTIATE: the MIC covers both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Challenged {
    server_challenge: [u8; 8],
    negotiate: Vec<u8>,
    challenge: Vec<u8>,
}

/// The state of an authentication between two SESSION_SETUP requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake {
    /// The client's mechTypes in DER, if it uses SPNEGO.
    mech_types: Option<Vec<u8>>,
    /// NTLM was not the client's first choice: mechListMIC must be exchanged (RFC 4178 5).
    mic_required: bool,
    /// The CHALLENGE, once it has been sent.
    challenged: Option<Challenged>,
}

impl Handshake {
    /// Returns an upper bound of its encoding, in bytes.
    pub(crate) fn size(&self) -> usize {
        let Handshake {
            mech_types,
            mic_required: _,
            challenged,
        } = self;
        let challenged = challenged.as_ref().map_or(0, |challenged| {
            let Challenged {
                server_challenge,
                negotiate,
                challenge,
            } = challenged;
            server_challenge.len() + size::bytes(negotiate) + size::bytes(challenge)
        });
        size::SMALL + mech_types.as_deref().map_or(0, size::bytes) + challenged
    }
}

/// Returns the SPNEGO token of the NEGOTIATE response.
#[must_use]
pub fn offer() -> Vec<u8> {
    spnego::offer()
}

impl Handshake {
    /// Makes the state before the first token.
    #[must_use]
    pub fn new() -> Handshake {
        Handshake::default()
    }

    /// Processes the client's next token. `wall` is the time in the challenge.
    ///
    /// # Errors
    /// The authentication has failed; the handshake must not be used again.
    pub fn step(
        &mut self,
        token: &[u8],
        config: &Config,
        wall: FileTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Progress, Refused> {
        if token.starts_with(ntlm::SIGNATURE) {
            return self.step_bare(token, config, wall, entropy);
        }
        match spnego::parse(token).ok_or(Refused::Malformed)? {
            Token::Init(init) => {
                if self.mech_types.is_some() || self.challenged.is_some() {
                    return Err(Refused::Malformed);
                }
                if !init.offers_ntlm {
                    return Err(Refused::Unsupported);
                }
                if init.mech_types.len() > MAX_MECH_TYPES {
                    return Err(Refused::Malformed);
                }
                self.mech_types = Some(init.mech_types.to_vec());
                self.mic_required = !init.prefers_ntlm;
                let state = match init.prefers_ntlm {
                    true => NegState::AcceptIncomplete,
                    false => NegState::RequestMic,
                };
                // A token for another mechanism is ignored: the client starts again with NTLM.
                let challenge = match init.token.filter(|_| init.prefers_ntlm) {
                    Some(token) => Some(self.challenge(token, config, wall, entropy)?),
                    None => None,
                };
                Ok(Progress::Continue {
                    token: spnego::respond(state, true, challenge.as_deref(), None),
                })
            }
            Token::Resp(resp) => {
                let mech_types = self.mech_types.clone().ok_or(Refused::Malformed)?;
                let token = resp.token.ok_or(Refused::Malformed)?;
                if self.challenged.is_none() {
                    let challenge = self.challenge(token, config, wall, entropy)?;
                    return Ok(Progress::Continue {
                        token: spnego::respond(
                            NegState::AcceptIncomplete,
                            false,
                            Some(&challenge),
                            None,
                        ),
                    });
                }
                let login = self.authenticate(token, config)?;
                let mic = self.exchange_mic(&login, &mech_types, resp.mech_list_mic)?;
                Ok(Progress::Complete {
                    token: spnego::respond(
                        NegState::AcceptCompleted,
                        false,
                        None,
                        mic.as_ref().map(<[u8; 16]>::as_slice),
                    ),
                    session_key: login.session_key(),
                    identity: login.identity,
                })
            }
        }
    }

    /// Processes an NTLM token without SPNEGO.
    fn step_bare(
        &mut self,
        token: &[u8],
        config: &Config,
        wall: FileTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Progress, Refused> {
        if self.mech_types.is_some() {
            return Err(Refused::Malformed);
        }
        if self.challenged.is_none() {
            let token = self.challenge(token, config, wall, entropy)?;
            return Ok(Progress::Continue { token });
        }
        let login = self.authenticate(token, config)?;
        Ok(Progress::Complete {
            token: Vec::new(),
            session_key: login.session_key(),
            identity: login.identity,
        })
    }

    /// Answers a NEGOTIATE message by a CHALLENGE (MS-NLMP 3.2.5.1.1).
    fn challenge(
        &mut self,
        negotiate: &[u8],
        config: &Config,
        wall: FileTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<u8>, Refused> {
        // The message is kept for every unauthenticated client, so it must be short.
        if negotiate.len() > MAX_NEGOTIATE {
            return Err(Refused::Malformed);
        }
        let client_flags = ntlm::parse_negotiate(negotiate).ok_or(Refused::Malformed)?;
        if client_flags & flags::UNICODE == 0 {
            return Err(Refused::Unsupported);
        }
        let mut server_challenge = [0; 8];
        entropy.fill(&mut server_challenge);
        let challenge = ntlm::challenge(client_flags, server_challenge, &config.name, wall);
        self.challenged = Some(Challenged {
            server_challenge,
            negotiate: negotiate.to_vec(),
            challenge: challenge.clone(),
        });
        Ok(challenge)
    }

    /// Verifies an AUTHENTICATE message (MS-NLMP 3.2.5.1.2).
    fn authenticate(&self, token: &[u8], config: &Config) -> Result<Login, Refused> {
        let challenged = self.challenged.as_ref().ok_or(Refused::Malformed)?;
        let message = Authenticate::parse(token).ok_or(Refused::Malformed)?;
        if message.is_anonymous() {
            // 3.2.5.1.2: the key of an anonymous login is zeros; it signs mechListMIC alone.
            return Ok(Login {
                identity: Identity::Anonymous,
                key: ntlm::exported_session_key([0; 16], &message),
                flags: message.flags,
            });
        }
        let account = account_name(&message.user);
        let user = config.user(&message.user).or_else(|| config.user(account));
        if user.is_none() && account.eq_ignore_ascii_case("guest") {
            return Ok(Login {
                identity: Identity::Guest,
                key: None,
                flags: message.flags,
            });
        }
        let (proof, temp) = message.v2_response().ok_or(Refused::Unsupported)?;
        if !message.is_well_formed() {
            return Err(Refused::Malformed);
        }
        // An unknown user takes the same work as a known one.
        let nt_hash = user.map_or([0; 16], |user| user.nt_hash);
        let (matches, base_key) = verify(&nt_hash, &message, challenged, proof, temp);
        let Some(user) = user.filter(|_| matches.into()) else {
            return Err(Refused::LogonFailure);
        };
        let key = ntlm::exported_session_key(base_key, &message).ok_or(Refused::Malformed)?;
        if message.announces_mic() {
            let (computed, came) =
                ntlm::mic(&key, &challenged.negotiate, &challenged.challenge, token)
                    .ok_or(Refused::Malformed)?;
            if !bool::from(computed.ct_eq(&came)) {
                return Err(Refused::LogonFailure);
            }
        }
        Ok(Login {
            identity: Identity::User(user.name.clone()),
            key: Some(key),
            flags: message.flags,
        })
    }

    /// Verifies the client's mechListMIC, if it is present or required, and makes the server's (RFC 4178 5).
    fn exchange_mic(
        &self,
        login: &Login,
        mech_types: &[u8],
        came: Option<&[u8]>,
    ) -> Result<Option<[u8; 16]>, Refused> {
        let Some(key) = &login.key else {
            // The server does not know a guest's key, so it can verify nothing, and a guest needs no protection.
            return Ok(None);
        };
        let Some(came) = came else {
            return match self.mic_required && login.identity != Identity::Anonymous {
                true => Err(Refused::LogonFailure),
                false => Ok(None),
            };
        };
        let sign = |signer| {
            ntlm::signature(key, login.flags, signer, mech_types).ok_or(Refused::Unsupported)
        };
        if !bool::from(sign(Signer::Client)?.ct_eq(came)) {
            return Err(Refused::LogonFailure);
        }
        sign(Signer::Server).map(Some)
    }
}

/// A login that has been accepted.
struct Login {
    identity: Identity,
    /// ExportedSessionKey, if the server knows it.
    key: Option<[u8; 16]>,
    /// NegotiateFlags.
    flags: u32,
}

impl Login {
    fn session_key(&self) -> Option<Secret> {
        match self.identity {
            Identity::User(_) => self.key.map(Secret::from),
            Identity::Guest | Identity::Anonymous => None,
        }
    }
}

/// Returns the account name in `user`, `user@domain` or `DOMAIN\user`. Every domain is this server's own.
fn account_name(user: &str) -> &str {
    let user = user.rsplit_once('\\').map_or(user, |(_, user)| user);
    user.split_once('@').map_or(user, |(user, _)| user)
}

/// Returns whether the proof was made with `nt_hash`, and the session base key. The proof depends on the domain:
/// clients use it as they send it, in upper case, or empty.
fn verify(
    nt_hash: &[u8; 16],
    message: &Authenticate<'_>,
    challenged: &Challenged,
    proof: &[u8; 16],
    temp: &[u8],
) -> (Choice, [u8; 16]) {
    let upper: String = message.domain.chars().map(ntlm::upper).collect();
    let mut matches = Choice::from(0);
    let mut base_key = [0; 16];
    for domain in [message.domain.as_str(), &upper, ""] {
        let ntowf = ntlm::ntowf_v2(nt_hash, &message.user, domain);
        let expected = ntlm::nt_proof(&ntowf, &challenged.server_challenge, temp);
        let this = expected.ct_eq(proof);
        let key = ntlm::session_base_key(&ntowf, proof);
        for (to, from) in base_key.iter_mut().zip(key) {
            to.conditional_assign(&from, this);
        }
        matches |= this;
    }
    (matches, base_key)
}
