//! The limit on the backlogs of all connections together.

use core::num::NonZeroU64;

use super::*;

/// What a joiner sends, and what its opener receives: both of the plain dialect.
const SEND: &str = r#"{"a":1}"#;
const RECEIVE: &str = r#"{"a":1,"index":0}"#;

/// The cost of [`RECEIVE`].
const COST: usize = RECEIVE.len() + 2 + Frame::OVERHEAD;

fn limited(backlog_total_bytes: u64) -> Server {
    Server::new(|config| {
        config.backlog_total_bytes = NonZeroU64::new(backlog_total_bytes);
        config.bytes_per_second = None;
    })
}

/// Returns an opener of this key and its joiner.
fn pair(server: &mut Server, key: &str) -> (ConnId, ConnId) {
    let (opener, joiner) = (server.connect(Plain), server.connect(Plain));
    server.text(opener, &format!(r#"{{"type":"open","key":"{key}"}}"#));
    server.text(joiner, &format!(r#"{{"type":"join","key":"{key}"}}"#));
    (opener, joiner)
}

/// Returns an opener with this many unread frames and its joiner.
fn stalled(server: &mut Server, key: &str, frames: usize) -> (ConnId, ConnId) {
    let (opener, joiner) = pair(server, key);
    server.stalled.insert(opener);
    for _ in 0..frames {
        assert_eq!(server.text(joiner, SEND).of(opener), [RECEIVE]);
    }
    (opener, joiner)
}

fn evicted(server: &Server) -> u64 {
    server.endpoint.counters().evicted
}

#[test]
fn largest_backlog_is_closed_and_smaller_ones_stay() {
    let mut server = limited(4 * COST as u64);
    let (small, small_joiner) = stalled(&mut server, "a", 1);
    let (large, large_joiner) = stalled(&mut server, "b", 3);
    let (honest, joiner) = pair(&mut server, "c");
    assert_eq!(server.text(joiner, SEND), [(honest, RECEIVE)], "exactly at the limit");
    assert_eq!(server.text(small_joiner, SEND), [(small, RECEIVE)], "over it");
    let expected = [
        (large, "close 1013 TooSlow"),
        (large_joiner, "ended-by-opener"),
        (large_joiner, "close 4001 OpenerLeft"),
        (honest, RECEIVE),
    ];
    assert_eq!(server.text(joiner, SEND), expected);
    assert_eq!(server.endpoint.counters().backlog_bytes, 2 * COST as u64);
    assert_eq!(evicted(&server), 1);
    let refused = server.endpoint.counters().refused;
    assert!(refused.iter().any(|one| one == ("too-slow", 1)));
}

#[test]
fn connections_are_closed_until_the_others_fit() {
    let mut server = limited(100);
    let (opener, slow) = (server.connect(V1), [V1; 4].map(|dialect| server.connect(dialect)));
    server.text(opener, OPEN);
    for joiner in slow {
        server.text(joiner, JOIN);
        server.stalled.insert(joiner);
    }
    let notice = r#"{"type":"closed","code":"opener-left"}"#;
    let outputs = server.input(opener, Input::Disconnected);
    assert!(slow.iter().all(|joiner| outputs.of(*joiner).contains(&notice)));
    let cost = (notice.len() + 2 + Frame::OVERHEAD) as u64;
    assert_eq!(server.endpoint.counters().backlog_bytes, 4 * cost);
    let outputs = server.handle_timeout();
    assert_eq!(
        slow.map(|joiner| outputs.of(joiner).len()),
        [1, 1, 0, 0],
        "two frames fit; of equal backlogs, that of the lowest id is closed"
    );
    assert_eq!(
        (server.endpoint.counters().backlog_bytes, evicted(&server)),
        (2 * cost, 2)
    );
}

/// Its frames were not discarded when it was closed, so it is aborted.
#[test]
fn closing_connection_with_the_largest_backlog_is_aborted() {
    let mut server = limited(3 * COST as u64);
    let (closing, joiner) = stalled(&mut server, "a", 2);
    server.input(closing, Input::Binary);
    server.input(joiner, Input::Disconnected);
    let (open, joiner) = stalled(&mut server, "b", 1);
    assert_eq!(server.text(joiner, SEND), [(open, RECEIVE)]);
    let expected = [(closing, "abort"), (open, RECEIVE)];
    assert_eq!(server.text(joiner, SEND), expected);
    assert_eq!(server.endpoint.counters().backlog_bytes, 3 * COST as u64);
    assert_eq!(evicted(&server), 1);
    assert_eq!(server.input(closing, Input::Disconnected), []);
    assert_eq!(server.run_until(20_000), [], "its close time-out is cancelled");
}

#[test]
fn late_reports_of_a_closed_connection_change_nothing() {
    let mut server = limited(3 * COST as u64);
    let (large, large_joiner) = stalled(&mut server, "a", 3);
    let (small, joiner) = stalled(&mut server, "b", 1);
    assert_eq!(server.text(joiner, SEND).of(large), ["close 1013 TooSlow"]);
    server.input(large_joiner, Input::Disconnected);
    let total = 2 * COST as u64;
    for _ in 0..2 {
        server.written(large, COST);
        server.endpoint.assert_invariants();
        assert_eq!(server.endpoint.counters().backlog_bytes, total);
    }
    // What was reported is progress: the rest of a frame may still be sent.
    assert_eq!(server.run_until(5_000), []);
    server.input(large, Input::Disconnected);
    server.written(large, COST);
    assert_eq!(server.endpoint.counters().backlog_bytes, total);
    server.written(small, usize::MAX);
    assert_eq!(server.endpoint.counters().backlog_bytes, 0);
}

#[test]
fn every_end_of_a_connection_frees_its_part() {
    type End = fn(&mut Server, ConnId);
    let ends: [End; 4] = [
        |server, id| drop(server.input(id, Input::Disconnected)),
        |server, id| {
            server.input(id, Input::Close(None));
            server.input(id, Input::Disconnected);
        },
        |server, id| {
            server.input(id, Input::Binary);
            assert_eq!(server.endpoint.counters().backlog_bytes, 2 * COST as u64);
            server.run_until(5_000);
        },
        |server, id| {
            server.close_all();
            server.written(id, 2 * COST);
        },
    ];
    for end in ends {
        let mut server = limited(u64::MAX);
        let (opener, _) = stalled(&mut server, "a", 2);
        assert_eq!(server.endpoint.counters().backlog_bytes, 2 * COST as u64);
        end(&mut server, opener);
        server.endpoint.assert_invariants();
        assert_eq!(server.endpoint.counters().backlog_bytes, 0);
        assert_eq!(evicted(&server), 0);
    }
}

/// The smallest limit closes clients that do not read, and no client that reads: many frames of one call are no backlog.
#[test]
fn limit_of_one_byte_serves_clients_that_read() {
    let mut server = limited(1);
    let (opener, mut joiners) = (server.connect(V1), Vec::new());
    server.text(opener, OPEN);
    for index in 0..3 {
        let joiner = server.connect(V1);
        let joined = format!(r#"{{"type":"joined","index":{index}}}"#);
        assert_eq!(server.text(joiner, JOIN).of(joiner), [joined.as_str()]);
        joiners.push(joiner);
    }
    let (slow, joiner) = pair(&mut server, "slow");
    server.stalled.insert(slow);
    let huge = format!(r#"{{"a":"{}"}}"#, "a".repeat(60_000));
    assert_eq!(
        server.text(joiner, &huge).of(slow).len(),
        1,
        "one frame of any size fits"
    );
    let outputs = server.text(joiners[0], r#"{"type":"send","data":1}"#);
    assert_eq!(outputs.of(slow), ["close 1013 TooSlow"]);
    assert_eq!(outputs.of(opener), [r#"{"type":"data","index":0,"data":1}"#]);
    let outputs = server.input(opener, Input::Disconnected);
    let [first, second, third] = joiners[..] else {
        panic!("three joiners")
    };
    for joiner in [first, second, third] {
        assert_eq!(outputs.of(joiner).len(), 2);
    }
    assert_eq!(server.text(first, r#"{"type":"open","key":"new"}"#).of(first).len(), 1);
    assert_eq!(evicted(&server), 1);
}

#[test]
fn many_slow_readers_do_not_close_an_honest_pair() {
    let mut server = limited(20 * COST as u64);
    let (honest, joiner) = stalled(&mut server, "honest", 1);
    let slow: Vec<_> = (0..12).map(|key| stalled(&mut server, &key.to_string(), 0)).collect();
    for round in 0..400 {
        let (_, slow_joiner) = slow[round / 3 % slow.len()];
        server.text(slow_joiner, SEND);
        // It reads, but always one message late.
        assert_eq!(server.text(joiner, SEND).of(honest), [RECEIVE]);
        server.written(honest, COST);
    }
    assert!(evicted(&server) > 5, "{}", evicted(&server));
    assert_eq!(server.endpoint.role(honest), Some(Role::Opener));
}
