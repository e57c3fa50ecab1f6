//! SESSION_SETUP (MS-SMB2 3.3.5.5).

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

/// Session set-ups in progress of a connection that has no session yet, at most.
pub(crate) const SETUPS: usize = 2;

/// The same of one that has.
pub(crate) const SETUPS_BESIDE_A_SESSION: usize = 16;

/// As [`super::start`].
///
/// # Errors
/// LOGON_FAILURE and ACCESS_DENIED for logins that are refused, INVALID_PARAMETER for tokens that are none,
/// USER_SESSION_DELETED for a session that is not there, REQUEST_NOT_ACCEPTED where a session more would be too many or
/// would be bound to another connection, INSUFFICIENT_RESOURCES where the account has no room for another one.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &session_setup::Request,
) -> Result<Handled, NtStatus> {
    let negotiation = &ctx.connection().negotiation;
    let Some(dialect) = negotiation.dialect else {
        return Ok(Handled::Drop);
    };
    // 3.3.5.5: sessions are not bound to several connections here.
    if body.flags & session_setup::FLAG_BINDING != 0 {
        return Err(NtStatus::REQUEST_NOT_ACCEPTED);
    }
    // 3.3.5.5: a client that cannot encrypt is refused where encryption is required.
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
            // A session that could not be authenticated, or not again, is over (3.3.5.5.3).
            if ctx.connection().sessions.contains_key(&id) {
                ctx.emit(Record::SessionEnded { id });
            }
            Err(status)
        }
    }
}

/// The session a request is about: a new one, one whose set-up is in progress, or one that authenticates again
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

/// Of set-ups in progress the oldest ends when there are too many: a client that has given it up does not say so.
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

/// Admits the login: writes its user and keys into `security` (3.3.5.5.3).
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
        // It gives its rights up, and may have them back. Its keys and its opens stay (3.3.5.5.3).
        security.anonymous = true;
        return Ok(());
    }
    // A session has one user for its whole life.
    if again && !is_of(security, &identity) {
        log::warn!(
            "client {}: its session belongs to another user than the one that it authenticates as now",
            ctx.connection().client
        );
        return Err(NtStatus::ACCESS_DENIED);
    }
    match (&session_key, again) {
        // The keys are those of the first login for the session's whole life.
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
    // An anonymous login is not one that failed.
    Err(match (refused, security.anonymous) {
        (Refused::NoGuests, true) => NtStatus::ACCESS_DENIED,
        _ => refused.status(),
    })
}

/// Is this the one whom a session belongs to?
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

/// The last response (3.3.5.5.3).
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

/// PreviousSessionId: the same user's session that the client has lost sight of ends, whichever connection it is of
/// (3.3.5.5.3).
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

/// The response's final bytes (header and body), for the preauthentication hash of `session`; called for every
/// SESSION_SETUP that is answered with MORE_PROCESSING_REQUIRED.
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
