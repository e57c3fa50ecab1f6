//! Determines the length of the headers of a frame.

/// Returns the length of a frame's Ethernet, IP and TCP headers; other frames count as headers up to [`OTHER_MAX`].
pub(super) fn len(frame: &[u8]) -> usize {
    let other = frame.len().min(OTHER_MAX);
    tcp_end(frame).map_or(other, |end| end.min(frame.len()))
}

/// The number of bytes that are kept of frames other than TCP.
const OTHER_MAX: usize = 128;
const ETHERNET: usize = 14;
const TCP: u8 = 6;

/// Returns the end of the TCP header.
fn tcp_end(frame: &[u8]) -> Option<usize> {
    let byte = |at: usize| frame.get(at).copied();
    let tcp = match (byte(12)?, byte(13)?) {
        // RFC 791, section 3.1: IHL, protocol.
        (0x08, 0x00) if byte(ETHERNET + 9)? == TCP => {
            ETHERNET + usize::from(byte(ETHERNET)? & 0x0F) * 4
        }
        // RFC 8200, section 3: next header. Frames with extension headers count as others.
        (0x86, 0xDD) if byte(ETHERNET + 6)? == TCP => ETHERNET + 40,
        _ => return None,
    };
    // RFC 9293, section 3.1: data offset.
    Some(tcp + usize::from(byte(tcp + 12)? >> 4) * 4)
}

#[cfg(test)]
mod tests;
