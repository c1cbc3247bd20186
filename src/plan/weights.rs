//! Weights: how the new connections of a VIP are shared among its backends, the same for all data planes.
//!
//! Frameworks share a VIP by their backends that take connections, so that no tenant outweighs another by a label.
//! Within a framework its labels decide, and what is new has a part of its share, see [`super::warmup`]. For example,
//! with two frameworks in one VIP:
//!
//! ```text
//! framework   backends       L4LB_WEIGHT   share
//! F           f1, f2         1, 3          1/2: 1/8, 3/8
//! G           g1, g2         1000, 1000    1/2: 1/4, 1/4
//! weights: f1 1, f2 3, g1 2, g2 2
//! ```
//!
//! A VIP whose backends all have the same share, as nearly all have, has no weights at all. One of which a backend
//! may have to warm up has weights from the beginning, so that a step of it changes the weight of that backend alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Weights of the servers of a service.
pub type Weights = BTreeMap<SocketAddr, u32>;

/// Weight of the server with the largest share, where shares are no ratio of small numbers. Small enough for every
/// scheduler of the kernel, and large enough that no share is off by more than a thousandth of that server's.
const LARGEST: f64 = 1000.0;

/// Facts that decide about the share of one backend.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub address: SocketAddr,
    /// Id of its framework.
    pub framework: &'a str,
    /// Weight by its label; 0 if it takes no new connections, for whatever reason.
    pub weight: u16,
    /// Steps of its warm-up that it has reached, from 1 to [`super::warmup::STEPS`].
    pub warmth: u16,
    /// Set if its label asks for a warm-up, which may be over.
    pub warms_up: bool,
}

/// Sums over the backends of a framework.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// Steps of warm-up: what its backends count against those of other frameworks.
    warmth: u32,
    /// Weights in proportion to warmth.
    weight: u64,
}

/// Returns the weights of a service's servers; `None` if all that take connections have the same share.
pub fn weights(candidates: &[Candidate<'_>]) -> Option<Weights> {
    let taking = || candidates.iter().filter(|candidate| candidate.weight > 0);
    // The usual VIP, of which nothing more has to be known.
    let warms_up = candidates.iter().any(|candidate| candidate.warms_up);
    if !warms_up && taking().all(|candidate| candidate.weight == 1) {
        return None;
    }
    let mut frameworks: BTreeMap<&str, Sums> = BTreeMap::new();
    for candidate in taking() {
        let sums = frameworks.entry(candidate.framework).or_default();
        sums.warmth += u32::from(candidate.warmth);
        sums.weight += candidate.weighted();
    }
    let parts: Vec<u32> = match frameworks.len() {
        // A ratio of small numbers stays one.
        0 | 1 => candidates.iter().map(|candidate| candidate.weighted() as u32).collect(),
        _ => scaled(candidates.iter().map(|candidate| {
            let sums = frameworks.get(candidate.framework).copied().unwrap_or_default();
            candidate.weighted() as f64 * f64::from(sums.warmth) / sums.weight.max(1) as f64
        })),
    };
    // What all labels have in common, or else all numbers: warmth comes and goes, and each change of a weight is one
    // of the kernel.
    let common = |parts: &mut dyn Iterator<Item = u32>| parts.fold(0, gcd).max(1);
    let divisor = match frameworks.len() {
        0 | 1 if warms_up => common(&mut taking().map(|candidate| candidate.weight.into())),
        _ => common(&mut parts.iter().copied()),
    };
    let weights = candidates.iter().zip(parts).map(|(candidate, part)| (candidate.address, part / divisor));
    let weights: Weights = weights.collect();
    weights.values().any(|weight| *weight > 1).then_some(weights)
}

impl Candidate<'_> {
    fn weighted(&self) -> u64 {
        u64::from(self.weight) * u64::from(self.warmth)
    }
}

/// Returns whole numbers in these proportions. None that is above 0 becomes 0, because that would take all connections.
fn scaled(shares: impl Iterator<Item = f64>) -> Vec<u32> {
    let shares: Vec<f64> = shares.collect();
    let largest = shares.iter().copied().fold(0.0, f64::max);
    let scaled =
        |share: f64| if share > 0.0 { (share / largest * LARGEST).round().max(1.0) as u32 } else { 0 };
    shares.into_iter().map(scaled).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::warmup::STEPS;

    /// Backends by framework, weight and warmth, at 10.0.0.0, 10.0.0.1, ...
    fn candidates<'a>(of: &[(&'a str, u16, u16)]) -> Vec<Candidate<'a>> {
        let candidate = |(last, &(framework, weight, warmth)): (u8, &(&'a str, u16, u16))| Candidate {
            address: SocketAddr::from(([10, 0, 0, last], 80)),
            framework,
            weight,
            warmth,
            warms_up: warmth < STEPS,
        };
        (0..).zip(of).map(candidate).collect()
    }

    fn found(of: &[(&str, u16, u16)]) -> Vec<u32> {
        weights(&candidates(of)).map(|weights| weights.into_values().collect()).unwrap_or_default()
    }

    #[test]
    fn labels_count_within_a_framework() {
        assert_eq!(found(&[("F", 1, 10), ("F", 3, 10)]), [1, 3]);
        assert_eq!(found(&[("F", 100, 10), ("F", 50, 10), ("F", 0, 10)]), [2, 1, 0]);
        assert_eq!(found(&[("F", 7, 10), ("F", 7, 10)]), [0; 0], "which is as if there were no label");
        assert_eq!(found(&[("F", 0, 10), ("F", 0, 10)]), [0; 0]);
        assert_eq!(found(&[("F", 1, 1), ("F", 1, 10)]), [1, 10]);
        assert_eq!(
            found(&[("F", 1, 10), ("F", 3, 10), ("G", 1000, 10), ("G", 1000, 10)]),
            [333, 1000, 667, 667]
        );
    }

    #[test]
    fn a_step_of_a_warm_up_changes_the_weight_of_one_backend() {
        let at = |warmth| {
            let mut all = candidates(&[("F", 2, 10), ("F", 4, 10), ("F", 2, warmth)]);
            all[2].warms_up = true;
            weights(&all).unwrap().into_values().collect::<Vec<_>>()
        };
        assert_eq!([at(1), at(5), at(10)], [[10, 20, 1], [10, 20, 5], [10, 20, 10]]);
    }

    /// Returns the share of connections of a framework.
    fn share_of(framework: &str, candidates: &[Candidate<'_>]) -> f64 {
        let weights = weights(candidates).unwrap_or_default();
        let weight = |candidate: &Candidate<'_>| {
            let plain = u32::from(candidate.weight > 0);
            f64::from(weights.get(&candidate.address).copied().unwrap_or(plain))
        };
        let own = candidates.iter().filter(|candidate| candidate.framework == framework).map(weight);
        own.sum::<f64>() / candidates.iter().map(weight).sum::<f64>()
    }

    proptest! {
        #[test]
        fn no_label_outweighs_another_framework(
            own in prop::collection::vec(1_u16..=1000, 1..8),
            others in prop::collection::vec(1_u16..=1000, 1..8),
        ) {
            let of: Vec<_> = own.iter().map(|weight| ("F", *weight, STEPS))
                .chain(others.iter().map(|weight| ("G", *weight, STEPS))).collect();
            let fair = own.len() as f64 / (own.len() + others.len()) as f64;
            let share = share_of("F", &candidates(&of));
            prop_assert!((share - fair).abs() < 0.02, "{share} in place of {fair}");
        }

        #[test]
        fn who_takes_connections_has_a_weight_and_who_does_not_has_none(
            of in prop::collection::vec((0_u8..3, 0_u16..=1000, 1_u16..=STEPS), 0..12),
        ) {
            let names = ["F", "G", "H"];
            let of: Vec<_> = of.iter().map(|(of, weight, warmth)| (names[usize::from(*of)], *weight, *warmth)).collect();
            let candidates = candidates(&of);
            if let Some(weights) = weights(&candidates) {
                for candidate in &candidates {
                    prop_assert_eq!(weights[&candidate.address] > 0, candidate.weight > 0);
                    prop_assert!(weights[&candidate.address] <= 65_535, "which is the largest that IPVS takes");
                }
            }
        }
    }

    /// Connections of `draws` that are sent as both planes do it: of two that are drawn by weight, to the one with
    /// fewer connections for its weight. `is_held` tells whether they stay open.
    fn simulated(weights: &[u32], is_held: bool) -> Vec<f64> {
        const DRAWS: u32 = 10_000;
        let total: u32 = weights.iter().sum();
        let mut state = 7_u64;
        let mut draw = || {
            // A generator by Marsaglia: the same draws in each run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let mut left = (state >> 11) as u32 % total;
            weights
                .iter()
                .position(|weight| match left.checked_sub(*weight) {
                    Some(rest) => {
                        left = rest;
                        false
                    }
                    None => true,
                })
                .unwrap()
        };
        let (mut open, mut sent) = (vec![0_u64; weights.len()], vec![0_u32; weights.len()]);
        for _ in 0..DRAWS {
            let (first, second) = (draw(), draw());
            let load = |one: usize, other: usize| open[one] * u64::from(weights[other]);
            let chosen = if load(second, first) < load(first, second) { second } else { first };
            sent[chosen] += 1;
            open[chosen] += u64::from(is_held);
        }
        sent.iter().map(|sent| f64::from(*sent) / f64::from(DRAWS)).collect()
    }

    #[test]
    fn shares_are_those_of_the_weights_whether_connections_are_held_or_not() {
        for weights in [&[1, 3][..], &[1, 1, 1, 1, 6], &[1, 1], &[1, 1000, 999]] {
            let total = f64::from(weights.iter().sum::<u32>());
            for is_held in [true, false] {
                for (share, weight) in simulated(weights, is_held).iter().zip(weights) {
                    let wanted = f64::from(*weight) / total;
                    assert!(
                        (share - wanted).abs() < 0.05,
                        "{weights:?}, held {is_held}: {share} for {wanted}"
                    );
                }
            }
        }
    }
}
