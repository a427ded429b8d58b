//! ICE servers in the messages that begin a pairing.

use sigver_core::{IceServer, IceServers};

use super::*;

fn servers(number: usize) -> IceServers {
    IceServers {
        servers: vec![
            IceServer {
                urls: vec!["stun:a".into()],
                username: None,
                credential: None,
            },
            IceServer {
                urls: vec!["turn:b".into(), "turns:\"b\"".into()],
                username: Some(format!("user {number}")),
                credential: Some("secret".into()),
            },
        ],
        ttl: Some(Duration::from_millis(60_900)),
    }
}

/// A server that numbers the servers that it hands out.
fn server() -> Server {
    let mut server = Server::new(|config| config.keep_alive = Duration::MAX);
    let mut number = 0;
    server.endpoint = server.endpoint.with_ice_servers(move || {
        number += 1;
        Some(servers(number))
    });
    server
}

fn ice(number: usize) -> String {
    format!(
        r#""ice":{{"servers":[{{"urls":["stun:a"]}},{{"urls":["turn:b","turns:\"b\""],"username":"user {number}","credential":"secret"}}],"ttl":60}}"#
    )
}

#[test]
fn each_side_of_each_pairing_gets_its_own() {
    let mut server = server();
    let [opener, plain, v1] = [V1, Plain, V1].map(|dialect| server.connect(dialect));
    assert!(
        !server.text(opener, OPEN).of(opener)[0].contains("ice"),
        "there is no pairing"
    );
    assert_eq!(
        server.text(plain, JOIN),
        [(opener, &*format!(r#"{{"type":"join","index":0,{}}}"#, ice(1)))],
        "the plain dialect has none"
    );
    let joined = [
        (v1, &*format!(r#"{{"type":"joined","index":1,{}}}"#, ice(2))),
        (opener, &*format!(r#"{{"type":"join","index":1,{}}}"#, ice(3))),
    ];
    assert_eq!(server.text(v1, JOIN), joined);
}

#[test]
fn opener_that_takes_over_gets_one_for_each_joiner() {
    let mut server = server();
    let [opener, joiner, next] = [V1; 3].map(|dialect| server.connect(dialect));
    let opened = server.text(opener, OPEN).of(opener)[0].to_owned();
    server.text(joiner, JOIN);
    let (_, token) = opened.split_once(r#""token":"#).expect("a token");
    let outputs = server.text(next, &format!(r#"{{"type":"open","key":"tea","token":{token}"#));
    let joiners = format!(r#""joiners":[{{"index":0,{}}}]}}"#, ice(3));
    assert!(outputs.of(next)[0].ends_with(&joiners), "{outputs:?}");
}

#[test]
fn no_servers_are_no_member() {
    for none in [None, Some(IceServers::default())] {
        let mut server = server();
        server.endpoint = server.endpoint.with_ice_servers(move || none.clone());
        let [opener, joiner] = [V1; 2].map(|dialect| server.connect(dialect));
        server.text(opener, OPEN);
        assert_eq!(server.text(joiner, JOIN).of(joiner), [r#"{"type":"joined","index":0}"#]);
    }
}

#[test]
fn credentials_are_not_shown() {
    let shown = format!("{:?}", servers(7));
    assert!(shown.contains("user 7") && !shown.contains("secret"), "{shown}");
}
