//! Consistent hashing: few keys move when endpoints come and go.

/// Prime, and more than a hundred times the endpoints of common destinations.
const SIZE: usize = 65_537;

/// The look-up table of Maglev (Eisenbud et al., NSDI 2016, 3.4), weighted as in Envoy: an endpoint
/// with half the weight takes a place every second time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maglev(Box<[u16]>);

/// How far an endpoint has come in filling the table.
struct Turn {
    place: usize,
    skip: usize,
    credit: u64,
}

impl Maglev {
    /// The table of endpoints with these names and weights. At most 65,536 of them.
    pub fn of(endpoints: &[(&[u8], u32)]) -> Self {
        const FREE: u16 = u16::MAX;
        if endpoints.is_empty() {
            return Self(Box::default());
        }
        let heaviest = endpoints
            .iter()
            .map(|(_, weight)| *weight)
            .max()
            .unwrap_or(1);
        let mut turns: Vec<Turn> = endpoints
            .iter()
            .map(|(name, _)| Turn {
                place: (hash(name, 0) % SIZE as u64) as usize,
                skip: (hash(name, 1) % (SIZE as u64 - 1)) as usize + 1,
                credit: 0,
            })
            .collect();
        let mut table = vec![FREE; SIZE];
        let mut filled = 0;
        while filled < SIZE {
            for (index, turn) in turns.iter_mut().enumerate() {
                turn.credit += u64::from(endpoints[index].1);
                if turn.credit < u64::from(heaviest) {
                    continue;
                }
                turn.credit -= u64::from(heaviest);
                // The size is prime, so every place comes up.
                while table[turn.place] != FREE {
                    turn.place = (turn.place + turn.skip) % SIZE;
                }
                table[turn.place] = index as u16;
                filled += 1;
                if filled == SIZE {
                    break;
                }
            }
        }
        Self(table.into())
    }

    /// The endpoint for number `attempt` (from 0) of a key: the table goes on from place to place.
    pub fn at(&self, key: u64, attempt: usize) -> Option<usize> {
        let start = (key % SIZE as u64) as usize;
        let place = self.0.get((start + attempt) % SIZE)?;
        Some(usize::from(*place))
    }
}

/// FNV-1a with a finisher of xorshift (both public domain), the same in every run and on every node.
pub fn hash(bytes: &[u8], seed: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = bytes.iter().fold(start, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count)
            .map(|number| format!("10.0.0.{number}:8080"))
            .collect()
    }

    fn table(names: &[String], weight: impl Fn(usize) -> u32) -> Maglev {
        let endpoints = names.iter().enumerate();
        let endpoints: Vec<_> = endpoints
            .map(|(index, name)| (name.as_bytes(), weight(index)))
            .collect();
        Maglev::of(&endpoints)
    }

    fn share(table: &Maglev, index: u16) -> f64 {
        table.0.iter().filter(|place| **place == index).count() as f64 / SIZE as f64
    }

    #[test]
    fn places_are_shared_by_weight() {
        let names = names(10);
        let equal = table(&names, |_| 7);
        let double = table(&names, |index| if index == 3 { 2 } else { 1 });
        for index in 0..10 {
            assert!((share(&equal, index) - 0.1).abs() < 0.001);
        }
        assert!((share(&double, 3) - 2.0 / 11.0).abs() < 0.002);
    }

    #[test]
    fn few_keys_move_when_an_endpoint_goes() {
        let names = names(20);
        let (all, fewer) = (table(&names, |_| 1), table(&names[..19], |_| 1));
        let moved = all
            .0
            .iter()
            .zip(&fewer.0)
            .filter(|(all, fewer)| **all != 19 && all != fewer);
        let moved = moved.count() as f64 / SIZE as f64;
        assert!(moved < 0.05, "{moved} moved without need");
    }

    #[test]
    fn nobody_is_at_home_without_endpoints() {
        assert_eq!(Maglev::of(&[]).at(5, 0), None);
    }
}
