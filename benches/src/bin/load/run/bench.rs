//! The order of a comparison: every setting, round after round, each server in turn.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sigver_benches::{
    engine::Engine,
    error::{Context, Error},
    limits,
};

use crate::{
    measure::{
        metric::Sample,
        report::{self, Case, Column},
    },
    run::{
        affinity::Cores,
        options::Common,
        servers::{self, Candidate, Server},
        signals,
    },
};

/// One setting of a mode's load.
#[derive(Debug)]
pub(crate) struct Setting<T> {
    pub(crate) label: String,
    pub(crate) load: f64,
    pub(crate) value: T,
}

impl Setting<usize> {
    /// Settings that are nothing but a number of something.
    pub(crate) fn counts(counts: &[usize], unit: &str) -> Vec<Self> {
        let setting = |&count| Self {
            label: format!("{count} {unit}"),
            load: count as f64,
            value: count,
        };
        counts.iter().map(setting).collect()
    }
}

/// What a mode needs to measure one server once.
#[derive(Debug)]
pub(crate) struct Bench {
    common: Common,
    cores: Option<Cores>,
    candidates: Vec<Candidate>,
    stop: Arc<AtomicBool>,
}

impl Bench {
    pub(crate) fn new(common: Common) -> Result<Self, Error> {
        let _ = limits::raise_descriptors();
        let cores = if common.pinned() {
            let cores = Cores::choose()?;
            cores.enter_generator()?;
            Some(cores)
        } else {
            None
        };
        Ok(Self {
            candidates: servers::candidates(&common)?,
            common,
            cores,
            stop: signals::stop_on_signals()?,
        })
    }

    /// How long one measurement takes.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs_f64(self.common.seconds.max(0.01))
    }

    /// How long the load runs before it is measured.
    pub(crate) fn warm_up(&self) -> Duration {
        (self.time() / 4).min(Duration::from_millis(500))
    }

    /// Fails once a signal has come.
    pub(crate) fn go_on(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::new("interrupted"));
        }
        Ok(())
    }

    pub(crate) fn engine(&self, server: &Server) -> Result<Engine, Error> {
        Engine::new(&server.endpoint, Arc::clone(&self.stop)).context("cannot make an engine")
    }

    /// Measures all servers under all settings, and shows and writes what was found.
    pub(crate) fn run<T>(
        &self,
        mode: &str,
        settings: &[Setting<T>],
        mut measure: impl FnMut(&T, &Server) -> Result<Sample, Error>,
    ) -> Result<Vec<Case>, Error> {
        let mut cases = Vec::new();
        for setting in settings {
            let mut columns: Vec<Column> = self
                .candidates
                .iter()
                .map(|candidate| Column {
                    server: candidate.name.clone(),
                    rounds: Vec::new(),
                })
                .collect();
            for round in 1..=self.common.rounds {
                for (candidate, column) in self.candidates.iter().zip(&mut columns) {
                    self.go_on()?;
                    let sample = candidate
                        .start(self.cores, self.common.log.as_deref())
                        .and_then(|server| measure(&setting.value, &server))
                        .context(format!("{}, {}, round {round}", candidate.name, setting.label))?;
                    column.rounds.push(sample);
                }
            }
            let case = Case {
                label: setting.label.clone(),
                load: setting.load,
                columns,
            };
            self.show(mode, &case);
            cases.push(case);
        }
        if let Some(path) = &self.common.json {
            let pinned = self.cores.is_some();
            let json = report::json(mode, pinned, self.common.seconds, &cases);
            let text = serde_json::to_string_pretty(&json)?;
            fs::write(path, text + "\n").context(path.display())?;
        }
        Ok(cases)
    }

    fn show(&self, mode: &str, case: &Case) {
        let placed = if self.cores.is_some() { "pinned" } else { "not pinned" };
        let rounds = self.common.rounds;
        println!("{mode}, {}: median of {rounds}, {placed}", case.label);
        for line in case.table() {
            println!("  {line}");
        }
        println!();
    }
}
