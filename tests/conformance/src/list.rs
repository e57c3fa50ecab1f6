//! A list of requirements: one standard, one TOML file.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde::Deserialize;

/// What one document asks for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// What citations call it, for example `rfc9293`.
    pub key: String,
    /// Number and title of the document.
    pub title: String,
    /// What of it is listed, and where its identifiers come from.
    pub about: String,
    /// What the list was checked against, and whether it was at all.
    pub checked: String,
    /// In the document's order.
    pub requirement: Vec<Requirement>,
}

/// One thing asked for. Without a reason, a test has to show it.
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
    /// What is asked for, in few words.
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
    /// It is not done, by choice.
    NotMet(&'a str),
    /// It is not done yet.
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
/// What is not TOML of this shape, an identifier twice, two reasons for one requirement.
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
            bail!("{id} is there twice");
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
