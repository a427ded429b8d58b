//! Runs a property on many values, and on every value that failed before.

use core::fmt::Debug;
use std::collections::BTreeMap;

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestRng, TestRunner},
};

/// The number of values that [`samples`] returns.
pub(crate) const SAMPLES: u32 = 250;

/// Not the default, ChaCha: proptest seeds a generator for each choice, which took most of the time in unoptimized builds.
const RNG: RngAlgorithm = RngAlgorithm::XorShift;

pub(crate) fn count(seen: &mut BTreeMap<&'static str, u32>, features: impl IntoIterator<Item = &'static str>) {
    for feature in features {
        *seen.entry(feature).or_default() += 1;
    }
}

pub(crate) fn more_often_than(times: u32, seen: &BTreeMap<&'static str, u32>) -> Vec<&'static str> {
    let often = seen.iter().filter(|(_, count)| **count > times);
    often.map(|(feature, _)| *feature).collect()
}

pub(crate) fn samples<S: Strategy>(strategy: &S) -> impl Iterator<Item = S::Value> {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RNG));
    (0..SAMPLES).map(move |_| {
        let tree = strategy.new_tree(&mut runner);
        tree.expect("strategies do not filter").current()
    })
}

/// Checks `law` on many values, and on every value that failed before.
pub(crate) fn for_all<S: Strategy>(values: S, law: impl Fn(S::Value))
where
    S::Value: Debug,
{
    search(Config::default(), values, law);
}

/// Like [`for_all`], with a third of the cases, for slow laws.
#[allow(dead_code, reason = "only the laws of the endpoint are slow")]
pub(crate) fn for_a_third<S: Strategy>(values: S, law: impl Fn(S::Value))
where
    S::Value: Debug,
{
    let config = Config::default();
    let cases = config.cases / 3;
    search(Config { cases, ..config }, values, law);
}

fn search<S: Strategy>(config: Config, values: S, law: impl Fn(S::Value))
where
    S::Value: Debug,
{
    const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/laws.proptest-regressions");
    let mut runner = TestRunner::new(Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        rng_algorithm: RNG,
        ..config
    });
    let result = runner.run(&values, |value| {
        law(value);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}\n{runner}");
    }
}
