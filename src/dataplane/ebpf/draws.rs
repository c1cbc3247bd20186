//! Drawing a server by its weight, in the same time for any number of servers.
//!
//! The programs draw one of the slots as if all had the same weight, and then either take it or one other slot, which
//! is the alias method of Walker and Vose. For example, with the weights 1 and 3, each slot is drawn with half of the
//! draws, and half of those of the first slot go to the second one:
//!
//! ```text
//! slot   weight   moved   other      drawn
//! 0      1        1/2     1          1/2 - 1/4 = 1/4
//! 1      3        0       1          1/2 + 1/4 = 3/4
//! ```

use super::layout::Draw;

/// Returns how each of the slots is drawn that have these weights, all of which are above 0.
pub fn draws(weights: &[u32]) -> Vec<Draw> {
    let count = weights.len() as u64;
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    // What each slot is to have, where `total` is what an equal draw gives to it.
    let mut wanted: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) * count).collect();
    let mut draws: Vec<Draw> = (0..weights.len() as u32).map(Draw::of_itself).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for (place, wanted) in wanted.iter().enumerate() {
        if *wanted < total { small.push(place) } else { large.push(place) }
    }
    while let (Some(from), Some(to)) = (small.pop(), large.pop()) {
        let Some(surplus) = wanted.get(from).map(|wanted| total - wanted) else { break };
        if let Some(draw) = draws.get_mut(from) {
            *draw = Draw::new(surplus, total, to as u32);
        }
        // What the other one is given here, it takes less of its own draws.
        let Some(rest) = wanted.get_mut(to) else { break };
        *rest -= surplus;
        if *rest < total { small.push(to) } else { large.push(to) }
    }
    draws
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the share of each slot.
    fn shares(weights: &[u32]) -> Vec<f64> {
        let draws = draws(weights);
        let each = 1.0 / draws.len() as f64;
        let mut shares = vec![each; draws.len()];
        for (place, draw) in draws.iter().enumerate() {
            let moved = f64::from(draw.moved) / 2_f64.powi(32) * each;
            shares[place] -= moved;
            shares[draw.other as usize] += moved;
        }
        shares
    }

    proptest! {
        #[test]
        fn draws_are_in_proportion_to_the_weights(weights in prop::collection::vec(1_u32..=65_535, 1..50)) {
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            for (weight, share) in weights.iter().zip(shares(&weights)) {
                prop_assert!((share - f64::from(*weight) / total).abs() < 1e-6, "{weight} of {total}: {share}");
            }
        }
    }

    #[test]
    fn equal_slots_keep_all_of_their_draws() {
        assert!(draws(&[7; 5]).iter().all(|draw| draw.moved == 0));
        assert_eq!(draws(&[]), []);
    }
}
