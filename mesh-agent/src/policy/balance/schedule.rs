//! The order in which weighted endpoints take turns.

/// Longest schedule: weights that share no divisor are rounded to fit.
const LONGEST: u64 = 4096;

/// Indices of endpoints, each as often as its weight says and as evenly spread as nginx's smooth
/// weighted round robin does it. Picking a random entry picks by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Box<[u16]>);

impl Schedule {
    /// The schedule of endpoints with these weights, each of which has at least one turn.
    ///
    /// At most 4,096 of them.
    pub fn of(weights: &[u32]) -> Self {
        let divisor = weights
            .iter()
            .copied()
            .fold(0, greatest_common_divisor)
            .max(1);
        let total: u64 = weights
            .iter()
            .map(|weight| u64::from(weight / divisor))
            .sum();
        let turns: Vec<i32> = weights
            .iter()
            .map(|weight| {
                let weight = u64::from(weight / divisor);
                let turns = if total > LONGEST {
                    weight * LONGEST / total
                } else {
                    weight
                };
                // At most the longest schedule.
                turns.max(1) as i32
            })
            .collect();
        let length: i32 = turns.iter().sum();
        let mut current = vec![0; turns.len()];
        let mut schedule = Vec::with_capacity(length as usize);
        for _ in 0..length {
            for (current, turns) in current.iter_mut().zip(&turns) {
                *current += turns;
            }
            // The first of equals.
            let most = current
                .iter()
                .enumerate()
                .rev()
                .max_by_key(|(_, current)| **current);
            let Some((index, _)) = most else { break };
            current[index] -= length;
            schedule.push(index as u16);
        }
        Self(schedule.into())
    }

    /// Whose turn number `turn` is; turns go round. `None` without endpoints.
    pub fn at(&self, turn: usize) -> Option<usize> {
        let length = self.0.len();
        (length > 0).then(|| usize::from(self.0[turn % length]))
    }
}

fn greatest_common_divisor(one: u32, other: u32) -> u32 {
    if other == 0 {
        one
    } else {
        greatest_common_divisor(other, one % other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn turns_are_spread_as_in_nginx() {
        let schedule = Schedule::of(&[5, 1, 1]);
        let turns: Vec<_> = (0..7).filter_map(|turn| schedule.at(turn)).collect();
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(Schedule::of(&[]).at(0), None);
    }

    proptest! {
        #[test]
        fn everyone_has_turns_in_proportion(
            weights in prop::collection::vec(1..1_000_000_u32, 1..40),
        ) {
            let schedule = Schedule::of(&weights);
            let length = schedule.0.len();
            prop_assert!(length as u64 <= LONGEST + weights.len() as u64);
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (index, weight) in weights.iter().enumerate() {
                let turns = (0..length).filter(|turn| schedule.at(*turn) == Some(index)).count();
                let wanted = f64::from(*weight) / total * length as f64;
                prop_assert!(turns >= 1 && (turns as f64 - wanted).abs() <= 2.0 + wanted * 0.05);
            }
        }
    }
}
