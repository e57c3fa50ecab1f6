//! Computes 8.3 names (MS-FSCC 2.1.5.2.1) from long names as Samba does (`mangling method = hash2`): the names are the
//! same on both servers, and none must be stored.

use crate::pattern::fold;

#[cfg(test)]
mod tests;

/// Device names of DOS, which no 8.3 name may have.
const DEVICES: [&str; 12] = [
    "AUX", "LOCK$", "CON", "COM1", "COM2", "COM3", "COM4", "LPT1", "LPT2", "LPT3", "NUL", "PRN",
];
/// The digits by which a name shows the hash, in base 36.
const DIGITS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// The hash is the 32-bit FNV-1 with Samba's own initial value.
const FNV_PRIME: u32 = 0x0100_0193;
const FNV_START: u32 = 0xA6B9_3095;
/// The number of digits between the first character and the tilde of a computed name.
const HASH_DIGITS: usize = 5;

/// Returns the 8.3 name of a file; the name itself if it is one.
#[must_use]
pub fn short_name(name: &str) -> String {
    if is_short(name) {
        return name.to_owned();
    }
    let name = with_real_last(name);
    let (base, extension) = split(&name);
    let mut hash = hash(base);
    let mut digits = [0; HASH_DIGITS + 1];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS.get((hash % 36) as usize).copied().unwrap_or(b'0');
        hash /= 36;
    }
    let first = name.bytes().next().filter(|&c| is_plain(c));
    let mut short = String::with_capacity(12);
    short.push(first.map_or('_', |c| char::from(c.to_ascii_uppercase())));
    let (before, last) = digits.split_at(HASH_DIGITS);
    short.extend(before.iter().copied().map(char::from));
    short.push('~');
    short.extend(last.iter().copied().map(char::from));
    if let Some(extension) = extension {
        short.push('.');
        short.push_str(&extension.to_ascii_uppercase());
    }
    short
}

/// Returns whether the name itself is an 8.3 name.
#[must_use]
pub fn is_short(name: &str) -> bool {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let has_lengths = base.len() <= 8
        && extension.len() <= 3
        && extension.is_empty() != name.contains('.')
        && !extension.contains('.');
    let is_legal = |c: u8| (0x21..=0x7e).contains(&c) && !b"*\\/?<>|\":+,[];=".contains(&c);
    has_lengths && !name.is_empty() && name.bytes().all(is_legal) && !is_device(name)
}

/// Returns whether [`short_name`] may have computed the name.
#[must_use]
pub fn may_be_computed(name: &str) -> bool {
    let Some((head, tail)) = name.as_bytes().split_at_checked(8) else {
        return false;
    };
    let has_extension = match tail {
        [] => true,
        [b'.', extension @ ..] => extension.len() <= 3 && extension.iter().all(|&c| is_plain(c)),
        _ => false,
    };
    let is_digit = |(at, c): (usize, &u8)| match at {
        0 => is_plain(*c),
        6 => *c == b'~',
        _ => c.is_ascii_alphanumeric(),
    };
    has_extension && head.iter().enumerate().all(is_digit)
}

/// Replaces a final U+F028 or U+F029 by the space or period that it stands for: the hash is that of the name on disk.
fn with_real_last(name: &str) -> String {
    let meant = name.strip_suffix('\u{F029}').map(|name| format!("{name}."));
    let meant = meant.or_else(|| Some(format!("{} ", name.strip_suffix('\u{F028}')?)));
    meant.unwrap_or_else(|| name.to_owned())
}

/// Returns whether a computed name may contain the character.
fn is_plain(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"_-$~".contains(&c)
}

fn is_device(name: &str) -> bool {
    let base = name.split('.').next().unwrap_or_default();
    DEVICES
        .iter()
        .any(|device| base.eq_ignore_ascii_case(device))
}

/// Splits a name into the part that is hashed, and the extension if it can be kept.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once('.') {
        Some((base, extension))
            if (1..=3).contains(&extension.len()) && extension.bytes().all(is_plain) =>
        {
            (base, Some(extension))
        }
        _ => (name, None),
    }
}

/// Returns 31 bits, for six digits. Samba treats each byte as signed.
fn hash(base: &str) -> u32 {
    let folded = fold(base);
    let value = folded.bytes().fold(FNV_START, |value, byte| {
        value.wrapping_mul(FNV_PRIME) ^ i32::from(byte.cast_signed()).cast_unsigned()
    });
    value & 0x7FFF_FFFF
}
