//! The log: env_logger, a bounded queue, and a thread that writes lines to stderr in batches. Logging never blocks on stderr: if the queue
//! is full, lines are dropped and counted. Repeated warnings are limited, and messages of tungstenite that quote payloads are removed.

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

/// Capacity of the queue, in lines.
const QUEUE_CAPACITY: usize = 4096;

/// Time to collect lines before they are written together.
const BATCH_DELAY: Duration = Duration::from_millis(5);

/// Longest wait for stderr to accept the last lines at exit.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// Warnings and errors of one kind that are logged per [`WARNING_WINDOW`].
const WARNING_LIMIT: u32 = 5;

/// Period of the [`WARNING_LIMIT`].
const WARNING_WINDOW: Duration = Duration::from_secs(10);

/// Format of the log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Plain text
    Text,
    /// One JSON object per line
    Json,
}

/// Waits for the log to be written before the process exits.
pub(crate) struct Flush {
    counts: Arc<Counts>,
}

/// Numbers of lines since the start.
#[derive(Default)]
struct Counts {
    queued: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
}

/// Installs the logger and a panic hook that logs. `RUST_LOG` sets the level; the default is `info`.
pub(crate) fn start(format: Format) -> Flush {
    let counts = Arc::new(Counts::default());
    let (lines, queue) = sync_channel(QUEUE_CAPACITY);
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
        // Without the thread, logging may block on stderr.
        Err(_) => Target::Stderr,
    };
    let chosen = std::env::var("RUST_LOG").unwrap_or_default();
    let (valid, invalid) = directives(&chosen);
    // env_logger takes a word that is not a level, such as `warning`, for a module. Errors of other modules are logged anyway.
    let logger = logger(
        Builder::new().filter_level(LevelFilter::Error).parse_filters(&valid),
        format,
        target,
    );
    let level = logger.filter();
    // Fails only if a logger is installed already, and no other code installs one.
    if log::set_boxed_logger(Box::new(FilteringLogger {
        logger,
        limiter: WarningLimiter::default(),
    }))
    .is_ok()
    {
        log::set_max_level(level);
    }
    for word in invalid {
        log::error!("RUST_LOG: {word:?} is not a level and is ignored: expected error, warn, info, debug or off");
    }
    // The default hook writes to stderr directly, and its backtrace may overflow the small stack of a connection's thread.
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string().replace('\n', " ");
        log::error!("panicked: {}", text.strip_prefix("panicked ").unwrap_or(&text));
    }));
    Flush { counts }
}

/// Splits `RUST_LOG` into the directives that env_logger understands, `info` if there are none, and those that it does not. A directive is a
/// level, a module that can log, or `MODULE=LEVEL`.
fn directives(filters: &str) -> (String, Vec<&str>) {
    let (directives, text) = match filters.split_once('/') {
        Some((directives, text)) => (directives, Some(text)),
        None => (filters, None),
    };
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let is_module = |word: &str| ["sigver", "tungstenite"].iter().any(|name| word.starts_with(name));
    let (valid, invalid): (Vec<&str>, Vec<&str>) = directives
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .partition(|word| match word.split_once('=') {
            Some((_, level)) => is_level(level.trim()),
            None => is_level(word) || is_module(word),
        });
    let mut valid = if valid.is_empty() {
        "info".to_owned()
    } else {
        valid.join(",")
    };
    if let Some(text) = text {
        valid += &format!("/{text}");
    }
    (valid, invalid)
}

fn logger(builder: &mut Builder, format: Format, target: Target) -> Logger {
    if format == Format::Json {
        builder.format(write_json);
    }
    builder.target(target).write_style(WriteStyle::Never).build()
}

impl Flush {
    /// Waits until all lines are written, for at most [`FLUSH_TIMEOUT`].
    pub(crate) fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let is_pending = || self.counts.written.load(Ordering::SeqCst) < self.counts.queued.load(Ordering::SeqCst);
        while is_pending() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Writes lines to stderr until the process exits. Reports dropped lines with `direct`, which bypasses the queue.
fn write(queue: &Receiver<Vec<u8>>, counts: &Counts, direct: &Logger) {
    let mut stderr = io::stderr();
    while let Ok(mut lines) = queue.recv() {
        thread::sleep(BATCH_DELAY);
        let mut count = 1;
        for line in queue.try_iter().take(QUEUE_CAPACITY) {
            lines.extend(line);
            count += 1;
        }
        // A closed stderr must not stop the server.
        let _ = stderr.write_all(&lines);
        let dropped = counts.dropped.swap(0, Ordering::SeqCst);
        if dropped > 0 {
            direct.log(
                &Record::builder()
                    .level(Level::Warn)
                    .target(module_path!())
                    .args(format_args!("dropped {dropped} log lines: stderr is too slow"))
                    .build(),
            );
        }
        counts.written.fetch_add(count, Ordering::SeqCst);
    }
}

/// The writer of env_logger: sends each line to the thread, or drops it if the queue is full.
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

/// Writes a record as one JSON object: its time, level, target and message, then its key-value pairs.
fn write_json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let level = record.level().as_str().to_ascii_lowercase();
    let (target, message) = (Json::from(record.target()), Json::from(record.args().to_string()));
    let time = out.timestamp_millis();
    write!(
        out,
        r#"{{"time":"{time}","level":"{level}","target":{target},"message":{message}"#
    )?;
    // Fails only if writing fails, which `writeln!` reports.
    let _ = record.key_values().visit(&mut Members(out));
    writeln!(out, "}}")
}

/// Writes the key-value pairs of a record as further members of a JSON object.
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
        // NaN and infinity become null.
        Ok(write!(self.0, "{}", Json::from(value))?)
    }
}

/// Filters records before they reach env_logger. Removes messages of tungstenite below `warn`, which quote what clients send, whatever
/// `RUST_LOG` says, and limits repeated warnings.
struct FilteringLogger {
    logger: Logger,
    limiter: WarningLimiter,
}

impl Log for FilteringLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let quotes_clients = metadata.target().starts_with("tungstenite") && metadata.level() > LevelFilter::Warn;
        !quotes_clients && self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let suppressed = match (record.level(), record.file_static(), record.line()) {
            (Level::Error | Level::Warn, Some(file), Some(line)) => {
                let reason = record.key_values().get(Key::from_str("reason"));
                let kind = (file, line, reason.map(|reason| reason.to_string()));
                self.limiter.admit(kind, Instant::now())
            }
            _ => Some(0),
        };
        match suppressed {
            None => {}
            Some(0) => self.logger.log(record),
            Some(count) => self.logger.log(
                &record
                    .to_builder()
                    .args(format_args!("{} (and {count} similar since the last)", record.args()))
                    .build(),
            ),
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// Rate limiter of warnings and errors, per kind.
#[derive(Default)]
struct WarningLimiter(Mutex<BTreeMap<Kind, Window>>);

/// The line of the source that logs a warning, and its key-value pair `reason`, of which there are only a few.
type Kind = (&'static str, u32, Option<String>);

/// The warnings of one kind since the start of its window.
struct Window {
    start: Instant,
    count: u32,
}

impl WarningLimiter {
    /// Counts a warning. Returns the number of warnings suppressed in the previous window if this one may be logged.
    fn admit(&self, kind: Kind, now: Instant) -> Option<u32> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(kind).or_insert(Window { start: now, count: 0 });
        let mut suppressed = 0;
        if now.saturating_duration_since(window.start) >= WARNING_WINDOW {
            suppressed = window.count.saturating_sub(WARNING_LIMIT);
            *window = Window { start: now, count: 0 };
        }
        window.count = window.count.saturating_add(1);
        (window.count <= WARNING_LIMIT).then_some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directive_that_is_no_level_is_ignored() {
        for (filters, valid) in [
            ("", "info"),
            (" ", "info"),
            ("info", "info"),
            ("WARN", "WARN"),
            ("off", "off"),
            ("sigver_server=debug, warn", "sigver_server=debug,warn"),
            ("my_app=debug", "my_app=debug"),
            ("sigver_server::conn", "sigver_server::conn"),
            ("info/left", "info/left"),
        ] {
            assert_eq!(directives(filters), (valid.to_owned(), vec![]), "{filters:?}");
        }
        for (filters, valid, invalid) in [
            ("warning", "info", &["warning"][..]),
            ("warning, debug,verbose", "debug", &["warning", "verbose"]),
            ("sigver_server=dbug,warn", "warn", &["sigver_server=dbug"]),
            ("sigver_server=", "info", &["sigver_server="]),
            ("a=b=debug/text", "info/text", &["a=b=debug"]),
        ] {
            assert_eq!(directives(filters), (valid.to_owned(), invalid.to_vec()), "{filters:?}");
        }
    }

    #[test]
    fn repeated_warnings_are_suppressed_and_counted() {
        let (limiter, start) = (WarningLimiter::default(), Instant::now());
        let first = || ("a.rs", 1, None);
        let admitted: Vec<_> = (0..100).filter_map(|_| limiter.admit(first(), start)).collect();
        assert_eq!(admitted, [0; WARNING_LIMIT as usize]);
        for other in [("a.rs", 2, None), ("a.rs", 1, Some("a reason".to_owned()))] {
            assert_eq!(limiter.admit(other, start), Some(0), "each kind has its own limit");
        }
        let later = start + WARNING_WINDOW;
        assert_eq!(limiter.admit(first(), later), Some(100 - WARNING_LIMIT));
        assert_eq!(limiter.admit(first(), later), Some(0));
    }
}
