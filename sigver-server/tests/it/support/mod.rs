//! A server on a port of its own, for as long as a test needs it.

#![allow(dead_code, reason = "tests that are a process of their own use a part of it")]

pub(crate) mod program;

use std::{
    fs,
    io::{self, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sigver_server::{Config, Handle, RunError, Server};
use sigver_transcripts::{Seen, socket::Client};
use socket2::{Domain, Socket, Type};

/// A server that runs until this is dropped.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) admin: Vec<SocketAddr>,
    pub(crate) handle: Handle,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl Running {
    /// Starts a server as `config` says, but on the loopback interface and a free port.
    pub(crate) fn start(mut config: Config) -> Self {
        config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let server = Server::bind(config).expect("a free port on the loopback interface");
        Self {
            addr: server.local_addr(),
            admin: server.admin_addrs().to_vec(),
            handle: server.handle(),
            thread: Some(thread::spawn(move || server.run())),
        }
    }

    /// A client of the server.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr, "/").expect("the server takes a connection")
    }

    /// An opener and a joiner of `key`, both in their roles.
    pub(crate) fn pair(&self, key: &str) -> (Client, Client) {
        let (mut opener, mut joiner) = (self.client(), self.client());
        opener
            .send_text(&format!(r#"{{"type":"open","key":"{key}"}}"#))
            .expect("the opener is connected");
        opener.sync();
        joiner
            .send_text(&format!(r#"{{"type":"join","key":"{key}"}}"#))
            .expect("the joiner is connected");
        assert_eq!(opener.receive(), Seen::Text(r#"{"type":"join"}"#.into()));
        (opener, joiner)
    }

    /// Ends the server at once; what its `run` returned.
    pub(crate) fn stop(mut self) -> Result<(), RunError> {
        self.handle.shutdown_now();
        let thread = self.thread.take().expect("only this and the drop take it");
        thread.join().expect("the accepting thread does not panic")
    }
}

impl Drop for Running {
    /// Ends the server. One that has failed fails the test, unless the test has failed already.
    fn drop(&mut self) {
        self.handle.shutdown_now();
        let outcome = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(
                matches!(outcome, None | Some(Ok(Ok(())))),
                "the server has failed: {outcome:?}"
            );
        }
    }
}

/// A connection to `addr` from this address of our own.
pub(crate) fn connect_from(addr: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&addr.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Shakes hands on a connection; the client, and the head of the answer.
pub(crate) fn handshake(mut stream: TcpStream, target: &str, headers: &str) -> io::Result<(Client, String)> {
    // One write: a server that has answered already, and closed, must not make the second half fail.
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    let _ = stream.write_all(request.as_bytes());
    Client::after_request(stream)
}

/// Waits until `condition` holds, and fails if it never does.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// How many threads and descriptors this process has.
pub(crate) fn resources() -> (usize, usize) {
    let count = |folder| fs::read_dir(folder).map_or(0, Iterator::count);
    (count("/proc/self/task"), count("/proc/self/fd"))
}
