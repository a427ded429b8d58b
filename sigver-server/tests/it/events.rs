//! Events for embedders, and what their handle does: lists and closes connections, kicks joiners, frees keys.

use std::{
    net::{IpAddr, TcpStream},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use sigver_core::{CloseReason, ConnEnd, Index, Role};
use sigver_server::{Admission, Config, ConnectionId, Denied, Handshake, Permit, Server, ServerEvent};
use sigver_transcripts::{
    Seen,
    kit::DEADLINE,
    socket::{Client, Opcode, Piece},
};

use crate::support::{Running, eventually, handshake, test_config};

const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Admits each client as the name in its path.
#[derive(Debug)]
struct ByName;

impl Admission for ByName {
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
        match handshake.path().trim_start_matches('/') {
            "nobody" => Err(Denied::new(403, "nobody")),
            "" => Ok(Permit::default()),
            name => Ok(Permit::default().with_identity(name)),
        }
    }
}

fn config() -> Config {
    let mut config = test_config();
    config.admission.push(Arc::new(ByName));
    config
}

fn with_events(capacity: usize) -> (Running, Receiver<ServerEvent>) {
    let (sender, events) = sync_channel(capacity);
    let mut config = config();
    config.events = Some(sender);
    (Running::start(config), events)
}

fn v1(server: &Running, name: &str) -> Client {
    let stream = TcpStream::connect(server.addr).expect("the server accepts a connection");
    let (client, _) =
        handshake(stream, &format!("/{name}"), "Sec-WebSocket-Protocol: sigver.v1\r\n").expect("a valid handshake");
    client
}

fn plain(server: &Running, name: &str) -> Client {
    let stream = TcpStream::connect(server.addr).expect("the server accepts a connection");
    handshake(stream, &format!("/{name}"), "").expect("a valid handshake").0
}

/// Sends a text and returns the reply.
#[track_caller]
fn ask(client: &mut Client, text: &str) -> String {
    client.send_text(text).expect("connected");
    receive(client)
}

#[track_caller]
fn receive(client: &mut Client) -> String {
    match client.receive() {
        Seen::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

const OPEN: &str = r#"{"type":"open","key":"tea"}"#;
const JOIN: &str = r#"{"type":"join","key":"tea"}"#;

/// Returns an opener and a joiner of `tea`, both of `sigver.v1`.
fn pair(server: &Running) -> (Client, Client) {
    let (mut opener, mut joiner) = (v1(server, "alice"), v1(server, "bob"));
    assert!(ask(&mut opener, OPEN).contains("opened"));
    assert!(ask(&mut joiner, JOIN).contains("joined"));
    assert!(receive(&mut opener).contains("join"));
    (opener, joiner)
}

/// Returns the connection of the client with this identity.
fn connection(server: &Running, name: &str) -> ConnectionId {
    let connections = server.handle.connections();
    let info = connections.iter().find(|info| info.identity.as_deref() == Some(name));
    info.unwrap_or_else(|| panic!("{name} is not connected")).connection
}

#[track_caller]
fn next(events: &Receiver<ServerEvent>) -> ServerEvent {
    events.recv_timeout(DEADLINE).expect("an event")
}

#[test]
fn session_is_reported_in_order() {
    let (server, events) = with_events(100);
    let mut opener = v1(&server, "alice");
    let ServerEvent::Connected {
        connection: alice,
        identity,
        client,
    } = next(&events)
    else {
        panic!("not connected");
    };
    assert_eq!((identity.as_deref(), client), (Some("alice"), LOCALHOST));
    ask(&mut opener, OPEN);
    match next(&events) {
        ServerEvent::Opened { connection, key } => assert_eq!((connection, key.as_str()), (alice, "tea")),
        other => panic!("{other:?}"),
    }

    let _ = handshake(
        TcpStream::connect(server.addr).expect("the server accepts a connection"),
        "/nobody",
        "",
    );
    let mut joiner = v1(&server, "");
    let ServerEvent::Connected {
        connection: bob,
        identity: None,
        ..
    } = next(&events)
    else {
        panic!("not connected");
    };
    assert!(bob.get() > alice.get());
    ask(&mut joiner, OPEN);
    let (connection, code) = (bob, "key-taken");
    assert_eq!(next(&events), ServerEvent::Refused { connection, code });
    ask(&mut joiner, JOIN);
    let (opener_id, index) = (alice, Index::new(0));
    let joined = ServerEvent::Joined {
        connection,
        opener: opener_id,
        index,
    };
    assert_eq!(next(&events), joined);
    joiner.send_text(r#"{"type":"leave"}"#).expect("connected");
    assert_eq!(next(&events), ServerEvent::Left { connection });
    let close = 1000_u16.to_be_bytes();
    joiner
        .send_frame(Opcode::Close, Piece::Last, &close)
        .expect("connected");
    let end = ConnEnd::CloseFrame(Some(1000));
    assert_eq!(next(&events), ServerEvent::Closed { connection, end });

    server.stop().expect("it ends");
    let end = ConnEnd::Closed(CloseReason::ShuttingDown);
    let rest: Vec<_> = events.iter().collect();
    assert_eq!(
        rest,
        [ServerEvent::Closed { connection: alice, end }],
        "and the channel ends"
    );
}

#[test]
fn receiver_that_does_not_read_harms_nobody_and_learns_what_it_missed() {
    let (server, events) = with_events(1);
    let (mut opener, mut joiner) = pair(&server);
    for number in 0..20 {
        let _ = plain(&server, "");
        joiner
            .send_text(&format!(r#"{{"type":"send","data":{number}}}"#))
            .expect("connected");
        assert_eq!(
            receive(&mut opener),
            format!(r#"{{"type":"data","index":0,"data":{number}}}"#)
        );
    }
    eventually("the others have ended", || server.handle.connection_count() == 2);
    // The first event is in the channel. Of the others there are four of the pair, and two of each that has come and gone.
    let lost = 3 + 2 * 20;
    eventually("all losses are counted", || {
        let line = format!("sigver_events_lost_total {lost}\n");
        server.handle.metrics().contains(&line)
    });
    assert!(matches!(next(&events), ServerEvent::Connected { .. }));
    assert_eq!(next(&events), ServerEvent::Lost(lost), "without another event");
    assert!(ask(&mut joiner, OPEN).contains("has-role"));
    assert!(matches!(next(&events), ServerEvent::Refused { .. }));
}

#[test]
fn dropped_receiver_ends_the_reports() {
    let (server, events) = with_events(1);
    drop(events);
    let (mut opener, mut joiner) = pair(&server);
    joiner.send_text(r#"{"type":"send","data":1}"#).expect("connected");
    assert!(receive(&mut opener).contains("data"));
    assert_eq!(server.handle.connections().len(), 2);
    assert!(server.handle.metrics().contains("sigver_events_lost_total 0\n"));
}

#[test]
fn connections_are_listed_with_identity_role_and_key() {
    let before = SystemTime::now() - Duration::from_secs(1);
    let server = Running::start(config());
    let (_opener, _joiner) = pair(&server);
    let mut waiting = v1(&server, "carol");
    ask(&mut waiting, r#"{"type":"join","key":"coffee","wait":100}"#);
    let mut idle = plain(&server, "");
    idle.sync();
    // It has not sent its request.
    let _handshake = TcpStream::connect(server.addr).expect("the server accepts a connection");
    let mut connections = server.handle.connections();
    connections.sort_by_key(|info| info.connection);
    let shown: Vec<_> = connections
        .iter()
        .map(|info| {
            assert_eq!(info.client, LOCALHOST);
            assert!(info.since > before && info.since <= SystemTime::now());
            (
                info.identity.as_deref(),
                info.role,
                info.key.as_ref().map(sigver_core::Key::as_str),
            )
        })
        .collect();
    let expected = [
        (Some("alice"), Some(Role::Opener), Some("tea")),
        (Some("bob"), Some(Role::Joiner), Some("tea")),
        (Some("carol"), Some(Role::Waiting), Some("coffee")),
        (None, None, None),
    ];
    assert_eq!(shown, expected);
    assert!(!format!("{connections:?}").contains("tea"), "keys are secrets");
    assert_eq!(connections[0].connection.to_string(), "#0");
}

#[test]
fn closed_key_is_free_at_once() {
    let server = Running::start(config());
    let (mut opener, mut joiner) = pair(&server);
    assert!(server.handle.close_key("tea"));
    assert!(!server.handle.close_key("tea"));
    let mut next = v1(&server, "carol");
    assert!(ask(&mut next, OPEN).contains("opened"));
    assert_eq!(
        opener.receive(),
        Seen::Close(Some(4005), "closed by the operator".into())
    );
    assert_eq!(receive(&mut joiner), r#"{"type":"closed","code":"opener-left"}"#);
    assert!(ask(&mut joiner, JOIN).contains("joined"), "it is still connected");
}

#[test]
fn reserved_key_is_freed() {
    let server = Running::start(config());
    let (mut opener, mut joiner) = pair(&server);
    opener.vanish().expect("the server closes the connection");
    assert!(receive(&mut joiner).contains("opener-left"));
    assert!(ask(&mut joiner, OPEN).contains("key-taken"));
    assert!(server.handle.close_key("tea"));
    assert!(ask(&mut joiner, OPEN).contains("opened"));
}

#[test]
fn kicked_joiner_stays_connected_and_a_plain_one_is_closed() {
    let server = Running::start(config());
    let (mut opener, mut joiner) = pair(&server);
    let mut plain = plain(&server, "carol");
    plain.send_text(JOIN).expect("connected");
    assert!(receive(&mut opener).contains(r#""index":1"#));
    for name in ["bob", "carol"] {
        assert!(server.handle.kick(connection(&server, name)));
    }
    assert_eq!(receive(&mut joiner), r#"{"type":"closed","code":"kicked"}"#);
    assert_eq!(plain.receive(), Seen::Close(Some(4003), "kicked by the opener".into()));
    for index in 0..2 {
        assert_eq!(receive(&mut opener), format!(r#"{{"type":"leave","index":{index}}}"#));
    }
    for name in ["alice", "bob"] {
        assert!(!server.handle.kick(connection(&server, name)), "no joiner");
    }
}

#[test]
fn closed_joiner_leaves_its_opener() {
    let (server, events) = with_events(100);
    let (mut opener, mut joiner) = pair(&server);
    let bob = connection(&server, "bob");
    assert!(server.handle.close(bob));
    assert!(!server.handle.close(bob), "it is closed already");
    assert_eq!(
        joiner.receive(),
        Seen::Close(Some(4005), "closed by the operator".into())
    );
    assert_eq!(receive(&mut opener), r#"{"type":"leave","index":0}"#);
    assert_eq!(server.handle.connections().len(), 1);
    let end = ConnEnd::Closed(CloseReason::ClosedByOperator);
    let closed = ServerEvent::Closed { connection: bob, end };
    assert!(std::iter::repeat_with(|| next(&events)).any(|event| event == closed));
}

#[test]
fn requests_for_what_is_not_there_do_nothing() {
    let server = Running::start(config());
    // It has sent no request.
    let _handshake = TcpStream::connect(server.addr).expect("the server accepts a connection");
    eventually("it is accepted", || server.handle.connection_count() == 1);
    for number in [0, 1, u64::MAX] {
        let connection = ConnectionId::new(number);
        assert!(!server.handle.close(connection) && !server.handle.kick(connection));
    }
    for key in ["tea", "", &"x".repeat(1_000)] {
        assert!(!server.handle.close_key(key));
    }
    assert_eq!(server.handle.connections(), []);
}

#[test]
fn handle_answers_before_and_after_the_server_runs() {
    let mut config = config();
    config.listen = vec!["127.0.0.1:0".parse().expect("an address")];
    let server = Server::bind(config).expect("a free port");
    let handle = server.handle();
    let answers_nothing = || {
        assert_eq!(handle.connections(), []);
        assert!(!handle.close_key("tea"));
        assert!(!handle.close(ConnectionId::new(0)) && !handle.kick(ConnectionId::new(0)));
    };
    answers_nothing();
    handle.shutdown_now();
    server.run().expect("it ends");
    answers_nothing();
}

#[test]
fn requests_during_the_end_of_the_server_are_answered() {
    let server = Running::start(config());
    let _pair = pair(&server);
    let (started, starts) = sync_channel(4);
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (handle, started) = (server.handle.clone(), started.clone());
            thread::spawn(move || {
                assert_eq!(handle.connections().len(), 2);
                started.send(()).expect("the test waits");
                while !handle.connections().is_empty() {}
            })
        })
        .collect();
    for _ in 0..4 {
        starts.recv_timeout(DEADLINE).expect("it asks");
    }
    server.stop().expect("it ends");
    for thread in asking {
        thread.join().expect("it does not panic");
    }
}
