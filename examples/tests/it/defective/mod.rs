//! A small signaling server with one defect, which the conformance kit must detect. It has two threads per connection, one to read and one to
//! write, and a hub behind a mutex.
//!
//! If a defect crashes the process of the original, this server closes all connections and resets its state, like a restart.

mod defect;
#[path = "../../../embed_mio/frame.rs"]
#[allow(dead_code, reason = "this server sends no pings")]
mod frame;
#[path = "../../../handshake.rs"]
#[allow(dead_code, reason = "this server rejects fewer requests")]
mod handshake;
mod world;

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use sigver_core::{Dialect, Frame, Limits};
use sigver_transcripts::kit::retry;

pub(crate) use defect::Defect;
use frame::{Reader, Received};
use handshake::{Head, Refusal};
use world::World;

/// The timeout of request heads. Short, because a case waits for it.
const HEAD_DEADLINE: Duration = Duration::from_secs(1);

/// How often a client that is not read is checked.
const STOP: Duration = Duration::from_millis(5);

/// How often timeouts are handled.
const TICK: Duration = Duration::from_millis(20);

/// A server with a defect.
pub(crate) struct Defective {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    defect: Defect,
    limits: Limits,
    world: Mutex<World>,
}

impl Defective {
    pub(crate) fn start(defect: Defect) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        let mut limits = Limits::default();
        match defect {
            Defect::NoSizeLimit => limits.message_bytes = i32::MAX as u32,
            Defect::AnyKey => limits.key_bytes = u32::MAX,
            Defect::WaitIsNotCut => limits.join_wait = Duration::from_secs(u32::MAX.into()),
            Defect::WithoutAdditions | Defect::NoGrace => limits.plain_join_grace = Duration::ZERO,
            _ => {}
        }
        let shared = Arc::new(Shared {
            defect,
            world: Mutex::new(World::new(defect, &limits)),
            limits,
        });
        let timer = Arc::clone(&shared);
        thread::spawn(move || {
            while !timer.world().is_shut_down() {
                thread::sleep(TICK);
                timer.world().handle_timeout();
            }
        });
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for (socket, stream) in (0..).zip(listener.incoming()) {
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&server);
                thread::spawn(move || {
                    // The client reports errors of the connection.
                    let _ = shared.serve(socket, &stream);
                    shared.world().remove(socket);
                    let _ = stream.shutdown(Shutdown::Both);
                });
                if server.world().is_shut_down() {
                    break;
                }
            }
        });
        Ok(Self { addr, shared })
    }
}

impl Drop for Defective {
    fn drop(&mut self) {
        self.shared.world().shut_down();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.addr));
    }
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a connection until it is closed.
    fn serve(&self, socket: u64, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut bytes = Vec::new();
        let Some((length, dialect, response)) = self.read_head(stream, &mut bytes)? else {
            return Ok(());
        };
        self.world().insert(socket, dialect, stream.try_clone()?, response)?;
        bytes.drain(..length);
        let mut reader = Reader::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let mut handled = 0;
            while self.world().is_open(socket) {
                if self.world().is_stopped(socket) {
                    thread::sleep(STOP);
                    continue;
                }
                match reader.next(&mut bytes[handled..], self.limits.message_bytes) {
                    Ok(None) => break,
                    Ok(Some((length, received))) => {
                        handled += length;
                        self.handle(socket, received);
                    }
                    Err(reason) => self.world().violation(socket, reason),
                }
            }
            bytes.drain(..handled);
            match retry(|| stream.read(&mut buffer))? {
                0 => return Ok(()),
                // After a close frame, input is discarded. Unread input would reset the connection before the client receives the frame.
                read if self.world().is_open(socket) => bytes.extend(&buffer[..read]),
                _ => {}
            }
        }
    }

    fn handle(&self, socket: u64, received: Received<'_>) {
        let mut world = self.world();
        match received {
            Received::Text(text) => world.receive(socket, &text),
            Received::Ping(payload) => {
                world.send_delayed();
                world.send(socket, &Frame::Pong(payload.into()));
            }
            Received::Close(code) => world.receive_close(socket, code),
            Received::Piece | Received::Pong => {}
        }
    }

    /// Reads a request head into `bytes`. Returns its length, the dialect and the response; `None` if the request was rejected.
    fn read_head(&self, mut stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<Option<(usize, Dialect, Vec<u8>)>> {
        let until = Instant::now() + HEAD_DEADLINE;
        let mut buffer = [0; 4096];
        let mut known = 0;
        let refusal = loop {
            match handshake::read(bytes, known) {
                Head::Refused(refusal) => break refusal,
                Head::Upgrade {
                    length,
                    dialect,
                    response,
                } => {
                    stream.set_read_timeout(None)?;
                    return Ok(Some(self.accept(&bytes[..length], length, dialect, response)));
                }
                Head::Partial => {}
            }
            if self.defect != Defect::HeadsTakeForEver {
                let timeout = until.saturating_duration_since(Instant::now());
                stream.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
            }
            known = bytes.len();
            match retry(|| stream.read(&mut buffer)) {
                Ok(0) => return Ok(None),
                Ok(read) => bytes.extend(&buffer[..read]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    break Refusal::TooSlow;
                }
                Err(error) => return Err(error),
            }
        };
        stream.write_all(&refusal.to_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        // Closing a socket with unread bytes resets the connection, and the client may lose the response.
        stream.set_read_timeout(Some(HEAD_DEADLINE))?;
        while retry(|| stream.read(&mut buffer))? > 0 {}
        Ok(None)
    }

    fn accept(&self, head: &[u8], length: usize, dialect: Dialect, response: Vec<u8>) -> (usize, Dialect, Vec<u8>) {
        match self.defect {
            Defect::OnlyPlain => (length, Dialect::Plain, response),
            Defect::Compresses if String::from_utf8_lossy(head).contains("permessage-deflate") => {
                let end = response.len() - 2;
                let extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
                (length, dialect, [&response[..end], extension].concat())
            }
            _ => (length, dialect, response),
        }
    }
}
