//! A signaling server with axum: [`Endpoint`] makes the decisions; axum and tokio provide sockets, tasks and timers.
//!
//! `cargo run --release --example embed_axum -- --listen 127.0.0.1:8000`
//!
//! It serves both dialects on every path, with keep-alive, rate limits, back-pressure, close codes and graceful shutdown. To add signaling to
//! an axum application, copy this file and route a path to `upgrade`. Set limits and intervals in [`EndpointConfig`].
//!
//! Each connection has one task, which reads and writes its WebSocket (`exchange`), and a queue of outputs for this task. `Server::call`
//! queues the outputs of a call under the lock that protected the call. If it released the lock first, another thread could queue later
//! outputs before them, and messages would change their order. The lock is never held across an `await`.
//!
//! The server passes the conformance kit except for these cases:
//!
//! | case | reason |
//! |---|---|
//! | `head-without-one-host` | hyper accepts requests without a `Host` header |
//! | `head-over-every-limit` | hyper accepts request heads of more than 8 KiB |
//! | `half-a-head-and-silence` | `axum::serve` has no timeout for request heads; a reverse proxy has |
//! | `empty-pieces-without-end` | tungstenite does not limit the number of empty fragments of a message |

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "prints the address, because port 0 is any port")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{collections::BTreeMap, error::Error, net::SocketAddr, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL};
use axum::{Router, response::Response, serve::ListenerExt};
use axum_tungstenite::{Error as WsError, error::ProtocolError};
use futures_util::future::{AbortHandle, Abortable};
use sigver_core::{CloseReason, ConnId, Dialect, Endpoint, EndpointConfig, Frame, Input, Output, Time};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let addr = std::env::args().skip_while(|arg| arg != "--listen").nth(1);
    let listener = tokio::net::TcpListener::bind(addr.as_deref().unwrap_or("127.0.0.1:8000")).await?;
    let (mut sigint, mut sigterm) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    println!("listening on {}", listener.local_addr()?);

    let (endpoint, tasks) = (Endpoint::new(EndpointConfig::default(), random), BTreeMap::new());
    let server = Arc::new(Server {
        shared: Mutex::new(Shared { endpoint, tasks }),
        timeout_changed: Notify::new(),
        started: Instant::now(),
    });
    let app = Router::new().fallback(upgrade).with_state(Arc::clone(&server));
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
        // By default, the kernel buffers up to 4 MiB for a slow consumer.
        let _ = socket2::SockRef::from(&*stream).set_send_buffer_size(128 * 1024);
    });
    tokio::spawn(axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).into_future());
    tokio::select! {
        () = server.run_timers() => {}
        _ = sigint.recv() => {}
        _ = sigterm.recv() => {}
    }
    let now = server.now();
    server.lock().endpoint.drain(now, now);
    server.run_timers().await;
    Ok(())
}

/// What all connections share.
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

impl Server {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time::since_epoch(self.started.elapsed())
    }

    /// Calls the endpoint and queues its outputs, under one lock.
    fn call(&self, call: impl FnOnce(&mut Endpoint, Time) -> Vec<(ConnId, Output)>) {
        let Shared { endpoint, tasks } = &mut *self.lock();
        let timeout = endpoint.poll_timeout();
        for (id, output) in call(endpoint, self.now()) {
            match (tasks.get(&id), output) {
                (Some((_, task)), Output::Abort) => task.abort(),
                (Some((queue, _)), output) => drop(queue.send(output)), // Fails if the task has just ended.
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

    fn disconnect(&self, id: ConnId) {
        self.call(|endpoint, now| endpoint.handle(now, id, Input::Disconnected));
        self.lock().tasks.remove(&id);
    }
}

/// Accepts a WebSocket, or rejects it with 400 or 503.
async fn upgrade(
    State(server): State<Arc<Server>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    request: WebSocketUpgrade,
) -> Result<Response, StatusCode> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offers = Dialect::parse_offers(offers.map(HeaderValue::as_bytes)).map_err(|_| StatusCode::BAD_REQUEST)?;
    let (dialect, echo) = Dialect::negotiate(offers);

    let (sender, queue) = mpsc::unbounded_channel();
    let (task, abort) = AbortHandle::new_pair();
    let (id, limit) = {
        let Shared { endpoint, tasks } = &mut *server.lock();
        let connected = endpoint.connect(server.now(), dialect, client.ip());
        let id = connected.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        tasks.insert(id, (sender, task));
        (id, endpoint.config().limits.message_bytes as usize)
    };
    server.timeout_changed.notify_one();

    let request = request.protocols(echo.map(str::to_owned));
    let request = request.max_message_size(limit).max_frame_size(limit);
    let failed = Arc::clone(&server);
    let request = request.on_failed_upgrade(move |_| failed.disconnect(id));
    Ok(request.on_upgrade(move |socket| async move {
        let _ = Abortable::new(exchange(&server, id, socket, queue), abort).await;
        server.disconnect(id);
    }))
}

/// The outputs of a connection.
type Queue = mpsc::UnboundedReceiver<Output>;

/// Sends what the endpoint returns for a connection and reports what arrives. Returns `None` when the connection is over.
async fn exchange(server: &Server, id: ConnId, mut socket: WebSocket, mut queue: Queue) -> Option<()> {
    let mut resume_at = server.started;
    loop {
        tokio::select! {
            biased; // Answers are sent before the next message is read.
            output = queue.recv() => match output? {
                Output::Send(frame) => {
                    let cost = frame.cost();
                    let _ = socket.send(message(frame)).await; // Reading finds out whether the socket still works.
                    server.lock().endpoint.written(id, cost);
                }
                Output::PauseReading(until) => resume_at = server.started + until.elapsed(),
                _ => {}
            },
            received = async { sleep_until(resume_at).await; socket.recv().await } => {
                let received = received?;
                let input = match &received {
                    Ok(Message::Text(text)) => Input::Text(text),
                    Ok(Message::Binary(_)) => Input::Binary,
                    Ok(Message::Ping(payload)) => Input::Ping(payload),
                    Ok(Message::Pong(_)) => Input::Pong,
                    Ok(Message::Close(frame)) => Input::Close(frame.as_ref().map(|frame| frame.code)),
                    Err(error) => {
                        // axum reads nothing after an error, and `recv` returns `None`. Give the client time to read its close frame.
                        resume_at = Instant::now() + Duration::from_secs(1);
                        Input::Violation(violation(error)?)
                    }
                };
                server.call(|endpoint, now| endpoint.handle(now, id, input));
            }
        }
    }
}

/// Converts a frame. axum queues replies to pings and close frames itself. A pong replaces the queued one; a close reply is not sent twice.
fn message(frame: Frame) -> Message {
    match frame {
        Frame::Text(text) => Message::text(text),
        Frame::Ping => Message::Ping("".into()),
        Frame::Pong(payload) => Message::Pong(payload.into()),
        Frame::Close(reason) => {
            let (code, reason) = (reason.code(), reason.to_string().into());
            Message::Close(Some(CloseFrame { code, reason }))
        }
        Frame::CloseReply(_) => Message::Close(None),
    }
}

/// Returns the reason for closing a client after a read error; `None` if the socket is broken.
fn violation(error: &axum::Error) -> Option<CloseReason> {
    match error.source()?.downcast_ref()? {
        WsError::Capacity(_) => Some(CloseReason::TooBig),
        WsError::Utf8(_) => Some(CloseReason::InvalidUtf8),
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        WsError::Protocol(_) => Some(CloseReason::BrokenFraming),
        _ => None,
    }
}

/// Returns random bits for a key that the server makes.
fn random() -> Option<u128> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).ok().map(|()| u128::from_ne_bytes(bits))
}
