//! Runs an oracle on every seed of its target, without a fuzzer.

use std::{error::Error, fs, panic, path::Path};

/// Runs `check` on every seed. If it panics, the seed is printed.
pub(crate) fn replay(target: &str, check: fn(&[u8])) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let seed = fs::read(&path)?;
        if let Err(cause) = panic::catch_unwind(|| check(&seed)) {
            eprintln!("the seed was {}", path.display());
            panic::resume_unwind(cause);
        }
        seeds += 1;
    }
    assert!(seeds > 0, "{target} has no seeds");
    Ok(())
}
