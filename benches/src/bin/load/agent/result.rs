//! The result of an agent.

use serde_json::{Value, json};
use sigver_benches::error::Error;

use crate::{
    agent::protocol::{RESULT, unexpected},
    measure::metric::{Metric, Sample},
};

/// Named values, in the order of the report.
#[derive(Debug, Default)]
pub(crate) struct AgentResult(Vec<(String, f64)>);

impl AgentResult {
    pub(crate) fn push(&mut self, name: &str, number: f64) {
        self.0.push((name.to_owned(), number));
    }

    /// Removes and returns one value.
    pub(crate) fn take(&mut self, name: &str) -> Result<f64, Error> {
        let place = self.0.iter().position(|(other, _)| other == name);
        let place = place.ok_or_else(|| Error::new(format!("no {name:?} in result of agent")))?;
        Ok(self.0.remove(place).1)
    }

    /// Converts the values to metrics without ratios.
    pub(crate) fn into_sample(self) -> Sample {
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

pub(super) fn parse_result(line: &str) -> Result<AgentResult, Error> {
    let json = line.strip_prefix(RESULT).ok_or_else(|| unexpected(line))?;
    AgentResult::from_json(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_survives_serialization() {
        let mut result = AgentResult::default();
        result.push("b", 1.5);
        result.push("a \"quoted\"", 4_000.0);
        let line = format!("{RESULT}{}", result.to_json());
        let mut parsed = parse_result(&line).expect("a result");
        assert_eq!(parsed.take("b").expect("is there"), 1.5);
        parsed.take("b").expect_err("was taken");
        let sample = parsed.into_sample();
        assert_eq!((sample[0].name.as_str(), sample[0].value), ("a \"quoted\"", 4_000.0));
        parse_result("result [[1,2]]").expect_err("no name");
        parse_result("ready").expect_err("no result");
    }
}
