//! Listening sockets.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    listen_addr::ListenAddr,
    sys::socket_file::SocketFile,
    tuning::{RECEIVE_BUFFER, SEND_BUFFER},
};

/// Connections that the kernel completes before they are accepted. The kernel lowers this to `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// The limit on unsent bytes in the kernel's send buffer (`TCP_NOTSENT_LOWAT`). The kernel sends in order. A low limit keeps more frames in
/// the endpoint, which shares the bandwidth among joiners.
#[cfg(target_os = "linux")]
const UNSENT_IN_KERNEL: u32 = 16 * 1024;

/// A listening socket. Dropping it removes the file of a Unix socket that it has made.
pub(crate) struct Listener {
    socket: Socket,
    addr: ListenAddr,
    _file: Option<SocketFile>,
}

impl Listener {
    /// Listens on `addr`. The unspecified IPv6 address accepts IPv4 as well; without IPv6, it becomes the unspecified IPv4 address. The file of
    /// a Unix socket gets the permissions `socket_mode`.
    pub(crate) fn bind(addr: &ListenAddr, socket_mode: u32) -> io::Result<Self> {
        match addr {
            ListenAddr::Tcp(addr) => {
                let socket = bind_tcp(*addr)?;
                socket.listen(BACKLOG)?;
                Self::new(socket, None)
            }
            ListenAddr::Unix(path) => {
                let (socket, file) = SocketFile::listen(path, socket_mode, BACKLOG)?;
                Self::new(socket, Some(file))
            }
        }
    }

    /// Uses a socket that already listens.
    ///
    /// # Errors
    ///
    /// It is not a stream socket, or it does not listen, as with `Accept=yes` in a systemd socket unit.
    pub(crate) fn inherit(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let invalid = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if socket.r#type()? != Type::STREAM {
            return invalid("the inherited socket is not a TCP or Unix stream socket");
        }
        #[cfg(not(target_vendor = "apple"))]
        if !rustix::net::sockopt::socket_acceptconn(&socket)? {
            return invalid("the inherited socket does not listen (systemd socket units need Accept=no)");
        }
        Self::new(socket, None)
    }

    fn new(socket: Socket, file: Option<SocketFile>) -> io::Result<Self> {
        let addr = listen_addr(&socket.local_addr()?);
        if addr.tcp().is_some() {
            // Accepted sockets inherit these.
            socket.set_send_buffer_size(SEND_BUFFER)?;
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
            socket.set_tcp_nodelay(true)?;
            #[cfg(target_os = "linux")]
            socket.set_tcp_notsent_lowat(UNSENT_IN_KERNEL)?;
        }
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            addr,
            _file: file,
        })
    }

    /// Returns the address that it listens on, with the actual port.
    pub(crate) fn addr(&self) -> &ListenAddr {
        &self.addr
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn listen_addr(addr: &SockAddr) -> ListenAddr {
    match addr.as_socket() {
        Some(addr) => ListenAddr::Tcp(addr),
        // An abstract socket has no path.
        None => ListenAddr::Unix(addr.as_pathname().map(Path::to_owned).unwrap_or_default()),
    }
}

fn bind_tcp(addr: SocketAddr) -> io::Result<Socket> {
    let bind = |addr: SocketAddr| {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(!addr.ip().is_unspecified())?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        Ok(socket)
    };
    match bind(addr) {
        Err(error) if addr.ip().is_unspecified() && addr.is_ipv6() && has_no_ipv6(&error) => {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
        }
        bound => bound,
    }
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
        let listener = Listener::bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into(), 0)?;
        let _client = TcpStream::connect(listener.addr().tcp().ok_or(io::ErrorKind::AddrNotAvailable)?)?;
        let accepted = loop {
            match listener.socket.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                accepted => break accepted?.0,
            }
        };
        assert_eq!(accepted.send_buffer_size()?, 2 * SEND_BUFFER);
        assert_eq!(accepted.recv_buffer_size()?, 2 * RECEIVE_BUFFER);
        assert_eq!(accepted.tcp_notsent_lowat()?, UNSENT_IN_KERNEL);
        Ok(())
    }
}
