//! The output: a table, TAP or JSON.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde_json::json;

use crate::{
    case::Case,
    judge::Mismatch,
    options::{Format, Options},
};

/// The result of a case.
pub(crate) enum Verdict {
    Passed,
    Failed(Mismatch),
    /// With the reason.
    Skipped(String),
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
        }
    }
}

/// A case with its result.
pub(crate) struct Row {
    name: String,
    section: String,
    expected: String,
    verdict: Verdict,
    took: Duration,
}

impl Row {
    pub(crate) fn new(case: &Case, verdict: Verdict, took: Duration) -> Self {
        Self {
            name: case.name.clone(),
            section: case.section.clone(),
            expected: case.expected.clone(),
            verdict,
            took,
        }
    }

    /// Returns the expected behaviour, in detail if the case has failed.
    fn expected(&self) -> &str {
        match &self.verdict {
            Verdict::Failed(mismatch) => &mismatch.expected,
            Verdict::Passed | Verdict::Skipped(_) => &self.expected,
        }
    }

    fn seen(&self) -> &str {
        match &self.verdict {
            Verdict::Passed => "the same",
            Verdict::Failed(mismatch) => &mismatch.seen,
            Verdict::Skipped(reason) => reason,
        }
    }
}

/// Prints results while the cases run.
pub(crate) struct Report {
    format: Format,
    /// The widths of the columns for names and sections.
    widths: (usize, usize),
    cases: usize,
    rows: Vec<Row>,
}

/// The width of the columns for expected and seen behaviour. Failures are printed in full after the table.
const COLUMN: usize = 48;

/// Prints a list of cases.
pub(crate) fn list(cases: &[Case]) -> io::Result<()> {
    let (names, sections) = widths(cases);
    let mut out = io::stdout().lock();
    for case in cases {
        let Case {
            name,
            section,
            expected,
            ..
        } = case;
        writeln!(out, "{name:names$}  {section:sections$}  {expected}")?;
    }
    Ok(())
}

fn widths(cases: &[Case]) -> (usize, usize) {
    let names = cases.iter().map(|case| case.name.len());
    let sections = cases.iter().map(|case| case.section.len());
    (
        names.max().unwrap_or(0).max("case".len()),
        sections.max().unwrap_or(0).max("section".len()),
    )
}

impl Report {
    pub(crate) fn new(options: &Options, cases: &[Case]) -> Self {
        Self {
            format: options.format,
            widths: widths(cases),
            cases: cases.len(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn begin(&self) -> io::Result<()> {
        match self.format {
            Format::Table => self.line("case", "section", "expected", "seen", "verdict"),
            Format::Tap => writeln!(io::stdout(), "TAP version 13\n1..{}", self.cases),
            Format::Json => Ok(()),
        }
    }

    pub(crate) fn add(&mut self, row: Row) -> io::Result<()> {
        let printed = match self.format {
            Format::Table => self.line(&row.name, &row.section, row.expected(), row.seen(), row.verdict.word()),
            Format::Tap => tap(self.rows.len() + 1, &row),
            Format::Json => Ok(()),
        };
        self.rows.push(row);
        printed
    }

    pub(crate) fn end(&self) -> io::Result<()> {
        let count = |word| self.rows.iter().filter(|row| row.verdict.word() == word).count();
        let (passed, failed, skipped) = (count("passed"), count("FAILED"), count("skipped"));
        let mut out = io::stdout().lock();
        match self.format {
            Format::Table => {
                for row in self.rows.iter().filter(|row| matches!(row.verdict, Verdict::Failed(_))) {
                    let (expected, seen) = (printable(row.expected()), printable(row.seen()));
                    writeln!(out, "\n{}\n  expected  {expected}\n  seen      {seen}", row.name)?;
                }
                writeln!(out, "\n{passed} passed, {failed} failed, {skipped} skipped")
            }
            Format::Tap => writeln!(out, "# {passed} passed, {failed} failed, {skipped} skipped"),
            Format::Json => {
                let cases: Vec<_> = self.rows.iter().map(json).collect();
                let report = json!({ "passed": passed, "failed": failed, "skipped": skipped, "cases": cases });
                writeln!(out, "{report:#}")
            }
        }
    }

    fn line(&self, case: &str, section: &str, expected: &str, seen: &str, verdict: &str) -> io::Result<()> {
        let (names, sections) = self.widths;
        let (expected, seen) = (short(expected), short(seen));
        writeln!(
            io::stdout(),
            "{case:names$}  {section:sections$}  {expected:COLUMN$}  {seen:COLUMN$}  {verdict}"
        )
    }
}

fn tap(number: usize, row: &Row) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Row { name, section, .. } = row;
    match &row.verdict {
        Verdict::Passed => writeln!(out, "ok {number} - {name} ({section})"),
        Verdict::Skipped(reason) => writeln!(out, "ok {number} - {name} ({section}) # SKIP {reason}"),
        Verdict::Failed(_) => {
            // A JSON string is a valid YAML string.
            let (expected, seen) = (json!(row.expected()), json!(row.seen()));
            writeln!(
                out,
                "not ok {number} - {name} ({section})\n  ---\n  expected: {expected}\n  seen: {seen}\n  ..."
            )
        }
    }
}

fn json(row: &Row) -> serde_json::Value {
    json!({
        "case": row.name,
        "section": row.section,
        "expected": row.expected(),
        "seen": row.seen(),
        "verdict": row.verdict.word().to_lowercase(),
        "seconds": row.took.as_secs_f64(),
    })
}

/// Truncates a text to the width of a column.
fn short(text: &str) -> String {
    let text = printable(text);
    if text.chars().count() <= COLUMN {
        return text;
    }
    text.chars().take(COLUMN - 1).chain(['…']).collect()
}

/// Escapes control characters, which a terminal would interpret.
fn printable(text: &str) -> String {
    let escape = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(escape).collect()
}
