//! Handles SESSION_SETUP (MS-SMB2 3.3.5.5).

use super::{Handled, Reply, Request};
use crate::auth::{self, Identity, Progress};
use crate::config::Requirement;
use crate::context::Context;
use crate::crypto::{PreauthHash, Secret, SessionKeys, SigningAlgorithm};
use crate::held::Held;
use crate::policy::{self, Refused};
use crate::record::Record;
use crate::size;
use crate::state::{Security, Session, SessionState};
use crate::wire::{Dialect, Response, negotiate, session_setup};
use outlast_fsa::status::NtStatus;

/// The largest number of session setups in progress on a connection without a valid session.
pub(crate) const SETUPS: usize = 2;

/// The same number for a connection with a valid session.
pub(crate) const SETUPS_BESIDE_A_SESSION: usize = 16;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// LOGON_FAILURE and ACCESS_DENIED for refused logins, INVALID_PARAMETER for malformed tokens, USER_SESSION_DELETED for
/// an unknown session, REQUEST_NOT_ACCEPTED beyond the limit of sessions and for a binding to another connection's
/// session, INSUFFICIENT_RESOURCES if the account has no room for another session.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &session_setup::Request,
) -> Result<Handled, NtStatus> {
    let negotiation = &ctx.connection().negotiation;
    let Some(dialect) = negotiation.dialect else {
        return Ok(Handled::Drop);
    };
    // 3.3.5.5: multichannel is not supported, so no session is bound to a second connection.
    if body.flags & session_setup::FLAG_BINDING != 0 {
        return Err(NtStatus::REQUEST_NOT_ACCEPTED);
    }
    // 3.3.5.5: a client without encryption is refused if encryption is required.
    if ctx.config().encryption == Requirement::Required && negotiation.cipher.is_none() {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let (id, mut security) = session(ctx, request)?;
    if security.state == SessionState::InProgress && dialect == Dialect::Smb311 {
        let start = ctx.connection().negotiation.preauth.clone();
        let hash = security
            .preauth
            .get_or_insert(start.unwrap_or(PreauthHash::START));
        hash.update(&[&request.bytes]);
    }
    let mut handshake = security.handshake.take().unwrap_or_default();
    let progress = handshake.step(
        &body.security_buffer,
        &ctx.smb.config,
        ctx.clock.wall,
        ctx.entropy,
    );
    let result = match progress {
        Ok(Progress::Continue { token }) => {
            security.handshake = Some(handshake);
            let mut reply = Reply::with_status(
                NtStatus::MORE_PROCESSING_REQUIRED,
                Response::SessionSetup(session_setup::Response {
                    session_flags: 0,
                    security_buffer: token.into(),
                }),
            );
            reply.session = Some(id);
            let security = Box::new(security);
            ctx.emit(Record::Session { id, security });
            return Ok(Handled::Reply(reply));
        }
        Ok(Progress::Complete {
            token,
            identity,
            session_key,
        }) => admit(ctx, body, &mut security, identity, session_key).map(|()| token),
        Err(refused) => {
            let client = ctx.connection().client;
            match auth::claimed_user(&body.security_buffer) {
                Some(user) => log::info!("client {client}: login of {user:?} refused: {refused}"),
                None => log::info!("client {client}: login refused: {refused}"),
            }
            let conn = ctx.conn;
            let failed = ctx.smb.failed_logins.entry(conn).or_default();
            *failed += 1;
            if *failed > ctx.smb.config.limits.failed_logins {
                log::info!("client {}: too many logins failed", ctx.connection().client);
                return Ok(Handled::Drop);
            }
            Err(match refused {
                auth::Refused::Malformed => NtStatus::INVALID_PARAMETER,
                auth::Refused::Unsupported | auth::Refused::LogonFailure => NtStatus::LOGON_FAILURE,
            })
        }
    };
    match result {
        Ok(token) => {
            end_previous(ctx, id, &security, body.previous_session_id);
            Ok(complete(ctx, id, security, token))
        }
        Err(status) => {
            // A session ends if its authentication, or reauthentication, fails (3.3.5.5.3).
            if ctx.connection().sessions.contains_key(&id) {
                ctx.emit(Record::SessionEnded { id });
            }
            Err(status)
        }
    }
}

/// Returns the session of a request: a new one, one whose setup is in progress, or one that is reauthenticated
/// (3.3.5.5.1, 3.3.5.5.2).
fn session(ctx: &mut Context<'_>, request: &Request) -> Result<(u64, Security), NtStatus> {
    if request.session == 0 {
        make_room(ctx);
        if ctx.connection().sessions.len() >= ctx.config().limits.sessions {
            return Err(NtStatus::REQUEST_NOT_ACCEPTED);
        }
        if is_logged_in(ctx) && !ctx.smb.may_take(ctx.conn, Held::bytes(size::SESSION)) {
            return Err(NtStatus::INSUFFICIENT_RESOURCES);
        }
        return Ok((ctx.unique_id(), Security::default()));
    }
    let session = ctx.connection().sessions.get(&request.session);
    match session.map(|session| &session.security) {
        Some(security) if security.state != SessionState::Ended => {
            Ok((request.session, security.clone()))
        }
        _ => Err(NtStatus::USER_SESSION_DELETED),
    }
}

fn is_logged_in(ctx: &Context<'_>) -> bool {
    ctx.connection().valid_sessions().next().is_some()
}

/// Ends the oldest setups in progress beyond the limit: a client does not announce that it has abandoned one.
fn make_room(ctx: &mut Context<'_>) {
    let most = match is_logged_in(ctx) {
        true => SETUPS_BESIDE_A_SESSION,
        false => SETUPS,
    };
    let sessions = ctx.connection().sessions.iter();
    let in_progress = |(id, session): (&u64, &Session)| {
        (session.security.state == SessionState::InProgress).then_some(*id)
    };
    let setups: Vec<u64> = sessions.filter_map(in_progress).collect();
    let too_many = (setups.len() + 1).saturating_sub(most);
    for id in setups.into_iter().take(too_many) {
        ctx.emit(Record::SessionEnded { id });
    }
}

/// Admits the login, and sets its user and keys in `security` (3.3.5.5.3).
fn admit(
    ctx: &Context<'_>,
    body: &session_setup::Request,
    security: &mut Security,
    identity: Identity,
    session_key: Option<Secret>,
) -> Result<(), NtStatus> {
    let negotiation = &ctx.connection().negotiation;
    let dialect = negotiation.dialect.ok_or(NtStatus::INVALID_PARAMETER)?;
    let again = security.state == SessionState::Valid;
    if again && identity == Identity::Anonymous && security.keys.is_some() {
        // A reauthentication as anonymous suspends the session's rights; its keys and its opens remain (3.3.5.5.3).
        security.anonymous = true;
        return Ok(());
    }
    // A session keeps its user for its whole life.
    if again && !is_of(security, &identity) {
        log::warn!(
            "client {}: reauthentication refused: the session belongs to another user",
            ctx.connection().client
        );
        return Err(NtStatus::ACCESS_DENIED);
    }
    match (&session_key, again) {
        // A session keeps the keys of its first login for its whole life.
        (_, true) if session_key.is_some() != security.keys.is_some() => {
            return Err(NtStatus::ACCESS_DENIED);
        }
        (Some(session_key), false) => {
            security.keys = Some(SessionKeys::derive(
                dialect,
                negotiation.signing.unwrap_or(SigningAlgorithm::AesCmac),
                negotiation.cipher,
                session_key,
                security.preauth.as_ref().unwrap_or(&PreauthHash::START),
            ));
        }
        _ => {}
    }
    let required = u16::from(body.security_mode) & negotiate::SIGNING_REQUIRED != 0;
    security.signing_required |= security.keys.is_some() && required;
    security.state = SessionState::Valid;
    security.guest = identity == Identity::Guest;
    security.anonymous = identity == Identity::Anonymous;
    security.user = match identity {
        Identity::User(name) => Some(name),
        Identity::Guest | Identity::Anonymous => None,
    };
    let user = security.user.as_ref();
    security.password = user.and_then(|user| ctx.config().password_of(user));
    security.preauth = None;
    let refused = match policy::session(ctx.config(), negotiation, security) {
        Ok(()) => return Ok(()),
        Err(refused) => refused,
    };
    log::info!(
        "client {}: login refused: {refused}",
        ctx.connection().client
    );
    // An anonymous login has not failed.
    Err(match (refused, security.anonymous) {
        (Refused::NoGuests, true) => NtStatus::ACCESS_DENIED,
        _ => refused.status(),
    })
}

/// Returns whether the session belongs to this identity.
fn is_of(security: &Security, identity: &Identity) -> bool {
    match identity {
        Identity::User(name) => {
            let user = security.user.as_ref();
            user.is_some_and(|user| user.to_lowercase() == name.to_lowercase())
        }
        Identity::Guest => security.guest,
        Identity::Anonymous => security.anonymous,
    }
}

/// Completes the session setup with the last response (3.3.5.5.3).
fn complete(ctx: &mut Context<'_>, id: u64, security: Security, token: Vec<u8>) -> Handled {
    let mut session_flags = 0;
    for (set, flag) in [
        (security.guest, session_setup::SESSION_FLAG_IS_GUEST),
        (
            security.anonymous && security.user.is_none(),
            session_setup::SESSION_FLAG_IS_NULL,
        ),
        (security.encrypt, session_setup::SESSION_FLAG_ENCRYPT_DATA),
    ] {
        if set {
            session_flags |= flag;
        }
    }
    let security = Box::new(security);
    ctx.emit(Record::Session { id, security });
    let mut reply = Reply::success(Response::SessionSetup(session_setup::Response {
        session_flags,
        security_buffer: token.into(),
    }));
    reply.session = Some(id);
    Handled::Reply(reply)
}

/// Ends the session with PreviousSessionId, on whichever connection, if it belongs to the same user (3.3.5.5.3).
fn end_previous(ctx: &mut Context<'_>, id: u64, security: &Security, previous: u64) {
    if previous == 0 || previous == id {
        return;
    }
    let Some(conn) = ctx.smb.connection_of_session(previous) else {
        return;
    };
    let session = ctx.smb.connection(conn).sessions.get(&previous);
    let same_user = session.is_some_and(|session| {
        session.security.state == SessionState::Valid
            && security.user.is_some()
            && session.security.user == security.user
    });
    if same_user {
        ctx.emit_on(conn, Record::SessionLeft { id: previous });
    }
}

/// Adds the response's final bytes (header and body) to the preauthentication hash of `session`; called for every
/// response with MORE_PROCESSING_REQUIRED.
pub fn answered(ctx: &mut Context<'_>, session: u64, response: &[u8]) {
    let Some(session_state) = ctx.connection().sessions.get(&session) else {
        return;
    };
    let mut security = session_state.security.clone();
    if security.state != SessionState::InProgress {
        return;
    }
    if let Some(preauth) = &mut security.preauth {
        preauth.update(&[response]);
        ctx.emit(Record::Session {
            id: session,
            security: Box::new(security),
        });
    }
}

#[cfg(test)]
mod tests;
