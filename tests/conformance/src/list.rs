//! Reads a list of requirements: one standard, one TOML file.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde::Deserialize;

/// The requirements of one document.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Its name in citations, for example `rfc9293`.
    pub key: String,
    /// Number and title of the document.
    pub title: String,
    /// The listed part, and the source of its identifiers.
    pub about: String,
    /// What the list was checked against, if at all.
    pub checked: String,
    /// In the document's order.
    pub requirement: Vec<Requirement>,
}

/// One requirement. Without a reason, a test has to show it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Unique in its list.
    pub id: String,
    /// `MUST`, `SHOULD NOT`, `step`, ...
    pub level: String,
    /// Section of the document.
    #[serde(default)]
    pub section: String,
    /// The requirement, in few words.
    pub text: String,
    /// Why it does not apply to this server.
    pub not_applicable: Option<String>,
    /// Why the server does otherwise.
    pub not_met: Option<String>,
    /// What has to be built first.
    pub open: Option<String>,
}

/// Why no test shows a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason<'a> {
    /// It does not apply.
    NotApplicable(&'a str),
    /// It is not met, by choice.
    NotMet(&'a str),
    /// It is not met yet.
    Open(&'a str),
}

impl Requirement {
    /// The reason given, if any.
    pub fn reason(&self) -> Option<Reason<'_>> {
        let not_applicable = self.not_applicable.as_deref().map(Reason::NotApplicable);
        let not_met = self.not_met.as_deref().map(Reason::NotMet);
        let open = self.open.as_deref().map(Reason::Open);
        not_applicable.or(not_met).or(open)
    }
}

/// Reads a list.
///
/// # Errors
/// The text is not TOML of this form, an identifier appears twice, or a requirement has two reasons.
pub fn parse(text: &str) -> Result<List> {
    let list: List = toml::from_str(text)?;
    let mut seen = BTreeSet::new();
    for requirement in &list.requirement {
        let Requirement {
            id,
            not_applicable,
            not_met,
            open,
            ..
        } = requirement;
        if id.is_empty() || id.contains([',', ' ']) {
            bail!("{id:?} is no identifier: it has no spaces and no commas");
        }
        if !seen.insert(id) {
            bail!("{id} appears twice");
        }
        if [not_applicable, not_met, open]
            .into_iter()
            .flatten()
            .count()
            > 1
        {
            bail!("{id} has more than one reason");
        }
    }
    Ok(list)
}
