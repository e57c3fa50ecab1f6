//! Sizes as people write them: `256MiB`.

/// Parses a number of bytes: digits, then nothing, `B`, `KiB`, `MiB`, `GiB` or `TiB`. `None` if it is not one or too
/// large.
pub(super) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}
