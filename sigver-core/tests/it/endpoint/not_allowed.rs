//! Requests for roles that the embedder does not allow.

use sigver_core::{AllowedRoles, Key, Token};

use super::*;

fn key() -> Key {
    Key::new("tea", &Limits::default()).expect("a key")
}

fn input(message: InboundMessage) -> Input<'static> {
    Input::Message {
        message,
        text_bytes: 30,
        wire_bytes: 36,
    }
}

fn refused(key: Option<Key>) -> Input<'static> {
    input(InboundMessage::NotAllowed { key })
}

fn meet(opener: bool, joiner: bool) -> Input<'static> {
    input(InboundMessage::Meet {
        key: key(),
        id: None,
        token: None,
        new_token: None,
        allowed: AllowedRoles { opener, joiner },
    })
}

const ERROR: &str = r#"{"type":"error","code":"not-allowed","message":"this socket is not allowed to have this role at `key`","key":"tea"}"#;

#[test]
fn request_that_is_not_allowed_is_refused_and_meets_the_role_deadline() {
    let mut server = Server::new(|config| {
        config.keep_alive = Duration::MAX;
        config.limits.role_deadline = Some(Duration::from_secs(10));
    });
    let [v1, plain] = [V1, Plain].map(|dialect| server.connect(dialect));
    assert_eq!(server.input(v1, refused(Some(key()))), [(v1, ERROR)]);
    assert_eq!(
        server.input(plain, refused(Some(key()))),
        [(plain, "close 1008 NotAllowed")]
    );
    assert_eq!(
        server.input(v1, refused(None)),
        [(v1, &*ERROR.replace(r#","key":"tea""#, ""))]
    );
    server.input(plain, Input::Disconnected);
    assert_eq!(server.run_until(60_000).len(), 0);
    assert_eq!(server.text(v1, OPEN).of(v1).len(), 1);
    assert!(server.input(v1, refused(Some(key()))).of(v1)[0].contains("has-role"));
}

#[test]
fn meet_is_refused_only_if_it_would_give_another_role() {
    let mut server = Server::new(|config| config.keep_alive = Duration::MAX);
    let [first, second, third] = [V1; 3].map(|dialect| server.connect(dialect));
    assert_eq!(server.input(first, meet(false, true)), [(first, ERROR)]);
    assert!(server.input(first, meet(true, false)).of(first)[0].contains("opened"));
    assert_eq!(server.input(second, meet(true, false)), [(second, ERROR)]);
    assert!(server.input(second, meet(false, true)).of(second)[0].contains("joined"));
    assert_eq!(server.input(third, meet(false, false)), [(third, ERROR)]);
    assert_eq!(server.endpoint.counters().hub.joiners, 1);
}

/// The token shows that the client had the key, not that it may still open it.
#[test]
fn takeover_requires_permission_to_open() {
    let mut server = Server::new(|config| config.keep_alive = Duration::MAX);
    let [opener, client] = [V1; 2].map(|dialect| server.connect(dialect));
    let opened = server.text(opener, OPEN).of(opener)[0].to_owned();
    let (_, token) = opened.split_once(r#""token":""#).expect("a token");
    let meet = |opener| {
        input(InboundMessage::Meet {
            key: key(),
            id: None,
            token: Token::new(&token[..32]).ok(),
            new_token: None,
            allowed: AllowedRoles { opener, joiner: true },
        })
    };
    assert_eq!(server.input(client, meet(false)), [(client, ERROR)]);
    assert!(server.input(client, meet(true)).of(client)[0].contains("opened"));
}

#[test]
fn refusals_are_attempts() {
    let mut server = Server::new(|config| config.key_attempts_per_minute = NonZeroU32::new(2));
    let id = server.connect(V1);
    for _ in 0..2 {
        assert_eq!(server.input(id, refused(Some(key()))), [(id, ERROR)]);
    }
    for request in [refused(Some(key())), meet(true, true)] {
        assert!(server.input(id, request).of(id)[0].contains("too-many-attempts"));
    }
    assert!(
        server.input(id, refused(None)).of(id)[0].contains("not-allowed"),
        "it names no key"
    );
}

/// The reply to a client that may do nothing does not depend on the key.
#[test]
fn refusal_says_nothing_about_the_key() {
    let mut server = Server::new(|config| config.keep_alive = Duration::MAX);
    let [opener, lost, client] = [V1; 3].map(|dialect| server.connect(dialect));
    for token in [None, Some(Token::from_random(7))] {
        let ask = |server: &mut Server, key: &str| {
            let message = InboundMessage::Meet {
                key: Key::new(key, &Limits::default()).expect("a key"),
                id: None,
                token: token.clone(),
                new_token: None,
                allowed: AllowedRoles {
                    opener: false,
                    joiner: false,
                },
            };
            let replies = server.input(client, input(message));
            assert!(replies.of(client)[0].contains("not-allowed"), "{key}: {replies:?}");
        };
        ask(&mut server, "free");
        server.text(opener, OPEN);
        ask(&mut server, "tea");
        server.text(lost, r#"{"type":"open","key":"reserved"}"#);
        server.input(lost, Input::Disconnected);
        ask(&mut server, "reserved");
    }
}
