//! Listening sockets.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::tuning::{RECEIVE_BUFFER, SEND_BUFFER};

/// Connections that the kernel completes before they are accepted. The kernel lowers this to `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// The limit on unsent bytes in the kernel's send buffer (`TCP_NOTSENT_LOWAT`). The kernel sends in order. A low limit keeps more frames in
/// the endpoint, which shares the bandwidth among joiners.
#[cfg(target_os = "linux")]
const UNSENT_IN_KERNEL: u32 = 16 * 1024;

/// Listens on `addr`. The unspecified IPv6 address accepts IPv4 as well; without IPv6, it becomes the unspecified IPv4 address.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    match listen(addr) {
        Err(error) if addr.ip().is_unspecified() && addr.is_ipv6() && has_no_ipv6(&error) => {
            listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
        }
        bound => bound,
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let listener = socket.into();
    prepare(&listener)?;
    Ok(listener)
}

/// Sets the options of a listener and of the connections accepted from it.
///
/// # Errors
///
/// The socket does not listen, as with `Accept=yes` in a systemd socket unit.
pub(crate) fn prepare(listener: &TcpListener) -> io::Result<()> {
    #[cfg(not(target_vendor = "apple"))]
    if !rustix::net::sockopt::socket_acceptconn(listener)? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the inherited socket does not listen (systemd socket units need Accept=no)",
        ));
    }
    let socket = SockRef::from(listener);
    // Accepted sockets inherit these.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT_IN_KERNEL)?;
    listener.set_nonblocking(true)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

#[cfg(all(test, not(loom), target_os = "linux"))]
mod tests {
    use std::{net::TcpStream, thread};

    use super::*;

    /// `MemoryBound` relies on the sizes of the buffers.
    #[test]
    fn accepted_sockets_have_the_configured_options() -> io::Result<()> {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let _client = TcpStream::connect(listener.local_addr()?)?;
        let accepted = loop {
            match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                accepted => break accepted?.0,
            }
        };
        let accepted = SockRef::from(&accepted);
        assert_eq!(accepted.send_buffer_size()?, 2 * SEND_BUFFER);
        assert_eq!(accepted.recv_buffer_size()?, 2 * RECEIVE_BUFFER);
        assert_eq!(accepted.tcp_notsent_lowat()?, UNSENT_IN_KERNEL);
        Ok(())
    }
}
