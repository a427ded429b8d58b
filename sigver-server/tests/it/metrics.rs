//! The metrics page: counters, labels without client data, and what else the admin address serves.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpStream},
    sync::mpsc::sync_channel,
    time::Duration,
};

use sigver_server::Config;
use sigver_transcripts::{Seen, socket::Client};

use crate::support::{Running, eventually, exchange, handshake, test_config};

fn config() -> Config {
    let mut config = test_config();
    config.admin = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config
}

fn with_page() -> Running {
    Running::start(config())
}

fn request(addr: SocketAddr, line: &str) -> io::Result<String> {
    exchange(addr, format!("{line}\r\nHost: x\r\n\r\n").as_bytes())
}

/// Requests the metrics page. It serves few connections at a time, and earlier ones may not have ended, so this retries.
fn request_page(server: &Running, line: &str) -> String {
    let mut page = String::new();
    eventually("the page is served", || {
        page = request(server.admin[0], line).unwrap_or_default();
        !page.is_empty()
    });
    page
}

/// Returns every sample of the page by its name and labels.
fn samples(server: &Running) -> BTreeMap<String, f64> {
    let answer = request_page(server, "GET /metrics HTTP/1.1");
    let (head, page) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.contains("Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(page.ends_with("# EOF\n"), "{page}");
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

fn v1(server: &Running) -> Client {
    let stream = TcpStream::connect(server.addr).expect("the server accepts a connection");
    let (client, _) = handshake(stream, "/", "Sec-WebSocket-Protocol: sigver.v1\r\n").expect("a valid handshake");
    client
}

#[test]
fn session_is_counted_in_metrics() {
    let server = with_page();
    let (mut opener, mut joiner) = server.pair("SECRET");
    let offer = r#"{"type":"offer","sdp":"SECRET"}"#;
    joiner.send_text(offer).expect("connected");
    assert!(matches!(opener.receive(), Seen::Text(_)));
    opener.send_text(r#"{"type":"answer","index":0}"#).expect("connected");
    assert!(matches!(joiner.receive(), Seen::Text(_)));
    opener.sync();
    eventually("the page is up to date", || {
        samples(&server)["sigver_relay_seconds_count"] >= 2.0
    });
    let during = samples(&server);
    let value = |name: &str| during[name];
    assert_eq!(value("sigver_connections"), 2.0);
    assert_eq!(value("sigver_keys"), 1.0);
    assert_eq!(value("sigver_joiners"), 1.0);
    assert_eq!(value("sigver_waiting"), 0.0);
    assert_eq!(value("sigver_reserved_keys"), 0.0);
    assert_eq!(value(r#"sigver_messages_total{direction="in"}"#), 4.0);
    assert_eq!(
        value(r#"sigver_messages_total{direction="out"}"#),
        3.0,
        "the join, the offer, the answer"
    );
    let open_and_join = r#"{"type":"open","key":"SECRET"}"#.len() * 2;
    assert_eq!(
        value(r#"sigver_message_bytes_total{direction="in"}"#),
        (open_and_join + offer.len() + r#"{"type":"answer","index":0}"#.len()) as f64
    );
    assert_eq!(value(r#"sigver_relay_seconds_bucket{le="+Inf"}"#), 2.0);
    for (stage, count) in [
        ("opened", 1.0),
        ("joined", 1.0),
        ("joiner-spoke", 1.0),
        ("opener-spoke", 1.0),
        ("both-spoke", 1.0),
        ("ended-by-joiner", 0.0),
    ] {
        assert_eq!(
            value(&format!(r#"sigver_pairings_total{{stage="{stage}"}}"#)),
            count,
            "{stage}"
        );
    }
    drop(joiner);
    eventually("the joiner has left", || {
        samples(&server)[r#"sigver_pairings_total{stage="ended-by-joiner"}"#] == 1.0
    });
    drop(opener);
    eventually("gauges return to 0", || {
        let after = samples(&server);
        [
            "sigver_connections",
            "sigver_keys",
            "sigver_joiners",
            "sigver_blocked_joiners",
            "sigver_backlog_bytes",
        ]
        .iter()
        .all(|gauge| after[*gauge] == 0.0)
    });
    let shown: String = samples(&server).into_keys().collect();
    assert!(!shown.contains("SECRET") && !shown.contains("127.0.0.1"), "{shown}");
}

#[test]
fn pairing_ends_are_counted_by_cause() {
    let server = with_page();
    let ended = |by: &str| format!(r#"sigver_pairings_total{{stage="ended-by-{by}"}}"#);
    let reaches = |by: &str, count: f64| eventually(by, || samples(&server)[&ended(by)] == count);

    // The plain dialect: the opener disconnects, a joiner violates the protocol.
    let (opener, mut joiner) = server.pair("a");
    drop(opener);
    assert!(matches!(joiner.receive(), Seen::Close(Some(4001), _)));
    reaches("opener", 1.0);
    let (mut opener, mut joiner) = server.pair("b");
    joiner.send_text("[]").expect("connected");
    assert!(matches!(joiner.receive(), Seen::Close(Some(1007), _)));
    reaches("server", 1.0);
    opener.sync();

    // `sigver.v1`: kick, leave, close.
    let (mut opener, mut joiner) = (v1(&server), v1(&server));
    opener.send_text(r#"{"type":"open","key":"c"}"#).expect("connected");
    opener.sync();
    for (text, from_opener, by, count) in [
        (r#"{"type":"kick","index":0}"#, true, "kick", 1.0),
        (r#"{"type":"leave"}"#, false, "joiner", 1.0),
        (r#"{"type":"close"}"#, true, "opener", 2.0),
    ] {
        joiner.send_text(r#"{"type":"join","key":"c"}"#).expect("connected");
        joiner.sync();
        let sender = if from_opener { &mut opener } else { &mut joiner };
        sender.send_text(text).expect("connected");
        sender.sync();
        reaches(by, count);
    }
    assert_eq!(samples(&server)[&ended("kick")], 1.0);
}

#[test]
fn rejections_are_counted_by_reason_and_status() {
    let server = with_page();
    let mut plain = server.client();
    plain.send_text(r#"{"type":"join","key":"nobody"}"#).expect("connected");
    assert!(matches!(plain.receive(), Seen::Close(Some(1008), _)));
    let mut client = v1(&server);
    client
        .send_text(r#"{"type":"join","key":"nobody"}"#)
        .expect("connected");
    assert!(matches!(client.receive(), Seen::Text(_)));
    client.send_text(r#"{"type":"leave"}"#).expect("connected");
    client.sync();
    for _ in 0..2 {
        let answer = request(server.addr, "GET /wp-login.php HTTP/1.1").expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    let answer = request(server.addr, "GET /health HTTP/1.1").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    eventually("all are counted", || {
        let seen = samples(&server);
        seen[r#"sigver_refused_total{reason="unknown-key"}"#] == 2.0
            && seen[r#"sigver_refused_total{reason="no-role"}"#] == 1.0
            && seen.get(r#"sigver_refused_total{reason="http-404"}"#) == Some(&2.0)
    });
    assert!(!samples(&server).contains_key(r#"sigver_refused_total{reason="http-200"}"#));
}

#[test]
fn client_input_adds_no_metric_label() {
    let server = with_page();
    let mut client = server.client();
    client.sync();
    let _ = request(server.addr, "GET /0 HTTP/1.1");
    let before = samples(&server).len();
    for number in 0..50 {
        let (opener, _joiner) = server.pair(&format!("key{number}"));
        drop(opener);
        let _ = request(server.addr, &format!("GET /{number} HTTP/1.1"));
    }
    assert_eq!(samples(&server).len(), before);
}

#[test]
fn metrics_page_is_only_on_admin_address() {
    let server = with_page();
    for (line, status) in [
        ("GET /metrics?x=1 HTTP/1.1", "200"),
        ("HEAD /metrics HTTP/1.1", "200"),
        ("GET / HTTP/1.1", "404"),
        ("GET /health HTTP/1.1", "404"),
        ("POST /metrics HTTP/1.1", "405"),
        ("nonsense", "400"),
    ] {
        let answer = request_page(&server, line);
        assert_eq!(answer.get(9..12), Some(status), "{line}: {answer}");
    }
    let head = request_page(&server, "HEAD /metrics HTTP/1.1");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    let answer = request(server.addr, "GET /metrics HTTP/1.1").expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 404 "),
        "the client address does not serve it: {answer}"
    );
    assert!(
        Client::connect(server.admin[0], "/").is_err(),
        "the admin address accepts no clients"
    );
}

/// Idle connections delay the page until they time out, and clients not at all.
#[test]
fn idle_admin_connections_delay_no_client() {
    let mut config = config();
    // It applies to clients too, so it is not short.
    config.handshake_timeout = Duration::from_secs(2);
    let server = Running::start(config);
    let idle: Vec<_> = (0..20).map(|_| TcpStream::connect(server.admin[0])).collect();
    let (mut opener, mut joiner) = server.pair("tea");
    joiner.send_text(r#"{"n":1}"#).expect("connected");
    assert!(matches!(opener.receive(), Seen::Text(_)));
    eventually("the page is served again", || {
        request(server.admin[0], "GET /metrics HTTP/1.1").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    });
    drop(idle);
}

#[test]
fn handle_returns_the_metrics_without_a_port() {
    let server = Running::start(test_config());
    let (_opener, _joiner) = server.pair("tea");
    eventually("the joiner is counted", || {
        server.handle.metrics().contains("sigver_joiners 1\n")
    });
    assert!(server.handle.metrics().ends_with("# EOF\n"));
}

#[test]
fn events_that_the_embedder_misses_are_counted() {
    let (sender, events) = sync_channel(1);
    let mut config = config();
    config.events = Some(sender);
    let server = Running::start(config);
    let _pair = server.pair("SECRET");
    eventually("all but the first are lost", || {
        samples(&server)["sigver_events_lost_total"] == 3.0
    });
    drop(events);
}
