//! Access control: origins, tokens, custom admission, and the responses to rejected handshakes.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, TcpStream},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use sigver_core::Role;
use sigver_server::{Admission, AnyOf, Denied, Handshake, Origins, Permission, Permit, Tokens};
use sigver_transcripts::Seen;

use crate::support::{Running, connect_from, eventually, file::TempFile, handshake, retry, test_config};

/// Sends a handshake and returns the complete response, without frames.
fn answer(server: &Running, target: &str, headers: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(server.addr)?;
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && retry(|| stream.read(&mut byte))? == 1 {
        head.push(byte[0]);
    }
    if !head.starts_with(b"HTTP/1.1 101 ") {
        stream.read_to_end(&mut head)?;
    }
    String::from_utf8(head).map_err(io::Error::other)
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

#[test]
fn other_origins_are_rejected_with_403() -> io::Result<()> {
    let origins = ["https://example.org", "https://*.example.org", "null"].map(|text| text.parse().expect("an origin"));
    let mut config = test_config();
    config.admission.push(Arc::new(Origins::from_iter(origins)));
    let server = Running::start(config);
    for (headers, seen) in [
        ("Origin: https://example.org\r\n", "101"),
        ("Origin: HTTPS://EXAMPLE.ORG\r\n", "101"),
        ("Origin: https://example.org:443\r\n", "101"),
        ("Origin: https://evil.example/.example.org\r\n", "403"),
        ("Origin: https://evil.example?.example.org\r\n", "403"),
        ("origin:https://a.example.org\r\n", "101"),
        ("Origin: null\r\n", "101"),
        ("", "101"),
        ("Origin: https://example.com\r\n", "403"),
        ("Origin: http://example.org\r\n", "403"),
        ("Origin:\r\n", "403"),
        ("Origin: https://example.org\r\nOrigin: https://example.com\r\n", "403"),
        ("Origin: https://example.org\r\nOrigin: https://example.org\r\n", "403"),
        ("Origin: https://example.org, https://example.com\r\n", "403"),
    ] {
        let answer = answer(&server, "/", headers)?;
        assert_eq!(status(&answer), seen, "{headers}");
        if seen == "403" {
            assert!(answer.contains("Connection: close\r\n") && answer.ends_with("may not connect\n"));
        }
    }
    Ok(())
}

#[test]
fn token_in_header_subprotocol_or_query_is_accepted_and_not_echoed() -> io::Result<()> {
    let file = TempFile::with("admission", "first-0123456789\nsecond-0123456789\n");
    let tokens = Arc::new(Tokens::from_file(file.path()).expect("a file of tokens"));
    let mut config = test_config();
    config.admission.push(Arc::<Tokens>::clone(&tokens));
    let server = Running::start(config);
    for (target, headers, seen) in [
        ("/", "Authorization: Bearer first-0123456789\r\n", "101"),
        ("/", "authorization: bearer  second-0123456789\r\n", "101"),
        ("/a?token=first-0123456789", "", "101"),
        ("/?x=y&token=second-0123456789&z", "", "101"),
        ("/?token=first%2D01234%35678%39", "", "101"),
        ("ws://sigver.example?token=first-0123456789", "", "101"),
        // Only the first token of each place counts.
        ("/?token=wrong-0123456789&token=first-0123456789", "", "401"),
        (
            "/",
            "Authorization: Bearer wrong-0123456789\r\nAuthorization: Bearer first-0123456789\r\n",
            "401",
        ),
        (
            "/",
            "Sec-WebSocket-Protocol: sigver.bearer.wrong-0123456789, sigver.bearer.first-0123456789\r\n",
            "401",
        ),
        (
            "/?token=wrong-0123456789",
            "Authorization: Bearer wrong-0123456789\r\nSec-WebSocket-Protocol: sigver.bearer.first-0123456789\r\n",
            "101",
        ),
        (
            "/",
            "Authorization: Basic abc\r\nAuthorization: BEARER first-0123456789\r\n",
            "101",
        ),
        (
            "/",
            "Sec-WebSocket-Protocol: sigver.v1, sigver.bearer.first-0123456789\r\n",
            "101",
        ),
        (
            "/",
            "Sec-WebSocket-Protocol: sigver.bearer.first-0123456789,sigver.plain\r\n",
            "101",
        ),
        ("/", "Sec-WebSocket-Protocol: sigver.bearer.first-0123456789\r\n", "101"),
        (
            "/?token=wrong-0123456789",
            "Authorization: Bearer first-0123456789\r\n",
            "101",
        ),
        ("/", "", "401"),
        ("/", "Authorization: Basic first-0123456789\r\n", "401"),
        ("/", "Authorization: Bearer first-012345678\r\n", "401"),
        ("/", "Authorization: Bearer first-01234567890\r\n", "401"),
        ("/", "Authorization: Bearer\r\n", "401"),
        ("/?token=", "", "401"),
        ("/?Token=first-0123456789", "", "401"),
        ("/token=first-0123456789", "", "401"),
        ("/", "Sec-WebSocket-Protocol: first-0123456789\r\n", "401"),
    ] {
        let answer = answer(&server, target, headers)?;
        assert_eq!(status(&answer), seen, "{target} {headers}");
        assert!(!answer.contains("0123456789"), "{answer}");
        assert_eq!(
            answer.contains("WWW-Authenticate: Bearer\r\n"),
            seen == "401",
            "{answer}"
        );
    }
    let head = answer(
        &server,
        "/",
        "Sec-WebSocket-Protocol: sigver.bearer.first-0123456789, sigver.v1\r\n",
    )?;
    assert!(head.contains("Sec-WebSocket-Protocol: sigver.v1\r\n"), "{head}");

    file.write("third-0123456789\n");
    assert_eq!(tokens.reload().expect("a file of tokens"), 1);
    assert_eq!(status(&answer(&server, "/?token=first-0123456789", "")?), "401");
    assert_eq!(status(&answer(&server, "/?token=third-0123456789", "")?), "101");
    Ok(())
}

/// Records each handshake, and rejects those whose path asks for it.
#[derive(Debug, Default)]
struct RecordingAdmission(Mutex<Vec<(IpAddr, String)>>);

impl Admission for RecordingAdmission {
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
        let names: Vec<&str> = handshake.subprotocols().collect();
        let cookies = handshake.headers("cookie").count();
        let seen = format!("{:?} {:?} {names:?} {cookies}", handshake.path(), handshake.query());
        let mut all = self.0.lock().expect("the mutex is not poisoned");
        all.push((handshake.client(), seen));
        match handshake.path().strip_prefix("/refused/") {
            Some(status) => Err(Denied::new(status.parse().unwrap_or(0), format!("no {status}"))),
            None => Ok(Permit::default()),
        }
    }
}

#[test]
fn custom_admission_sees_and_rejects_requests() -> io::Result<()> {
    let admission = Arc::new(RecordingAdmission::default());
    let mut config = test_config();
    config.admission.push(Arc::<RecordingAdmission>::clone(&admission));
    config.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    let server = Running::start(config);
    let headers = "Cookie: a\r\nCookie: b\r\nX-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n\
                   Sec-WebSocket-Protocol: x, sigver.v1\r\n";
    assert_eq!(status(&answer(&server, "http://sigver.example/a?b?c", headers)?), "101");
    for (code, line) in [
        ("403", "403 Forbidden"),
        ("404", "404 Not Found"),
        ("429", "429 Too Many Requests"),
        ("418", "418 Refused"),
        ("503", "503 Service Unavailable"),
        ("200", "403 Forbidden"),
        ("101", "403 Forbidden"),
    ] {
        let answer = answer(&server, &format!("/refused/{code}"), "")?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {line}\r\n")), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\nno {code}\n")), "{answer}");
    }
    let (_direct, _) = handshake(connect_from(server.addr, IpAddr::from([127, 0, 0, 2]))?, "/", headers)?;
    let seen = admission.0.lock().expect("the mutex is not poisoned");
    assert_eq!(
        seen[0],
        (
            IpAddr::from([192, 0, 2, 1]),
            r#""/a" Some("b?c") ["x", "sigver.v1"] 2"#.into()
        )
    );
    assert_eq!(
        seen[8].0,
        IpAddr::from([127, 0, 0, 2]),
        "X-Forwarded-For of an untrusted client is ignored"
    );
    // Admission sees valid handshakes only.
    assert_eq!(seen.len(), 9);
    Ok(())
}

/// An admission that panics for one path.
#[derive(Debug)]
struct Panics;

impl Admission for Panics {
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
        assert_ne!(handshake.path(), "/panic", "requested panic");
        Ok(Permit::default())
    }
}

#[test]
fn panic_in_admission_ends_only_its_connection() -> io::Result<()> {
    let mut config = test_config();
    config.admission.push(Arc::new(Panics));
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("k");
    for _ in 0..20 {
        assert_eq!(answer(&server, "/panic", "")?, "");
    }
    joiner.send_text("{}")?;
    assert_eq!(opener.receive(), Seen::Text(r#"{"index":0}"#.into()));
    eventually("the threads have exited", || server.handle.connection_count() == 2);
    server.stop().expect("the server shuts down without an error");
    Ok(())
}

/// Blocks until the test ends.
#[derive(Debug, Default)]
struct Blocks {
    /// The number of calls, and whether they may return.
    calls: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Blocks {
    fn calls(&self) -> usize {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn block(&self) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.0 += 1;
        drop(self.changed.wait_while(calls, |(_, may_return)| !*may_return));
    }

    fn release(&self) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }
}

impl Admission for Blocks {
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
        if handshake.path() == "/blocks" {
            self.block();
        }
        Ok(Permit::default())
    }
}

/// Starts a server with two clients in a blocked admission, one of which has left, and a pair. Returns after its end, while both block.
fn end_with_blocked_admissions(shut_down: impl FnOnce(&Running)) -> io::Result<()> {
    let blocks = Arc::new(Blocks::default());
    let mut config = test_config();
    config.admission.push(Arc::clone(&blocks) as Arc<dyn Admission>);
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("k");
    let request = "GET /blocks HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut waiting = TcpStream::connect(server.addr)?;
    waiting.write_all(request.as_bytes())?;
    let mut gone = TcpStream::connect(server.addr)?;
    gone.write_all(request.as_bytes())?;
    eventually("both block", || blocks.calls() == 2);
    drop(gone);
    shut_down(&server);
    let shutting_down = Seen::Close(Some(1001), "server shutting down".into());
    assert_eq!(
        (joiner.receive(), opener.receive()),
        (shutting_down.clone(), shutting_down)
    );
    let handle = server.handle.clone();
    server.stop().expect("the server shuts down without an error");
    assert_eq!(handle.connection_count(), 2, "the admissions still block");
    assert_eq!(retry(|| waiting.read(&mut [0]))?, 0, "the client is disconnected");
    blocks.release();
    eventually("their threads have ended", || handle.connection_count() == 0);
    assert_eq!(handle.stats().connections, 0, "none was let in");
    Ok(())
}

#[test]
fn client_whose_admission_takes_too_long_is_rejected() -> io::Result<()> {
    let blocks = Arc::new(Blocks::default());
    let mut config = test_config();
    config.admission_timeout = Duration::from_millis(100);
    config.admission.push(Arc::clone(&blocks) as Arc<dyn Admission>);
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("k");
    for count in 1..=3 {
        let outcome = handshake(TcpStream::connect(server.addr)?, "/blocks", "").map(|_| "accepted");
        let rejected = "handshake rejected: HTTP/1.1 503 Service Unavailable";
        assert_eq!(outcome.map_err(|error| error.to_string()), Err(rejected.to_owned()));
        assert_eq!(blocks.calls(), count);
    }
    assert_eq!(server.handle.connection_count(), 5, "the admissions still block");
    let answered = "sigver_refused_total{reason=\"http-503\"} 3\n";
    assert!(
        server.handle.metrics().contains(answered),
        "{}",
        server.handle.metrics()
    );
    joiner.send_text("{}")?;
    assert_eq!(opener.receive(), Seen::Text(r#"{"index":0}"#.into()));
    blocks.release();
    eventually("their threads have ended", || server.handle.connection_count() == 2);
    assert_eq!(server.handle.stats().connections, 2, "none was let in");
    Ok(())
}

#[test]
fn blocked_admission_does_not_delay_shutdown() -> io::Result<()> {
    end_with_blocked_admissions(|server| server.handle.shutdown_now())?;
    end_with_blocked_admissions(|server| server.handle.shutdown())
}

/// A restart lets in the clients that were accepted last, but waits no longer than for a slow request.
#[test]
fn blocked_admission_does_not_delay_shutdown_with_a_successor() -> io::Result<()> {
    let blocks = Arc::new(Blocks::default());
    let mut config = test_config();
    config.handshake_timeout = Duration::from_millis(100);
    config.admission.push(Arc::clone(&blocks) as Arc<dyn Admission>);
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let server = sigver_server::Server::with_listeners(config, vec![listener.try_clone()?]).expect("it is a listener");
    let (addr, handle) = (server.local_addr().expect("a TCP address"), server.handle());
    let running = std::thread::spawn(|| server.run());
    let client = std::thread::spawn(move || handshake(TcpStream::connect(addr)?, "/blocks", ""));
    eventually("it blocks", || blocks.calls() == 1);
    handle.shutdown();
    let outcome = running.join().expect("it does not panic");
    outcome.expect("the server shuts down without an error");
    assert!(client.join().expect("it does not panic").is_err());
    blocks.release();
    Ok(())
}

/// Names each client by its path, allows keys that begin with the name, and admits clients of `/late` for a time that is over.
#[derive(Debug)]
struct ByName;

#[derive(Debug)]
struct OwnKeys(String);

impl Admission for ByName {
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
        let name = handshake.path().trim_start_matches('/');
        let permit = Permit::default().with_identity(name);
        Ok(match name {
            "late" => permit.with_expiry(SystemTime::UNIX_EPOCH),
            _ => permit.with_permission(Arc::new(OwnKeys(name.to_owned()))),
        })
    }
}

impl Permission for OwnKeys {
    fn may(&self, role: Role, key: Option<&str>) -> bool {
        assert_ne!(role, Role::Waiting);
        key.is_some_and(|key| key.starts_with(&self.0) || (role == Role::Joiner && key.starts_with("public")))
    }
}

#[test]
fn roles_that_are_not_allowed_are_refused() -> io::Result<()> {
    let mut config = test_config();
    config.admission.push(Arc::new(ByName));
    let server = Running::start(config);
    let v1 = "Sec-WebSocket-Protocol: sigver.v1\r\n";
    let connect = |name: &str, headers| handshake(TcpStream::connect(server.addr)?, &format!("/{name}"), headers);
    let (mut alice, _) = connect("alice", v1)?;
    let mut ask = |text: &str| {
        alice.send_text(text).expect("connected");
        match alice.receive() {
            Seen::Text(text) => text,
            other => panic!("{other:?}"),
        }
    };
    let is = |reply: &str, code: &str| assert!(reply.contains(&format!(r#""code":"{code}""#)), "{reply}");
    is(&ask(r#"{"type":"open","key":"bob-1"}"#), "not-allowed");
    is(&ask(r#"{"type":"join","key":"bob-1"}"#), "not-allowed");
    is(&ask(r#"{"type":"open"}"#), "not-allowed");
    is(&ask(r#"{"type":"open","key":"public-1"}"#), "not-allowed");
    is(&ask(r#"{"type":"meet","key":"public-1"}"#), "not-allowed");
    is(&ask(r#"{"type":"join","key":"public-1"}"#), "unknown-key");
    assert!(ask(r#"{"type":"meet","key":"alice-1"}"#).starts_with(r#"{"type":"opened""#));
    let (mut plain, _) = connect("bob", "")?;
    plain.send_text(r#"{"type":"join","key":"alice-1"}"#)?;
    assert_eq!(plain.receive(), Seen::Close(Some(1008), "not allowed".into()));
    let refused = "sigver_refused_total{reason=\"not-allowed\"} 6\n";
    eventually("all refusals are counted", || server.handle.metrics().contains(refused));
    Ok(())
}

#[test]
fn client_is_closed_when_its_admission_ends() -> io::Result<()> {
    let mut config = test_config();
    config.admission.push(Arc::new(ByName));
    let server = Running::start(config);
    let (mut late, _) = handshake(TcpStream::connect(server.addr)?, "/late", "")?;
    assert_eq!(late.receive(), Seen::Close(Some(4004), "token expired".into()));
    Ok(())
}

/// A look-up that blocks one client delays no other.
#[test]
fn permission_may_block() -> io::Result<()> {
    #[derive(Debug)]
    struct Slow(Arc<Blocks>);
    impl Admission for Slow {
        fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
            Ok(match handshake.path() {
                "/blocks" => Permit::default().with_permission(Arc::clone(&self.0) as Arc<dyn Permission>),
                _ => Permit::default(),
            })
        }
    }
    let blocks = Arc::new(Blocks::default());
    let mut config = test_config();
    config.admission.push(Arc::new(Slow(Arc::clone(&blocks))));
    let server = Running::start(config);
    let (mut slow, _) = handshake(TcpStream::connect(server.addr)?, "/blocks", "")?;
    slow.send_text(r#"{"type":"open","key":"slow"}"#)?;
    eventually("it blocks", || blocks.calls() == 1);
    let (mut opener, mut joiner) = server.pair("k");
    joiner.send_text("{}")?;
    assert_eq!(opener.receive(), Seen::Text(r#"{"index":0}"#.into()));
    blocks.release();
    eventually("it has opened its key", || server.handle.stats().keys == 2);
    Ok(())
}

impl Permission for Blocks {
    fn may(&self, _: Role, _: Option<&str>) -> bool {
        self.block();
        true
    }
}

/// Denies with a status that is not the other's.
#[derive(Debug)]
struct Denies(u16);

impl Admission for Denies {
    fn admit(&self, _: &Handshake<'_>) -> Result<Permit, Denied> {
        Err(Denied::new(self.0, "no"))
    }
}

#[test]
fn any_of_needs_one_admission_and_config_all() -> io::Result<()> {
    let by_name = || Arc::new(ByName) as Arc<dyn Admission>;
    let denies = |status| Arc::new(Denies(status)) as Arc<dyn Admission>;
    let outcome = |admissions: Vec<Arc<dyn Admission>>, path: &str| {
        let mut config = test_config();
        config.admission = admissions;
        let server = Running::start(config);
        answer(&server, path, "").map(|answer| status(&answer).to_owned())
    };
    let any = |admissions: Vec<Arc<dyn Admission>>| vec![Arc::new(AnyOf::new(admissions)) as Arc<dyn Admission>];
    assert_eq!(outcome(vec![by_name(), denies(429)], "/a")?, "429");
    assert_eq!(outcome(any(vec![by_name(), denies(429)]), "/a")?, "101");
    assert_eq!(outcome(any(vec![denies(429), by_name()]), "/a")?, "101");
    assert_eq!(outcome(any(vec![denies(401), denies(429)]), "/a")?, "429");
    assert_eq!(outcome(any(vec![]), "/a")?, "403");
    // The first that admits the client decides.
    let mut config = test_config();
    config.admission = any(vec![denies(401), by_name(), Arc::new(RecordingAdmission::default())]);
    let server = Running::start(config);
    let (mut client, _) = handshake(TcpStream::connect(server.addr)?, "/alice", "")?;
    client.send_text(r#"{"type":"open","key":"bob"}"#)?;
    assert_eq!(client.receive(), Seen::Close(Some(1008), "not allowed".into()));
    Ok(())
}
