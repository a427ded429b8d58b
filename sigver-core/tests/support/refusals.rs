//! One of every refusal there is.

use sigver_core::{Index, Key, Refusal};

/// One value of each variant, about `key` or `index` where it is about one; what may be about an index or not is there twice.
pub(crate) fn refusals(key: &Key, index: Index) -> Vec<Refusal> {
    let key = || key.clone();
    let all = vec![
        Refusal::KeyTaken { key: key() },
        Refusal::UnknownKey { key: key() },
        Refusal::TooManyJoiners { key: key() },
        Refusal::HasRole,
        Refusal::NoRole,
        Refusal::WrongRole,
        Refusal::NoIndex,
        Refusal::UnknownIndex { index: Some(index) },
        Refusal::NotAnObject { index: Some(index) },
        Refusal::NotAnObject { index: None },
    ];
    // The enum may grow, which no match outside of the crate can rule out: its list of codes has to grow with it.
    let mut codes: Vec<&str> = all.iter().map(Refusal::name).collect();
    codes.dedup();
    assert_eq!(codes, Refusal::NAMES, "a refusal is missing here");
    all
}
