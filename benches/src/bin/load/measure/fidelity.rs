//! Whether payloads arrived, as figures and as a verdict.

use sigver_benches::{check::Tally, error::Error};

use crate::measure::metric::{Metric, Sample};

/// The counts of a tally, as figures.
pub(crate) fn figures(tally: &Tally) -> Sample {
    let figure = |(name, count)| Metric::absolute(name, count as f64);
    tally.named().map(figure).into()
}

/// An error if anything went wrong in any run.
pub(crate) fn verdict(unclean: u32) -> Result<(), Error> {
    if unclean == 0 {
        println!("clean: every payload arrived once, whole, in order, and nowhere else");
        return Ok(());
    }
    Err(Error::new(format!("not clean in {unclean} runs: see the counts above")))
}
