//! A name that nothing has.

use anyhow::bail;

/// Most names that are proposed.
const MOST: usize = 3;
/// Names at least so much alike are near ones: 0 to 1.
const NEAR: f64 = 0.75;
/// In short ones, so many letters may be wrong or in the wrong order.
const TYPOS: usize = 1;

/// An error that names near ones, unless `name` is among those that are `known`.
pub fn ensure_known(
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = String>,
) -> anyhow::Result<()> {
    let mut known: Vec<String> = known.into_iter().collect();
    if known.iter().any(|it| it == name) {
        return Ok(());
    }
    known.sort();
    known.dedup();
    let likeness = |it: &str| strsim::jaro_winkler(it, name);
    let mut near: Vec<String> = known
        .into_iter()
        .filter(|it| {
            likeness(it) >= NEAR || strsim::osa_distance(it, name) <= TYPOS || it.contains(name)
        })
        .collect();
    near.sort_by(|one, other| likeness(other).total_cmp(&likeness(one)));
    near.truncate(MOST);
    if near.is_empty() {
        bail!("the agent knows no {what} `{name}`: see `mesh-agent {what}s`");
    }
    bail!(
        "the agent knows no {what} `{name}`; near: {}",
        near.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_proposed_and_far_ones_are_not() {
        let known = || ["reviews", "ratings", "payment-gateway"].map(str::to_owned);
        assert!(ensure_known("destination", "ratings", known()).is_ok());
        let near = ensure_known("destination", "revews", known()).unwrap_err();
        assert_eq!(
            near.to_string(),
            "the agent knows no destination `revews`; near: reviews"
        );
        let swapped = ensure_known("destination", "wbe", ["web".to_owned()]).unwrap_err();
        assert!(swapped.to_string().ends_with("near: web"), "{swapped}");
        let far = ensure_known("pod", "zzz", known()).unwrap_err().to_string();
        assert!(far.contains("see `mesh-agent pods`"), "{far}");
    }
}
