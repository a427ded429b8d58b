//! Clients whose admission has an end.

use super::*;

const EXPIRED: &str = r#"{"type":"closed","code":"token-expired"}"#;
const CLOSE: &str = "close 4004 TokenExpired";

fn server() -> Server {
    Server::new(|config| {
        config.keep_alive = Duration::MAX;
        config.close_timeout = Duration::MAX;
    })
}

#[test]
fn client_is_told_and_closed_on_time() {
    let mut server = server();
    let (opener, joiner) = server.pair(V1, V1);
    let [idle, waiting, plain] = [V1, V1, Plain].map(|dialect| server.connect(dialect));
    server.text(waiting, r#"{"type":"join","key":"coffee","wait":100}"#);
    server.text(plain, r#"{"type":"open","key":"milk"}"#);
    for (id, seconds) in [(joiner, 10), (idle, 20), (waiting, 30), (plain, 40)] {
        server.endpoint.expire_at(server.now, id, at(seconds * 1_000));
    }
    let closed = [
        (10_000, joiner, "ended-by-server"),
        (10_000, joiner, EXPIRED),
        (10_000, joiner, CLOSE),
        (10_000, opener, r#"{"type":"leave","index":0}"#),
        (20_000, idle, CLOSE),
        (30_000, waiting, CLOSE),
        (40_000, plain, CLOSE),
    ];
    assert_eq!(server.run_until(100_000), closed);
}

#[test]
fn key_of_an_expired_opener_is_free_at_once() {
    let mut server = server();
    let (opener, joiner) = server.pair(V1, V1);
    server.endpoint.expire_at(server.now, opener, at(5_000));
    let closed = [
        (5_000, opener, EXPIRED),
        (5_000, opener, CLOSE),
        (5_000, joiner, "ended-by-opener"),
        (5_000, joiner, r#"{"type":"closed","code":"opener-left"}"#),
    ];
    assert_eq!(server.run_until(5_000), closed);
    assert!(server.text(joiner, OPEN).of(joiner)[0].contains("opened"));
}

#[test]
fn later_call_replaces_the_time_and_a_client_that_leaves_has_none() {
    let mut server = server();
    let [renewed, gone] = [V1; 2].map(|dialect| server.connect(dialect));
    for id in [renewed, gone] {
        server.endpoint.expire_at(server.now, id, at(5_000));
    }
    server.endpoint.expire_at(server.now, renewed, at(7_000));
    server.input(gone, Input::Disconnected);
    server.endpoint.expire_at(server.now, gone, at(5_000));
    assert_eq!(server.run_until(6_999).len(), 0);
    assert_eq!(server.run_until(7_000), [(7_000, renewed, CLOSE)]);
    assert_eq!(server.endpoint.poll_timeout(), None);
}

#[test]
fn time_that_is_over_is_due_at_once() {
    let mut server = server();
    let id = server.connect(V1);
    server.now = at(5_000);
    server.endpoint.expire_at(server.now, id, at(1_000));
    assert_eq!(server.handle_timeout(), [(id, CLOSE)]);
    let id = server.connect(V1);
    server
        .endpoint
        .expire_at(server.now, id, Time::from_duration(Duration::MAX));
    assert!(server.endpoint.poll_timeout().is_some_and(|due| due > at(1 << 40)));
}
