//! The time at which a framework registered with the master.

use jiff::Timestamp;
use serde::Deserialize;

/// Time of a registration, as v0 and v1 write it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub enum RegisteredTime {
    /// v0: seconds since the epoch.
    Seconds(f64),
    /// v1: nanoseconds since the epoch.
    Nanoseconds { nanoseconds: f64 },
}

impl RegisteredTime {
    /// Returns the time in milliseconds, which v0 and v1 have alike; `None` for one that is not after the epoch.
    /// A master writes the epoch for a framework that has not registered with it again. A number that is too
    /// large is the last time that there is.
    pub fn timestamp(self) -> Option<Timestamp> {
        let milliseconds = match self {
            Self::Seconds(seconds) => seconds * 1e3,
            Self::Nanoseconds { nanoseconds } => nanoseconds / 1e6,
        };
        // The cast saturates.
        let time = Timestamp::from_millisecond(milliseconds as i64).unwrap_or(Timestamp::MAX);
        (milliseconds >= 1.0).then_some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Later versions of Mesos may add members.
    #[test]
    fn a_time_with_further_members_is_read_from_a_document() {
        let text = r#"{"get_state":{"get_frameworks":{"frameworks":[{"framework_info":{"id":{"value":"F"},"name":"m"},
            "registered_time":{"clock":"utc","nanoseconds":7000000000,"zone":[0,0]}}]}}}"#;
        let snapshot = crate::mesos::parse(text.as_bytes(), None).unwrap();
        assert_eq!(snapshot.registered.get("F").map(|time| time.as_second()), Some(7));
    }

    #[test]
    fn times_of_both_versions_are_alike_and_bounded() {
        let read = |text: &str| {
            let time = serde_json::from_str::<RegisteredTime>(text).ok().and_then(RegisteredTime::timestamp);
            time.map(Timestamp::as_millisecond)
        };
        assert_eq!(read("1470820171.39303"), Some(1_470_820_171_393));
        assert_eq!(read(r#"{"nanoseconds":1470820171393027072}"#), Some(1_470_820_171_393));
        let last = Some(Timestamp::MAX.as_millisecond());
        for text in ["1e19", "1e308", r#"{"nanoseconds":1e300}"#, "18446744073709551615"] {
            assert_eq!(read(text), last, "{text}");
        }
        for text in ["0", "0.0", "-1", "-1e300", r#"{"nanoseconds":0}"#, r#""1""#, "null", "[]", "{}"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
