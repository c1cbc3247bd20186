//! Since when something is wrong, and what to do about it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::vip::Condition;

/// Addition to a reason for which the status is degraded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasonDetail {
    /// Word before the first colon of the reason.
    pub kind: String,
    /// Time from which there was a reason of this kind without a break.
    pub since: Timestamp,
    /// Advice to the operator.
    pub remedy: String,
}

/// Returns what to do about a kind of reason.
fn remedy(kind: &str) -> &'static str {
    match kind {
        "source" => {
            "see whether this node reaches the source, and with enough rights: l4lbd doctor. Connections go on by the \
             last state"
        }
        "kernel" => "find out what the kernel lacks: l4lbd doctor. It is tried again by itself",
        "held" => "wait, or give the tasks up if they are gone for certain: l4lbd accept-loss",
        "unreachable" => "bring these agents back, or start the tasks on others",
        "vips" => "raise vips.max and restart, or find the app with too many: l4lbd status -o wide, SKIPPED",
        "backends" => "find the app with too many: l4lbd status -o wide, SKIPPED",
        "blocked" => "remove the virtual services of the other program (ipvsadm -D), or change the labels",
        "addresses" => "enlarge vips.range4 or vips.range6 on all nodes",
        "dns" => {
            "find out which program has the address, or who asks too much: l4lbd doctor, l4lbd status -o wide"
        }
        "http" => {
            "find out which program has the address: ss -ltnp; stop it, or change http.listen. It is tried again by itself"
        }
        "store" => "see whether the disk is full, and who owns daemon.state_dir",
        _ => "find out more: l4lbd doctor, and the log",
    }
}

/// Returns the additions to the reasons of now, where `before` are those of the status before. The wording of a reason
/// may change while its kind persists.
pub fn details(reasons: &[String], before: &[ReasonDetail], now: Timestamp) -> Vec<ReasonDetail> {
    let detail = |reason: &String| {
        let kind = reason.split_once(':').map_or(reason.as_str(), |(kind, _)| kind);
        let known = before.iter().find(|detail| detail.kind == kind);
        ReasonDetail {
            kind: kind.to_owned(),
            since: known.map_or(now, |detail| detail.since),
            remedy: remedy(kind).to_owned(),
        }
    };
    reasons.iter().map(detail).collect()
}

/// Health of a VIP, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VipHealth {
    /// No backend takes new connections.
    Dead,
    /// Some do, and some should that do not.
    Impaired,
    Fine,
}

/// Returns how well a VIP with these backends is: the weight of each, and the reason for it.
pub fn vip_health(backends: impl IntoIterator<Item = (u32, Option<Condition>)>) -> VipHealth {
    let (mut takes, mut lacks) = (false, false);
    for (weight, condition) in backends {
        takes |= weight > 0;
        // A backend that leaves on purpose is no fault.
        lacks |= match condition {
            Some(Condition::Unhealthy | Condition::Unreachable) => true,
            Some(Condition::Ready | Condition::Stopping | Condition::Inherited | Condition::Gone) => false,
            None => weight == 0,
        };
    }
    match (takes, lacks) {
        (false, _) => VipHealth::Dead,
        (true, true) => VipHealth::Impaired,
        (true, false) => VipHealth::Fine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_reason_keeps_its_time_while_its_words_change() {
        let mut status = Status::default();
        status.note_reasons(Vec::new(), at(1));
        assert_eq!((status.since, status.degraded), (Some(at(1)), false));
        status.note_reasons(Vec::new(), at(2));
        assert_eq!(status.since, Some(at(1)));
        status.note_reasons(vec!["source: the state is 3s old".to_owned()], at(3));
        status.note_reasons(vec!["kernel: x".to_owned(), "source: the state is 5s old".to_owned()], at(5));
        assert_eq!((status.since, status.degraded), (Some(at(3)), true));
        let times: Vec<(&str, Timestamp)> =
            status.details.iter().map(|detail| (detail.kind.as_str(), detail.since)).collect();
        assert_eq!(times, [("kernel", at(5)), ("source", at(3))]);
        assert!(status.details.iter().all(|detail| detail.remedy.contains("l4lbd doctor")));
        status.note_reasons(Vec::new(), at(6));
        assert_eq!((status.since, status.details.len()), (Some(at(6)), 0));
    }

    #[test]
    fn a_backend_that_leaves_on_purpose_impairs_nothing() {
        use Condition::{Gone, Ready, Stopping, Unhealthy, Unreachable};
        assert_eq!(vip_health([(1, Some(Ready)), (0, Some(Gone)), (0, Some(Stopping))]), VipHealth::Fine);
        assert_eq!(vip_health([(1, Some(Ready)), (0, Some(Unhealthy))]), VipHealth::Impaired);
        assert_eq!(vip_health([(1, Some(Unreachable))]), VipHealth::Impaired);
        assert_eq!(vip_health([(0, Some(Gone))]), VipHealth::Dead);
        assert_eq!(vip_health([]), VipHealth::Dead);
        assert_eq!(vip_health([(1, None), (0, None)]), VipHealth::Impaired);
    }
}
