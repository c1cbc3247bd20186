//! Records of input that was left out.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Characters of a label that are shown when it is left out.
const MAX_SHOWN: usize = 120;

/// Cuts a text of unknown origin to the length that is shown.
pub fn shortened(text: String) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Something in a document that yields nothing, and why; the rest of the document is not affected.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skipped {
    /// Task id, or the place in the document where it should be.
    pub task: String,
    /// Port, as [`TaskPort::describe`](super::TaskPort::describe) shows it.
    pub port: Option<String>,
    /// Key of the label.
    pub label: Option<String>,
    /// Value of the label, or the value that could not be used.
    pub value: Option<String>,
    pub reason: String,
    /// Id of the task's framework, and the app that it is an instance of, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.task)?;
        if let Some(port) = &self.port {
            write!(f, " port {port}")?;
        }
        match (&self.label, &self.value) {
            (Some(label), Some(value)) => write!(f, " {label}={value}")?,
            (Some(text), None) | (None, Some(text)) => write!(f, " {text}")?,
            (None, None) => {}
        }
        write!(f, ": {}", self.reason)
    }
}
