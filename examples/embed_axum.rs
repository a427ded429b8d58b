//! A signaling server with axum: [`Endpoint`] makes the decisions; axum and tokio provide sockets, tasks and timers.
//!
//! `cargo run --release --example embed_axum -- --listen 127.0.0.1:8000`
//!
//! It serves both dialects on every path, with keep-alive, rate limits, back-pressure, close codes and graceful shutdown. To add signaling to
//! an axum application, copy this file and route a path to `upgrade`. Set limits and intervals in [`EndpointConfig`].
//!
//! Each connection has one task, which reads and writes its WebSocket (`exchange`), and a queue of outputs for this task. `Server::call`
//! queues the outputs of a call under the lock that protected the call. If it released the lock first, another thread could queue later
//! outputs before them, and messages would change their order. The lock is never held across an `await`. A connection whose upgrade fails
//! after `connect` takes no role and is aborted after the role deadline.
//!
//! The server passes the conformance kit except for these cases:
//!
//! | case | reason |
//! |---|---|
//! | `head-without-one-host` | hyper accepts requests without a `Host` header |
//! | `head-over-every-limit` | hyper accepts request heads of more than 8 KiB |
//! | `half-a-head-and-silence` | `axum::serve` has no timeout for request heads; a reverse proxy has |
//! | `empty-pieces-without-end` | tungstenite does not limit the number of empty fragments of a message |

#![allow(clippy::print_stdout, reason = "prints the address, because port 0 is any port")]

use std::{collections::BTreeMap, error::Error, net::SocketAddr, sync::Mutex, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL};
use axum_tungstenite::{Error as WsError, error::ProtocolError};
use futures_util::future::{AbortHandle, Abortable};
use sigver_core::{CloseReason, ConnId, Dialect, Endpoint, EndpointConfig, Frame, Input, Output, Time};
use tokio::time::{Instant, sleep, sleep_until};
use tokio::{net::TcpListener, signal::unix, sync::mpsc};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let addr = std::env::args().skip_while(|arg| arg != "--listen").nth(1);
    let listener = TcpListener::bind(addr.as_deref().unwrap_or("127.0.0.1:8000")).await?;
    let mut sigterm = unix::signal(unix::SignalKind::terminate())?;
    println!("listening on {}", listener.local_addr()?);
    let endpoint = Endpoint::new(EndpointConfig::default(), || Some(rand::random()));
    let server: &Server = Box::leak(Box::new(Server(Mutex::new((endpoint, Tasks::new())), Instant::now())));
    let app = axum::Router::new().fallback(upgrade).with_state(server);
    // Small frames must not wait for one another.
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true)));
    tokio::spawn(axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).into_future());
    tokio::select! { () = server.run_timers() => {} _ = sigterm.recv() => {} _ = tokio::signal::ctrl_c() => {} }
    server.with(|(endpoint, _), now| endpoint.drain(now, now));
    server.run_timers().await;
    Ok(())
}

/// For each connection the queue of its task, and a handle that ends the task at once.
type Tasks = BTreeMap<ConnId, (mpsc::UnboundedSender<Output>, AbortHandle)>;

/// The state shared by all connections, and the epoch of the endpoint's time.
struct Server(Mutex<(Endpoint, Tasks)>, Instant);

impl Server {
    fn with<R>(&self, run: impl FnOnce(&mut (Endpoint, Tasks), Time) -> R) -> R {
        let mut shared = self.0.lock().expect("the endpoint does not panic");
        run(&mut shared, Time::from_duration(self.1.elapsed()))
    }

    /// Calls the endpoint and queues its outputs, under one lock.
    fn call(&self, call: impl FnOnce(&mut Endpoint, Time) -> Vec<(ConnId, Output)>) {
        self.with(|(endpoint, tasks), now| {
            for (id, output) in call(endpoint, now) {
                match output {
                    Output::Abort => drop(tasks.remove(&id).map(|(_, task)| task.abort())),
                    output => drop(tasks.get(&id).map(|(queue, _)| queue.send(output))), // Fails if the task has just ended.
                }
            }
        });
    }

    /// Calls the endpoint when a timeout is due, until every connection is closed after [`Endpoint::drain`].
    async fn run_timers(&self) {
        while !self.with(|(endpoint, _), _| endpoint.is_finished()) {
            self.call(Endpoint::handle_timeout);
            let due = self.with(|(endpoint, _), now| Some(endpoint.poll_timeout()?.saturating_duration_since(now)));
            // Other calls may bring a timeout forward, and this accepts a delay.
            sleep(due.unwrap_or(Duration::MAX).min(Duration::from_millis(100))).await;
        }
    }
}

/// Accepts a WebSocket, or rejects it with 400 or 503.
async fn upgrade(
    State(server): State<&'static Server>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    request: WebSocketUpgrade,
) -> Result<axum::response::Response, StatusCode> {
    let headers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offers = Dialect::parse_offers(headers.map(HeaderValue::as_bytes)).map_err(|_| StatusCode::BAD_REQUEST)?;
    let (dialect, echo) = Dialect::negotiate(offers);
    let (sender, queue) = mpsc::unbounded_channel();
    let (task, abort) = AbortHandle::new_pair();
    let id = server.with(|(endpoint, tasks), now| {
        let id = endpoint.connect(now, dialect, client.ip()).ok()?;
        tasks.insert(id, (sender, task));
        Some(id)
    });
    let id = id.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let request = request.protocols(echo.map(str::to_owned)).max_message_size(64 * 1024);
    Ok(request.on_upgrade(move |mut socket| async move {
        let _ = Abortable::new(exchange(server, id, &mut socket, queue), abort).await;
        // Before the socket is dropped: when a client sees its connection closed, its role must have ended.
        server.call(|endpoint, now| endpoint.handle(now, id, Input::Disconnected));
        server.with(|(_, tasks), _| tasks.remove(&id));
    }))
}

/// Sends what the endpoint returns for a connection and reports what arrives, until the connection is over.
async fn exchange(server: &Server, id: ConnId, socket: &mut WebSocket, mut queue: mpsc::UnboundedReceiver<Output>) {
    let (mut resume_at, mut is_stopped) = (Instant::now(), false);
    loop {
        tokio::select! {
            biased; // Answers are sent before the next message is read.
            Some(output) = queue.recv() => match output {
                Output::Send(frame) => {
                    let cost = frame.cost();
                    let _ = socket.send(message(frame)).await; // Reading reports a broken socket.
                    server.call(|endpoint, now| endpoint.written(now, id, cost));
                }
                Output::PauseReading(until) => resume_at = server.1 + until.as_duration(),
                Output::StopReading => is_stopped = true,
                Output::ResumeReading => is_stopped = false,
                _ => {}
            },
            received = async { sleep_until(resume_at).await; socket.recv().await }, if !is_stopped => {
                let input = match &received {
                    Some(Ok(Message::Text(text))) => Input::Text(text),
                    Some(Ok(Message::Binary(_))) => Input::Binary,
                    Some(Ok(Message::Ping(payload))) => Input::Ping(payload),
                    Some(Ok(Message::Pong(_))) => Input::Pong,
                    Some(Ok(Message::Close(frame))) => Input::Close(frame.as_ref().map(|frame| frame.code)),
                    Some(Err(error)) => Input::Violation(match error.source().and_then(|error| error.downcast_ref()) {
                        Some(WsError::Capacity(_)) => CloseReason::TooBig,
                        Some(WsError::Utf8(_)) => CloseReason::InvalidUtf8,
                        Some(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return,
                        Some(WsError::Protocol(_)) => CloseReason::BrokenFraming,
                        _ => return,
                    }),
                    None => return,
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
