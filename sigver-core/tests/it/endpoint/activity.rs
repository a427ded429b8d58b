//! What the endpoint reports about roles. `laws/endpoint.rs` compares it with the roles after every call.

use sigver_core::{Activity, ConnEnd, Index};

use super::*;

fn server() -> Server {
    Server::new(|config| config.report_activity = true)
}

/// Returns what was reported since the last call, described.
fn poll(server: &mut Server) -> Vec<(ConnId, String)> {
    core::iter::from_fn(|| server.endpoint.poll_activity())
        .map(|(id, activity)| {
            let activity = match activity {
                Activity::Opened { key } => format!("opened {}", key.as_str()),
                Activity::Joined { opener, index } => format!("joined {opener} as {index}"),
                other => format!("{other:?}"),
            };
            (id, activity)
        })
        .collect()
}

#[test]
fn session_is_reported_in_order() {
    let mut server = server();
    let (opener, joiner) = server.pair(V1, V1);
    assert_eq!(
        poll(&mut server),
        [
            (opener, "opened tea".into()),
            (joiner, format!("joined {opener} as {}", Index::new(0)))
        ]
    );
    server.text(joiner, r#"{"type":"send","data":1}"#);
    server.text(joiner, JOIN);
    server.text(joiner, r#"{"type":"leave"}"#);
    server.text(joiner, JOIN);
    server.text(opener, r#"{"type":"kick","index":1}"#);
    server.input(joiner, Input::Close(Some(1000)));
    server.input(joiner, Input::Disconnected);
    server.input(opener, Input::Disconnected);
    let expected = [
        (joiner, r#"Refused("has-role")"#.to_owned()),
        (joiner, "Left".to_owned()),
        (joiner, format!("joined {opener} as 1")),
        (joiner, "Left".to_owned()),
        (
            joiner,
            format!("{:?}", Activity::Closed(ConnEnd::CloseFrame(Some(1000)))),
        ),
        (opener, format!("{:?}", Activity::Closed(ConnEnd::Lost))),
    ];
    assert_eq!(poll(&mut server), expected);
}

#[test]
fn end_of_a_key_is_reported_for_each_joiner() {
    let mut server = server();
    let (opener, reusable) = server.pair(V1, V1);
    let single_use = server.connect(Plain);
    server.text(single_use, JOIN);
    poll(&mut server);
    server.text(opener, r#"{"type":"close"}"#);
    let closed = Activity::Closed(ConnEnd::Closed(CloseReason::OpenerLeft));
    let expected = [
        (opener, "Left".to_owned()),
        (reusable, "Left".to_owned()),
        (single_use, format!("{closed:?}")),
    ];
    assert_eq!(poll(&mut server), expected);
}

#[test]
fn waiter_joins_when_the_key_is_opened() {
    let mut server = server();
    let [waiter, opener] = [V1; 2].map(|dialect| server.connect(dialect));
    server.text(waiter, r#"{"type":"join","key":"tea","wait":100}"#);
    server.text(waiter, r#"{"type":"leave"}"#);
    server.text(waiter, r#"{"type":"join","key":"tea","wait":100}"#);
    assert_eq!(poll(&mut server), []);
    server.text(opener, OPEN);
    let expected = [(opener, "opened tea".into()), (waiter, format!("joined {opener} as 0"))];
    assert_eq!(poll(&mut server), expected);
}

#[test]
fn joiners_join_the_connection_that_takes_the_key_over() {
    let mut server = server();
    let previous = server.connect(V1);
    let opened = server.text(previous, OPEN);
    let (_, token) = opened.of(previous)[0].split_once(r#""token":""#).expect("a token");
    let token = token[..32].to_owned();
    let [joiner, next] = [V1; 2].map(|dialect| server.connect(dialect));
    server.text(joiner, JOIN);
    poll(&mut server);
    server.text(next, &format!(r#"{{"type":"open","key":"tea","token":"{token}"}}"#));
    let expected = [
        (previous, "Left".to_owned()),
        (joiner, format!("joined {next} as 0")),
        (next, "opened tea".to_owned()),
    ];
    assert_eq!(poll(&mut server), expected);
}

/// The notice that it has opened the key closes it as a slow consumer, while its waiters join.
#[test]
fn opener_that_is_closed_by_its_own_reply_had_its_joiners() {
    let mut server = Server::new(|config| {
        config.report_activity = true;
        config.backlog_bytes = 100;
    });
    let [waiter, opener] = [V1; 2].map(|dialect| server.connect(dialect));
    server.text(waiter, r#"{"type":"join","key":"tea","wait":100}"#);
    server.stalled.insert(opener);
    server.input(opener, Input::Ping(&[b'p'; 90]));
    server.text(opener, OPEN);
    let closed = Activity::Closed(ConnEnd::Closed(CloseReason::TooSlow));
    let expected = [
        (opener, "opened tea".to_owned()),
        (waiter, format!("joined {opener} as 0")),
        (opener, format!("{closed:?}")),
        (waiter, "Left".to_owned()),
    ];
    assert_eq!(poll(&mut server), expected);
}

#[test]
fn nothing_is_kept_unless_it_is_asked_for() {
    let mut server = default();
    server.pair(V1, V1);
    server.close_all();
    assert_eq!(server.endpoint.poll_activity(), None);
}
