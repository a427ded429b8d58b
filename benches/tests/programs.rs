//! The load generator against the yardstick, as a user would start them. Nothing is timed here.

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::Value;

/// Runs a mode with the yardstick as the server under test, beside the yardstick itself.
fn load(arguments: &[&str]) -> Output {
    let server = format!("{} --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_yardstick"));
    Command::new(env!("CARGO_BIN_EXE_load"))
        .args(arguments)
        .args(["--server", &server, "--rounds", "1", "--no-pin"])
        .output()
        .expect("load can be started")
}

fn succeeds(arguments: &[&str]) -> String {
    let output = load(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn verify_finds_nothing() {
    let table = succeeds(&["verify", "--keys", "3", "--joiners", "2", "--messages", "20"]);
    assert!(table.contains("clean: every payload arrived"), "{table}");
}

#[test]
fn exchange_writes_the_figures_that_it_shows() {
    let path = std::env::temp_dir().join(format!("sigver-benches-{}.json", std::process::id()));
    let file = path.to_str().expect("UTF-8");
    let table = succeeds(&["exchange", "--pairs", "1,3", "--seconds", "0.2", "--json", file]);
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
fn sessions_end_with_both_close_handshakes() {
    let table = succeeds(&["sessions", "--concurrency", "2", "--seconds", "0.2"]);
    for nothing in ["failed sessions", "close frames unanswered"] {
        let line = table.lines().find(|line| line.contains(nothing));
        let figures = line.map(|line| line.replace(nothing, ""));
        let zeros: Option<Vec<_>> = figures.as_ref().map(|line| line.split_whitespace().collect());
        assert_eq!(zeros, Some(vec!["0", "0"]), "{table}");
    }
}

#[test]
fn many_runs_in_processes_of_its_own() {
    let table = succeeds(&["many", "--pairs", "20", "--messages", "3"]);
    assert!(table.contains("clean: every payload arrived"), "{table}");
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
fn soak_passes_a_server_that_serves_and_no_other() {
    let yardstick = format!("{} --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_yardstick"));
    let (is_clean, report) = soak(&yardstick);
    assert!(is_clean, "{report}");
    assert!(report.contains("pairs harmed: 0; payloads: "), "{report}");
    assert!(report.contains("byte by byte, not served: 0\n"), "{report}");
    let (is_clean, report) = soak(&format!("timeout 2 {yardstick}"));
    assert!(!is_clean, "it ends in the middle of it: {report}");
}

#[test]
fn a_server_that_cannot_be_started_is_named() {
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
