//! What an agent has found.

use serde_json::{Value, json};
use sigver_benches::error::Error;

use crate::{
    agent::protocol::{RESULT, unexpected},
    measure::metric::{Metric, Sample},
};

/// Named numbers that an agent has found, in the order in which they are shown.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<(String, f64)>);

impl Findings {
    pub(crate) fn add(&mut self, name: &str, number: f64) {
        self.0.push((name.to_owned(), number));
    }

    /// Takes out one number.
    pub(crate) fn take(&mut self, name: &str) -> Result<f64, Error> {
        let place = self.0.iter().position(|(other, _)| other == name);
        let place = place.ok_or_else(|| Error::new(format!("an agent did not say {name:?}")))?;
        Ok(self.0.remove(place).1)
    }

    /// The numbers as figures of which no ratio is taken.
    pub(crate) fn figures(self) -> Sample {
        self.0
            .into_iter()
            .map(|(name, number)| Metric::absolute(name, number))
            .collect()
    }

    pub(crate) fn to_json(&self) -> Value {
        json!(self.0)
    }

    fn from_json(json: &str) -> Result<Self, Error> {
        let pairs: Vec<Value> = serde_json::from_str(json)?;
        let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_f64()?));
        let numbers: Option<Vec<_>> = pairs.iter().map(pair).collect();
        numbers.map(Self).ok_or_else(|| unexpected(json))
    }
}

pub(super) fn parse_result(line: &str) -> Result<Findings, Error> {
    let json = line.strip_prefix(RESULT).ok_or_else(|| unexpected(line))?;
    Findings::from_json(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_cross_the_pipe() {
        let mut findings = Findings::default();
        findings.add("b", 1.5);
        findings.add("a \"quoted\"", 4_000.0);
        let line = format!("{RESULT}{}", findings.to_json());
        let mut again = parse_result(&line).expect("a result");
        assert_eq!(again.take("b").expect("is there"), 1.5);
        again.take("b").expect_err("was taken");
        let figures = again.figures();
        assert_eq!((figures[0].name.as_str(), figures[0].value), ("a \"quoted\"", 4_000.0));
        parse_result("result [[1,2]]").expect_err("no name");
        parse_result("ready").expect_err("no result");
    }
}
