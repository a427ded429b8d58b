//! Plays transcripts against servers that are none: each fails, and says where.

use std::{
    error::Error,
    io::Write,
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use sigver_transcripts::{
    Transcript, play,
    socket::{Sockets, Target},
};

const TRANSCRIPT: &str = "# A joiner's data.\nA > {\"type\":\"open\",\"key\":\"tea\"}\n";

/// Where, what was expected, and what was seen.
fn failure(addr: SocketAddr) -> Result<(Option<usize>, String, String), Box<dyn Error>> {
    let transcript = Transcript::parse("broken", TRANSCRIPT)?;
    let until = Instant::now() + Duration::from_millis(300);
    let mut stage = Sockets::until(Target::at(addr), Duration::ZERO, until);
    let failure = play(&transcript, &mut stage).err().ok_or("it has passed")?;
    Ok((failure.line, failure.expected, failure.seen))
}

#[test]
fn a_server_that_is_not_there_is_a_failure() -> Result<(), Box<dyn Error>> {
    let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (line, expected, seen) = failure(addr)?;
    assert_eq!((line, expected.as_str()), (Some(2), "a connection"));
    assert!(seen.contains("refused"), "{seen}");
    Ok(())
}

#[test]
fn a_server_that_never_answers_a_request_is_a_failure() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (line, expected, _) = failure(listener.local_addr()?)?;
    assert_eq!((line, expected.as_str()), (Some(2), "a connection"));
    Ok(())
}

#[test]
fn a_server_that_never_answers_a_ping_is_a_failure() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let mute = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        // More of the head than is looked at in one go, and the beginning of the first frame right behind it.
        let filling = "x".repeat(3_000);
        write!(stream, "HTTP/1.1 101 Switching Protocols\r\nX: {filling}\r\n\r\n")?;
        stream.write_all(&[0x81])?;
        Ok::<_, std::io::Error>(stream)
    });
    let (line, expected, seen) = failure(addr)?;
    assert_eq!((line, expected.as_str()), (Some(2), "it is handled"));
    assert_eq!(seen, "no pong in time");
    drop(mute.join());
    Ok(())
}
