//! A signaling server with tokio and tokio-tungstenite: [`Endpoint`] makes the decisions; this file provides sockets, tasks and timers.
//!
//! `cargo run --release --example embed_tokio -- --listen 127.0.0.1:8000`
//!
//! It serves both dialects with keep-alive, rate limits, back-pressure, close codes and graceful shutdown. It accepts WebSockets itself, with
//! `handshake.rs`; if an HTTP server does that for you, start from `embed_axum.rs`.
//!
//! Each connection has one task, which reads and writes its socket, and a queue of outputs for this task. `Server::call` queues the outputs
//! of a call under the lock that protected the call. If it released the lock first, another thread could queue later outputs before them,
//! and messages would change their order. The lock is never held across an `await`.
//!
//! The server passes the conformance kit except for `empty-pieces-without-end`: tungstenite does not limit the number of empty fragments of a
//! message.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "prints the address, because port 0 is any port")]

use std::{
    collections::BTreeMap,
    error::Error,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    SinkExt, StreamExt,
    future::{AbortHandle, AbortRegistration, Abortable},
};
use sigver_core::{CloseReason, ConnId, Dialect, Endpoint, EndpointConfig, Frame, Input, Limits, Output, Time};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use handshake::{Head, Refusal};

mod handshake;

/// The time until a request head has to be complete.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The time that a rejected client has to read the response.
const REJECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after `accept` failed, because of too many open files for example.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The kernel's buffer for each client. By default it grows to 4 MiB for a slow consumer.
const SEND_BUFFER: usize = 128 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let addr = std::env::args().skip_while(|arg| arg != "--listen").nth(1);
    let listener = TcpListener::bind(addr.as_deref().unwrap_or("127.0.0.1:8000")).await?;
    let shutdown = shutdown_signal()?;
    println!("listening on {}", listener.local_addr()?);

    let server = Arc::new(Server::new());
    tokio::select! {
        () = accept(&server, listener) => {}
        () = server.run_timers() => {}
        () = shutdown => {}
    }
    let now = server.now();
    server.lock().endpoint.drain(now, now);
    server.run_timers().await;
    Ok(())
}

/// Completes on SIGINT or SIGTERM.
fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut sigterm = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = sigterm.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    })
}

async fn accept(server: &Arc<Server>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => drop(tokio::spawn(serve(Arc::clone(server), stream, client))),
            Err(error) => {
                eprintln!("cannot accept: {error}");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// The state shared by all connections.
struct Server {
    shared: Mutex<Shared>,
    /// Notified when [`Endpoint::poll_timeout`] has changed.
    timeout_changed: Notify,
    started: Instant,
}

struct Shared {
    endpoint: Endpoint,
    /// For each connection the queue of its task and a handle that ends the task at once.
    tasks: BTreeMap<ConnId, (mpsc::UnboundedSender<Output>, AbortHandle)>,
}

/// The parts of a connection that its task needs.
struct Conn {
    id: ConnId,
    outputs: mpsc::UnboundedReceiver<Output>,
    abort: AbortRegistration,
}

impl Server {
    fn new() -> Self {
        Self {
            shared: Mutex::new(Shared {
                endpoint: Endpoint::new(EndpointConfig::default(), random),
                tasks: BTreeMap::new(),
            }),
            timeout_changed: Notify::new(),
            started: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time::from_duration(self.started.elapsed())
    }

    /// Accepts a connection. Returns `None` if there are too many or the server is shutting down.
    fn connect(&self, dialect: Dialect, client: SocketAddr) -> Option<Conn> {
        let Shared { endpoint, tasks } = &mut *self.lock();
        let id = endpoint.connect(self.now(), dialect, client.ip()).ok()?;
        let (sender, outputs) = mpsc::unbounded_channel();
        let (task, abort) = AbortHandle::new_pair();
        tasks.insert(id, (sender, task));
        self.timeout_changed.notify_one();
        Some(Conn { id, outputs, abort })
    }

    fn disconnect(&self, id: ConnId) {
        self.call(|endpoint, now| endpoint.handle(now, id, Input::Disconnected));
        self.lock().tasks.remove(&id);
    }

    /// Calls the endpoint and queues its outputs, under one lock.
    fn call(&self, call: impl FnOnce(&mut Endpoint, Time) -> Vec<(ConnId, Output)>) {
        let Shared { endpoint, tasks } = &mut *self.lock();
        let timeout = endpoint.poll_timeout();
        for (id, output) in call(endpoint, self.now()) {
            match (tasks.get(&id), output) {
                (Some((_, task)), Output::Abort) => task.abort(),
                (Some((outputs, _)), output) => drop(outputs.send(output)), // Fails if the task has just ended.
                (None, _) => {}
            }
        }
        if endpoint.poll_timeout() != timeout {
            self.timeout_changed.notify_one();
        }
    }

    /// Calls the endpoint when a timeout is due, until every connection is closed after [`Endpoint::drain`].
    async fn run_timers(&self) {
        while !self.lock().endpoint.is_finished() {
            self.call(Endpoint::handle_timeout);
            let due = self.lock().endpoint.poll_timeout();
            let wait = due.map_or(Duration::MAX, |due| due.saturating_duration_since(self.now()));
            let _ = timeout(wait, self.timeout_changed.notified()).await;
        }
    }
}

/// Serves a client until its connection is closed.
async fn serve(server: Arc<Server>, stream: TcpStream, client: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    if let Some((mut socket, conn)) = upgrade(&server, stream, client).await {
        let id = conn.id;
        let _ = Abortable::new(exchange(&server, id, &mut socket, conn.outputs), conn.abort).await;
        // Before the socket is dropped: when a client sees its connection closed, its key must be free.
        server.disconnect(id);
    }
}

/// Accepts a WebSocket or rejects the request.
async fn upgrade(
    server: &Server,
    mut stream: TcpStream,
    client: SocketAddr,
) -> Option<(WebSocketStream<TcpStream>, Conn)> {
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let mut bytes = Vec::with_capacity(1024);
    let rejection = loop {
        let known = bytes.len();
        match timeout_at(deadline, stream.read_buf(&mut bytes)).await {
            Err(_) => break Refusal::TooSlow,
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return None,
        }
        match handshake::read(&bytes, known) {
            Head::Partial => {}
            Head::Refused(rejection) => break rejection,
            Head::Upgrade {
                length,
                dialect,
                response,
            } => {
                let Some(conn) = server.connect(dialect, client) else {
                    break Refusal::Unavailable;
                };
                if !matches!(timeout_at(deadline, stream.write_all(&response)).await, Ok(Ok(()))) {
                    server.disconnect(conn.id);
                    return None;
                }
                // Some clients send their first messages with the request.
                let rest = bytes.split_off(length);
                let limit = Some(Limits::default().message_bytes as usize);
                let config = WebSocketConfig::default().max_message_size(limit).max_frame_size(limit);
                let socket = WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(config)).await;
                return Some((socket, conn));
            }
        }
    };
    let _ = timeout(REJECT_TIMEOUT, async {
        if stream.write_all(&rejection.to_bytes()).await.is_ok() {
            finish(&mut stream).await;
        }
    })
    .await;
    None
}

/// Sends what the endpoint returns for a connection and reports what arrives. Returns `None` when the connection is over.
async fn exchange(
    server: &Server,
    id: ConnId,
    socket: &mut WebSocketStream<TcpStream>,
    mut outputs: mpsc::UnboundedReceiver<Output>,
) -> Option<()> {
    let (mut resume_at, mut is_stopped, mut is_broken) = (server.started, false, false);
    loop {
        tokio::select! {
            biased; // Answers are sent before the next message is read.
            output = outputs.recv() => match output? {
                Output::Send(frame) => {
                    let (cost, is_last) = (frame.cost(), matches!(frame, Frame::Close(_)));
                    let _ = socket.send(message(frame)).await; // Reading reports a broken socket.
                    server.call(|endpoint, now| endpoint.written(now, id, cost));
                    if is_last && is_broken {
                        finish(socket.get_mut()).await;
                        return None;
                    }
                }
                Output::PauseReading(until) => resume_at = server.started + until.as_duration(),
                Output::StopReading => is_stopped = true,
                Output::ResumeReading => is_stopped = false,
                _ => {}
            },
            received = async { sleep_until(resume_at).await; socket.next().await }, if !is_broken && !is_stopped => {
                let received = received?;
                is_broken = received.is_err();
                let input = match &received {
                    Ok(Message::Text(text)) => Input::Text(text),
                    Ok(Message::Binary(_)) => Input::Binary,
                    Ok(Message::Ping(payload)) => Input::Ping(payload),
                    Ok(Message::Pong(_) | Message::Frame(_)) => Input::Pong,
                    Ok(Message::Close(frame)) => Input::Close(frame.as_ref().map(|frame| frame.code.into())),
                    Err(error) => Input::Violation(violation(error)?),
                };
                server.call(|endpoint, now| endpoint.handle(now, id, input));
            }
        }
    }
}

/// Converts a frame. tungstenite queues replies to pings and close frames itself. A pong replaces the queued one; a close reply is not sent
/// twice.
fn message(frame: Frame) -> Message {
    match frame {
        Frame::Text(text) => Message::text(text),
        Frame::Ping => Message::Ping("".into()),
        Frame::Pong(payload) => Message::Pong(payload.into()),
        Frame::Close(reason) => Message::Close(Some(CloseFrame {
            code: reason.code().into(),
            reason: reason.to_string().into(),
        })),
        Frame::CloseReply(_) => Message::Close(None),
    }
}

/// Returns the reason for closing a client after a read error; `None` if the socket is broken.
fn violation(error: &WsError) -> Option<CloseReason> {
    match error {
        WsError::Capacity(_) => Some(CloseReason::TooBig),
        WsError::Utf8(_) => Some(CloseReason::InvalidUtf8),
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        WsError::Protocol(_) => Some(CloseReason::BrokenFraming),
        _ => None,
    }
}

/// Ends the sending direction and discards what arrives until the client closes the socket. If a socket is closed with unread bytes, the
/// client may lose the last bytes that it was sent.
async fn finish(stream: &mut TcpStream) {
    let _ = stream.shutdown().await;
    let mut discarded = [0; 1024];
    while let Ok(1..) = stream.read(&mut discarded).await {}
}

/// Returns random bits for a generated key.
fn random() -> Option<u128> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).ok().map(|()| u128::from_ne_bytes(bits))
}
