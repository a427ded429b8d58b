//! `Server` and `Handle`: binds listeners, starts and joins the threads, and hands each thread what it shares with others.

use std::{
    fmt, io,
    net::SocketAddr,
    num::NonZeroU64,
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{Sender, SyncSender, channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use sigver_core::{ConnId, Stats};
use thiserror::Error;

use crate::{
    accept,
    access::{admissions::Admissions, per_ip::PerIpLimits},
    admin,
    config::Config,
    conn::{
        self,
        control::Controller,
        event::{Control, Event},
        peer::Peer,
        registry::Registry,
    },
    counters::Counters,
    events::{ConnectionId, ConnectionInfo, ServerEvent},
    lifecycle::{CloseOnDrop, Lifecycle, Stage},
    listen_addr::ListenAddr,
    memory::MemoryBound,
    relay::{self, Relay},
    sys::{clock::Clock, connection_limit::ConnectionLimit, listener::Listener, pipe::Pipe},
    write::{
        flusher::{self, FlushQueue},
        outbox::Flushed,
    },
};

/// How long clients may take to answer the close frame of a shutdown before their connections are aborted.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// How long the threads of aborted connections may take to end.
const ABORT_GRACE: Duration = Duration::from_millis(300);

/// A signaling server. It listens from [`bind`](Self::bind) on and accepts in [`run`](Self::run).
pub struct Server {
    listeners: Vec<Listener>,
    addrs: Vec<ListenAddr>,
    admin: Vec<Listener>,
    admin_addrs: Vec<SocketAddr>,
    config: Arc<Config>,
    limit: ConnectionLimit,
    memory: MemoryBound,
    events: Option<SyncSender<ServerEvent>>,
    handle: Handle,
}

/// Controls a server from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    lifecycle: Arc<Lifecycle>,
    counters: Arc<Counters>,
    registry: Arc<Registry>,
    admin: Arc<admin::Context>,
    controller: Arc<Controller>,
    pre_stop_delay: Duration,
}

/// The error of [`Server::bind`] and [`Server::with_listeners`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// [`Config::listen`] is empty, or there is no listener.
    #[error("no address to listen on")]
    NoAddress,
    /// The system rejects the address: it is in use, not local, or needs privileges; or a file has the path of a Unix socket.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: ListenAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The system rejects something else that every server needs.
    #[error("cannot set up: {0}")]
    System(#[from] io::Error),
}

/// The error of [`Server::run`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The relay thread panicked, which is a bug. Every connection was aborted.
    #[error("the relay thread has failed")]
    Relay,
    /// The flusher thread panicked, which is a bug. Every connection was aborted.
    #[error("the flusher thread has failed")]
    Flusher,
    /// A thread that every server needs cannot be started, or its pipe cannot be created.
    #[error("cannot start: {0}")]
    Thread(#[from] io::Error),
}

impl Server {
    /// Listens on every address of `config`. Connections wait in the kernel until [`run`](Self::run) is called.
    ///
    /// # Errors
    ///
    /// The system rejects one of the addresses, or there is none. No address is then listened on.
    pub fn bind(config: Config) -> Result<Self, BindError> {
        if config.listen.is_empty() {
            return Err(BindError::NoAddress);
        }
        let listeners = listen_on(&config.listen, config.socket_mode)?;
        Self::set_up(config, listeners, false)
    }

    /// Serves on existing listeners, TCP or Unix sockets, for example those of a service manager. They stay open when this server ends. [`Config::listen`] is
    /// ignored.
    ///
    /// After [`Handle::shutdown`], the server accepts no connection from them and closes those it has with 1001. New clients wait in the
    /// kernel for the next server on the same listeners, so a restart rejects no client. Handshakes in progress, including a blocked
    /// [`Admission`](crate::Admission), delay the end by up to [`Config::handshake_timeout`].
    ///
    /// ```
    /// use std::{net::TcpListener, thread};
    /// use sigver_server::{Config, Server};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// for _ in 0..2 {
    ///     let server = Server::with_listeners(Config::default(), [listener.try_clone()?])?;
    ///     let handle = server.handle();
    ///     let running = thread::spawn(|| server.run());
    ///     handle.shutdown(); // clients that connect now wait for the next server
    ///     running.join().expect("it does not panic")?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// There are no listeners, or one is not a listening TCP or Unix stream socket.
    pub fn with_listeners<L: Into<OwnedFd>>(
        config: Config,
        listeners: impl IntoIterator<Item = L>,
    ) -> Result<Self, BindError> {
        let inherit = |listener: L| Listener::inherit(listener.into());
        let listeners: Vec<_> = listeners.into_iter().map(inherit).collect::<Result<_, _>>()?;
        if listeners.is_empty() {
            return Err(BindError::NoAddress);
        }
        Self::set_up(config, listeners, true)
    }

    fn set_up(mut config: Config, listeners: Vec<Listener>, has_successor: bool) -> Result<Self, BindError> {
        let admin_addrs: Vec<ListenAddr> = config.admin.iter().copied().map(ListenAddr::Tcp).collect();
        let admin = listen_on(&admin_addrs, config.socket_mode)?;
        let limit = ConnectionLimit::of(&config);
        let memory = MemoryBound::of(&config, limit.connections());
        config.endpoint.backlog_total_bytes = NonZeroU64::new(memory.backlogs);
        let counters = Arc::<Counters>::default();
        let registry = Arc::<Registry>::default();
        let context = admin::Context {
            head_limits: config.head_limits(),
            counters: Arc::clone(&counters),
            registry: Arc::clone(&registry),
            connections: limit.connections(),
            backlogs: memory.backlogs,
            started: SystemTime::now(),
        };
        Ok(Self {
            addrs: listeners.iter().map(|listener| listener.addr().clone()).collect(),
            admin_addrs: admin.iter().filter_map(|listener| listener.addr().tcp()).collect(),
            listeners,
            admin,
            limit,
            memory,
            // The relay alone gets it, so that the channel ends with the server.
            events: config.events.take(),
            handle: Handle {
                controller: Arc::default(),
                pre_stop_delay: config.pre_stop_delay,
                lifecycle: Arc::new(Lifecycle::new(Pipe::new()?, has_successor)),
                counters,
                registry,
                admin: Arc::new(context),
            },
            config: Arc::new(config),
        })
    }

    /// Returns the first TCP address that the server listens on, with its actual port. `None` if it listens on Unix sockets only.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addrs.iter().find_map(ListenAddr::tcp)
    }

    /// Returns all addresses that the server listens on, in the order of [`Config::listen`], with their actual ports.
    pub fn local_addrs(&self) -> &[ListenAddr] {
        &self.addrs
    }

    /// Returns the addresses that serve `/metrics`, in the order of [`Config::admin`].
    pub fn admin_addrs(&self) -> &[SocketAddr] {
        &self.admin_addrs
    }

    /// Returns the upper bound of the server's memory.
    pub fn memory_bound(&self) -> MemoryBound {
        self.memory
    }

    /// Returns a handle to control this server.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Accepts on this thread and serves until [`Handle::shutdown`]. Returns when every client was sent a close frame with 1001, and has
    /// answered it or was aborted: within a second after the last close frame. It does not wait for an [`Admission`](crate::Admission) that
    /// blocks: the client is disconnected, and the thread ends when the admission returns.
    ///
    /// # Errors
    ///
    /// A thread cannot be started, or one that every server needs has failed.
    pub fn run(mut self) -> Result<(), RunError> {
        for addr in &self.admin_addrs {
            log::info!("metrics at http://{addr}/metrics");
        }
        let level = if self.limit.is_lower_than_configured(&self.config) {
            log::Level::Warn
        } else {
            log::Level::Info
        };
        log::log!(level, "up to {}", self.limit);
        log::info!("{}", self.memory);
        if let Some(warning) = self.memory.warning() {
            log::warn!("{warning}");
        }
        let clock = Clock::new();
        let flush_queue = Arc::new(FlushQueue::new(Pipe::new()?));
        let (events, inbox) = channel();
        let Handle {
            lifecycle, registry, ..
        } = self.handle();
        let guard = CloseOnDrop(Arc::clone(&lifecycle));
        let flusher = flusher::start(&flush_queue, flush_and_report(events.clone()), guard)?;
        let relay_context = self.relay_context(clock, &flush_queue);
        let server_events = self.events.take();
        let accept_context = self.accept_context(clock);
        let relay = thread::Builder::new().name("sigver-relay".into()).spawn(move || {
            let _guard = CloseOnDrop(lifecycle);
            Relay::new(relay_context, server_events).run(&inbox);
        });
        let relay = relay.inspect_err(|_| flush_queue.stop())?;
        self.handle.controller.set_channel(Some(events.clone()));

        accept::run(&self.listeners, &self.admin, accept_context, &events);
        drop((self.listeners, self.admin));
        if !registry.wait_empty(SHUTDOWN_GRACE) {
            registry.abort_all();
            if !registry.wait_empty(ABORT_GRACE) {
                log::warn!("{} connections have not ended yet", registry.len());
            }
        }
        flush_queue.stop();
        let flushed = flusher.join();
        // Connections that have not ended still have a sender. If the relay has failed, there is no receiver.
        let _ = events.send(Event::End);
        let outcome = relay.join();
        self.handle.controller.set_channel(None);
        log::info!("ended");
        outcome.map_err(|_| RunError::Relay)?;
        flushed.map_err(|_| RunError::Flusher)
    }

    fn relay_context(&self, clock: Clock, flush_queue: &Arc<FlushQueue<Arc<Peer>>>) -> relay::Context {
        let Handle {
            lifecycle,
            counters,
            registry,
            ..
        } = self.handle();
        relay::Context {
            config: Arc::clone(&self.config),
            connections: self.limit.connections(),
            lifecycle,
            counters,
            registry,
            flush_queue: Arc::clone(flush_queue),
            clock,
        }
    }

    fn accept_context(&self, clock: Clock) -> accept::Context {
        let Handle {
            lifecycle,
            counters,
            registry,
            admin,
            ..
        } = self.handle();
        let config = Arc::clone(&self.config);
        let per_ip = Arc::new(PerIpLimits::new(config.connections_per_ip, config.handshakes_per_ip));
        let admissions = Arc::new(Admissions::new(config.admission_timeout));
        accept::Context {
            admin,
            conn: conn::Context {
                config: Arc::clone(&config),
                lifecycle: Arc::clone(&lifecycle),
                counters: Arc::clone(&counters),
                per_ip: Arc::clone(&per_ip),
                admissions: Arc::clone(&admissions),
                clock,
            },
            config,
            lifecycle,
            counters,
            registry,
            per_ip,
            admissions,
            connections: self.limit.connections(),
        }
    }
}

/// Returns what the flusher does with a connection: it flushes the backlog and reports the written bytes to the relay.
fn flush_and_report(events: Sender<Event>) -> impl Fn(&Arc<Peer>) -> Flushed {
    move |peer| {
        let flushed = peer.flush();
        if flushed.cost > 0 && peer.record_written(flushed.cost) {
            // Without a relay the server is ending, and nothing is counted.
            let _ = events.send(Event::Written(Arc::clone(peer)));
        }
        flushed
    }
}

/// Listens on all of `addrs`.
fn listen_on(addrs: &[ListenAddr], socket_mode: u32) -> Result<Vec<Listener>, BindError> {
    let listen = |addr: &ListenAddr| {
        Listener::bind(addr, socket_mode).map_err(|source| BindError::Listen {
            addr: addr.clone(),
            source,
        })
    };
    addrs.iter().map(listen).collect()
}

impl Handle {
    /// Begins a graceful shutdown: no further client is accepted, and all are closed with 1001, one after the other over
    /// [`EndpointConfig::drain`](sigver_core::EndpointConfig::drain), openers last. Then [`Server::run`] returns.
    ///
    /// This begins after [`Config::pre_stop_delay`]. A second call ends the delay; after the delay it changes nothing.
    pub fn shutdown(&self) {
        self.lifecycle.shut_down(self.pre_stop_delay);
    }

    /// Closes all remaining clients with 1001 at once. May follow a [`shutdown`](Self::shutdown) that takes too long.
    pub fn shutdown_now(&self) {
        self.lifecycle.advance(Stage::Closing);
    }

    /// Returns the hub's gauges and counters. They lag by up to 10 ms.
    pub fn stats(&self) -> Stats {
        self.counters.relay().endpoint.hub
    }

    /// Returns the open connections: those that a client could use now. Without a running server, there are none.
    ///
    /// The relay thread lists them, between two messages: about a millisecond for 5,000 connections.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.controller
            .ask(|answer| Control::List { answer })
            .unwrap_or_default()
    }

    /// Closes a connection with 4005. If it is an opener, its key is free when this returns, and its joiners are notified as after every end
    /// of an opener. Returns whether the connection was open.
    ///
    /// This and the other requests to the relay thread wait for its answer, which it gives between two messages. Do not call them from an
    /// [`IceProvider`](crate::IceProvider), which that thread calls.
    pub fn close(&self, connection: ConnectionId) -> bool {
        self.request(connection, |id, answer| Control::Close { id, answer })
    }

    /// Removes a joiner from its key, as if its opener had kicked it: in `sigver.v1`, it receives `closed` with `kicked` and stays connected;
    /// in the plain dialect, it is closed with 4003. Returns whether the connection was a joiner.
    pub fn kick(&self, connection: ConnectionId) -> bool {
        self.request(connection, |id, answer| Control::Kick { id, answer })
    }

    /// Frees a key: [closes](Self::close) the connection that has it open, or ends its reservation for an opener that lost its connection.
    /// Clients that wait for the key go on waiting. Returns whether the key was open or reserved.
    pub fn close_key(&self, key: &str) -> bool {
        let key = key.to_owned();
        self.controller
            .ask(|answer| Control::CloseKey { key, answer })
            .unwrap_or_default()
    }

    fn request(&self, connection: ConnectionId, request: impl FnOnce(ConnId, SyncSender<bool>) -> Control) -> bool {
        let id = self.registry.id(connection.get());
        id.and_then(|id| self.controller.ask(|answer| request(id, answer)))
            .unwrap_or_default()
    }

    /// Returns the number of connections that have a thread: upgraded, in their handshake, or closing.
    pub fn connection_count(&self) -> usize {
        self.registry.len()
    }

    /// Returns the metrics as text in the OpenMetrics 1.0 format: what [`Config::admin`] serves at `/metrics`, for embedders that serve it
    /// on a port of their own. Its media type is `application/openmetrics-text; version=1.0.0; charset=utf-8`.
    pub fn metrics(&self) -> String {
        admin::metrics(&self.admin)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
