//! The limit on takeovers of a key.

use super::*;

/// Takes `tea` over with the token in `opened`. Returns the reply.
fn take_over(server: &mut Server, opened: &str) -> (ConnId, String) {
    let (_, token) = opened.split_once(r#""token":""#).expect("a token");
    let open = format!(r#"{{"type":"open","key":"tea","token":"{}"}}"#, &token[..32]);
    let id = server.connect(V1);
    let reply = server.text(id, &open).of(id)[0].to_owned();
    (id, reply)
}

#[test]
fn key_is_taken_over_thirty_times_at_once_and_then_every_two_seconds() {
    let mut server = Server::new(|config| config.keep_alive = Duration::MAX);
    let opener = server.connect(V1);
    let mut opened = server.text(opener, OPEN).of(opener)[0].to_owned();
    let mut last = opener;
    for _ in 0..30 {
        (last, opened) = take_over(&mut server, &opened);
        assert!(opened.contains(r#""type":"opened""#), "{opened}");
    }
    let (refused, reply) = take_over(&mut server, &opened);
    assert!(reply.contains("too-many-attempts"), "{reply}");
    let meet = format!(r#"{{"type":"meet","key":"tea","token":"{}"}}"#, "0".repeat(32));
    assert!(server.text(refused, &meet).of(refused)[0].contains("too-many-attempts"));
    // Without a token, nothing is taken over.
    assert!(server.text(refused, OPEN).of(refused)[0].contains("key-taken"));
    assert!(server.text(refused, JOIN).of(refused)[0].contains("joined"));
    server.now = at(2_000);
    (_, opened) = take_over(&mut server, &opened);
    assert!(opened.contains(r#""type":"opened""#), "{opened}");
    let (_, reply) = take_over(&mut server, &opened);
    assert!(reply.contains("too-many-attempts"), "{reply}");
    assert!(
        server.text(last, r#"{"type":"ping"}"#).of(last)[0].contains("pong"),
        "it stays connected"
    );
}
