//! Owns the process's log: env_logger, behind a bounded queue and a thread that writes to stderr. Whoever logs never waits for
//! stderr; what does not fit the queue is dropped and counted. Never lets tungstenite's messages through, which quote payloads.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use env_logger::{Builder, Env, Logger, Target};
use log::{LevelFilter, Log, Metadata, Record};

/// Lines that may wait for stderr.
const LINES: usize = 1024;

/// How long the end of the process waits for a stderr that does not take the last lines.
const PATIENCE: Duration = Duration::from_millis(200);

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
pub(crate) fn start() -> Flush {
    let counts = Arc::new(Counts::default());
    let (lines, queue) = sync_channel(LINES);
    let writer = Arc::clone(&counts);
    let thread = thread::Builder::new()
        .name("sigver-log".into())
        .spawn(move || write(&queue, &writer));
    let target = match thread {
        Ok(_) => Target::Pipe(Box::new(Queue {
            lines,
            counts: Arc::clone(&counts),
        })),
        // Better a log that may block than none.
        Err(_) => Target::Stderr,
    };
    let logger = Builder::from_env(Env::default().default_filter_or("info"))
        .target(target)
        .build();
    let level = logger.filter();
    // Fails only where a logger is installed, and this is the only place that installs one.
    if log::set_boxed_logger(Box::new(Discreet(logger))).is_ok() {
        log::set_max_level(level);
    }
    // The default hook writes to stderr itself, at a length that a small stack may not hold.
    std::panic::set_hook(Box::new(|panic| {
        log::error!("a bug: {}", panic.to_string().replace('\n', " "))
    }));
    Flush { counts }
}

impl Flush {
    /// Waits until all that was logged is written, or stderr has shown that it takes nothing.
    pub(crate) fn flush(&self) {
        let deadline = Instant::now() + PATIENCE;
        let is_behind = || self.counts.written.load(Ordering::SeqCst) < self.counts.queued.load(Ordering::SeqCst);
        while is_behind() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Writes lines to stderr until the process ends.
fn write(queue: &Receiver<Vec<u8>>, counts: &Counts) {
    let mut stderr = io::stderr();
    for line in queue {
        // A log that nobody can read is no reason to stop serving.
        let _ = stderr.write_all(&line);
        let dropped = counts.dropped.swap(0, Ordering::SeqCst);
        if dropped > 0 {
            let _ = writeln!(stderr, "sigver: stderr was too slow: {dropped} log lines are lost");
        }
        counts.written.fetch_add(1, Ordering::SeqCst);
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

/// env_logger, but for what tungstenite says below a warning, whatever `RUST_LOG` asks for: it quotes what clients sent.
struct Discreet(Logger);

impl Log for Discreet {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_quotation = metadata.target().starts_with("tungstenite") && metadata.level() > LevelFilter::Warn;
        !is_quotation && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}
