//! The core in a tokio server, with tokio-tungstenite: both dialects, every close code, back-pressure, keep-alive, a graceful end. To
//! start from where a runtime is there already.
//!
//! `cargo run --release --example embed_tokio -- --listen 127.0.0.1:8000`
//!
//! It passes the conformance kit but for one thing: a message in endlessly many empty pieces is read for ever, by its sender's task. Where
//! a server of HTTP is there already, axum or hyper, let that shake hands, and begin with what it has upgraded.
//!
//! One task for each connection reads and writes its socket. They share the [`World`], a hub and a queue to each connection, behind
//! a lock that is never held across an `await`: the hub neither waits nor sends, so a step of it is a matter of microseconds.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is how whoever starts it learns of the port")]

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use sigver_core::{CloseReason, ConnId, Dialect, Encoded, Hub, Limits, OutboundMessage, Time};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, interval_at, sleep, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use handshake::{Head, Refusal};

mod handshake;

/// For a request head to be whole.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// From one ping to the next; a client that leaves two without a sign of life is closed.
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// For a client that was closed to take what is on its way, and go.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that wait for a client that does not read; with more it is closed.
const BACKLOG_BYTES: usize = 1024 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let addr = std::env::args().skip_while(|arg| arg != "--listen").nth(1);
    let listener = TcpListener::bind(addr.as_deref().unwrap_or("127.0.0.1:8000")).await?;
    println!("listening on {}", listener.local_addr()?);

    let world = World::new(Limits::default());
    let deadlines = tokio::spawn(watch_deadlines(Arc::clone(&world)));
    let mut connections = JoinSet::new();
    let ended = told_to_end()?;
    tokio::pin!(ended);
    loop {
        tokio::select! {
            () = &mut ended => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(serve(stream, Arc::clone(&world))); }
                // Out of descriptors, say: those that are there go on, and free some.
                Err(error) => {
                    eprintln!("cannot accept: {error}");
                    sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    World::lock(&world).shutdown();
    while connections.join_next().await.is_some() {}
    deadlines.abort();
    Ok(())
}

/// Completes when the process is told to end.
fn told_to_end() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    })
}

/// What all connections share.
struct World {
    hub: Hub,
    peers: BTreeMap<ConnId, Peer>,
    epoch: Instant,
}

/// A connection as the others see it. Dropping it tells the connection's task that the hub knows it no more.
struct Peer {
    dialect: Dialect,
    frames: mpsc::UnboundedSender<Frame>,
    /// Bytes in `frames`.
    backlog: Arc<AtomicUsize>,
    _alive: oneshot::Sender<()>,
}

/// What a connection's task is to send.
enum Frame {
    Text(String),
    /// The last.
    Close(CloseReason),
}

/// A connection's own end of its [`Peer`].
struct Mailbox {
    id: ConnId,
    frames: mpsc::UnboundedReceiver<Frame>,
    backlog: Arc<AtomicUsize>,
    closed: oneshot::Receiver<()>,
}

impl World {
    fn new(limits: Limits) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            hub: Hub::new(limits),
            peers: BTreeMap::new(),
            epoch: Instant::now(),
        }))
    }

    /// A step that has panicked is a bug, and no reason to take everyone else down.
    fn lock(world: &Mutex<Self>) -> MutexGuard<'_, Self> {
        world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time::since_epoch(self.epoch.elapsed())
    }

    /// Takes a connection in, unless there are too many, or the end has begun.
    fn connect(&mut self, dialect: Dialect) -> Option<Mailbox> {
        let id = self.hub.connect(self.now(), dialect.profile()).ok()?;
        let (sender, frames) = mpsc::unbounded_channel();
        let (alive, closed) = oneshot::channel();
        let backlog = Arc::new(AtomicUsize::new(0));
        self.peers.insert(
            id,
            Peer {
                dialect,
                frames: sender,
                backlog: Arc::clone(&backlog),
                _alive: alive,
            },
        );
        Some(Mailbox {
            id,
            frames,
            backlog,
            closed,
        })
    }

    /// A text has come.
    fn handle(&mut self, from: ConnId, text: &str) {
        let Some(peer) = self.peers.get(&from) else { return };
        let outputs = match peer.dialect.decode(text, self.hub.limits(), random) {
            Ok(message) => self.hub.handle(from, message),
            Err(reason) => self.hub.close(from, reason),
        };
        self.deliver(outputs);
    }

    /// A connection has broken the protocol.
    fn close(&mut self, id: ConnId, reason: CloseReason) {
        let outputs = self.hub.close(id, reason);
        self.deliver(outputs);
    }

    /// A connection is gone.
    fn disconnect(&mut self, id: ConnId) {
        self.peers.remove(&id);
        let outputs = self.hub.disconnect(id);
        self.deliver(outputs);
    }

    /// Closes everyone, and takes nobody in from now on.
    fn shutdown(&mut self) {
        let outputs = self.hub.shutdown();
        self.deliver(outputs);
    }

    /// Puts everything that follows from a call of the hub into its recipients' queues, and all that follows from that.
    fn deliver(&mut self, outputs: Vec<(ConnId, OutboundMessage)>) {
        let mut outputs = std::collections::VecDeque::from(outputs);
        while let Some((to, message)) = outputs.pop_front() {
            let Some(peer) = self.peers.get(&to) else { continue };
            let mut text = String::new();
            match peer.dialect.encode(&message, &mut text) {
                Encoded::Nothing => {}
                Encoded::Text => {
                    let waiting = peer.backlog.fetch_add(text.len(), Ordering::Relaxed) + text.len();
                    // A task that has ended takes nothing, and will say so.
                    let _ = peer.frames.send(Frame::Text(text));
                    if waiting > BACKLOG_BYTES {
                        outputs.extend(self.hub.close(to, CloseReason::TooSlow));
                    }
                }
                Encoded::Close(reason) => {
                    let _ = peer.frames.send(Frame::Close(reason));
                    self.peers.remove(&to);
                }
            }
        }
    }
}

/// Tells the hub when a deadline of its own has passed.
async fn watch_deadlines(world: Arc<Mutex<World>>) {
    loop {
        let pause = {
            let mut world = World::lock(&world);
            let now = world.now();
            let outputs = world.hub.handle_timeout(now);
            world.deliver(outputs);
            let due = world
                .hub
                .poll_timeout()
                .map(|due| due.elapsed().saturating_sub(now.elapsed()));
            // Whoever connects while this sleeps has a deadline of its own.
            due.unwrap_or(Duration::MAX)
                .clamp(Duration::from_millis(1), Duration::from_millis(100))
        };
        sleep(pause).await;
    }
}

/// A connection from its first byte to its last.
async fn serve(stream: TcpStream, world: Arc<Mutex<World>>) {
    // Small frames should not wait for one another.
    let _ = stream.set_nodelay(true);
    // Left alone, the kernel buffers up to 4 MiB for a client that does not read.
    let _ = SockRef::from(&stream).set_send_buffer_size(128 * 1024);
    let Some((mut socket, mut mailbox)) = shake_hands(stream, &world).await else {
        return;
    };
    let (id, backlog) = (mailbox.id, Arc::clone(&mailbox.backlog));
    tokio::select! {
        () = exchange(&mut socket, id, &mut mailbox.frames, &backlog, &world) => {}
        // The client does not read, or does not go.
        () = async { let _ = mailbox.closed.await; sleep(CLOSE_TIMEOUT).await } => {}
    }
    World::lock(&world).disconnect(id);
}

/// The handshake. `None` where it was none: that has been answered.
async fn shake_hands(mut stream: TcpStream, world: &Mutex<World>) -> Option<(WebSocketStream<TcpStream>, Mailbox)> {
    let deadline = tokio::time::Instant::now() + HANDSHAKE_TIMEOUT;
    let mut bytes = Vec::with_capacity(1024);
    let refusal = loop {
        let known = bytes.len();
        match timeout_at(deadline, stream.read_buf(&mut bytes)).await {
            Err(_) => break Refusal::TooSlow,
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return None,
        }
        match handshake::read(&bytes, known) {
            Head::Partial => {}
            Head::Refused(refusal) => break refusal,
            Head::Upgrade {
                length,
                dialect,
                response,
            } => {
                let Some(mailbox) = World::lock(world).connect(dialect) else {
                    break Refusal::Unavailable;
                };
                if timeout_at(deadline, stream.write_all(&response)).await.is_err() {
                    World::lock(world).disconnect(mailbox.id);
                    return None;
                }
                // Some clients send their first messages along.
                let rest = bytes.split_off(length);
                let limit = Some(Limits::default().message_bytes as usize);
                let config = WebSocketConfig::default().max_message_size(limit).max_frame_size(limit);
                let socket = WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(config)).await;
                return Some((socket, mailbox));
            }
        }
    };
    // Whoever does not take the answer in time goes without.
    let _ = timeout(CLOSE_TIMEOUT, async {
        if stream.write_all(&refusal.to_bytes()).await.is_ok() {
            see_off(&mut stream).await;
        }
    })
    .await;
    None
}

/// Reads and writes until either side has closed.
async fn exchange(
    socket: &mut WebSocketStream<TcpStream>,
    id: ConnId,
    frames: &mut mpsc::UnboundedReceiver<Frame>,
    backlog: &AtomicUsize,
    world: &Mutex<World>,
) {
    let mut pings = interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unanswered = 0;
    loop {
        tokio::select! {
            biased; // What follows from a message is sent before the next is read, so that a pong says that all before it is done.
            frame = frames.recv() => match frame {
                Some(Frame::Text(text)) => {
                    let length = text.len();
                    if !send(socket, Message::text(text)).await {
                        return;
                    }
                    backlog.fetch_sub(length, Ordering::Relaxed);
                }
                Some(Frame::Close(reason)) => return close(socket, reason).await,
                None => return,
            },
            _ = pings.tick() => {
                if unanswered >= 2 {
                    World::lock(world).close(id, CloseReason::Silent);
                } else if !send(socket, Message::Ping("".into())).await {
                    return;
                }
                unanswered += 1;
            }
            message = socket.next() => {
                unanswered = 0;
                match message {
                    Some(Ok(Message::Text(text))) => World::lock(world).handle(id, &text),
                    Some(Ok(Message::Binary(_))) => World::lock(world).close(id, CloseReason::Binary),
                    // tungstenite answers pings.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    // It has queued the answer to a close frame, and sends it while it is read on. The others need not wait for that.
                    Some(Ok(Message::Close(_))) => {
                        World::lock(world).disconnect(id);
                        while let Some(Ok(_)) = socket.next().await {}
                        return;
                    }
                    Some(Err(error)) => match reason(&error) {
                        Some(reason) => World::lock(world).close(id, reason),
                        None => return,
                    },
                    None => return,
                }
            }
        }
    }
}

/// Sends a frame; false if the client is gone, or has not read for so long that it might as well be.
async fn send(socket: &mut WebSocketStream<TcpStream>, message: Message) -> bool {
    matches!(timeout(2 * KEEP_ALIVE, socket.send(message)).await, Ok(Ok(())))
}

/// What a broken frame is closed with; `None` where there is nobody to close.
fn reason(error: &tungstenite::Error) -> Option<CloseReason> {
    use tungstenite::{Error, error::ProtocolError};
    match error {
        Error::Capacity(_) => Some(CloseReason::TooBig),
        Error::Utf8(_) => Some(CloseReason::InvalidUtf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseReason::BrokenFraming),
        _ => None,
    }
}

/// Sends the last frame. Reads bytes from then on, since what has broken the framing is no frame. Whoever does not go is dropped by
/// [`serve`].
async fn close(socket: &mut WebSocketStream<TcpStream>, reason: CloseReason) {
    let frame = CloseFrame {
        code: reason.code().into(),
        reason: Utf8Bytes::from(reason.to_string()),
    };
    if send(socket, Message::Close(Some(frame))).await {
        see_off(socket.get_mut()).await;
    }
}

/// Waits for a client to have read its last bytes: a socket that is dropped with unread bytes in it takes back what it has sent.
async fn see_off(stream: &mut TcpStream) {
    let _ = stream.shutdown().await;
    let mut sink = [0; 1024];
    while let Ok(1..) = stream.read(&mut sink).await {}
}

/// 128 bits for a key that the server makes.
fn random() -> Option<u128> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).ok()?;
    Some(u128::from_ne_bytes(bits))
}
