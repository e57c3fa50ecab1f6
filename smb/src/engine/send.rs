//! Sends replies: assembles, signs or encrypts them, and makes them final.

use crate::command::{Reply, Request};
use crate::context::Context;
use crate::crypto::{SigningAlgorithm, SigningKey};
use crate::record::Record;
use crate::server::{ConnId, Output};
use crate::state::{Answer, Security, SessionState};
use crate::wire::oplock_break::{LeaseBreakNotification, NOTIFICATION_MESSAGE_ID, OplockBreak};
use crate::wire::{self, Command, FileId, Flags, Header, Route, frame, header};
use bytes::Bytes;
use outlast_fsa::OpenId;
use outlast_fsa::lease::{LeaseId, Notification};
use outlast_fsa::oplock::OplockLevel;
use outlast_fsa::status::NtStatus;

/// One response of a message.
pub(crate) struct Piece {
    pub(crate) header: Header,
    /// Header and body.
    pub(crate) head: Vec<u8>,
    /// Bulk bytes after it.
    pub(crate) payload: Bytes,
    /// It must be signed.
    pub(crate) sign: bool,
}

impl Piece {
    pub(crate) fn new(header: Header, response: &wire::Response, sign: bool) -> Piece {
        let mut head = Vec::new();
        header.encode(&mut head);
        let payload = response.encode(&mut head);
        Piece {
            header,
            head,
            payload,
            sign,
        }
    }

    /// Returns the length of the response in bytes.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// Converts it to the form that is kept until the rest of its message is answered.
    pub(crate) fn into_answer(mut self) -> Answer {
        self.head.extend_from_slice(&self.payload);
        Answer {
            body: self.head.split_off(header::LEN),
            header: self.header,
            sign: self.sign,
        }
    }
}

/// Computes the credits to grant (MS-SMB2 3.3.1.2): the requested number, up to the limit; at least one if the client
/// has none. The window is bounded too, in case a client never uses a MessageId.
pub(crate) fn grant(ctx: &Context<'_>, request: &Header) -> u16 {
    if request.command == Command::CANCEL {
        return 0;
    }
    let credits = &ctx.connection().credits;
    let limit = u64::from(ctx.config().limits.credits);
    let room = limit.saturating_sub(credits.outstanding());
    let room = room.min((2 * limit).saturating_sub(credits.high.saturating_sub(credits.low)));
    let least = u16::from(credits.outstanding() == 0);
    let most = u16::try_from(room).unwrap_or(u16::MAX);
    request.credits.min(most).max(least)
}

/// Makes the header of a response (3.3.4.1).
pub(crate) fn header(request: &Request, reply: &Reply, session: u64, credits: u16) -> Header {
    let kept = Flags::RELATED_OPERATIONS.0 | Flags::PRIORITY_MASK.0 | Flags::REPLAY_OPERATION.0;
    let process_id = match request.header.route {
        Route::Sync { process_id, .. } => process_id,
        Route::Async { .. } => 0,
    };
    Header {
        credit_charge: request.header.credit_charge,
        status: reply.status,
        command: request.header.command,
        credits,
        flags: Flags(Flags::SERVER_TO_REDIR.0 | request.header.flags.0 & kept),
        next_command: 0,
        message_id: request.header.message_id,
        route: match request.waited {
            Some(async_id) => Route::Async { async_id },
            None => Route::Sync {
                process_id,
                tree_id: reply.tree.unwrap_or(request.tree),
            },
        },
        session_id: session,
        signature: [0; 16],
    }
}

/// Returns whether a response must be signed (3.3.4.1.1): if the request was signed, and always for the final
/// SESSION_SETUP of a login with keys. The refusal to bind a session of another connection is signed, too.
pub(crate) fn signs(
    ctx: &Context<'_>,
    request: &Request,
    reply: &Reply,
    session: u64,
    sealed: Option<u64>,
) -> bool {
    let command = request.header.command;
    let was_signed = request.header.flags.contains(Flags::SIGNED);
    if sealed.is_some() || command == Command::NEGOTIATE {
        return false;
    }
    if let Some(own) = ctx.connection().sessions.get(&session) {
        let Some(keys) = &own.security.keys else {
            return false;
        };
        if command == Command::SESSION_SETUP && reply.status == NtStatus::SUCCESS {
            return true;
        }
        // The response to an invalid signature is not signed: the sender does not know the key.
        return was_signed
            && (reply.status != NtStatus::ACCESS_DENIED
                || keys
                    .signing
                    .verify_parts(&request.bytes, request.rest.as_slice()));
    }
    was_signed
        && command == Command::SESSION_SETUP
        && foreign_key(ctx, session).is_some_and(|key| key.verify(&request.bytes))
}

/// Returns the signing key of a session of another connection, which the client asks to bind to this one (3.3.5.2.4).
/// None for AES-GMAC, whose nonce is the MessageId: the other connection uses the same ones (law 3).
fn foreign_key<'a>(ctx: &'a Context<'_>, session: u64) -> Option<&'a SigningKey> {
    let conn = ctx.smb.connection_of_session(session)?;
    let security = &ctx.smb.connection(conn).sessions.get(&session)?.security;
    let keys = security.keys.as_ref()?;
    (keys.signing.algorithm() != SigningAlgorithm::AesGmac).then_some(&keys.signing)
}

/// Returns the key that a response is signed with.
fn signing_key<'a>(ctx: &'a Context<'_>, header: &Header) -> Option<&'a SigningKey> {
    match ctx.connection().sessions.get(&header.session_id) {
        Some(own) => own.security.keys.as_ref().map(|keys| &keys.signing),
        None => foreign_key(ctx, header.session_id),
    }
}

/// Sends responses as one message: padded to 8 bytes, chained, signed, or encrypted in the session `sealed`. Returns
/// the last response's bytes.
pub(crate) fn message(ctx: &mut Context<'_>, pieces: Vec<Piece>, sealed: Option<u64>) -> Vec<u8> {
    let mut parts: Vec<Bytes> = Vec::with_capacity(2 * pieces.len() + 1);
    let mut last = Vec::new();
    let count = pieces.len();
    for (index, mut piece) in pieces.into_iter().enumerate() {
        let length = piece.head.len() + piece.payload.len();
        let mut padding: &[u8] = &[];
        if index + 1 < count {
            // 3.3.4.1.3: each response but the last is padded, and contains the offset of the next one.
            let padded = length.next_multiple_of(8);
            padding = &[0; 8][..padded - length];
            piece.header.next_command = padded as u32;
        }
        if piece.sign {
            piece.header.flags = piece.header.flags | Flags::SIGNED;
        }
        let mut head = Vec::with_capacity(piece.head.len() + padding.len());
        piece.header.encode(&mut head);
        head.extend_from_slice(piece.head.get(header::LEN..).unwrap_or_default());
        if let (true, Some(key)) = (piece.sign, signing_key(ctx, &piece.header)) {
            key.sign(&mut head, &[&*piece.payload, padding]);
        }
        if index + 1 == count {
            last.clone_from(&head);
        }
        if piece.payload.is_empty() {
            head.extend_from_slice(padding);
            parts.push(Bytes::from(head));
        } else {
            parts.push(Bytes::from(head));
            parts.push(piece.payload);
            if !padding.is_empty() {
                parts.push(Bytes::copy_from_slice(padding));
            }
        }
    }
    transmit(ctx, ctx.conn, parts, sealed);
    last
}

/// Encrypts a message if necessary, frames it, and adds it to the output.
fn transmit(ctx: &mut Context<'_>, conn: ConnId, mut parts: Vec<Bytes>, sealed: Option<u64>) {
    if let Some(id) = sealed {
        let session = ctx.smb.connection(conn).sessions.get(&id);
        let key = session
            .and_then(|session| session.security.keys.as_ref())
            .and_then(|keys| keys.encryption.as_ref());
        let (Some(session), Some(key)) = (session, key) else {
            // The session ended while its request waited. Without its keys no response can be sent.
            return;
        };
        parts = vec![Bytes::from(key.seal(id, session.nonces, &parts))];
        ctx.emit_on(conn, Record::Nonce { session: id });
    }
    push(ctx.out, conn, parts);
}

/// Prepends the direct-TCP header.
fn push(out: &mut Output, conn: ConnId, parts: Vec<Bytes>) {
    let length = parts.iter().map(Bytes::len).sum();
    let mut framed = Vec::with_capacity(parts.len() + 1);
    framed.push(Bytes::copy_from_slice(&frame::encode(length)));
    framed.extend(parts);
    out.sends.push((conn, framed));
}

/// Sends bytes of another protocol.
pub(crate) fn foreign(ctx: &mut Context<'_>, bytes: Vec<u8>) {
    push(ctx.out, ctx.conn, vec![Bytes::from(bytes)]);
}

/// Sends the interim response (3.3.4.2): STATUS_PENDING and the AsyncId. It is never signed: it would use the
/// MessageId, which is AES-GMAC's nonce, before the final response does.
pub(crate) fn interim(
    ctx: &mut Context<'_>,
    request: &Request,
    async_id: u64,
    credits: u16,
    sealed: Option<u64>,
) {
    let mut header = header(
        request,
        &Reply::error(NtStatus::PENDING),
        request.session,
        credits,
    );
    header.route = Route::Async { async_id };
    let response = wire::Response::Error(wire::error::Response::default());
    message(ctx, vec![Piece::new(header, &response, false)], sealed);
}

/// Sends an oplock break notification (3.3.4.6) on the connection of the open: never signed; encrypted if its session
/// or tree connect requires it.
pub(crate) fn oplock_break(ctx: &mut Context<'_>, conn: ConnId, open: OpenId, to: OplockLevel) {
    let response = wire::Response::OplockBreak(OplockBreak {
        oplock_level: to as u8,
        file_id: FileId {
            persistent: open,
            volatile: open,
        },
    });
    let sealed = encrypting(ctx, conn, open);
    notify(ctx, conn, &response, sealed);
}

/// Sends a lease break notification (3.3.4.7). A lease belongs to a client, so the oldest of its connections is used on
/// which the user of the open has a session: a ClientGuid is no secret, and another user may send the same. The
/// open's own connection is used if the open's session or tree encrypts.
pub(crate) fn lease_break(
    ctx: &mut Context<'_>,
    conn: ConnId,
    open: OpenId,
    id: LeaseId,
    notification: Notification,
) {
    let response = wire::Response::LeaseBreakNotification(LeaseBreakNotification {
        new_epoch: notification.epoch,
        ack_required: notification.is_acknowledged,
        lease_key: id.key,
        current_state: notification.from.bits(),
        new_state: notification.to.bits(),
    });
    let own = encrypting(ctx, conn, open);
    let oldest = oldest_connection(ctx, conn, open, id).filter(|_| own.is_none());
    let (conn, sealed) = oldest.unwrap_or((conn, own));
    notify(ctx, conn, &response, sealed);
}

/// Returns the oldest connection of a lease's client on which the user of this open has a session, and the session by
/// whose keys notifications for that user are encrypted.
fn oldest_connection(
    ctx: &Context<'_>,
    conn: ConnId,
    open: OpenId,
    id: LeaseId,
) -> Option<(ConnId, Option<u64>)> {
    let user = &ctx.smb.connection(conn).opens.get(&open)?.actor.user;
    let is_theirs =
        |security: &Security| security.state == SessionState::Valid && security.user == *user;
    let mut connections = ctx.smb.connections.iter();
    connections.find_map(|(conn, connection)| {
        if connection.negotiation.client_guid != id.client || connection.gone {
            return None;
        }
        let sessions = connection.sessions.iter();
        let mut theirs = sessions
            .filter(|(_, session)| is_theirs(&session.security))
            .peekable();
        theirs.peek()?;
        let encrypts = theirs.find(|(_, session)| session.security.encrypt);
        Some((*conn, encrypts.map(|(session, _)| *session)))
    })
}

/// Returns the session by whose keys notifications for an open are encrypted.
fn encrypting(ctx: &Context<'_>, conn: ConnId, open: OpenId) -> Option<u64> {
    let connection = ctx.smb.connection(conn);
    let held = connection.opens.get(&open)?;
    let session = connection.sessions.get(&held.session)?;
    let tree = session.trees.get(&held.tree);
    let encrypts = session.security.encrypt || tree.is_some_and(|tree| tree.encrypt);
    encrypts.then_some(held.session)
}

/// Sends a message that answers no request.
fn notify(ctx: &mut Context<'_>, conn: ConnId, response: &wire::Response, sealed: Option<u64>) {
    let header = Header {
        credit_charge: 0,
        status: NtStatus::SUCCESS,
        command: Command::OPLOCK_BREAK,
        credits: 0,
        flags: Flags::SERVER_TO_REDIR,
        next_command: 0,
        message_id: NOTIFICATION_MESSAGE_ID,
        route: Route::Sync {
            process_id: 0,
            tree_id: 0,
        },
        session_id: 0,
        signature: [0; 16],
    };
    let piece = Piece::new(header, response, false);
    transmit(ctx, conn, vec![Bytes::from(piece.head)], sealed);
}
