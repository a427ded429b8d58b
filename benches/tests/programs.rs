//! Runs the load generator with the yardstick as the server under test. Nothing is timed.

use std::{
    fs,
    net::TcpListener,
    process::{Command, Output},
    thread,
};

use serde_json::Value;
use tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

/// The command that starts the yardstick.
fn yardstick() -> String {
    format!("{} --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_yardstick"))
}

/// Runs a mode with the yardstick as the server under test, compared with the yardstick.
fn load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_load"))
        .args(arguments)
        .args(["--server", &yardstick(), "--rounds", "1", "--no-pin"])
        .output()
        .expect("load can be started")
}

fn load_successfully(arguments: &[&str]) -> String {
    let output = load(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn verify_of_yardstick_is_clean() {
    let table = load_successfully(&["verify", "--keys", "3", "--joiners", "2", "--messages", "20"]);
    assert!(table.contains("clean: every payload arrived"), "{table}");
}

#[test]
fn exchange_writes_json_of_its_table() {
    let path = std::env::temp_dir().join(format!("sigver-benches-{}.json", std::process::id()));
    let file = path.to_str().expect("UTF-8");
    let table = load_successfully(&["exchange", "--pairs", "1,3", "--seconds", "0.2", "--json", file]);
    let json = fs::read(&path).expect("the file is there");
    fs::remove_file(&path).expect("the file can be removed");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["cases"].as_array().map(Vec::len), Some(2), "{json}");
    for case in json["cases"].as_array().into_iter().flatten() {
        let label = case["label"].as_str().expect("a label");
        assert!(table.contains(label), "{table}");
        for server in case["servers"].as_array().into_iter().flatten() {
            let rate = server["median"]["exchanges/s"].as_f64();
            assert!(rate.is_some_and(|rate| rate > 0.0), "{server}");
        }
    }
}

#[test]
fn sessions_complete_both_close_handshakes() {
    let table = load_successfully(&["sessions", "--at-once", "2", "--seconds", "0.5"]);
    for counter in ["failed sessions", "unanswered close frames"] {
        let line = table.lines().find(|line| line.contains(counter));
        let figures = line.map(|line| line.replace(counter, ""));
        let zeros: Option<Vec<_>> = figures.as_ref().map(|line| line.split_whitespace().collect());
        assert_eq!(zeros, Some(vec!["0", "0"]), "{table}");
    }
}

/// Accepts an opener and a joiner, and relays nothing.
fn connect_pair_and_fall_silent(listener: &TcpListener) {
    let mut clients = [0, 1].map(|_| {
        let (stream, _) = listener.accept().expect("a connection");
        let mut client = tungstenite::accept(stream).expect("a handshake");
        assert!(client.read().expect("open or join").is_text());
        assert!(client.read().expect("a ping").is_ping());
        client.flush().expect("the pong is sent");
        client
    });
    let [opener, joiner] = &mut clients;
    let join = r#"{"type":"join"}"#;
    opener.send(join.into()).expect("the opener is connected");
    while joiner.read().is_ok() {}
}

#[test]
fn exchange_fails_if_server_falls_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    let server = thread::spawn(move || connect_pair_and_fall_silent(&listener));
    let output = load(&["exchange", "--pairs", "1", "--seconds", "0.5", "--against-url", &url]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{errors}");
    assert!(errors.contains("no exchange completed in "), "{errors}");
    server.join().expect("the server ends");
}

#[test]
fn sessions_fail_if_server_accepts_no_handshake() {
    // The kernel accepts connections.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    let output = load(&["sessions", "--at-once", "2", "--seconds", "0.5", "--against-url", &url]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{errors}");
    assert!(errors.contains("no session completed in 0.5 s"), "{errors}");
}

#[test]
fn many_with_separate_processes_is_clean() {
    let table = load_successfully(&["many", "--pairs", "20", "--messages", "3"]);
    assert!(table.contains("clean: every payload arrived"), "{table}");
}

#[test]
fn shares_measures_every_load_with_and_without_flood() {
    // An opener without a limit to speak of: the yardstick queues nothing for it. Whether the latencies are allowed depends on the machine.
    let output = load(&[
        "shares",
        "--speeds",
        "4000000",
        "--flood-bytes",
        "100,5000",
        "--seconds",
        "0.2",
    ]);
    let table = String::from_utf8_lossy(&output.stdout);
    for flood in ["flood of 100 bytes", "flood of 5000 bytes"] {
        let (_, part) = table.split_once(flood).unwrap_or_default();
        let part = part.split("flood of").next().unwrap_or(part);
        for metric in ["calm p99, ms", "flooded p99, ms", "p99 allowed, ms"] {
            assert!(part.contains(metric), "{flood}: {table}");
        }
    }
}

/// Accepts an opener and ten joiners, and closes the connection of the opener when a joiner sends.
fn close_opener(listener: &TcpListener) {
    let (stream, _) = listener.accept().expect("a connection");
    let mut opener = tungstenite::accept(stream).expect("a handshake");
    assert!(opener.read().expect("open").is_text());
    assert!(opener.read().expect("a ping").is_ping());
    opener.flush().expect("the pong is sent");
    let mut joiners = Vec::new();
    for _ in 0..10 {
        let (stream, _) = listener.accept().expect("a connection");
        let mut joiner = tungstenite::accept(stream).expect("a handshake");
        assert!(joiner.read().expect("join").is_text());
        opener
            .send(r#"{"type":"join"}"#.into())
            .expect("the opener is connected");
        assert!(joiner.read().expect("a ping").is_ping());
        joiner.flush().expect("the pong is sent");
        joiners.push(joiner);
    }
    assert!(joiners[0].read().expect("a message").is_text(), "the load has begun");
    let reason = CloseFrame {
        code: CloseCode::Again,
        reason: "too slow".into(),
    };
    opener.close(Some(reason)).expect("the opener is connected");
    while opener.read().is_ok() {}
}

#[test]
fn shares_fails_if_opener_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    let server = thread::spawn(move || close_opener(&listener));
    let speeds = ["--speeds", "4000000", "--flood-bytes", "100", "--seconds", "0.2"];
    let output = load(&[&["shares", "--against-url", &url][..], &speeds].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{errors}");
    assert!(
        errors.contains("opener: connection closed by server with 1013"),
        "{errors}"
    );
    server.join().expect("the server ends");
}

/// Runs `soak` for a few seconds with this server under test.
fn soak(server: &str) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["soak", "--pairs", "20", "--seconds", "4", "--server", server])
        .output()
        .expect("load can be started");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("UTF-8"))
}

#[cfg(target_os = "linux")]
#[test]
fn soak_of_yardstick_is_clean() {
    let (is_clean, report) = soak(&yardstick());
    assert!(is_clean, "{report}");
    assert!(report.contains("pairs disconnected: 0; payloads: "), "{report}");
    assert!(report.contains("byte-by-byte messages not served: 0\n"), "{report}");
}

#[cfg(target_os = "linux")]
#[test]
fn soak_fails_if_server_exits() {
    let (is_clean, report) = soak(&format!("timeout 2 {}", yardstick()));
    assert!(!is_clean, "server exits during the run: {report}");
}

#[test]
fn missing_server_is_named_in_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args([
            "exchange",
            "--server",
            "no-such-program",
            "--no-pin",
            "--seconds",
            "0.1",
        ])
        .output()
        .expect("load can be started");
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("cannot start no-such-program"), "{errors}");
}
