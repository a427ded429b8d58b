//! Reports: a table and JSON with medians over rounds and ratios between servers.
//!
//! Ratios are taken within each round, and the median is taken of these ratios. Noise that lasts longer than a round
//! cancels out.

use serde_json::{Map, Value, json};

use crate::measure::{metric::Sample, procfs};

/// The rounds of one server.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) server: String,
    pub(crate) rounds: Vec<Sample>,
}

/// One load setting, measured on all servers. The others are compared with the first column.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) label: String,
    /// The setting as a number, for the x axis of a plot.
    pub(crate) load: f64,
    pub(crate) columns: Vec<Column>,
}

impl Column {
    fn median(&self, name: &str) -> Option<f64> {
        median(self.rounds.iter().filter_map(|round| value(round, name)))
    }

    /// Returns the median of the ratios of the rounds.
    fn ratio(&self, to: &Self, name: &str) -> Option<f64> {
        let rounds = self.rounds.iter().zip(&to.rounds);
        let ratios = rounds.filter_map(|(mine, theirs)| {
            let (mine, theirs) = (value(mine, name)?, value(theirs, name)?);
            (theirs > 0.0).then(|| mine / theirs)
        });
        median(ratios)
    }
}

impl Case {
    /// Returns the names of all metrics, with whether they can be compared.
    fn metrics(&self) -> Vec<(&str, bool)> {
        let mut metrics: Vec<(&str, bool)> = Vec::new();
        let samples = self.columns.iter().filter_map(|column| column.rounds.first());
        for metric in samples.flatten() {
            if !metrics.iter().any(|(name, _)| *name == metric.name) {
                metrics.push((&metric.name, metric.comparable));
            }
        }
        metrics
    }

    /// Returns the lines of the table.
    pub(crate) fn table(&self) -> Vec<String> {
        let Some((first, others)) = self.columns.split_first() else {
            return Vec::new();
        };
        let mut head = vec![String::new(), first.server.clone()];
        for (place, other) in others.iter().enumerate() {
            head.push(other.server.clone());
            head.push(format!("× {}", first.server));
            if place > 0 {
                head.push(format!("{} × {}", others[0].server, other.server));
            }
        }
        let mut rows = vec![head];
        for (name, comparable) in self.metrics() {
            let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), format_value);
            let ratio = |mine: &Column, theirs: &Column| {
                let ratio = mine.ratio(theirs, name).filter(|_| comparable);
                ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))
            };
            let mut row = vec![name.to_owned(), cell(first.median(name))];
            for (place, other) in others.iter().enumerate() {
                row.push(cell(other.median(name)));
                row.push(ratio(other, first));
                if place > 0 {
                    row.push(ratio(&others[0], other));
                }
            }
            rows.push(row);
        }
        align(&rows)
    }

    fn json(&self) -> Value {
        let object = |of: &dyn Fn(&str) -> Option<f64>| {
            let named = self
                .metrics()
                .into_iter()
                .filter_map(|(name, _)| Some((name.to_owned(), json!(of(name)?))));
            Value::Object(named.collect())
        };
        let servers: Vec<Value> = self
            .columns
            .iter()
            .map(|column| {
                let rounds: Vec<Value> = column.rounds.iter().map(sample_json).collect();
                let first = self.columns.first();
                json!({
                    "server": column.server,
                    "median": object(&|name| column.median(name)),
                    "ratio": object(&|name| column.ratio(first?, name)),
                    "rounds": rounds,
                })
            })
            .collect();
        json!({ "label": self.label, "load": self.load, "servers": servers })
    }
}

/// Returns all results of a run, with a description of the machine.
pub(crate) fn json(mode: &str, pinned: bool, seconds: f64, cases: &[Case]) -> Value {
    let (processor, kernel) = procfs::machine_info();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "mode": mode,
        "pinned": pinned,
        "seconds": seconds,
        "machine": { "processor": processor, "cores": cores, "kernel": kernel },
        "cases": cases.iter().map(Case::json).collect::<Vec<_>>(),
    })
}

fn sample_json(sample: &Sample) -> Value {
    let named = sample.iter().map(|metric| (metric.name.clone(), json!(metric.value)));
    Value::Object(named.collect::<Map<_, _>>())
}

fn value(sample: &Sample, name: &str) -> Option<f64> {
    let metric = sample.iter().find(|metric| metric.name == name)?;
    Some(metric.value)
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Formats a value with three significant digits, or with all digits before the point.
fn format_value(value: f64) -> String {
    let places = match value.abs() {
        0.0 => 0,
        at_least if at_least >= 100.0 => 0,
        at_least if at_least >= 10.0 => 1,
        at_least if at_least >= 0.1 => 2,
        _ => 4,
    };
    let plain = format!("{value:.places$}");
    let (whole, fraction) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        let left = whole.len() - place;
        if place > 0 && left % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

fn align(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 {
                line.push_str(&format!("{cell:width$}"));
            } else {
                line.push_str(&format!("  {cell:>width$}"));
            }
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::metric::Metric;

    fn column(server: &str, values: &[f64]) -> Column {
        let rounds = values.iter().map(|&value| vec![Metric::new("CPU, µs", value)]);
        Column {
            server: server.to_owned(),
            rounds: rounds.collect(),
        }
    }

    #[test]
    fn median_of_odd_and_even_counts() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
    }

    #[test]
    fn ratio_is_median_of_ratios_within_rounds() {
        let yardstick = column("yardstick", &[10.0, 100.0, 10.0]);
        let server = column("sigver", &[20.0, 200.0, 30.0]);
        assert_eq!(server.median("CPU, µs"), Some(30.0));
        assert_eq!(server.ratio(&yardstick, "CPU, µs"), Some(2.0));
        assert_eq!(server.ratio(&yardstick, "unknown"), None);
    }

    #[test]
    fn table_is_aligned_with_gaps_for_missing_values() {
        let mut columns = vec![
            column("yardstick", &[10.0]),
            column("sigver", &[15.0]),
            column("other", &[30_000.0]),
        ];
        columns[1].rounds[0].push(Metric::absolute("busy, %", 99.0));
        let case = Case {
            label: String::new(),
            load: 1.0,
            columns,
        };
        assert_eq!(
            case.table(),
            [
                "         yardstick  sigver  × yardstick   other  × yardstick  sigver × other",
                "CPU, µs       10.0    15.0         1.50  30,000      3000.00            0.00",
                "busy, %          -    99.0                    -",
            ]
        );
    }

    #[test]
    fn values_have_three_significant_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.0123, "0.0123"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1_234_567.0, "1,234,567"),
            (-867.0, "-867"),
            (-123_456.0, "-123,456"),
        ] {
            assert_eq!(format_value(value), text);
        }
    }
}
