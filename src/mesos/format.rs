//! Shapes of documents.

use std::fmt;
use std::str::FromStr;

/// Shape of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// v0 `/state` or `/master/state` of a master, or `/state` of an agent.
    State,
    /// v1 answer to `GET_STATE`.
    V1State,
    /// v1 `SUBSCRIBE` events, one JSON object a line or in RecordIO frames.
    V1Events,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "state" => Ok(Self::State),
            "v1-state" => Ok(Self::V1State),
            "v1-events" => Ok(Self::V1Events),
            _ => Err(format!("unknown format {text:?}: use auto, state, v1-state or v1-events")),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::State => "state",
            Self::V1State => "v1-state",
            Self::V1Events => "v1-events",
        })
    }
}

/// Shape of a state document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFormat {
    /// v0 `/state`.
    V0,
    /// Answer to `GET_STATE`.
    V1,
}

impl StateFormat {
    /// Returns the shape of a document in one of the formats; `None` for events, which are no document.
    pub fn of(format: Format) -> Option<Self> {
        match format {
            Format::State => Some(Self::V0),
            Format::V1State => Some(Self::V1),
            Format::V1Events => None,
        }
    }
}
