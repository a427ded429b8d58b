//! Unix sockets: sessions, the address of clients, and the file.

use std::{
    fs,
    io::{self, Read},
    net::TcpStream,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    time::Duration,
};

use rustix::process::Signal;
use sigver_server::{ListenAddr, Server};
use sigver_transcripts::{Seen, socket::Client};

use crate::support::{
    Running, eventually,
    file::TempFile,
    handshake,
    program::{Program, sigver_server},
    test_config,
};

/// Connects a client. Its stream has the type of a TCP stream, which makes no difference to reading and writing.
fn connect(path: &str, headers: &str) -> io::Result<(Client, String)> {
    let stream = OwnedFd::from(UnixStream::connect(path)?);
    handshake(TcpStream::from(stream), "/", headers)
}

fn client(path: &str) -> Client {
    connect(path, "").expect("the server accepts a connection").0
}

/// Starts the binary on a free port and on a Unix socket.
fn start(path: &str, arguments: &[&str]) -> Program {
    let socket = format!("unix:{path}");
    let listen = ["--listen", "127.0.0.1:0", "--listen", &socket];
    Program::start(&mut sigver_server(&[&listen, arguments].concat()))
}

/// Opens a key with the first client, joins it with the second, and exchanges messages.
fn exchange(mut opener: Client, mut joiner: Client) -> io::Result<()> {
    pair(&mut opener, &mut joiner)?;
    for length in [1, 200, 60_000] {
        let payload = "x".repeat(length);
        joiner.send_text(&format!(r#"{{"x":"{payload}"}}"#))?;
        assert_eq!(
            opener.receive(),
            Seen::Text(format!(r#"{{"x":"{payload}","index":0}}"#))
        );
    }
    opener.hang_up();
    assert_eq!(joiner.receive(), Seen::Close(Some(4001), "opener left".into()));
    Ok(())
}

#[test]
fn clients_of_both_kinds_of_sockets_meet() -> io::Result<()> {
    let path = TempFile::unused("unix-session");
    let program = start(path.path(), &[]);
    let metadata = fs::metadata(path.path())?;
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    exchange(client(path.path()), program.client())?;
    exchange(program.client(), client(path.path()))?;
    exchange(client(path.path()), client(path.path()))?;
    let waiting = client(path.path());
    let (code, log) = program.end(Signal::TERM);
    drop(waiting);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains(&format!("listening on unix:{}", path.path())), "{log}");
    assert!(log.contains("from unix socket"), "{log}");
    assert!(log.contains("closed with 1001"), "{log}");
    assert!(!fs::exists(path.path())?, "the server removes it");
    Ok(())
}

#[test]
fn client_has_the_address_that_a_trusted_proxy_forwards() -> io::Result<()> {
    let forwarded = "X-Forwarded-For: 203.0.113.7\r\n";
    for (arguments, expected) in [
        (&[][..], "#0 from unix socket lost"),
        (
            &["--trusted-proxy", "127.0.0.1", "--socket-mode", "600"][..],
            "#0 from 203.0.113.7 by unix socket lost",
        ),
    ] {
        let path = TempFile::unused("unix-proxy");
        let mut program = start(path.path(), arguments);
        let (mut client, _) = connect(path.path(), forwarded)?;
        client.hang_up();
        program.until_logged(expected);
    }
    Ok(())
}

#[test]
fn limits_per_source_count_clients_of_a_socket_as_one() -> io::Result<()> {
    let path = TempFile::unused("unix-limit");
    let _program = start(path.path(), &["--connections-per-ip", "1"]);
    let (_first, head) = connect(path.path(), "")?;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut second = UnixStream::connect(path.path())?;
    let mut head = String::new();
    second.read_to_string(&mut head)?;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    Ok(())
}

#[test]
fn socket_of_a_killed_server_is_replaced_and_that_of_a_running_one_is_not() -> io::Result<()> {
    let path = TempFile::unused("unix-stale");
    let killed = start(path.path(), &[]);
    let _ = killed.end(Signal::KILL);
    assert!(fs::exists(path.path())?, "the kernel leaves it");
    let running = start(path.path(), &[]);
    let socket = format!("unix:{}", path.path());
    for (arguments, expected) in [
        (&["--listen", &socket][..], 1),
        (&["--listen", &socket, "--check-config"][..], 2),
    ] {
        let output = sigver_server(arguments).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{text}");
        assert!(text.contains(&format!("cannot listen on {socket}: Address")), "{text}");
    }
    drop(client(path.path()));
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    Ok(())
}

#[test]
fn other_file_is_not_replaced() -> io::Result<()> {
    let path = TempFile::unused("unix-letter");
    fs::write(path.path(), "a letter")?;
    let socket = format!("unix:{}", path.path());
    let output = sigver_server(&["--listen", &socket]).output()?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("a file that is not a socket has this path"), "{text}");
    assert_eq!(fs::read_to_string(path.path())?, "a letter");
    Ok(())
}

#[test]
fn library_serves_on_a_unix_socket_alone() -> Result<(), Box<dyn std::error::Error>> {
    let path = TempFile::unused("unix-alone");
    let mut config = test_config();
    config.listen = vec![ListenAddr::Unix(path.path().into())];
    let server = Server::bind(config)?;
    assert_eq!(server.local_addr(), None);
    assert_eq!(server.local_addrs(), [ListenAddr::Unix(path.path().into())]);
    let handle = server.handle();
    let running = std::thread::spawn(|| server.run());
    exchange(client(path.path()), client(path.path()))?;
    handle.shutdown_now();
    running.join().expect("it does not panic")?;
    assert!(!fs::exists(path.path())?);

    let listener = UnixListener::bind(path.path())?;
    let server = Server::with_listeners(test_config(), [listener.try_clone()?])?;
    let handle = server.handle();
    let running = std::thread::spawn(|| server.run());
    exchange(client(path.path()), client(path.path()))?;
    handle.shutdown_now();
    running.join().expect("it does not panic")?;
    assert!(fs::exists(path.path())?, "the program that made it removes it");
    Ok(())
}

/// Starts a server on a free port and on this Unix socket, without a limit on bytes per second.
fn start_in_process(path: &str, close_timeout: Option<Duration>) -> Running {
    let mut config = test_config();
    config.listen.push(ListenAddr::Unix(path.into()));
    config.endpoint.bytes_per_second = None;
    config.endpoint.close_timeout = close_timeout.unwrap_or(config.endpoint.close_timeout);
    Running::start(config)
}

/// Gives `opener` and `joiner` their roles.
fn pair(opener: &mut Client, joiner: &mut Client) -> io::Result<()> {
    opener.send_text(r#"{"type":"open","key":"tea"}"#)?;
    opener.sync();
    joiner.send_text(r#"{"type":"join","key":"tea"}"#)?;
    assert_eq!(opener.receive(), Seen::Text(r#"{"type":"join"}"#.into()));
    Ok(())
}

#[test]
fn client_that_reads_late_gets_everything() -> io::Result<()> {
    const LENGTH: usize = 60_000;
    let path = TempFile::unused("unix-late");
    let server = start_in_process(path.path(), None);
    let (mut opener, mut joiner) = (client(path.path()), server.client());
    pair(&mut opener, &mut joiner)?;
    // More than the kernel has room for.
    for _ in 0..8 {
        joiner.send_text(&format!(r#"{{"x":"{}"}}"#, "x".repeat(LENGTH)))?;
    }
    for _ in 0..8 {
        assert!(matches!(opener.receive(), Seen::Text(text) if text.len() > LENGTH));
    }
    Ok(())
}

#[test]
fn joiner_that_reads_nothing_is_closed() -> io::Result<()> {
    let path = TempFile::unused("unix-slow");
    let server = start_in_process(path.path(), Some(Duration::from_millis(200)));
    let (mut opener, mut joiner) = (server.client(), client(path.path()));
    pair(&mut opener, &mut joiner)?;
    let message = format!(r#"{{"index":0,"x":"{}"}}"#, "x".repeat(60_000));
    for _ in 0..40 {
        opener.send_text(&message)?;
    }
    eventually("the joiner is gone", || server.handle.connection_count() == 1);
    Ok(())
}

/// The kernel of a Unix socket counts the bytes of a write as undelivered until all are read.
#[test]
fn opener_that_reads_slowly_is_not_closed() -> io::Result<()> {
    let path = TempFile::unused("unix-progress");
    let server = start_in_process(path.path(), Some(Duration::from_secs(2)));
    let (mut opener, mut joiner) = (client(path.path()), server.client());
    pair(&mut opener, &mut joiner)?;
    for _ in 0..8 {
        joiner.send_text(&format!(r#"{{"x":"{}"}}"#, "x".repeat(60_000)))?;
    }
    // Reading a message takes longer than the close time-out.
    for _ in 0..20 {
        opener.stream().read_exact(&mut [0; 1_400])?;
        std::thread::sleep(Duration::from_millis(120));
    }
    assert_eq!(server.handle.stats().keys, 1, "the opener has made progress");
    Ok(())
}
