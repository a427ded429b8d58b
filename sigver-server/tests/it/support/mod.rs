//! A server on a free port that runs for as long as a test needs it.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of this module")]

pub(crate) mod file;
pub(crate) mod program;

use std::{
    fs,
    io::{self, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    thread::{self, JoinHandle},
    time::Duration,
};

use sigver_server::{Config, Handle, RunError, Server};
use sigver_transcripts::kit::DEADLINE;
pub(crate) use sigver_transcripts::kit::{eventually, exchange, get, retry};
use sigver_transcripts::{Seen, socket::Client};
use socket2::{Domain, Socket, Type};

/// Returns a configuration in which no time-out ends what a slow machine does not finish in time. Tests of a time-out set it themselves.
pub(crate) fn test_config() -> Config {
    let mut config = Config::default();
    config.handshake_timeout = DEADLINE;
    config.admission_timeout = DEADLINE;
    config.endpoint.limits.role_deadline = None;
    config.endpoint.keep_alive = Duration::MAX;
    config.endpoint.close_timeout = DEADLINE;
    config
}

/// A running server, stopped on drop.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) admin: Vec<SocketAddr>,
    pub(crate) handle: Handle,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl Running {
    /// Starts a server with `config`, whose first address becomes a free port of the loopback interface.
    pub(crate) fn start(mut config: Config) -> Self {
        config.listen[0] = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let server = Server::bind(config).expect("a free port on the loopback interface");
        Self {
            addr: server.local_addr().expect("a TCP address"),
            admin: server.admin_addrs().to_vec(),
            handle: server.handle(),
            thread: Some(thread::spawn(move || server.run())),
        }
    }

    /// Connects a client.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr, "/").expect("the server accepts a connection")
    }

    /// Connects an opener and a joiner of `key`, and waits until both have their roles.
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

    /// Shuts the server down immediately. Returns the result of its `run`.
    pub(crate) fn stop(mut self) -> Result<(), RunError> {
        self.handle.shutdown_now();
        let thread = self.thread.take().expect("only stop and drop take it");
        thread.join().expect("the accepting thread does not panic")
    }
}

impl Drop for Running {
    /// Shuts the server down. Fails the test if the server has failed and the test has not.
    fn drop(&mut self) {
        self.handle.shutdown_now();
        let outcome = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(
                matches!(outcome, None | Some(Ok(Ok(())))),
                "the server failed: {outcome:?}"
            );
        }
    }
}

/// Connects to `addr` from the local address `from`.
pub(crate) fn connect_from(addr: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&addr.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Sends a handshake. Returns the client and the head of the response.
pub(crate) fn handshake(mut stream: TcpStream, target: &str, headers: &str) -> io::Result<(Client, String)> {
    // One write: a second one fails if the server has already responded and closed.
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    let _ = stream.write_all(request.as_bytes());
    Client::after_request(stream)
}

/// Returns the numbers of threads and descriptors of this process.
pub(crate) fn resources() -> (usize, usize) {
    let count = |folder| fs::read_dir(folder).map_or(0, Iterator::count);
    (count("/proc/self/task"), count("/proc/self/fd"))
}
