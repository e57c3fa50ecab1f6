//! Compares file names without regard to case and with wildcards (MS-FSA 2.1.4.4).

#[cfg(test)]
mod tests;

/// Returns the upper-case form of a name, by the simple upper-case mapping of each character: two names are the same
/// name if their forms are equal. Listings are sorted by these forms, and by bytes where names differ in case alone.
///
/// A character whose upper-case form has several characters, or a non-ASCII character whose form is ASCII ('ı', 'ſ'),
/// stays unchanged, as in Windows' table.
#[must_use]
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_uppercase();
    }
    name.chars().map(fold_char).collect()
}

/// Returns whether two names are equal without regard to case.
#[must_use]
pub fn same_name(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    a.chars().map(fold_char).eq(b.chars().map(fold_char))
}

fn fold_char(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_uppercase();
    }
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) if !one.is_ascii() => one,
        _ => c,
    }
}

/// Returns whether the name contains a wildcard (MS-FSA 2.1.4.3).
#[must_use]
pub fn has_wildcard(name: &str) -> bool {
    name.contains(['*', '?', '<', '>', '"'])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    /// `*`: any number of characters.
    Star,
    /// `?`: one character.
    Question,
    /// `<` (DOS_STAR): any number of characters, but not the name's last period.
    DosStar,
    /// `>` (DOS_QM): one character; nothing before a period and at the end of the name.
    DosQuestion,
    /// `"` (DOS_DOT): a period, or nothing at the end of the name.
    DosDot,
    /// The folded character itself.
    Literal(char),
}

/// A file name pattern, parsed once for comparison with many names. A comparison takes at most time proportional to the
/// product of the two lengths, for every pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    elements: Vec<Element>,
    /// The smallest number of characters of a matching name.
    shortest: usize,
}

impl Pattern {
    /// Parses a pattern; every string is a valid one.
    #[must_use]
    pub fn new(pattern: &str) -> Pattern {
        let mut elements: Vec<Element> = pattern
            .chars()
            .map(|c| match c {
                '*' => Element::Star,
                '?' => Element::Question,
                '<' => Element::DosStar,
                '>' => Element::DosQuestion,
                '"' => Element::DosDot,
                c => Element::Literal(fold_char(c)),
            })
            .collect();
        elements.dedup_by(|next, last| next == last && *last == Element::Star);
        let shortest = elements
            .iter()
            .filter(|e| matches!(e, Element::Question | Element::Literal(_)))
            .count();
        Pattern { elements, shortest }
    }

    /// Returns whether it matches every name.
    #[must_use]
    pub fn matches_all(&self) -> bool {
        self.elements == [Element::Star]
    }

    /// Returns whether `name` matches the pattern (MS-FSA 2.1.4.4).
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if self.matches_all() {
            return true;
        }
        if name.len() < self.shortest {
            return false;
        }
        let last_period = name.rfind('.');
        let mut live = vec![false; self.elements.len() + 1];
        let mut next = live.clone();
        if let Some(start) = live.first_mut() {
            *start = true;
        }
        for (at, c) in name.char_indices() {
            let last_period_here = Some(at) == last_period;
            next.fill(false);
            let mut carried = false; // the element before went on without taking the character
            for (index, element) in self.elements.iter().enumerate() {
                let here = live.get(index).copied().unwrap_or(false) || carried;
                carried = false;
                if !here {
                    continue;
                }
                let (stay, take, skip) = match *element {
                    Element::Star => (true, false, true),
                    Element::DosStar => (!last_period_here, false, true),
                    Element::Question => (false, true, false),
                    Element::DosQuestion => (false, c != '.', c == '.'),
                    Element::DosDot => (false, c == '.', false),
                    Element::Literal(l) => (false, l == fold_char(c), false),
                };
                carried = skip;
                if let Some(slot) = next.get_mut(index).filter(|_| stay) {
                    *slot = true;
                }
                if let Some(slot) = next.get_mut(index + 1).filter(|_| take) {
                    *slot = true;
                }
            }
            if !next.contains(&true) {
                return false;
            }
            std::mem::swap(&mut live, &mut next);
        }
        // At the end of the name the rest of the pattern may match the empty string.
        let rest_may_be_empty = self
            .elements
            .iter()
            .rev()
            .take_while(|e| !matches!(e, Element::Question | Element::Literal(_)))
            .count();
        live.iter().rev().take(rest_may_be_empty + 1).any(|&l| l)
    }
}
