//! Accepted connections.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use socket2::{SockRef, Socket};

use crate::{
    conn::peer_addr::PeerAddr,
    sys::poll::{self, PollFd},
    tuning::SEND_BUFFER,
};

/// Whether sockets are in non-blocking mode. On Linux they are not: with `MSG_DONTWAIT`, the relay does not block on a socket that another
/// thread blocks on. macOS and NetBSD ignore this flag in `send`.
const NON_BLOCKING: bool = !cfg!(target_os = "linux");

/// Makes writing to a closed connection an error and not a signal. Apple systems have a socket option instead.
const NO_SIGNAL: SendFlags = {
    #[cfg(not(target_vendor = "apple"))]
    let flag = SendFlags::NOSIGNAL;
    #[cfg(target_vendor = "apple")]
    let flag = SendFlags::empty();
    flag
};

/// The shortest timeout of a socket: zero is none.
const SHORTEST_TIMEOUT: Duration = Duration::from_micros(1);

/// A connection. [`Read`] and [`Write`] block, a write at most as long as its timeout; [`try_read`](Self::try_read) and
/// [`try_write`](Self::try_write) do not.
///
/// The parameter is for tests.
pub(crate) struct Stream<const IS_NON_BLOCKING: bool = NON_BLOCKING> {
    socket: Socket,
    /// The most bytes of one write.
    write_max: usize,
}

/// The most bytes of one write to a Unix socket. The kernel counts them as undelivered until all are read, so that with more, a slow reader
/// would look like one that reads nothing.
const UNIX_WRITE_MAX: usize = 4 * 1024;

/// Accepts a connection. `WouldBlock` if none is waiting.
pub(crate) fn accept(listener: &impl AsFd) -> io::Result<(Stream, PeerAddr)> {
    let (socket, addr) = SockRef::from(listener).accept()?;
    let addr = addr.as_socket().map_or(PeerAddr::Unix, PeerAddr::tcp);
    // On macOS, setting an option fails if the client has already left.
    let stream = Stream::new(socket, &addr).map_err(|_| io::ErrorKind::ConnectionAborted)?;
    Ok((stream, addr))
}

impl<const IS_NON_BLOCKING: bool> Stream<IS_NON_BLOCKING> {
    fn new(socket: Socket, addr: &PeerAddr) -> io::Result<Self> {
        let write_max = match addr {
            PeerAddr::Tcp(_) => usize::MAX,
            PeerAddr::Unix => {
                // Its connections do not inherit this.
                socket.set_send_buffer_size(SEND_BUFFER)?;
                UNIX_WRITE_MAX
            }
        };
        // On Linux, an accepted socket is blocking. On other systems it inherits the mode of the listener.
        if IS_NON_BLOCKING {
            socket.set_nonblocking(true)?;
        }
        #[cfg(target_vendor = "apple")]
        rustix::net::sockopt::set_socket_nosigpipe(&socket, true)?;
        Ok(Self { socket, write_max })
    }

    /// Reads without blocking. `WouldBlock` if nothing has arrived.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, _) = recv(&self.socket, buffer, RecvFlags::DONTWAIT)?;
        Ok(read)
    }

    /// Writes some of `bytes` without blocking. `WouldBlock` if the kernel accepts none now.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        for piece in bytes.chunks(self.write_max) {
            let count = match send(&self.socket, piece, SendFlags::DONTWAIT | NO_SIGNAL) {
                Ok(count) => count,
                Err(error) if sent == 0 => return Err(error.into()),
                // The next write reports it.
                Err(_) => break,
            };
            sent += count;
            if count < piece.len() {
                break;
            }
        }
        Ok(sent)
    }

    /// Reads, and blocks at most this long. `WouldBlock` after that.
    pub(crate) fn read_within(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<usize> {
        match self.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(poll::readable(&self.socket), Some(timeout))?;
                self.try_read(buffer)
            }
            read => read,
        }
    }

    /// Sets how long a write may block.
    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket
            .set_write_timeout(timeout.map(|timeout| timeout.max(SHORTEST_TIMEOUT)))
    }

    /// Shuts down one or both directions. A thread that is blocked in that direction returns.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }
}

impl<const IS_NON_BLOCKING: bool> Read for &Stream<IS_NON_BLOCKING> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Not `TcpStream::read`: it is a cancellation point of C threads, which costs time.
            match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Err(Errno::AGAIN) if IS_NON_BLOCKING => wait(poll::readable(&self.socket), None)?,
                read => return Ok(read?.0),
            }
        }
    }
}

impl<const IS_NON_BLOCKING: bool> Write for &Stream<IS_NON_BLOCKING> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let bytes = &bytes[..bytes.len().min(self.write_max)];
            match send(&self.socket, bytes, NO_SIGNAL) {
                Err(Errno::AGAIN) if IS_NON_BLOCKING => {
                    wait(poll::writable(&self.socket), self.socket.write_timeout()?)?
                }
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until `fd` is ready. `WouldBlock` after the timeout, which begins again if a signal arrives.
fn wait(fd: PollFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
    let mut fds = [fd];
    loop {
        match poll::wait(&mut fds, timeout) {
            Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl<const IS_NON_BLOCKING: bool> AsFd for Stream<IS_NON_BLOCKING> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        net::{Ipv4Addr, TcpListener, TcpStream},
        thread,
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    /// Tests the mode of this system and the mode of the others.
    #[test]
    fn both_modes_block_in_read_and_write_only() -> io::Result<()> {
        test_mode::<NON_BLOCKING>()?;
        test_mode::<true>()
    }

    fn test_mode<const IS_NON_BLOCKING: bool>() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        // Some systems let accepted sockets inherit this.
        listener.set_nonblocking(true)?;
        let mut fds = [poll::readable(&listener)];
        assert_eq!(poll::wait(&mut fds, None)?, 1);
        let (socket, addr) = listener.accept()?;
        let stream = Stream::<IS_NON_BLOCKING>::new(socket.into(), &PeerAddr::tcp(addr))?;

        // Nothing has arrived.
        let would_block = |done: io::Result<usize>| done.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        let mut bytes = [0; 8];
        assert!(would_block(stream.try_read(&mut bytes)));
        assert!(would_block(stream.read_within(&mut bytes, SHORT)));
        for timeout in [None, Some(Duration::from_secs(3_600))] {
            let read = thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let mut bytes = [0; 8];
                    let read = match timeout {
                        None => (&stream).read(&mut bytes),
                        Some(timeout) => stream.read_within(&mut bytes, timeout),
                    };
                    read.map(|read| bytes[..read].to_vec())
                });
                thread::sleep(SHORT);
                client.write_all(b"hello")?;
                reader.join().expect("no panic")
            })?;
            assert_eq!(read, b"hello");
        }

        // The client does not read.
        let full = [0; 65_536];
        while !would_block(stream.try_write(&full)) {}
        stream.set_write_timeout(Some(SHORT))?;
        assert!(would_block((&stream).write(&full)));

        // The relay aborts the connection while its thread reads.
        let read = thread::scope(|scope| {
            let reader = scope.spawn(|| (&stream).read(&mut [0; 8]));
            thread::sleep(SHORT);
            stream.shutdown(Shutdown::Both)?;
            reader.join().expect("no panic")
        })?;
        assert_eq!(read, 0);
        Ok(())
    }
}
