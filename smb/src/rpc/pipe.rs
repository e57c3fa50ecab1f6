//! Holds the state of an open named pipe: incomplete requests, bound interfaces, and unread answers.

use super::pdu::{self, Body, Broken, Verdict};
use super::{Fault, Interface, Server};
use crate::size;
use outlast_fsa::status::NtStatus;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

#[cfg(test)]
pub(super) mod tests;

/// The largest number of bytes of one request's arguments; the supported calls need far fewer.
const MAX_REQUEST: usize = 64 * 1024;
/// The number of bytes of unread answers beyond which writes are refused.
const MAX_UNREAD: usize = 256 * 1024;
/// The largest number of presentation contexts of one pipe.
const MAX_CONTEXTS: usize = 16;
/// The association group of every pipe: groups share no state on this server.
const ASSOCIATION: u32 = 0x0000_53F0;

/// The state of an open pipe. Only [`Pipe::write`] and [`Pipe::read`] change it, deterministically.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipe {
    interface: Interface,
    /// The context ids to which the interface is bound.
    contexts: Vec<u16>,
    /// The largest fragment that the client accepts, in bytes.
    fragment: u16,
    /// Bytes written that are not yet a whole PDU.
    partial: Vec<u8>,
    /// A request whose last fragment has not been received.
    request: Option<Request>,
    /// PDUs to read; each is a message of the pipe. The first may be read in part.
    answers: VecDeque<Vec<u8>>,
    /// The client violated the protocol: the pipe is disconnected.
    broken: bool,
}

/// The fragments of a request so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    call_id: u32,
    context_id: u16,
    opnum: u16,
    stub: Vec<u8>,
}

/// The result of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The bytes.
    pub data: Vec<u8>,
    /// The message is longer: STATUS_BUFFER_OVERFLOW, and the next read returns the rest.
    pub more: bool,
}

impl Message {
    /// Returns STATUS_SUCCESS or STATUS_BUFFER_OVERFLOW.
    #[must_use]
    pub fn status(&self) -> NtStatus {
        if self.more {
            NtStatus::BUFFER_OVERFLOW
        } else {
            NtStatus::SUCCESS
        }
    }
}

impl Pipe {
    /// The upper bound of [`Pipe::size`]: an incomplete PDU, an incomplete request, and answers, the last of which may
    /// exceed their limit by a list of all shares.
    pub(crate) const LARGEST: usize = (1 << 16) + MAX_REQUEST + 2 * MAX_UNREAD + (1 << 20);

    /// Opens the pipe with this name (no leading backslash, compared without case); `None`: no such pipe exists.
    #[must_use]
    pub fn open(name: &str) -> Option<Pipe> {
        Interface::of_pipe(name).map(Pipe::new)
    }

    /// Returns an upper bound of its encoding, in bytes.
    pub(crate) fn size(&self) -> usize {
        let Pipe {
            interface: _,
            contexts,
            fragment: _,
            partial,
            request,
            answers,
            broken: _,
        } = self;
        let request = request.as_ref().map_or(0, |request| {
            let Request {
                call_id: _,
                context_id: _,
                opnum: _,
                stub,
            } = request;
            2 * size::SMALL + size::bytes(stub)
        });
        let answers: usize = answers.iter().map(size::bytes).sum();
        let contexts = contexts.len() * size::SMALL;
        5 * size::SMALL + contexts + size::bytes(partial) + request + answers
    }

    fn new(interface: Interface) -> Pipe {
        Pipe {
            interface,
            contexts: Vec::new(),
            fragment: pdu::MAX_FRAGMENT,
            partial: Vec::new(),
            request: None,
            answers: VecDeque::new(),
            broken: false,
        }
    }

    /// Processes a WRITE, or the first half of FSCTL_PIPE_TRANSCEIVE. Whole requests are answered at once.
    ///
    /// # Errors
    /// `PIPE_DISCONNECTED` after a violation of the protocol, `INSUFFICIENT_RESOURCES` while too many answers are
    /// unread (nothing is written then).
    pub fn write(&mut self, data: &[u8], server: &Server<'_>) -> Result<(), NtStatus> {
        if self.broken {
            return Err(NtStatus::PIPE_DISCONNECTED);
        }
        if self.unread() > MAX_UNREAD {
            return Err(NtStatus::INSUFFICIENT_RESOURCES);
        }
        let mut bytes = std::mem::take(&mut self.partial);
        bytes.extend_from_slice(data);
        match self.process(&bytes, server) {
            Ok(consumed) => {
                self.partial = bytes.split_off(consumed);
                Ok(())
            }
            Err(Broken) => {
                *self = Pipe {
                    broken: true,
                    ..Pipe::new(self.interface)
                };
                Err(NtStatus::PIPE_DISCONNECTED)
            }
        }
    }

    /// Processes a READ, or the second half of FSCTL_PIPE_TRANSCEIVE. Returns one message, or its first `limit` bytes.
    ///
    /// # Errors
    /// `PIPE_EMPTY` without data to read, `PIPE_DISCONNECTED` after a violation of the protocol.
    pub fn read(&mut self, limit: usize) -> Result<Message, NtStatus> {
        if self.broken {
            return Err(NtStatus::PIPE_DISCONNECTED);
        }
        let mut message = self.answers.pop_front().ok_or(NtStatus::PIPE_EMPTY)?;
        let rest = message.split_off(limit.min(message.len()));
        let more = !rest.is_empty();
        if more {
            self.answers.push_front(rest);
        }
        Ok(Message {
            data: message,
            more,
        })
    }

    /// Returns the number of bytes of the first message that can be read.
    #[must_use]
    pub fn available(&self) -> u32 {
        let first = self.answers.front().map_or(0, Vec::len);
        u32::try_from(first).unwrap_or(u32::MAX)
    }

    fn unread(&self) -> usize {
        self.answers.iter().map(Vec::len).sum()
    }

    /// Processes the whole PDUs at the start of `bytes`, and returns their length in bytes.
    fn process(&mut self, bytes: &[u8], server: &Server<'_>) -> Result<usize, Broken> {
        let mut consumed = 0;
        while let Some(rest) = bytes.get(consumed..)
            && let Some(len) = pdu::fragment_len(rest)?
            && let Some(fragment) = rest.get(..len)
        {
            let pdu = pdu::parse(fragment)?;
            self.receive(pdu.call_id, pdu.body, server)?;
            consumed += len;
            if self.unread() > 2 * MAX_UNREAD {
                return Err(Broken);
            }
        }
        Ok(consumed)
    }

    fn receive(&mut self, call_id: u32, body: Body<'_>, server: &Server<'_>) -> Result<(), Broken> {
        match body {
            Body::Authenticated => self.answers.push_back(pdu::bind_nak(call_id)),
            Body::Cancel => {}
            Body::Bind {
                alter,
                max_recv_fragment,
                association,
                proposals,
            } => {
                // A second bind, or an alter_context before the first, is a violation (C706 12.6.4).
                if alter == self.contexts.is_empty() {
                    return Err(Broken);
                }
                if !alter {
                    self.fragment = pdu::fragment_limit(max_recv_fragment);
                }
                let verdicts: Vec<Verdict> = proposals
                    .iter()
                    .map(|proposal| self.judge(proposal))
                    .collect();
                self.answers.push_back(pdu::bind_ack(
                    call_id,
                    alter,
                    self.fragment,
                    if association == 0 {
                        ASSOCIATION
                    } else {
                        association
                    },
                    self.interface.pipe_name(),
                    &verdicts,
                ));
            }
            Body::Request {
                first,
                last,
                context_id,
                opnum,
                stub,
            } => {
                let mut request = match (first, self.request.take()) {
                    (true, None) => Request {
                        call_id,
                        context_id,
                        opnum,
                        stub: Vec::new(),
                    },
                    (false, Some(request)) if request.call_id == call_id => request,
                    _ => return Err(Broken),
                };
                if request.stub.len() + stub.len() > MAX_REQUEST {
                    return Err(Broken);
                }
                request.stub.extend_from_slice(stub);
                if last {
                    self.call(&request, server);
                } else {
                    self.request = Some(request);
                }
            }
        }
        Ok(())
    }

    /// Accepts a proposal, or returns the reason for its rejection.
    fn judge(&mut self, proposal: &pdu::Proposal) -> Verdict {
        if proposal.interface != self.interface.syntax() {
            return Verdict::AbstractSyntaxNotSupported;
        }
        let known = self.contexts.contains(&proposal.context_id);
        if !proposal.transfers.contains(&pdu::NDR)
            || (!known && self.contexts.len() >= MAX_CONTEXTS)
        {
            return Verdict::TransferSyntaxesNotSupported;
        }
        if !known {
            self.contexts.push(proposal.context_id);
        }
        Verdict::Accepted
    }

    fn call(&mut self, request: &Request, server: &Server<'_>) {
        let Request {
            call_id,
            context_id,
            opnum,
            ref stub,
        } = *request;
        let result = if self.contexts.contains(&context_id) {
            self.interface.call(opnum, stub, server)
        } else {
            Err(Fault::UnknownInterface)
        };
        match result {
            Ok(answer) => {
                self.answers
                    .extend(pdu::responses(call_id, context_id, &answer, self.fragment));
            }
            Err(fault) => self
                .answers
                .push_back(pdu::fault(call_id, context_id, fault)),
        }
    }
}
