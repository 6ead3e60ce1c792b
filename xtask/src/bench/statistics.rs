//! Medians, and how far they can be trusted.

/// A median, and what the true one is between with a confidence of at least 95%, if there are values enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The median of the values.
    pub median: f64,
    /// From and to.
    pub interval: Option<(f64, f64)>,
}

/// `None` without values.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    middle(&values)
}

/// `None` without values. Whatever the values' distribution: each is above the true median as often as below (David and
/// Nagaraja, Order Statistics, 7.1).
pub fn estimate(mut values: Vec<f64>) -> Option<Estimate> {
    values.sort_by(f64::total_cmp);
    let interval = values_outside(values.len()).map(|outside| {
        let last = values.len() - 1;
        (values[outside], values[last - outside])
    });
    Some(Estimate {
        median: middle(&values)?,
        interval,
    })
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        let before = *sorted.get(middle.checked_sub(1)?)?;
        Some(f64::midpoint(before, sorted[middle]))
    } else {
        Some(sorted[middle])
    }
}

/// The most values that can be left out at either end: the true median is outside of what is left if no more than so
/// many are on one side of it, as with tosses of a coin. `None` if not even all of them will do.
fn values_outside(count: usize) -> Option<usize> {
    let mut chance = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut in_tail = 0.0;
    let mut outside = None;
    for fewer in 0..count / 2 {
        in_tail += chance;
        if in_tail > 0.025 {
            break;
        }
        outside = Some(fewer);
        chance *= (count - fewer) as f64 / (fewer + 1) as f64;
    }
    outside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn intervals_are_those_of_the_binomial_distribution() {
        // 95% and as little above as can be: from the tables of the sign test, one less than the critical rank.
        for (count, outside) in [
            (5, None),
            (6, Some(0)),
            (9, Some(1)),
            (15, Some(3)),
            (40, Some(13)),
        ] {
            assert_eq!(values_outside(count), outside, "{count} values");
        }
        let values = (1..=15).rev().map(f64::from).collect();
        let wanted = Estimate {
            median: 8.0,
            interval: Some((4.0, 12.0)),
        };
        assert_eq!(estimate(values), Some(wanted));
        assert_eq!(estimate(vec![1.0; 5]).and_then(|it| it.interval), None);
        assert_eq!(estimate(vec![]), None);
    }
}
