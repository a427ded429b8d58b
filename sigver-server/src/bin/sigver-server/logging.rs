//! Owns the process's log: env_logger, behind a bounded queue and a thread that writes to stderr, several lines at once. Whoever logs never
//! waits for stderr; what does not fit the queue is dropped and counted, and a warning that comes again and again is left out. Never lets
//! tungstenite's messages through, which quote payloads.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use env_logger::{Builder, Logger, Target, WriteStyle, fmt::Formatter};
use log::{
    Level, LevelFilter, Log, Metadata, Record,
    kv::{self, Key, Value, VisitSource, VisitValue},
};
use serde_json::Value as Json;

/// Lines that may wait for stderr.
const LINES: usize = 4096;

/// How long a line waits for others to be written with.
const BATCH_DELAY: Duration = Duration::from_millis(5);

/// How long the end of the process waits for a stderr that does not take the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// So many warnings from one place of the program are let through in so long a time.
const WARNINGS: u32 = 5;
const WINDOW: Duration = Duration::from_secs(10);

/// What the lines of the log look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs: a JSON object a line
    Json,
}

/// How the end of the process waits for the log.
pub(crate) struct Flush {
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    queued: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
}

/// Starts logging. `RUST_LOG` chooses what; without it, `info` and worse.
pub(crate) fn start(format: Format) -> Flush {
    let counts = Arc::new(Counts::default());
    let (lines, queue) = sync_channel(LINES);
    let writer = Arc::clone(&counts);
    let direct = logger(Builder::new().filter_level(LevelFilter::Warn), format, Target::Stderr);
    let thread = thread::Builder::new()
        .name("sigver-log".into())
        .spawn(move || write(&queue, &writer, &direct));
    let target = match thread {
        Ok(_) => Target::Pipe(Box::new(Queue {
            lines,
            counts: Arc::clone(&counts),
        })),
        // Better a log that may block than none.
        Err(_) => Target::Stderr,
    };
    let chosen = std::env::var("RUST_LOG").unwrap_or_default();
    let chosen = if chosen.trim().is_empty() { "info" } else { &chosen };
    // What names no level, such as `warning`, names a module to env_logger: errors are not lost to that.
    let logger = logger(
        Builder::new().filter_level(LevelFilter::Error).parse_filters(chosen),
        format,
        target,
    );
    let level = logger.filter();
    // Fails only where a logger is installed, and this is the only place that installs one.
    if log::set_boxed_logger(Box::new(Discreet {
        logger,
        floods: Floods::default(),
    }))
    .is_ok()
    {
        log::set_max_level(level);
    }
    // The default hook writes to stderr itself, at a length that a small stack may not hold.
    std::panic::set_hook(Box::new(|panic| {
        log::error!("a bug: {}", panic.to_string().replace('\n', " "))
    }));
    Flush { counts }
}

fn logger(builder: &mut Builder, format: Format, target: Target) -> Logger {
    if format == Format::Json {
        builder.format(write_json);
    }
    builder.target(target).write_style(WriteStyle::Never).build()
}

impl Flush {
    /// Waits until all that was logged is written, or stderr has shown that it takes nothing.
    pub(crate) fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let is_behind = || self.counts.written.load(Ordering::SeqCst) < self.counts.queued.load(Ordering::SeqCst);
        while is_behind() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Writes lines to stderr until the process ends; those that are lost are told of by `direct`, which has no queue.
fn write(queue: &Receiver<Vec<u8>>, counts: &Counts, direct: &Logger) {
    let mut stderr = io::stderr();
    while let Ok(mut lines) = queue.recv() {
        thread::sleep(BATCH_DELAY);
        let mut count = 1;
        for line in queue.try_iter().take(LINES) {
            lines.extend(line);
            count += 1;
        }
        // A log that nobody can read is no reason to stop serving.
        let _ = stderr.write_all(&lines);
        let dropped = counts.dropped.swap(0, Ordering::SeqCst);
        if dropped > 0 {
            direct.log(
                &Record::builder()
                    .level(Level::Warn)
                    .target(module_path!())
                    .args(format_args!(
                        "{dropped} log lines are lost: stderr did not take them in time"
                    ))
                    .build(),
            );
        }
        counts.written.fetch_add(count, Ordering::SeqCst);
    }
}

/// Where env_logger writes to.
struct Queue {
    lines: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let count = match self.lines.try_send(line.to_vec()) {
            Ok(()) => &self.counts.queued,
            Err(_) => &self.counts.dropped,
        };
        count.fetch_add(1, Ordering::SeqCst);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line: the usual members, and those that the record brings along.
fn write_json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let level = record.level().as_str().to_ascii_lowercase();
    let (target, message) = (Json::from(record.target()), Json::from(record.args().to_string()));
    let time = out.timestamp_millis();
    write!(
        out,
        r#"{{"time":"{time}","level":"{level}","target":{target},"message":{message}"#
    )?;
    // It fails only where the writing does.
    let _ = record.key_values().visit(&mut Members(out));
    writeln!(out, "}}")
}

/// Writes what a record brings along as members of an object that has some already.
struct Members<'a>(&'a mut Formatter);

impl<'kvs> VisitSource<'kvs> for Members<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        write!(self.0, ",{}:", Json::from(key.as_str()))?;
        value.visit(self)
    }
}

impl<'v> VisitValue<'v> for Members<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        Ok(write!(self.0, "{}", Json::from(value.to_string()))?)
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        Ok(write!(self.0, "null")?)
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        Ok(write!(self.0, "{value}")?)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        // What is no number of JSON becomes null.
        Ok(write!(self.0, "{}", Json::from(value))?)
    }
}

/// env_logger, but for what tungstenite says below a warning, whatever `RUST_LOG` asks for: it quotes what clients sent. And but for
/// warnings that come in floods.
struct Discreet {
    logger: Logger,
    floods: Floods,
}

impl Log for Discreet {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_quotation = metadata.target().starts_with("tungstenite") && metadata.level() > LevelFilter::Warn;
        !is_quotation && self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let left_out = match (record.level(), record.file_static(), record.line()) {
            (Level::Error | Level::Warn, Some(file), Some(line)) => self.floods.count((file, line), Instant::now()),
            _ => Some(0),
        };
        match left_out {
            None => {}
            Some(0) => self.logger.log(record),
            Some(count) => self.logger.log(
                &record
                    .to_builder()
                    .args(format_args!("{} ({count} like it were left out)", record.args()))
                    .build(),
            ),
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// Warnings by the place in the program that they come from.
#[derive(Default)]
struct Floods(Mutex<BTreeMap<(&'static str, u32), Flood>>);

struct Flood {
    since: Instant,
    count: u32,
}

impl Floods {
    /// A warning comes from `place`. If it may pass, how many before it might not and were not told of.
    fn count(&self, place: (&'static str, u32), now: Instant) -> Option<u32> {
        let mut floods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let flood = floods.entry(place).or_insert(Flood { since: now, count: 0 });
        let mut left_out = 0;
        if now.saturating_duration_since(flood.since) >= WINDOW {
            left_out = flood.count.saturating_sub(WARNINGS);
            *flood = Flood { since: now, count: 0 };
        }
        flood.count = flood.count.saturating_add(1);
        (flood.count <= WARNINGS).then_some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_warnings_is_counted_and_told_of_in_one() {
        let (floods, start) = (Floods::default(), Instant::now());
        let (here, there) = (("a.rs", 1), ("a.rs", 2));
        let passed: Vec<_> = (0..100).filter_map(|_| floods.count(here, start)).collect();
        assert_eq!(passed, [0; WARNINGS as usize]);
        assert_eq!(floods.count(there, start), Some(0), "another place has its own");
        let later = start + WINDOW;
        assert_eq!(floods.count(here, later), Some(100 - WARNINGS));
        assert_eq!(floods.count(here, later), Some(0));
    }
}
