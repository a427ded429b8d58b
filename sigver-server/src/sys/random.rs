//! The system's source of randomness.

/// Returns 128 random bits, for a key that nobody can guess; `None` if the system has no randomness.
pub(crate) fn u128() -> Option<u128> {
    let mut bits = [0; 16];
    match getrandom::fill(&mut bits) {
        Ok(()) => Some(u128::from_ne_bytes(bits)),
        Err(error) => {
            log::error!("cannot read random bits: {error}");
            None
        }
    }
}
