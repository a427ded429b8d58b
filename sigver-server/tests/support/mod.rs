//! A server on a port of its own, for as long as a test needs it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    fs,
    net::SocketAddr,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sigver_server::{Config, Handle, RunError, Server};
use sigver_transcripts::{Seen, socket::Client};

/// A server that runs until this is dropped.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
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

    /// Ends the server; what its `run` returned.
    pub(crate) fn stop(mut self) -> Result<(), RunError> {
        self.handle.shutdown();
        let thread = self.thread.take().expect("only this and the drop take it");
        thread.join().expect("the accepting thread does not panic")
    }
}

impl Drop for Running {
    /// Ends the server. One that has failed fails the test, unless the test has failed already.
    fn drop(&mut self) {
        self.handle.shutdown();
        let outcome = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(
                matches!(outcome, None | Some(Ok(Ok(())))),
                "the server has failed: {outcome:?}"
            );
        }
    }
}

/// Waits until `condition` holds, and fails if it never does.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
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
