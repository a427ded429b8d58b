//! ICE servers: the flags, the secret's file, and what clients get.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    num::NonZeroU32,
    process::Output,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use sigver_core::{IceServer, IceServers};
use sigver_server::IceProvider;
use sigver_transcripts::{Seen, socket::Target};

use crate::support::{
    Running, eventually,
    file::TempFile,
    handshake,
    program::{Program, sigver_server},
    test_config,
};

/// Returns the `ice` of both sides of a pairing, the joiner's first.
fn ice(addr: SocketAddr) -> [Value; 2] {
    let [mut opener, mut joiner] = [(); 2].map(|()| {
        let stream = TcpStream::connect(addr).expect("the server listens");
        handshake(stream, "/", "Sec-WebSocket-Protocol: sigver.v1\r\n")
            .expect("accepted")
            .0
    });
    opener.send_text(r#"{"type":"open","key":"tea"}"#).expect("connected");
    assert!(matches!(opener.receive(), Seen::Text(text) if text.starts_with(r#"{"type":"opened""#)));
    joiner.send_text(r#"{"type":"join","key":"tea"}"#).expect("connected");
    [&mut joiner, &mut opener].map(|client| match client.receive() {
        Seen::Text(text) => {
            let message: Value = serde_json::from_str(&text).expect("JSON");
            message["ice"].clone()
        }
        other => panic!("{other:?}"),
    })
}

#[test]
fn each_client_gets_fresh_credentials_of_the_current_secret() {
    let secret = TempFile::with("turn-secret", "first secret\n");
    let mut program = Program::start(&mut sigver_server(&[
        "--listen=127.0.0.1:0",
        "--ice=stun:a.example,stun:b.example",
        "--turn=turn:c.example:3478?transport=udp",
        "--turn-ttl=600",
        "--turn-secret-file",
        secret.path(),
    ]));
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs()
    };
    let before = now();
    let [joiner, opener] = ice(program.addr);
    let after = now();
    for ice in [&joiner, &opener] {
        assert_eq!(ice["servers"][0], json!({"urls": ["stun:a.example", "stun:b.example"]}));
        assert_eq!(ice["servers"][1]["urls"], json!(["turn:c.example:3478?transport=udp"]));
        assert_eq!(ice["ttl"], json!(600));
        let name = ice["servers"][1]["username"].as_str().expect("a user name");
        let (expiry, random) = name.split_once(':').expect("a time and random bits");
        let expiry: u64 = expiry.parse().expect("seconds");
        assert!((before + 600..=after + 600).contains(&expiry));
        assert!(random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    assert_ne!(joiner["servers"][1], opener["servers"][1]);
    let log = |part: &str, program: &mut Program| {
        program.signal(Signal::HUP);
        program.until_logged(part)
    };
    secret.write("");
    let error = log("cannot reload the TURN secret", &mut program);
    assert!(error.contains("has no secret"), "{error}");
    secret.write("second secret");
    log("reloaded the TURN secret", &mut program);
    let (_, output) = program.end(Signal::TERM);
    assert!(
        !output.contains("first secret") && !output.contains("second secret"),
        "{output}"
    );
}

#[test]
fn incomplete_and_contradictory_flags_exit_with_2() {
    let secret = TempFile::with("turn-empty", "\n");
    for (arguments, message) in [
        (&["--turn=turn:a"][..], "--turn needs --turn-secret-file (see --help)"),
        (
            &["--turn-secret-file=/x"],
            "--turn-secret-file needs --turn (see --help)",
        ),
        (
            &["--turn=turn:a", "--turn-secret-file=/does/not/exist"],
            "cannot read /does/not/exist: No such file or directory (os error 2)",
        ),
        (
            &["--turn=turn:a", "--turn-secret-file", secret.path()],
            &format!("{} has no secret", secret.path()),
        ),
        (
            &["--ice=turn:a"],
            "invalid value 'turn:a' for '--ice <URL>': a TURN server needs credentials, so use --turn (see --help)",
        ),
        (
            &["--turn=stun:a"],
            "invalid value 'stun:a' for '--turn <URL>': not a TURN server, so use --ice (see --help)",
        ),
        (
            &["--ice=http://a"],
            "invalid value 'http://a' for '--ice <URL>': expected the URL of a STUN or TURN server, as in stun:stun.example.org or turn:turn.example.org:3478?transport=udp (see --help)",
        ),
    ] {
        let output = sigver_server(arguments).output();
        let Output { status, stderr, .. } = output.expect("the program starts");
        let text = String::from_utf8_lossy(&stderr);
        assert_eq!(
            (status.code(), text.trim_end()),
            (Some(2), &*format!("sigver-server: {message}"))
        );
    }
}

/// Hands out a server of its own.
#[derive(Debug)]
struct Hosted;

impl IceProvider for Hosted {
    fn ice_servers(&self) -> Option<IceServers> {
        let servers = vec![IceServer {
            urls: vec!["turns:hosted.example".into()],
            username: Some("name".into()),
            credential: Some("password".into()),
        }];
        Some(IceServers { servers, ttl: None })
    }
}

#[test]
fn embedder_hands_out_servers_of_its_own() {
    let mut config = test_config();
    config.ice = Some(Arc::new(Hosted));
    let server = Running::start(config);
    let expected =
        json!({"servers": [{"urls": ["turns:hosted.example"], "username": "name", "credential": "password"}]});
    assert_eq!(ice(server.addr), [expected.clone(), expected]);
}

/// Blocks the relay until it is released.
#[derive(Debug, Default)]
struct Blocking {
    calls: AtomicUsize,
    may_return: Mutex<bool>,
    released: Condvar,
}

impl IceProvider for Blocking {
    fn ice_servers(&self) -> Option<IceServers> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let may_return = self.may_return.lock().expect("not poisoned");
        drop(self.released.wait_while(may_return, |may_return| !*may_return));
        None
    }
}

/// Releases the relay on drop, so that the server can end.
struct Release(Arc<Blocking>);

impl Drop for Release {
    fn drop(&mut self) {
        *self.0.may_return.lock().expect("not poisoned") = true;
        self.0.released.notify_all();
    }
}

/// What a client has sent waits for the relay after the client has gone. If its place were free by then, nothing would limit how much waits.
#[test]
fn client_has_its_place_until_the_relay_has_handled_its_end() -> io::Result<()> {
    let provider = Arc::new(Blocking::default());
    let mut config = test_config();
    config.endpoint.limits.connections = NonZeroU32::new(4);
    config.ice = Some(Arc::clone(&provider) as Arc<dyn IceProvider>);
    let server = Running::start(config);
    let release = Release(Arc::clone(&provider));
    let v1 = |stream| handshake(stream, "/", "Sec-WebSocket-Protocol: sigver.v1\r\n");
    let (mut opener, _) = v1(TcpStream::connect(server.addr)?)?;
    let (mut joiner, _) = v1(TcpStream::connect(server.addr)?)?;
    opener.send_text(r#"{"type":"open","key":"k"}"#)?;
    assert!(matches!(opener.receive(), Seen::Text(_)));
    joiner.send_text(r#"{"type":"join","key":"k"}"#)?;
    eventually("the relay blocks", || provider.calls.load(Ordering::SeqCst) > 0);
    for _ in 0..2 {
        let mut gone = TcpStream::connect(server.addr)?;
        gone.write_all(Target::at(server.addr).request("").as_bytes())?;
    }
    eventually("they have their places", || server.handle.connection_count() == 4);
    // Longer than their threads wait for the relay before they log the end. No event tells that a place is not freed.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(server.handle.connection_count(), 4);
    drop(release);
    eventually("their places are free", || server.handle.connection_count() == 2);
    Ok(())
}
