//! What a check says.

use serde::Serialize;

/// Verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Not looked at, for the reason that the finding gives.
    Skipped,
    /// Works as far as can be seen, but perhaps not as expected.
    Warning,
    /// Broken.
    Fault,
}

impl Verdict {
    /// Returns the word for people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// Finding of a check. The text may have words of tenants and servers, and is escaped where it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check.
    pub check: &'static str,
    pub verdict: Verdict,
    /// Description of what is wrong, or of how it was found to be right.
    pub what: String,
    /// Place that it is about, such as a link, a file or a server; empty for the node.
    #[serde(rename = "where")]
    pub place: String,
    /// Command, or a step that no command can take, that mends it.
    pub mend: Option<String>,
}

impl Finding {
    fn new(verdict: Verdict, check: &'static str, what: impl Into<String>) -> Self {
        Self { check, verdict, what: what.into(), place: String::new(), mend: None }
    }

    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, check, what)
    }

    pub fn skipped(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Verdict::Skipped, check, what)
    }

    pub fn warning(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, check, what)
    }

    pub fn fault(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Verdict::Fault, check, what)
    }

    /// Names the place that the finding is about.
    #[must_use]
    pub fn at(self, place: impl Into<String>) -> Self {
        Self { place: place.into(), ..self }
    }

    /// Adds what mends it.
    #[must_use]
    pub fn mended_by(self, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..self }
    }
}
