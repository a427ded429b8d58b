//! One of every refusal.

use sigver_core::{Index, Key, Refusal};

/// Returns one value of each variant, for this `key` or `index`. Variants with an optional index are returned with and without it.
pub(crate) fn refusals(key: &Key, index: Index) -> Vec<Refusal> {
    let key = || key.clone();
    let all = vec![
        Refusal::KeyTaken { key: key() },
        Refusal::UnknownKey { key: key() },
        Refusal::TooManyJoiners { key: key() },
        Refusal::TooManyAttempts { key: key() },
        Refusal::NotAllowed { key: Some(key()) },
        Refusal::NotAllowed { key: None },
        Refusal::HasRole,
        Refusal::NoRole,
        Refusal::WrongRole,
        Refusal::NoIndex,
        Refusal::UnknownIndex { index: Some(index) },
        Refusal::NotAnObject { index: Some(index) },
        Refusal::NotAnObject { index: None },
    ];
    // The enum is non-exhaustive, so a match cannot be complete. This compares with its list of names.
    let mut codes: Vec<&str> = all.iter().map(Refusal::name).collect();
    codes.dedup();
    assert_eq!(codes, Refusal::NAMES, "a refusal is missing here");
    all
}
