//! How important a request is, and for whom it is: DAGOR, "Overload Control for Scaling WeChat
//! Microservices", 2018.

use std::fmt;

use super::balance::hash;

/// How important a request is. The lesser is the more important one. A request passes its own on to the
/// calls it causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority {
    /// What kind of request it is: from 0, the most important, to [`Self::LEAST_BUSINESS`].
    pub business: u8,
    /// Whose it is, among those of its kind: from 0 to [`Self::LEAST_USER`]. Under overload some users are
    /// served well instead of all badly.
    pub user: u8,
}

/// Names for kinds of requests, with room between them.
const NAMES: [(&str, u8); 5] = [
    ("critical", 0),
    ("high", 8),
    ("normal", 16),
    ("low", 32),
    ("bulk", 48),
];

impl Priority {
    /// Before all others.
    pub const CRITICAL: Self = Self {
        business: 0,
        user: 0,
    };
    /// What a request has that says nothing: of the kind `normal`, a user in the middle.
    pub const NORMAL: Self = Self {
        business: 16,
        user: 64,
    };
    /// The largest `business`.
    pub const LEAST_BUSINESS: u8 = 63;
    /// The largest `user`.
    pub const LEAST_USER: u8 = 127;

    /// Whether it is of the kind that is refused last.
    pub fn is_critical(self) -> bool {
        self.business == 0
    }

    /// Both in one number, in the same order: from 0 to 8191.
    pub fn ordinal(self) -> u16 {
        u16::from(self.business) * (u16::from(Self::LEAST_USER) + 1) + u16::from(self.user)
    }

    /// The one with this number.
    pub fn of_ordinal(ordinal: u16) -> Option<Self> {
        let users = u16::from(Self::LEAST_USER) + 1;
        let business = u8::try_from(ordinal / users).ok()?;
        let user = (ordinal % users) as u8;
        (business <= Self::LEAST_BUSINESS).then_some(Self { business, user })
    }

    /// Reads it as a header has it: `high`, `8`, `high/37`, `8/37`. Without a user it gets one in the
    /// middle.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_with_user(text, Self::NORMAL.user)
    }

    /// Likewise, but without a user in the text it is this one's.
    pub fn parse_with_user(text: &str, user: u8) -> Option<Self> {
        let (kind, user) = match text.trim().split_once('/') {
            Some((kind, user)) => (kind, number(user, Self::LEAST_USER)?),
            None => (text.trim(), user),
        };
        let named = NAMES
            .iter()
            .find(|(name, _)| kind.eq_ignore_ascii_case(name));
        let business = match named {
            Some((_, business)) => *business,
            None => number(kind, Self::LEAST_BUSINESS)?,
        };
        Some(Self { business, user })
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}

impl fmt::Display for Priority {
    /// As [`Priority::parse`] reads it, with the user: `16/37`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.business, self.user)
    }
}

/// A user's priority in this hour (counted from any fixed time): drawn anew each hour, so that nobody is
/// always the last. All agents draw the same.
pub fn user_priority(user_id: &[u8], hour: u64) -> u8 {
    (hash(user_id, hour) % (u64::from(Priority::LEAST_USER) + 1)) as u8
}

fn number(text: &str, most: u8) -> Option<u8> {
    // `parse` also takes a sign.
    let is_number = text.bytes().all(|it| it.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number)?;
    (number <= most).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(business: u8, user: u8) -> Priority {
        Priority { business, user }
    }

    #[test]
    fn each_has_a_number_of_its_own() {
        let all = (Priority::LEAST_BUSINESS as u16 + 1) * (Priority::LEAST_USER as u16 + 1);
        for ordinal in 0..all {
            let priority = Priority::of_ordinal(ordinal);
            assert_eq!(priority.map(Priority::ordinal), Some(ordinal));
        }
        assert_eq!(Priority::of_ordinal(all), None);
        assert_eq!(Priority::of_ordinal(u16::MAX), None);
    }

    #[test]
    fn it_is_read_by_name_and_by_number() {
        for (text, expected) in [
            ("critical", Some(of(0, 64))),
            ("high", Some(of(8, 64))),
            ("Normal", Some(of(16, 64))),
            (" low ", Some(of(32, 64))),
            ("bulk/0", Some(of(48, 0))),
            ("bulk/127", Some(of(48, 127))),
            ("63/5", Some(of(63, 5))),
            ("0/0", Some(Priority::CRITICAL)),
            ("64", None),
            ("high/128", None),
            ("256", None),
            ("", None),
            ("/", None),
            ("/5", None),
            ("high/", None),
            ("+1", None),
            ("1/+1", None),
            ("1/2/3", None),
            ("urgent", None),
        ] {
            assert_eq!(Priority::parse(text), expected, "{text:?}");
        }
        assert_eq!(Priority::parse_with_user("low", 9), Some(of(32, 9)));
        assert_eq!(Priority::parse_with_user("low/5", 9), Some(of(32, 5)));
        assert_eq!(Priority::parse("normal"), Some(Priority::default()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(business in 0..=63_u8, user in 0..=127_u8) {
            let priority = Priority { business, user };
            prop_assert_eq!(Priority::parse(&priority.to_string()), Some(priority));
        }

        #[test]
        fn ordinals_have_the_same_order(a in (0..=63_u8, 0..=127_u8), b in (0..=63_u8, 0..=127_u8)) {
            let [a, b] = [a, b].map(|(business, user)| Priority { business, user });
            prop_assert_eq!(a.cmp(&b), a.ordinal().cmp(&b.ordinal()));
            prop_assert!(a.ordinal() < 64 * 128);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,12}") {
            if let Some(priority) = Priority::parse(&text) {
                prop_assert!(priority.business <= 63 && priority.user <= 127);
            }
        }
    }

    #[test]
    fn users_are_spread_evenly_and_drawn_anew_each_hour() {
        const USERS: u32 = 128 * 100;
        let mut counts = [0; 128];
        let mut same = 0;
        for user in 0..USERS {
            let id = format!("user-{user}");
            let now = user_priority(id.as_bytes(), 7);
            assert_eq!(now, user_priority(id.as_bytes(), 7));
            counts[usize::from(now)] += 1;
            same += u32::from(now == user_priority(id.as_bytes(), 8));
        }
        // 100 expected, with a standard deviation of 10.
        assert!(
            counts.iter().all(|count| (50..=150).contains(count)),
            "{counts:?}"
        );
        assert!((50..=150).contains(&same), "{same}");
    }
}
