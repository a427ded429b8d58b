//! What the threads share about one connection: its socket, outbox, credits and address. The endpoint has its role.

use std::{
    fmt, io,
    net::{IpAddr, Shutdown},
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use sigver_core::{CloseReason, ConnId, Role, Time, Traffic};

use crate::{
    conn::{peer_addr::PeerAddr, request_line::RequestLine},
    counters::Counters,
    http::response::Response,
    sync::credits::Credits,
    sys::{socket, stream::Stream},
    tuning::{CREDIT_BYTES, CREDITS},
    write::outbox::{Backlog, Flushed, Outbox, SendOutcome, Wire},
};

/// The bits of no [`ConnId`].
const NO_ID: u64 = u64::MAX;

/// A client's connection.
pub(crate) struct Peer {
    /// The number of the connection in log lines, counted from 0.
    pub(crate) serial: u64,
    pub(crate) addr: PeerAddr,
    pub(crate) stream: Stream,
    pub(crate) credits: Credits,
    pub(crate) stats: ConnStats,
    outbox: Outbox,
    /// The endpoint's id of this connection, set and used by the relay.
    id: AtomicU64,
    close_reason: OnceLock<CloseReason>,
    /// The address of the client behind its proxies.
    client: OnceLock<IpAddr>,
    admitted: OnceLock<Admitted>,
    /// Whether the request was answered, or is about to be.
    is_answered: AtomicBool,
    is_closing: AtomicBool,
    is_aborted: AtomicBool,
    /// Whether closing the socket resets the connection.
    is_reset: AtomicBool,
    /// How long the client may read nothing after its last frame.
    pub(crate) close_timeout: Duration,
    /// When the connection's thread reads again, in nanoseconds of the server's [`Time`].
    paused_until: AtomicU64,
    /// Whether the client waits for its opener to read.
    is_stopped: AtomicBool,
    /// What the client had not received at the last probe.
    undelivered_at_probe: AtomicUsize,
    /// What the flusher has written and the relay has not taken.
    written: AtomicUsize,
}

/// What is known about a client after its handshake.
pub(crate) struct Admitted {
    pub(crate) identity: Option<Arc<str>>,
    pub(crate) since: SystemTime,
}

impl Peer {
    pub(crate) fn new(serial: u64, addr: PeerAddr, stream: Stream, close_timeout: Duration) -> Self {
        Self {
            serial,
            addr,
            stream,
            credits: Credits::new(),
            stats: ConnStats::default(),
            outbox: Outbox::new(),
            id: AtomicU64::new(NO_ID),
            close_reason: OnceLock::new(),
            client: OnceLock::new(),
            admitted: OnceLock::new(),
            is_answered: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            is_aborted: AtomicBool::new(false),
            is_reset: AtomicBool::new(false),
            close_timeout,
            paused_until: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
            undelivered_at_probe: AtomicUsize::new(0),
            written: AtomicUsize::new(0),
        }
    }

    /// Sets the address of the client, once its request head is complete.
    pub(crate) fn set_client(&self, client: IpAddr) {
        let _ = self.client.set(client);
    }

    /// Returns the address of the client, or that of the connection until the request head is complete.
    pub(crate) fn client(&self) -> IpAddr {
        self.client.get().copied().unwrap_or(self.addr.ip())
    }

    /// Returns whether the caller is the first that wants to answer the request. Only this one may answer it.
    pub(crate) fn claim_answer(&self) -> bool {
        !self.is_answered.swap(true, Ordering::Relaxed)
    }

    /// Records that the client was admitted.
    pub(crate) fn admit(&self, identity: Option<Arc<str>>) {
        let since = SystemTime::now();
        let _ = self.admitted.set(Admitted { identity, since });
    }

    /// Returns as whom the client was admitted, and when.
    pub(crate) fn admitted(&self) -> Option<&Admitted> {
        self.admitted.get()
    }

    /// Records what the flusher has written. Returns whether the relay took what was recorded before: then it needs a new event.
    pub(crate) fn record_written(&self, cost: usize) -> bool {
        self.written.fetch_add(cost, Ordering::Relaxed) == 0
    }

    /// Takes what the flusher has written since the last call, as [`Frame::cost`](sigver_core::Frame::cost) counts it.
    pub(crate) fn take_written(&self) -> usize {
        self.written.swap(0, Ordering::Relaxed)
    }

    /// Pauses reading. Called by the relay.
    pub(crate) fn pause_reading(&self, until: Time) {
        let nanos = until.as_duration().as_nanos().try_into().unwrap_or(u64::MAX);
        self.paused_until.store(nanos, Ordering::Relaxed);
    }

    /// Returns when the connection's thread may read again.
    pub(crate) fn paused_until(&self) -> Time {
        Time::from_duration(Duration::from_nanos(self.paused_until.load(Ordering::Relaxed)))
    }

    /// Stops reading until [`resume_reading`](Self::resume_reading). Called by the relay.
    pub(crate) fn stop_reading(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn resume_reading(&self) {
        self.is_stopped.store(false, Ordering::Relaxed);
        self.credits.wake_owner();
    }

    /// Whether the connection's thread must not read.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Whether the client has received something since the last call. Called by the relay.
    pub(crate) fn has_read_since_probe(&self) -> bool {
        let undelivered = self.undelivered_bytes();
        undelivered < self.undelivered_at_probe.swap(undelivered, Ordering::Relaxed)
    }

    /// Returns the endpoint's id of this connection. Before [`set_id`](Self::set_id), no connection has the returned id.
    pub(crate) fn id(&self) -> ConnId {
        ConnId::from_bits(self.id.load(Ordering::Relaxed))
    }

    /// Whether the relay has accepted or rejected the connection.
    pub(crate) fn has_id(&self) -> bool {
        self.id.load(Ordering::Relaxed) != NO_ID
    }

    pub(crate) fn set_id(&self, id: ConnId) {
        self.id.store(id.to_bits(), Ordering::Relaxed);
    }

    /// Returns why the endpoint closed this connection, if it did.
    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        self.close_reason.get().copied()
    }

    pub(crate) fn send(&self, frame: &[u8]) -> SendOutcome {
        self.outbox.send(&self.stream, frame)
    }

    /// Sends the endpoint's close frame.
    pub(crate) fn close(&self, reason: CloseReason, frame: &[u8]) -> SendOutcome {
        let _ = self.close_reason.set(reason);
        let backlog = if reason == CloseReason::TooSlow {
            Backlog::Discard
        } else {
            Backlog::Flush
        };
        self.send_last(frame, backlog)
    }

    /// Sends the last bytes of a connection that the endpoint did not close: the reply to a close frame, an HTTP response.
    pub(crate) fn finish(&self, bytes: &[u8]) -> SendOutcome {
        self.send_last(bytes, Backlog::Flush)
    }

    fn send_last(&self, bytes: &[u8], backlog: Backlog) -> SendOutcome {
        self.is_closing.store(true, Ordering::Relaxed);
        self.credits.wake_owner();
        self.outbox.finish(&self.stream, bytes, backlog)
    }

    /// Whether the last frame or response was sent or queued.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Limits how long the kernel keeps bytes that the client does not accept. For connections that the server no longer watches: the kernel
    /// does not always notice that a slow reader makes progress.
    pub(crate) fn limit_delivery(&self) {
        socket::limit_delivery(&self.stream, self.close_timeout);
    }

    pub(crate) fn flush(&self) -> Flushed {
        self.outbox.flush(&self.stream)
    }

    /// Logs that the client is rejected.
    pub(crate) fn log_rejection(&self, why: &dyn fmt::Display) {
        log::warn!(conn = self.serial, client:% = self.client(), reason:% = why; "{self} rejected: {why}");
    }

    /// Logs the response to a request. `line` is `None` if the request could not be parsed.
    pub(crate) fn log_response(&self, response: &Response, line: Option<&RequestLine>) {
        let (conn, client, status) = (self.serial, self.client(), &response.status);
        match line {
            Some(line) => {
                let level = if line.is_routine {
                    log::Level::Debug
                } else {
                    log::Level::Info
                };
                let RequestLine { method, path, .. } = line;
                let reason = response.reason.as_deref();
                let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                log::log!(level, conn, client:%, status:%, method, path, reason; "{self} answered {status} to {line}{why}");
            }
            None => log::info!(conn, client:%, status:%; "{self} answered {status}"),
        }
    }

    /// Rejects the client with HTTP 503, on another thread than its own.
    pub(crate) fn reject(&self, counters: &Counters, why: &dyn fmt::Display) -> SendOutcome {
        self.log_rejection(why);
        counters.record_response(Response::UNAVAILABLE.code());
        self.finish(&Response::UNAVAILABLE.to_bytes())
    }

    /// Returns the bytes that wait for the client to read.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.outbox.backlog_bytes()
    }

    /// Returns the bytes that wait for the client to read, and those that it has not acknowledged.
    pub(crate) fn undelivered_bytes(&self) -> usize {
        self.backlog_bytes() + socket::undelivered(&self.stream)
    }

    /// Whether the client has received the last bytes, or the connection was aborted.
    pub(crate) fn is_delivered(&self) -> bool {
        self.is_aborted() || (self.outbox.is_over() && socket::undelivered(&self.stream) == 0)
    }

    /// Makes the kernel discard what it has not delivered when the socket is closed. The client gets a reset, also if the rest is in the backlog:
    /// an orderly end would follow an incomplete frame.
    pub(crate) fn discard_undelivered(&self) {
        if self.undelivered_bytes() > 0 {
            self.is_reset.store(true, Ordering::Relaxed);
            socket::reset_on_close(&self.stream);
        }
    }

    /// Aborts the connection of a client that does not read. The kernel discards what it has not delivered.
    pub(crate) fn reset(&self) {
        self.discard_undelivered();
        self.abort();
    }

    /// Ends the connection at once, in both directions. A thread that is blocked in a read returns.
    pub(crate) fn abort(&self) {
        self.is_aborted.store(true, Ordering::Relaxed);
        self.credits.wake_owner();
        self.outbox.abandon();
        if self.is_reset.load(Ordering::Relaxed) {
            // The other direction would end before the reset, in an orderly way.
            let _ = self.stream.shutdown(Shutdown::Read);
        } else {
            self.stream.abort();
        }
    }

    /// Whether the connection was aborted.
    pub(crate) fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Relaxed)
    }
}

/// Names the connection in log lines.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { serial, addr, .. } = self;
        match self.client.get() {
            Some(client) if *client != addr.ip() => write!(f, "#{serial} from {client} by {addr}"),
            _ => write!(f, "#{serial} from {addr}"),
        }
    }
}

/// What the relay has done for a connection, for the log line of its end. Only the relay writes.
#[derive(Default)]
pub(crate) struct ConnStats {
    /// The last role, as a number.
    role: AtomicU8,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl ConnStats {
    pub(crate) fn set_role(&self, role: Role) {
        let role = match role {
            Role::Opener => 1,
            Role::Joiner => 2,
            Role::Waiting => 3,
        };
        self.role.store(role, Ordering::Relaxed);
    }

    /// Records a message that was sent or queued. Only one thread writes, so no update is lost.
    pub(crate) fn record_sent(&self, bytes: usize) {
        let messages = self.messages.load(Ordering::Relaxed);
        self.messages.store(messages + 1, Ordering::Relaxed);
        let sum = self.bytes.load(Ordering::Relaxed);
        self.bytes.store(sum + bytes as u64, Ordering::Relaxed);
    }

    /// Returns the current or last role.
    pub(crate) fn role(&self) -> &'static str {
        match self.role.load(Ordering::Relaxed) {
            1 => "opener",
            2 => "joiner",
            3 => "waiting",
            _ => "no role",
        }
    }

    /// Returns what was sent or queued to the client.
    pub(crate) fn sent(&self) -> Traffic {
        Traffic {
            messages: self.messages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// A peer with one of its credits, as part of an event. The credit is released on drop: when the event was handled, or could not be sent.
pub(crate) struct Credit {
    peer: Arc<Peer>,
    count: u32,
}

impl Credit {
    /// Acquires the peer's credits for an event with so many bytes, after waiting for them. Called by the connection's thread.
    pub(crate) fn acquire(peer: &Arc<Peer>, bytes: usize) -> Self {
        let count = u32::try_from(1 + bytes / CREDIT_BYTES).map_or(CREDITS, |count| count.min(CREDITS));
        peer.credits.acquire(count);
        Self {
            peer: Arc::clone(peer),
            count,
        }
    }
}

impl Deref for Credit {
    type Target = Arc<Peer>;

    fn deref(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.peer.credits.release(self.count);
    }
}

impl Wire for Stream {
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }

    fn shutdown_write(&self) {
        // An error means that the connection is gone, which its reader detects.
        let _ = self.shutdown(Shutdown::Write);
    }

    fn abort(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        io::Read,
        net::{Ipv4Addr, TcpListener, TcpStream},
    };

    use super::*;
    use crate::sys::stream;

    /// The kernel has delivered all that it had, but the rest of a frame waits in the backlog.
    #[test]
    fn client_of_an_incomplete_frame_gets_a_reset() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (stream, addr) = stream::accept(&listener)?;
        let peer = Peer::new(0, addr, stream, Duration::from_secs(5));
        while peer.backlog_bytes() == 0 {
            let _ = peer.send(&[0; 65_536]);
        }
        client.set_nonblocking(true)?;
        while socket::undelivered(&peer.stream) > 0 {
            let _ = client.read(&mut [0; 65_536]);
        }
        client.set_nonblocking(false)?;
        assert!(peer.backlog_bytes() > 0, "nobody flushes it");
        peer.reset();
        drop(peer);
        let end = client.read_to_end(&mut Vec::new());
        assert_eq!(end.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
        Ok(())
    }
}
