//! The binary under a service manager: notifications, inherited sockets and restarts.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use sigver_transcripts::{
    Seen,
    socket::{Client, Target},
};

use crate::support::{
    eventually,
    file::TempFile,
    handshake,
    program::{Program, SIGVER_SERVER, sigver_server},
};

/// Returns a command that starts the binary with `socket` as descriptor 3, as a service manager does.
fn activated(socket: OwnedFd, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@""#,
            SIGVER_SERVER,
        ])
        .args(arguments)
        .stdin(Stdio::from(socket))
        .env_remove("PORT")
        .env_remove("RUST_LOG");
    command
}

fn duplicate(listener: &TcpListener) -> OwnedFd {
    listener.try_clone().expect("descriptors are left").into()
}

#[test]
fn start_reload_and_end_notify_the_service_manager() {
    let path = std::env::temp_dir().join(format!("sigver-notify-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let manager = UnixDatagram::bind(&path).expect("a socket in the temporary directory");
    manager
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a socket");
    let receive = || {
        let mut text = [0; 512];
        let length = manager.recv(&mut text).expect("a notification");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let program = Program::start(sigver_server(&["--listen", "127.0.0.1:0"]).env("NOTIFY_SOCKET", &path));
    assert_eq!(receive(), "READY=1\n");
    program.signal(Signal::HUP);
    let reloading = receive();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "Type=notify-reload requires the time: {reloading}"
    );
    assert_eq!(receive(), "READY=1\n");
    let (code, _) = program.end(Signal::TERM);
    assert_eq!(receive(), "STOPPING=1\n");
    assert_eq!(code, Some(0));
    std::fs::remove_file(&path).expect("it is there");
}

#[test]
fn inherited_listener_is_used_instead_of_listen_flag() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let program = Program::start(&mut activated(duplicate(&listener), &["--listen", "127.0.0.1:1"]));
    assert_eq!(program.addr, addr);
    let mut client = program.client();
    client.sync();
    let (code, log) = program.end(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("listening on inherited sockets"), "{log}");
}

#[test]
fn inherited_datagram_socket_is_an_error() {
    let (socket, _other) = UnixDatagram::pair().expect("a socket");
    let output = activated(socket.into(), &[]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("invalid inherited socket"), "{text}");
}

#[test]
fn inherited_unix_socket_is_served_and_stays() -> io::Result<()> {
    let path = TempFile::unused("inherited");
    let listener = UnixListener::bind(path.path())?;
    let mut program = activated(listener.into(), &[]).stderr(Stdio::piped()).spawn()?;
    let stream = TcpStream::from(OwnedFd::from(UnixStream::connect(path.path())?));
    let (mut client, _) = handshake(stream, "/", "")?;
    client.sync();
    kill_process(Pid::from_child(&program), Signal::TERM)?;
    assert_eq!(client.receive(), Seen::Close(Some(1001), "server shutting down".into()));
    drop(client);
    assert!(program.wait()?.success());
    assert!(std::fs::exists(path.path())?, "it belongs to the service manager");
    Ok(())
}

/// A socket unit with `Accept=yes` passes such a socket.
#[test]
fn inherited_connection_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let connection = TcpStream::connect(addr).expect("it listens");
    let output = activated(connection.into(), &[]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("Accept=no"), "{text}");
}

/// Clients connect while one server shuts down and the next one starts. The kernel queues those in between.
#[test]
fn restart_with_inherited_listener_rejects_no_client() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let (is_over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let waiting = Arc::new(AtomicUsize::new(0));
    let start = || Program::start(&mut activated(duplicate(&listener), &[]));

    let mut first = start();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (is_over, waiting, served) = (Arc::clone(&is_over), Arc::clone(&waiting), Arc::clone(&served));
            thread::spawn(move || reconnect(addr, &is_over, &waiting, &served))
        })
        .collect();
    // A connection accepted before the shutdown, whose handshake follows later.
    let late = TcpListener::local_addr(&listener)
        .and_then(TcpStream::connect)
        .expect("a connection");
    let reached = |count: usize| eventually("clients are served", || served.load(Ordering::SeqCst) >= count);
    reached(20);
    first.signal(Signal::TERM);
    let log = first.until_logged("connections to close");
    let mut late = upgrade(late);
    assert_eq!(late.receive(), Seen::Close(Some(1001), "server shutting down".into()));
    drop(late);
    let (code, end) = first.end(Signal::CONT);
    assert_eq!(code, Some(0), "{log}{end}");
    // No server accepts connections now.
    eventually("all clients wait", || waiting.load(Ordering::SeqCst) == CLIENTS);
    let before = served.load(Ordering::SeqCst);
    let second = start();
    reached(before + 20);
    is_over.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("no client is rejected");
    }
    let (code, _) = second.end(Signal::TERM);
    assert_eq!(code, Some(0));
}

fn upgrade(mut stream: TcpStream) -> Client {
    use std::io::Write;
    let request = Target::at(stream.peer_addr().expect("connected")).request("");
    stream.write_all(request.as_bytes()).expect("connected");
    Client::after_request(stream).expect("the handshake is accepted").0
}

/// Number of clients that connect repeatedly.
const CLIENTS: usize = 4;

/// Connects and opens a key repeatedly. A close with 1001 asks clients to reconnect, so it is not a rejection.
fn reconnect(addr: SocketAddr, is_over: &AtomicBool, waiting: &AtomicUsize, served: &AtomicUsize) {
    while !is_over.load(Ordering::SeqCst) {
        waiting.fetch_add(1, Ordering::SeqCst);
        let mut client = Client::connect(addr, "/").expect("no client is rejected");
        waiting.fetch_sub(1, Ordering::SeqCst);
        if client.send_text(r#"{"type":"open","key":"tea"}"#).is_ok() && client.handled().is_ok() {
            served.fetch_add(1, Ordering::SeqCst);
        }
        client.hang_up();
        thread::sleep(Duration::from_millis(1));
    }
}
