//! Owns the whole: which threads there are, how they start and how they end. Never touches a frame or a role.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
        mpsc::sync_channel,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use sigver_core::{Stats, Time};
use thiserror::Error;

use crate::{
    Config, MemoryBound, accept,
    access::client_ip::Shares,
    conn::peer::Peer,
    conn::registry::Registry,
    counters::{Answers, Figures},
    http::response::Answer,
    relay::Relay,
    sync::waker::{Pipe, Waker},
    sys::connection_limit::Ceiling,
    write::flusher::{self, Handover},
    write::outbox::Sent,
};

/// Events that fit the channel into the relay. Each connection may have a few on their way, so this many connections can speak at
/// the same moment before one has to wait for the relay.
pub(crate) const CHANNEL: usize = 1024;

/// How long clients have to answer the close frame of a shutdown before they are cut.
const GOODBYE: Duration = Duration::from_millis(500);

/// How long the threads of connections that were cut may take to end.
const CUT: Duration = Duration::from_millis(300);

/// A signaling server that listens, and serves once it [`run`](Self::run)s.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    addrs: Vec<SocketAddr>,
    admin: Vec<TcpListener>,
    admin_addrs: Vec<SocketAddr>,
    shared: Arc<Shared>,
}

/// Ends a server from another thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// Why a server cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// [`Config::listen`] is empty, or there is no listener.
    #[error("no address to listen on")]
    NoAddress,
    /// The system refuses the address: it is taken, not ours, or needs privileges.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system refuses something else that every server needs.
    #[error("cannot set up: {0}")]
    System(#[from] io::Error),
}

/// Why a server has ended without being asked to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The thread that owns the hub has panicked: a bug. Every connection has been cut.
    #[error("the relay thread has failed")]
    Relay,
    /// The thread for clients that do not read has panicked: a bug. Every connection has been cut.
    #[error("the flusher thread has failed")]
    Flusher,
    /// A thread that every server needs cannot be started, or has nothing to be woken with.
    #[error("cannot start: {0}")]
    Thread(#[from] io::Error),
}

/// What all threads of a server know.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) ceiling: Ceiling,
    pub(crate) registry: Arc<Registry>,
    /// Wakes the accepting thread.
    pub(crate) waker: Waker,
    pub(crate) shares: Arc<Shares>,
    /// Whether the listeners stay when the server ends, for another to take from.
    pub(crate) has_successor: bool,
    pub(crate) started: SystemTime,
    /// The epoch of the endpoint's time.
    epoch: Instant,
    /// A [`Stage`].
    stage: AtomicU8,
    figures: Mutex<Figures>,
    answers: Mutex<Answers>,
}

/// How far a server has come. It never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    Serving,
    /// It takes no further client, and closes those that it has one after the other.
    Draining,
    /// It closes all that are left, at once.
    Closing,
    /// All are closed, and some may not have gone yet.
    Closed,
}

impl Server {
    /// Listens on every address of `config`. Connections wait in the kernel until [`run`](Self::run) is called.
    ///
    /// # Errors
    ///
    /// When one of the addresses cannot be had; then none is.
    pub fn bind(config: Config) -> Result<Self, BindError> {
        if config.listen.is_empty() {
            return Err(BindError::NoAddress);
        }
        let (listeners, addrs) = listen_on(&config.listen)?;
        Self::set_up(config, listeners, addrs, false)
    }

    /// Serves on listeners that are there already, and stay when this server ends: those of a service manager, say. [`Config::listen`] is
    /// not looked at. From the moment that the server is told to end it takes nobody from them any more, and turns nobody away that it has
    /// taken: clients wait in the kernel for whoever accepts next, so one server can follow another without a client seeing a refusal.
    ///
    /// ```
    /// use std::{net::TcpListener, thread};
    /// use sigver_server::{Config, Server};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// for _ in 0..2 {
    ///     let server = Server::with_listeners(Config::default(), vec![listener.try_clone()?])?;
    ///     let handle = server.handle();
    ///     let running = thread::spawn(|| server.run());
    ///     handle.shutdown(); // clients that come now are the next server's
    ///     running.join().expect("it does not panic")?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there are none, or one is not a listener of TCP.
    pub fn with_listeners(config: Config, listeners: Vec<TcpListener>) -> Result<Self, BindError> {
        if listeners.is_empty() {
            return Err(BindError::NoAddress);
        }
        for listener in &listeners {
            accept::prepare(listener)?;
        }
        let addrs = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<_, _>>()?;
        Self::set_up(config, listeners, addrs, true)
    }

    fn set_up(
        config: Config,
        listeners: Vec<TcpListener>,
        addrs: Vec<SocketAddr>,
        has_successor: bool,
    ) -> Result<Self, BindError> {
        let (admin, admin_addrs) = listen_on(&config.admin)?;
        let ceiling = config.ceiling();
        let shares = Arc::new(Shares::new(config.connections_per_ip, config.handshakes_per_ip));
        let shared = Shared {
            config,
            ceiling,
            registry: Arc::new(Registry::default()),
            waker: Waker::new(Pipe::new()?),
            shares,
            has_successor,
            started: SystemTime::now(),
            epoch: Instant::now(),
            stage: AtomicU8::new(Stage::Serving as u8),
            figures: Mutex::new(Figures::default()),
            answers: Mutex::new(Answers::default()),
        };
        Ok(Self {
            listeners,
            addrs,
            admin,
            admin_addrs,
            shared: Arc::new(shared),
        })
    }

    /// The first address that the server listens on, with the port that it got.
    pub fn local_addr(&self) -> SocketAddr {
        // `bind` refuses an empty list.
        self.addrs[0]
    }

    /// All addresses that the server listens on, in the order of [`Config::listen`].
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// The addresses that serve `/metrics`, in the order of [`Config::admin`].
    pub fn admin_addrs(&self) -> &[SocketAddr] {
        &self.admin_addrs
    }

    /// The most memory that this server takes.
    pub fn memory_bound(&self) -> MemoryBound {
        self.shared.memory_bound()
    }

    /// A handle that ends this server.
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Serves until [`Handle::shutdown`]; this thread does the accepting. Returns when every client has been sent a close frame
    /// with 1001, and has answered it or been cut: within a second of the last.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started, or one that every server needs has failed. The process is left alone either way.
    pub fn run(self) -> Result<(), RunError> {
        let Self {
            listeners,
            admin,
            admin_addrs,
            shared,
            ..
        } = self;
        for addr in &admin_addrs {
            log::info!("metrics at http://{addr}/metrics");
        }
        log::info!("up to {}", shared.ceiling);
        log::info!("{}", shared.memory_bound());
        let flusher = Arc::new(Handover::new(Pipe::new()?));
        let (events, inbox) = sync_channel(CHANNEL);
        let flusher_thread = flusher::start(&flusher, events.clone(), ClosedOnDrop(Arc::clone(&shared)))?;
        let relay = {
            let (shared, flusher) = (Arc::clone(&shared), Arc::clone(&flusher));
            thread::Builder::new().name("sigver-relay".into()).spawn(move || {
                let _guard = ClosedOnDrop(Arc::clone(&shared));
                Relay::new(shared, flusher).run(&inbox);
            })
        };
        let relay = relay.inspect_err(|_| flusher.stop())?;

        accept::run(&listeners, &admin, &shared, &events);
        drop((listeners, admin));
        if !shared.registry.wait_empty(GOODBYE) {
            shared.registry.cut_all();
            if !shared.registry.wait_empty(CUT) {
                log::warn!("{} connections are still ending", shared.registry.len());
            }
        }
        // Nobody is left to write to. The relay ends when the flusher has let go of the channel as well.
        flusher.stop();
        let flushed = flusher_thread.join();
        drop(events);
        let outcome = relay.join();
        log::info!("ended");
        outcome.map_err(|_| RunError::Relay)?;
        flushed.map_err(|_| RunError::Flusher)
    }
}

/// Listens on all of `addrs`; the listeners, and the addresses with the ports that they got.
fn listen_on(addrs: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), BindError> {
    let listen = |addr: &SocketAddr| accept::bind(*addr).map_err(|source| BindError::Listen { addr: *addr, source });
    let listeners = addrs.iter().map(listen).collect::<Result<Vec<_>, _>>()?;
    let got = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?;
    Ok((listeners, got))
}

impl Handle {
    /// Ends the server: no further client is taken, those that are there are closed with 1001, one after the other over
    /// [`EndpointConfig::drain`](sigver_core::EndpointConfig::drain), openers last, and [`Server::run`] returns. Calling it again changes nothing.
    pub fn shutdown(&self) {
        self.shared.advance(Stage::Draining);
    }

    /// Ends the server without spreading anything: everyone who is left is closed with 1001 at once. May follow a
    /// [`shutdown`](Self::shutdown) that takes too long.
    pub fn shutdown_now(&self) {
        self.shared.advance(Stage::Closing);
    }

    /// The hub's gauges and counters, as of the last message.
    pub fn stats(&self) -> Stats {
        self.shared.figures().counters.hub
    }

    /// How many connections have a thread: upgraded, in their handshake, or on their way out.
    pub fn connections(&self) -> usize {
        self.shared.registry.len()
    }
}

impl Shared {
    /// The endpoint's time.
    pub(crate) fn now(&self) -> Time {
        Time::since_epoch(self.epoch.elapsed())
    }

    /// How far the server has come.
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            stage if stage == Stage::Serving as u8 => Stage::Serving,
            stage if stage == Stage::Draining as u8 => Stage::Draining,
            stage if stage == Stage::Closing as u8 => Stage::Closing,
            _ => Stage::Closed,
        }
    }

    /// The server comes to this stage, unless it is further already. The accepting thread learns of it, and tells the relay.
    pub(crate) fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Whether no further client is let in by a handshake.
    pub(crate) fn is_ending(&self) -> bool {
        self.stage() > Stage::Serving
    }

    /// Whether clients are taken from the listeners. Without a successor they get an answer as long as there is anyone to give it.
    pub(crate) fn is_accepting(&self) -> bool {
        let last = if self.has_successor {
            Stage::Serving
        } else {
            Stage::Closing
        };
        self.stage() <= last
    }

    fn memory_bound(&self) -> MemoryBound {
        MemoryBound::of(&self.config, self.ceiling.connections)
    }

    /// The relay makes its figures known.
    pub(crate) fn publish(&self, figures: &Figures) {
        self.figures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(figures);
    }

    /// What the relay has counted, as of the last message.
    pub(crate) fn figures(&self) -> Figures {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request was answered otherwise than by an upgrade.
    pub(crate) fn count_answer(&self, answer: &Answer) {
        self.answers().add(answer);
    }

    /// Refuses a client whose request is not answered by its own thread: tells the log, and sends it an answer.
    pub(crate) fn turn_away(&self, peer: &Peer, why: &dyn fmt::Display) -> Sent {
        peer.log_refusal(why);
        self.count_answer(&Answer::UNAVAILABLE);
        peer.finish(&Answer::UNAVAILABLE.to_bytes())
    }

    /// How often requests were refused, by their status.
    pub(crate) fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Ends the server with a thread that it cannot do without, also when that panics.
struct ClosedOnDrop(Arc<Shared>);

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        self.0.advance(Stage::Closed);
    }
}
