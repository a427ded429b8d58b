//! Runs a comparison: for each setting, several rounds, and in each round all servers in turn.

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
        options::CommonOptions,
        servers::{self, Protocol, Server, Target},
        signals,
    },
};

/// One load setting of a mode.
#[derive(Debug)]
pub(crate) struct Setting<T> {
    pub(crate) label: String,
    pub(crate) load: f64,
    pub(crate) value: T,
}

impl Setting<usize> {
    /// Returns settings that differ in a count only.
    pub(crate) fn counts(counts: &[usize], unit: &str) -> Vec<Self> {
        let setting = |&count| Self {
            label: format!("{count} {unit}"),
            load: count as f64,
            value: count,
        };
        counts.iter().map(setting).collect()
    }
}

/// The servers to compare and the options of the comparison.
#[derive(Debug)]
pub(crate) struct Bench {
    common: CommonOptions,
    cores: Option<Cores>,
    targets: Vec<Target>,
    stop: Arc<AtomicBool>,
}

impl Bench {
    /// Creates a comparison with the yardstick, without rate limits.
    pub(crate) fn new(common: CommonOptions) -> Result<Self, Error> {
        let targets = servers::targets(&common)?;
        Self::with_targets(common, targets)
    }

    pub(crate) fn with_targets(common: CommonOptions, targets: Vec<Target>) -> Result<Self, Error> {
        let _ = limits::raise_descriptor_limit();
        let cores = if common.is_pinned() {
            let cores = Cores::choose()?;
            cores.move_to_generator_core()?;
            Some(cores)
        } else {
            None
        };
        Ok(Self {
            targets,
            common,
            cores,
            stop: signals::stop_on_signals()?,
        })
    }

    /// Returns the duration of one measurement.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.common.seconds.max(0.01))
    }

    /// Returns how long the load runs before the measurement.
    pub(crate) fn warm_up(&self) -> Duration {
        (self.duration() / 4).min(Duration::from_millis(500))
    }

    /// Fails if a signal has been received.
    pub(crate) fn check_interrupted(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::new("interrupted"));
        }
        Ok(())
    }

    pub(crate) fn engine(&self, server: &Server) -> Result<Engine, Error> {
        if server.protocol != Protocol::Plain {
            return Err(Error::new("only `sessions` measures servers of other protocols"));
        }
        self.engine_of_any(server)
    }

    /// Creates an engine for a server of any protocol.
    pub(crate) fn engine_of_any(&self, server: &Server) -> Result<Engine, Error> {
        Engine::new(&server.endpoint, Arc::clone(&self.stop)).context("cannot create client engine")
    }

    /// Measures all servers with all settings, prints the tables and writes the JSON file.
    pub(crate) fn run<T>(
        &self,
        mode: &str,
        settings: &[Setting<T>],
        mut measure: impl FnMut(&T, &Server) -> Result<Sample, Error>,
    ) -> Result<Vec<Case>, Error> {
        let mut cases = Vec::new();
        for setting in settings {
            let mut columns: Vec<Column> = self
                .targets
                .iter()
                .map(|target| Column {
                    server: target.name.clone(),
                    rounds: Vec::new(),
                })
                .collect();
            for round in 1..=self.common.rounds {
                for (target, column) in self.targets.iter().zip(&mut columns) {
                    self.check_interrupted()?;
                    let sample = target
                        .start(self.cores, self.common.log.as_deref())
                        .and_then(|server| measure(&setting.value, &server))
                        .context(format!("{}, {}, round {round}", target.name, setting.label))?;
                    column.rounds.push(sample);
                }
            }
            let case = Case {
                label: setting.label.clone(),
                load: setting.load,
                columns,
            };
            self.print(mode, &case);
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

    fn print(&self, mode: &str, case: &Case) {
        let pinning = if self.cores.is_some() { "pinned" } else { "not pinned" };
        let rounds = self.common.rounds;
        println!("{mode}, {}: median of {rounds}, {pinning}", case.label);
        for line in case.table() {
            println!("  {line}");
        }
        println!();
    }
}
