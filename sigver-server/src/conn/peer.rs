//! Owns what the threads share about one connection: its socket, its outbox, its credit. Never has a role: the core does.

use std::{
    fmt, io,
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::net::SendFlags;
use sigver_core::{CloseReason, ConnId, Role, Time, Traffic};

use crate::{
    sync::credits::Credit,
    write::outbox::{Flushed, Leftover, Outbox, Sent, Wire},
};

/// The bits of a [`ConnId`] that the hub never gives.
const NO_ID: u64 = u64::MAX;

/// A client's connection.
pub(crate) struct Peer {
    /// Counts connections from 0: how log lines name them.
    pub(crate) serial: u64,
    pub(crate) addr: SocketAddr,
    pub(crate) stream: TcpStream,
    pub(crate) credit: Credit,
    pub(crate) account: Account,
    outbox: Outbox,
    /// What the hub calls this connection. For the relay thread, which stores it on arrival; no other thread has use for it.
    id: AtomicU64,
    verdict: OnceLock<CloseReason>,
    /// Where the client is, when proxies had to be asked.
    client: OnceLock<IpAddr>,
    is_cut: AtomicBool,
    /// Until when the connection's thread does not read, in nanoseconds of the server's time.
    paused_until: AtomicU64,
}

impl Peer {
    pub(crate) fn new(serial: u64, addr: SocketAddr, stream: TcpStream) -> Self {
        Self {
            serial,
            addr,
            stream,
            credit: Credit::new(),
            account: Account::default(),
            outbox: Outbox::new(),
            id: AtomicU64::new(NO_ID),
            verdict: OnceLock::new(),
            client: OnceLock::new(),
            is_cut: AtomicBool::new(false),
            paused_until: AtomicU64::new(0),
        }
    }

    /// The handshake says that the client is there. For the connection's thread, once.
    pub(crate) fn set_client(&self, client: IpAddr) {
        let _ = self.client.set(client);
    }

    /// Where the client is, as far as is known.
    pub(crate) fn client(&self) -> IpAddr {
        self.client.get().copied().unwrap_or(self.addr.ip())
    }

    /// Keeps the connection's thread from reading until then. For the relay.
    pub(crate) fn pause_reading(&self, until: Time) {
        let nanos = until.elapsed().as_nanos().try_into().unwrap_or(u64::MAX);
        self.paused_until.store(nanos, Ordering::Relaxed);
    }

    /// Until when not to read. For the connection's thread.
    pub(crate) fn paused_until(&self) -> Time {
        Time::since_epoch(Duration::from_nanos(self.paused_until.load(Ordering::Relaxed)))
    }

    /// The hub's name for this connection; one that is inert before [`set_id`](Self::set_id).
    pub(crate) fn id(&self) -> ConnId {
        ConnId::from_bits(self.id.load(Ordering::Relaxed))
    }

    /// Whether the relay has taken it in. Not before its handshake is over.
    pub(crate) fn has_id(&self) -> bool {
        self.id.load(Ordering::Relaxed) != NO_ID
    }

    pub(crate) fn set_id(&self, id: ConnId) {
        self.id.store(id.to_bits(), Ordering::Relaxed);
    }

    /// Why the hub closed this connection, if it did. The connection's thread then only waits for the client to go.
    pub(crate) fn verdict(&self) -> Option<CloseReason> {
        self.verdict.get().copied()
    }

    pub(crate) fn send(&self, frame: &[u8]) -> Sent {
        self.outbox.send(&self.stream, frame)
    }

    /// Sends a close frame that the hub asked for.
    pub(crate) fn close(&self, reason: CloseReason, frame: &[u8]) -> Sent {
        // The hub closes a connection once; were it twice, the first reason is the one that the client gets.
        let _ = self.verdict.set(reason);
        let leftover = if reason == CloseReason::TooSlow {
            Leftover::Drop
        } else {
            Leftover::Keep
        };
        self.outbox.finish(&self.stream, frame, leftover)
    }

    /// Sends the last bytes of a connection that the hub did not close: the echo of a client's close frame, a refusal.
    pub(crate) fn finish(&self, bytes: &[u8]) -> Sent {
        self.outbox.finish(&self.stream, bytes, Leftover::Keep)
    }

    pub(crate) fn flush(&self) -> Flushed {
        self.outbox.flush(&self.stream)
    }

    /// Tells the log that the client is refused.
    pub(crate) fn log_refusal(&self, why: &dyn fmt::Display) {
        log::warn!(conn = self.serial, client:% = self.client(); "{self} refused: {why}");
    }

    /// How many bytes wait for the client to read.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.outbox.backlog_bytes()
    }

    /// Whether the last bytes have reached the kernel, or nothing can be sent any more.
    pub(crate) fn is_over(&self) -> bool {
        self.outbox.is_over()
    }

    /// Ends the connection at once, both ways. A thread that is blocked in reading from it returns.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
        self.outbox.abandon();
        self.stream.cut();
    }

    /// Whether it has been cut. Its thread may be elsewhere than in a read that would tell.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }
}

/// How log lines name a connection.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { serial, addr, .. } = self;
        match self.client.get() {
            Some(client) if *client != addr.ip().to_canonical() => write!(f, "#{serial} from {client} by {addr}"),
            _ => write!(f, "#{serial} from {addr}"),
        }
    }
}

/// What the relay has done for a connection: for the line that the log has of its end. Only the relay writes.
#[derive(Default)]
pub(crate) struct Account {
    /// The last role, as a number.
    role: AtomicU8,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Account {
    pub(crate) fn set_role(&self, role: Role) {
        let role = match role {
            Role::Opener => 1,
            Role::Joiner => 2,
        };
        self.role.store(role, Ordering::Relaxed);
    }

    /// A message was sent. No other thread adds, so nothing is lost in between.
    pub(crate) fn add(&self, bytes: usize) {
        let messages = self.messages.load(Ordering::Relaxed);
        self.messages.store(messages + 1, Ordering::Relaxed);
        let sum = self.bytes.load(Ordering::Relaxed);
        self.bytes.store(sum + bytes as u64, Ordering::Relaxed);
    }

    /// The role that the connection has or had last.
    pub(crate) fn role(&self) -> &'static str {
        match self.role.load(Ordering::Relaxed) {
            1 => "opener",
            2 => "joiner",
            _ => "no role",
        }
    }

    /// What was sent to it.
    pub(crate) fn sent(&self) -> Traffic {
        Traffic {
            messages: self.messages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// A peer on its way to the relay within an event. Holds one of the peer's credits, and gives it back when it is dropped: when the
/// event has been handled, or when there is nobody left to handle it.
pub(crate) struct Ticket(Arc<Peer>);

impl Ticket {
    /// Takes one of the peer's credits, after waiting for it. For the connection's own thread.
    pub(crate) fn spend(peer: &Arc<Peer>) -> Self {
        peer.credit.spend();
        Self(Arc::clone(peer))
    }
}

impl Deref for Ticket {
    type Target = Arc<Peer>;

    fn deref(&self) -> &Arc<Peer> {
        &self.0
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.credit.refund();
    }
}

impl Wire for TcpStream {
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(
            self,
            bytes,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        )?)
    }

    fn shutdown_write(&self) {
        // Fails only where the connection is gone, which its reader will see.
        let _ = self.shutdown(Shutdown::Write);
    }

    fn cut(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
