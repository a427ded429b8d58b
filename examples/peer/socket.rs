//! A connection on which one thread reads while another writes, and which notices that the server has vanished.

use std::{
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tungstenite::{HandshakeError, Message, WebSocket, client::IntoClientRequest, http::HeaderValue, protocol::Role};

use super::{
    liveness::{Liveness, Step, Times},
    messages::Sent,
};

/// The reading half of a connection.
pub(crate) struct Reader(WebSocket<Duplex>);

/// The writing half of a connection.
pub(crate) type Writer = WebSocket<Duplex>;

/// Connects, and returns the two halves, each for its own thread.
pub(crate) fn connect(url: &str, subprotocol: &'static str, times: Times) -> Result<(Reader, Writer), Box<dyn Error>> {
    let mut request = url.into_client_request()?;
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", HeaderValue::from_static(subprotocol));
    match request.uri().scheme_str() {
        Some("ws") => {}
        Some("wss") => {
            return Err(format!(
                "unsupported URL {url}: this example has no TLS and would send everything in clear text. \
                 Use a client with TLS"
            )
            .into());
        }
        Some(_) | None => return Err(format!("unsupported URL {url}: expected ws://HOST:PORT").into()),
    }
    let host = request.uri().host().ok_or("the URL has no host")?.to_owned();
    let port = request.uri().port_u16().unwrap_or(80);

    let liveness = Liveness::handshake(times, Instant::now());
    let stream = dial(host.trim_matches(['[', ']']), port, liveness.deadline())
        .map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?;
    // Small messages must not wait for more data.
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(times.pong_within))?;
    let duplex = Duplex {
        stream: Arc::new(stream),
        write_lock: Arc::new(Mutex::new(())),
        liveness,
    };
    // Fails if the server does not echo the subprotocol.
    match tungstenite::client(request, duplex.clone()) {
        Ok((mut reader, _)) => {
            reader.get_mut().liveness.connected(Instant::now());
            let writer = WebSocket::from_raw_socket(duplex, Role::Client, None);
            Ok((Reader(reader), writer))
        }
        Err(HandshakeError::Interrupted(_)) => Err(format!(
            "no response from {host}:{port} within {} s",
            times.connect.as_secs_f64()
        )
        .into()),
        Err(HandshakeError::Failure(error)) => Err(error.into()),
    }
}

/// Connects to the first address of the host that accepts. Each address gets an equal share of the time left.
fn dial(host: &str, port: u16, until: Instant) -> io::Result<TcpStream> {
    let addrs: Vec<_> = (host, port).to_socket_addrs()?.collect();
    let mut result = Err(io::Error::new(ErrorKind::NotFound, "no address found"));
    for (addr, others) in addrs.iter().zip((0..addrs.len() as u32).rev()) {
        result = TcpStream::connect_timeout(addr, time_left(until) / (others + 1));
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Returns the time left until `until`, at least a moment: sockets do not accept a timeout of zero.
fn time_left(until: Instant) -> Duration {
    let left = until.saturating_duration_since(Instant::now());
    left.max(Duration::from_millis(1))
}

impl Reader {
    /// Sends a message.
    pub(crate) fn send(&mut self, message: &Sent) -> Result<(), tungstenite::Error> {
        self.0.send(Message::text(message.to_text()))
    }

    /// Waits for a message. If nothing arrives, it sends a ping, and fails if nothing arrives after that either.
    pub(crate) fn read(&mut self) -> Result<Message, Box<dyn Error>> {
        loop {
            match self.0.read() {
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    let liveness = &mut self.0.get_mut().liveness;
                    match liveness.timed_out(Instant::now()) {
                        None => {}
                        Some(Step::Ping) => self.send(&Sent::Ping)?,
                        Some(Step::GiveUp) => {
                            let limit = liveness.times.pong_within.as_secs_f64();
                            return Err(format!("connection lost: no answer to a ping within {limit} s").into());
                        }
                    }
                }
                result => return Ok(result?),
            }
        }
    }
}

/// A socket shared by a reading and a writing WebSocket. The reading one also writes pings, pongs and the reply to a close frame. Frames are
/// not interleaved, because each write contains complete frames.
#[derive(Clone)]
pub(crate) struct Duplex {
    stream: Arc<TcpStream>,
    write_lock: Arc<Mutex<()>>,
    /// Of the reading WebSocket.
    liveness: Liveness,
}

impl Read for Duplex {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream
                .set_read_timeout(Some(time_left(self.liveness.deadline())))?;
            match (&*self.stream).read(buffer) {
                // The process was stopped and continued.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    self.liveness.received(Instant::now());
                    return Ok(read);
                }
            }
        }
    }
}

impl Write for Duplex {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        let _guard = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*self.stream).write_all(frames) {
            Ok(()) => Ok(frames.len()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Part of a frame may have been sent, so no other frame can follow. This also ends the read.
                let _ = self.stream.shutdown(Shutdown::Both);
                Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "connection lost: the server accepts no data",
                ))
            }
            Err(error) => Err(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
