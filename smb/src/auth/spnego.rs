//! Implements SPNEGO (RFC 4178, MS-SPNG), which negotiates the mechanism and carries its tokens.

use super::der;

/// 1.3.6.1.5.5.2: SPNEGO itself.
const SPNEGO: &[u8] = &[0x2B, 0x06, 0x01, 0x05, 0x05, 0x02];
/// 1.3.6.1.4.1.311.2.2.10: NTLMSSP.
const NTLMSSP: &[u8] = &[0x2B, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x02, 0x0A];

/// NegState (RFC 4178 4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NegState {
    /// accept-completed.
    AcceptCompleted = 0,
    /// accept-incomplete.
    AcceptIncomplete = 1,
    /// request-mic.
    RequestMic = 3,
}

/// NegTokenInit of an initiator (RFC 4178 4.2.1).
#[derive(Debug, PartialEq, Eq)]
pub struct Init<'a> {
    /// The DER of mechTypes, as mechListMIC covers it.
    pub mech_types: &'a [u8],
    /// NTLMSSP is among them.
    pub offers_ntlm: bool,
    /// NTLMSSP is the first: the token is for it.
    pub prefers_ntlm: bool,
    /// mechToken.
    pub token: Option<&'a [u8]>,
}

/// NegTokenResp of an initiator (RFC 4178 4.2.2).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resp<'a> {
    /// responseToken.
    pub token: Option<&'a [u8]>,
    /// mechListMIC.
    pub mech_list_mic: Option<&'a [u8]>,
}

/// An initiator's token.
#[derive(Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// The first.
    Init(Init<'a>),
    /// A later one.
    Resp(Resp<'a>),
}

/// Parses an initiator's token. `None`: it is not one.
pub fn parse(input: &[u8]) -> Option<Token<'_>> {
    let (tag, contents, _) = der::element(input)?;
    if tag == der::APPLICATION_0 {
        let (mechanism, rest) = der::expect(contents, der::OBJECT_IDENTIFIER)?;
        if mechanism != SPNEGO {
            return None;
        }
        let (init, _) = der::expect(rest, der::context(0))?;
        return parse_init(init).map(Token::Init);
    }
    // Some initiators omit GSS-API's frame.
    if tag == der::context(0) {
        return parse_init(contents).map(Token::Init);
    }
    if tag == der::context(1) {
        return parse_resp(contents).map(Token::Resp);
    }
    None
}

fn parse_init(input: &[u8]) -> Option<Init<'_>> {
    let (mut rest, _) = der::expect(input, der::SEQUENCE)?;
    let (mut mech_types, mut token) = (None, None);
    while !rest.is_empty() {
        let (tag, contents, following) = der::element(rest)?;
        if tag == der::context(0) {
            mech_types = Some(contents);
        } else if tag == der::context(2) {
            token = Some(der::expect(contents, der::OCTET_STRING)?.0);
        }
        rest = following;
    }
    let mech_types = mech_types?;
    let (mut list, after) = der::expect(mech_types, der::SEQUENCE)?;
    if !after.is_empty() {
        return None;
    }
    let (mut offers_ntlm, mut prefers_ntlm, mut first) = (false, false, true);
    while !list.is_empty() {
        let (mechanism, following) = der::expect(list, der::OBJECT_IDENTIFIER)?;
        if mechanism == NTLMSSP {
            offers_ntlm = true;
            prefers_ntlm |= first;
        }
        first = false;
        list = following;
    }
    Some(Init {
        mech_types,
        offers_ntlm,
        prefers_ntlm,
        token,
    })
}

fn parse_resp(input: &[u8]) -> Option<Resp<'_>> {
    let (mut rest, _) = der::expect(input, der::SEQUENCE)?;
    let mut resp = Resp::default();
    while !rest.is_empty() {
        let (tag, contents, following) = der::element(rest)?;
        if tag == der::context(2) {
            resp.token = Some(der::expect(contents, der::OCTET_STRING)?.0);
        } else if tag == der::context(3) {
            resp.mech_list_mic = Some(der::expect(contents, der::OCTET_STRING)?.0);
        }
        rest = following;
    }
    Some(resp)
}

/// Builds the token of the NEGOTIATE response, which offers NTLMSSP (MS-SPNG 2.2.1, NegTokenInit2, with the hint that
/// Windows sends).
pub fn offer() -> Vec<u8> {
    let mechanism = der::encode(der::OBJECT_IDENTIFIER, NTLMSSP);
    let mech_types = der::encode(der::context(0), &der::encode(der::SEQUENCE, &mechanism));
    let hint = der::encode(der::GENERAL_STRING, b"not_defined_in_RFC4178@please_ignore");
    let hints = der::encode(der::SEQUENCE, &der::encode(der::context(0), &hint));
    let hints = der::encode(der::context(3), &hints);
    let init = der::encode(der::SEQUENCE, &[mech_types, hints].concat());
    let mechanism = der::encode(der::OBJECT_IDENTIFIER, SPNEGO);
    let init = der::encode(der::context(0), &init);
    der::encode(der::APPLICATION_0, &[mechanism, init].concat())
}

/// Builds a NegTokenResp of the acceptor. Only the first one contains supportedMech (RFC 4178 4.2.2).
pub fn respond(
    state: NegState,
    first: bool,
    token: Option<&[u8]>,
    mech_list_mic: Option<&[u8]>,
) -> Vec<u8> {
    let mut fields = der::encode(
        der::context(0),
        &der::encode(der::ENUMERATED, &[state as u8]),
    );
    let mut field = |n, tag, contents: &[u8]| {
        fields.extend(der::encode(der::context(n), &der::encode(tag, contents)));
    };
    if first {
        field(1, der::OBJECT_IDENTIFIER, NTLMSSP);
    }
    if let Some(token) = token {
        field(2, der::OCTET_STRING, token);
    }
    if let Some(mic) = mech_list_mic {
        field(3, der::OCTET_STRING, mic);
    }
    der::encode(der::context(1), &der::encode(der::SEQUENCE, &fields))
}
