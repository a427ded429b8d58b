//! The accept loop. A connection over the limit gets its response without a thread.

use std::{
    io, mem,
    sync::{Arc, mpsc::Sender},
    thread,
    time::{Duration, Instant},
};

use sigver_core::Source;

use crate::{
    access::{admissions::Admissions, client_ip, per_ip::PerIpLimits},
    admin,
    config::Config,
    conn::{self, Accepted, event::Event, peer::Peer, peer_addr::PeerAddr, registry::Registry},
    counters::Counters,
    lifecycle::{Lifecycle, Stage},
    overflow::Overflow,
    sys::{
        listener::{BACKLOG, Listener},
        poll,
        stream::{self, Stream},
        worker_pool::WorkerPool,
    },
    tuning::STACK,
};

/// How long accepting pauses when the process has no more file descriptors, threads or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// How long accepting must succeed until a shortage counts as over.
const RECOVERY_PERIOD: Duration = Duration::from_secs(1);

/// The most requests for metrics that are answered at the same time. More are closed without a response.
const MAX_SCRAPES: usize = 4;

/// What the accept loop shares with other threads.
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) per_ip: Arc<PerIpLimits>,
    pub(crate) admissions: Arc<Admissions<Peer>>,
    /// The most connections.
    pub(crate) connections: u32,
    pub(crate) conn: conn::Context,
    pub(crate) admin: Arc<admin::Context>,
}

/// Accepts until every connection was sent a close frame. While the server drains, a client still gets an HTTP response, unless another
/// server accepts from the same listeners.
pub(crate) fn run(listeners: &[Listener], admin: &[Listener], context: Context, events: &Sender<Event>) {
    let Context {
        config,
        lifecycle,
        counters,
        registry,
        per_ip,
        admissions,
        connections,
        conn,
        admin: admin_context,
    } = context;
    let pool = WorkerPool::new(move |accepted| conn::run(accepted, &conn));
    let mut acceptor = Acceptor {
        overflow: Overflow::new(&config, &counters, &lifecycle),
        config,
        lifecycle,
        registry,
        counters,
        per_ip,
        admissions,
        connections,
        admin: admin_context,
        events,
        pool: &pool,
        serial: 0,
        scrapes: Arc::default(),
        is_paused: false,
        exhausted: None,
    };
    let mut stage = Stage::Serving;
    while stage < Stage::Closed {
        acceptor.wait(listeners, admin);
        let before = mem::replace(&mut stage, acceptor.lifecycle.stage());
        if stage != before {
            let _ = events.send(Event::Wake);
        }
        for listener in listeners {
            acceptor.accept_all(listener);
        }
        for listener in admin {
            acceptor.accept_scrapes(listener);
        }
        acceptor.recover();
    }
    pool.shut_down();
}

struct Acceptor<'a> {
    config: Arc<Config>,
    lifecycle: Arc<Lifecycle>,
    registry: Arc<Registry>,
    counters: Arc<Counters>,
    per_ip: Arc<PerIpLimits>,
    admissions: Arc<Admissions<Peer>>,
    connections: u32,
    admin: Arc<admin::Context>,
    events: &'a Sender<Event>,
    pool: &'a Arc<WorkerPool<Accepted>>,
    serial: u64,
    /// Has one more reference for each request for metrics in progress.
    scrapes: Arc<()>,
    /// Whether accepting pauses for [`PAUSE`].
    is_paused: bool,
    /// When descriptors, threads or memory last ran out, until that is over.
    exhausted: Option<Instant>,
    overflow: Overflow,
}

impl Acceptor<'_> {
    /// Sleeps until there is a connection to accept, one over the limit to read from, or a reason to stop.
    fn wait(&mut self, listeners: &[Listener], admin: &[Listener]) {
        let is_accepting = self.lifecycle.is_accepting() && !self.is_paused;
        let clients = if is_accepting { listeners } else { &[] };
        let admin = if self.is_paused { &[] } else { admin };
        let mut fds: Vec<_> = clients.iter().chain(admin).map(poll::readable).collect();
        fds.push(poll::readable(self.lifecycle.waker().notifier()));
        fds.extend(self.overflow.poll_fds());
        let pause = self.is_paused.then_some(PAUSE);
        let recovery = self
            .exhausted
            .map(|since| RECOVERY_PERIOD.saturating_sub(since.elapsed()));
        let deadlines = [self.overflow.next_timeout(), self.admissions.next_check()];
        let deadline = deadlines.into_iter().flatten().min();
        let deadline = deadline.map(|until| until.saturating_duration_since(Instant::now()));
        let drain = self.lifecycle.drain_if_due(self.config.pre_stop_delay);
        let timeout = [pause, recovery, deadline, drain].into_iter().flatten().min();
        // After an error, checking every listener is always correct.
        let _ = poll::wait(&mut fds, timeout);
        self.lifecycle.waker().acknowledge();
        self.is_paused = false;
        self.overflow.run();
        self.reject_late_admissions();
        self.lifecycle.drain_if_due(self.config.pre_stop_delay);
    }

    /// Rejects clients whose admission takes too long. Their connections end when the admission returns.
    fn reject_late_admissions(&self) {
        for peer in self.admissions.take_late(Instant::now()) {
            if peer.claim_answer() {
                let _ = peer.reject(&self.counters, &"its admission takes too long");
            }
        }
    }

    /// Accepts waiting connections, at most a backlog at a time.
    fn accept_all(&mut self, listener: &Listener) {
        for _ in 0..BACKLOG {
            if !self.lifecycle.is_accepting() {
                return;
            }
            let Some((stream, addr)) = self.accept(listener) else {
                return;
            };
            self.start(stream, addr);
        }
    }

    /// Answers requests for metrics, each on its own thread, which lives a few seconds at most.
    fn accept_scrapes(&mut self, listener: &Listener) {
        for _ in 0..BACKLOG {
            let Some((stream, _)) = self.accept(listener) else {
                return;
            };
            if Arc::strong_count(&self.scrapes) > MAX_SCRAPES {
                continue;
            }
            let (context, scrape) = (Arc::clone(&self.admin), Arc::clone(&self.scrapes));
            let thread = thread::Builder::new()
                .name("sigver-admin".into())
                .stack_size(STACK)
                .spawn(move || {
                    let _scrape = scrape;
                    if let Err(error) = admin::serve(&stream, &context) {
                        log::debug!("cannot send metrics: {error}");
                    }
                });
            if let Err(error) = thread {
                self.pause("start a thread for metrics", &error);
            }
        }
    }

    /// Accepts the next waiting connection, if there is one.
    #[expect(clippy::wildcard_enum_match_arm, reason = "std's kinds of errors are many")]
    fn accept(&mut self, listener: &Listener) -> Option<(Stream, PeerAddr)> {
        loop {
            let error = match stream::accept(listener) {
                Ok(accepted) => return Some(accepted),
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::WouldBlock => return None,
                // The client left before it was accepted.
                io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                _ => {
                    self.pause("accept connections", &error);
                    return None;
                }
            }
        }
    }

    /// Pauses after a shortage of descriptors, threads or memory. The listener stays readable, so retrying at once would use a core. The
    /// shortage is logged once, until it is over.
    fn pause(&mut self, what: &str, error: &io::Error) {
        self.is_paused = true;
        if self.exhausted.replace(Instant::now()).is_none() {
            log::error!("cannot {what}: {error}");
        }
    }

    /// Ends a shortage that was not seen again for a while.
    fn recover(&mut self) {
        if self.exhausted.is_some_and(|since| since.elapsed() >= RECOVERY_PERIOD) {
            self.exhausted = None;
            log::info!("accepting again");
        }
    }

    /// Starts the thread of a connection, unless it is over a limit.
    fn start(&mut self, stream: Stream, addr: PeerAddr) {
        let peer = Arc::new(Peer::new(self.serial, addr, stream, self.config.endpoint.close_timeout));
        self.serial += 1;
        if self.registry.len() >= self.connections as usize {
            return self.overflow.push(peer, "too many connections".into());
        }
        // A trusted proxy has no limit: its clients acquire permits once their addresses are known.
        let ip = peer.addr.ip();
        let is_proxy = || client_ip::any_contains(&self.config.trusted_proxies, ip);
        let permit = if self.per_ip.are_limited() && !is_proxy() {
            match self.per_ip.acquire(Source::from(ip)) {
                Err(exceeded) => return self.overflow.push(peer, exceeded.to_string()),
                Ok(permit) => Some(permit),
            }
        } else {
            None
        };
        let accepted = Accepted {
            peer: Arc::clone(&peer),
            events: self.events.clone(),
            entry: self.registry.register(&peer),
            permit,
        };
        if let Err(error) = self.pool.execute(accepted) {
            self.pause("start a thread for a connection", &error);
            self.overflow.push(peer, "no thread available".into());
        }
    }
}
