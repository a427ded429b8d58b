//! Options and states of a client's socket.

use std::{os::fd::AsFd, time::Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

/// Limits how long the kernel keeps bytes that the client does not accept, also after the socket was closed (Linux only). Without a limit,
/// it keeps them for minutes.
pub(crate) fn limit_delivery(stream: &impl AsFd, timeout: Duration) {
    #[cfg(target_os = "linux")]
    {
        // Zero is the kernel's default. The kernel rejects more than `i32::MAX` milliseconds.
        let millis = timeout.as_millis().clamp(1, i32::MAX as u128) as u32;
        // An error means that the socket is gone.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, millis);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, timeout);
}

/// Makes closing the socket discard what the client has not acknowledged: the kernel sends a reset.
pub(crate) fn reset_on_close(stream: &impl AsFd) {
    // An error means that the socket is gone.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Returns the bytes that the kernel has accepted and the client has not acknowledged. The end of the stream counts as a byte. Zero if the
/// connection is gone; other systems than Linux always return zero.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "there is no safe wrapper")]
pub(crate) fn undelivered(stream: &impl AsFd) -> usize {
    use std::os::fd::AsRawFd;

    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one `c_int` to the pointer, which is valid.
    let result = unsafe { libc::ioctl(stream.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    let bytes = if result == 0 { bytes.try_into().unwrap_or(0) } else { 0 };
    // The number stays the same when the connection is reset.
    if bytes > 0 && rustix::net::getpeername(stream).is_ok() {
        bytes
    } else {
        0
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn undelivered(_: &impl AsFd) -> usize {
    0
}

/// Waits until the client has closed its side or the connection is gone. Returns false after `timeout`. Systems without `POLLRDHUP` notice
/// only the second.
pub(crate) fn wait_hang_up(stream: &impl AsFd, timeout: Duration) -> bool {
    #[cfg(target_os = "linux")]
    let interest = PollFlags::RDHUP;
    #[cfg(not(target_os = "linux"))]
    let interest = PollFlags::empty();
    let timeout: Option<Timespec> = timeout.try_into().ok();
    matches!(poll(&mut [PollFd::new(stream, interest)], timeout.as_ref()), Ok(1..))
}

#[cfg(all(test, not(loom), target_os = "linux"))]
mod tests {
    use std::{
        io::{self, Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn pair() -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok((listener.accept()?.0, client))
    }

    /// Sends until the client's window and the kernel's buffer are full.
    fn fill(stream: &TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        while (&*stream).write(&[0; 65_536]).is_ok() {}
        stream.set_nonblocking(false)
    }

    #[test]
    fn undelivered_bytes_are_those_that_the_client_does_not_accept() -> io::Result<()> {
        let (server, client) = pair()?;
        assert_eq!(undelivered(&server), 0);
        fill(&server)?;
        assert!(undelivered(&server) > 0);
        client.set_nonblocking(true)?;
        SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        drop(client);
        while server.peer_addr().is_ok() {
            std::thread::yield_now();
        }
        assert_eq!(undelivered(&server), 0, "nobody will accept them");
        Ok(())
    }

    #[test]
    fn undelivered_bytes_are_discarded_on_close() -> io::Result<()> {
        let (server, mut client) = pair()?;
        fill(&server)?;
        reset_on_close(&server);
        drop(server);
        let end = client.read_to_end(&mut Vec::new());
        assert_eq!(end.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
        Ok(())
    }

    #[test]
    fn delivery_can_be_limited_to_any_time() -> io::Result<()> {
        let (server, _client) = pair()?;
        for (timeout, millis) in [
            (Duration::ZERO, 1),
            (Duration::from_secs(5), 5_000),
            (Duration::MAX, i32::MAX as u32),
        ] {
            limit_delivery(&server, timeout);
            assert_eq!(rustix::net::sockopt::tcp_user_timeout(&server)?, millis);
        }
        Ok(())
    }

    #[test]
    fn half_closed_client_with_unread_bytes_has_hung_up() -> io::Result<()> {
        let (server, mut client) = pair()?;
        client.write_all(b"unread")?;
        assert!(!wait_hang_up(&server, Duration::ZERO));
        client.shutdown(std::net::Shutdown::Write)?;
        assert!(wait_hang_up(&server, Duration::MAX));
        Ok(())
    }
}
