//! Names without regard to case, and wildcards (MS-FSA 2.1.4.4).

#[cfg(test)]
mod tests;

/// The upper-case form under which two names are the same name: each character by its simple upper-case mapping.
/// Listings are in the order of these forms, names that differ in case alone by their bytes; a cursor is the last name
/// returned.
///
/// A character whose upper-case form is several characters, or which would turn from outside ASCII into ASCII ('ı',
/// 'ſ'), stays as it is, as in Windows' table.
#[must_use]
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_uppercase();
    }
    name.chars().map(fold_char).collect()
}

/// Do two names name the same file where case does not count?
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

/// Has the name a wildcard in it (MS-FSA 2.1.4.3)?
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
    /// Itself, folded.
    Literal(char),
}

/// A file name pattern, ready to be compared with many names. A comparison takes time proportional to the product of
/// the two lengths at most, whatever the pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    elements: Vec<Element>,
    /// Characters a name must have at least.
    shortest: usize,
}

impl Pattern {
    /// Reads a pattern; every string is one.
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

    /// Does it match every name?
    #[must_use]
    pub fn matches_all(&self) -> bool {
        self.elements == [Element::Star]
    }

    /// Is `name` in the expression (MS-FSA 2.1.4.4)?
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
        // At the end of the name what is left of the pattern may match nothing.
        let rest_may_be_empty = self
            .elements
            .iter()
            .rev()
            .take_while(|e| !matches!(e, Element::Question | Element::Literal(_)))
            .count();
        live.iter().rev().take(rest_may_be_empty + 1).any(|&l| l)
    }
}
