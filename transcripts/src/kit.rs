//! Helpers for tests of servers: waiting for a condition, and plain HTTP requests.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// The timeout of each wait in a test. Only a failing test waits this long, so the value is generous.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` returns true. `what` describes the condition in the panic message.
///
/// # Panics
///
/// If the condition is still false after [`DEADLINE`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Repeats a call that was interrupted. On Linux, waits with a timeout are, if the process is stopped and continues, as on a suspended virtual
/// machine.
///
/// # Errors
///
/// Those of the call, except `Interrupted`.
pub fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Sends `bytes` and returns what the server sends until it closes the connection. A reset counts as a close.
///
/// # Errors
///
/// If the connection fails, or the server does not close it within [`DEADLINE`].
pub fn exchange(addr: SocketAddr, bytes: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    // The server may respond and close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut response = Vec::new();
    match stream.read_to_end(&mut response) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Err(error),
        Ok(_) | Err(_) => Ok(String::from_utf8_lossy(&response).into_owned()),
    }
}

/// Sends a GET request and returns the response, head and body.
///
/// # Errors
///
/// The errors of [`exchange`].
pub fn get(addr: SocketAddr, path: &str) -> io::Result<String> {
    exchange(addr, format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_calls_are_repeated_and_others_are_not() {
        let mut outcomes = [Err(io::ErrorKind::Interrupted), Err(io::ErrorKind::Interrupted), Ok(7)].into_iter();
        let mut next = || outcomes.next().expect("an outcome").map_err(io::Error::from);
        assert_eq!(retry(&mut next).ok(), Some(7));
        let refused = retry(|| Err::<(), _>(io::ErrorKind::ConnectionRefused.into()));
        assert_eq!(
            refused.map_err(|error| error.kind()),
            Err(io::ErrorKind::ConnectionRefused)
        );
    }
}
