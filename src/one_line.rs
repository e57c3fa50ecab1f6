//! Quotes foreign text in a message.

use std::fmt;

/// Shows a text as one line of a terminal: control characters are escaped, and a long text is cut.
pub struct OneLine<'a>(pub &'a str);

/// The number of characters that are shown.
const MAX: usize = 300;

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, cut) = match self.0.char_indices().nth(MAX) {
            Some((end, _)) => (self.0.get(..end).unwrap_or_default(), "…"),
            None => (self.0, ""),
        };
        for c in text.chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        f.write_str(cut)
    }
}

#[cfg(test)]
mod tests;
