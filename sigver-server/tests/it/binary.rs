//! The `sigver-server` binary: arguments, exit codes, output, signals and the connection limit.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Command, Output},
};

use rustix::process::Signal;
use sigver_transcripts::{Seen, socket::Client};

use crate::support::{
    eventually, get,
    program::{Program, SIGVER_SERVER, sigver_server},
};

/// Runs a command that must fail. Returns its exit code and its stderr, which must be one line.
fn failure(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().expect("the program starts");
    let text = String::from_utf8(stderr).expect("stderr is text");
    assert_eq!(text.lines().count(), 1, "{text}");
    (status.code(), text)
}

#[test]
fn invalid_command_line_exits_with_2_and_one_line() {
    for (arguments, part) in [
        (&["--listen", "8000"][..], "expected HOST:PORT"),
        (
            &["--listen", "no-such-host.invalid:8000"],
            "cannot resolve no-such-host.invalid",
        ),
        (&["--allow-origin", "example.org"], "expected SCHEME://HOST"),
        (&["--allow-origin", "https://b\u{fc}cher.example"], "xn--"),
        (&["--trusted-proxy", "proxy"], "expected an IP address or a network"),
        (&["--listen"], "--listen"),
        (&["--message-bytes", "-1"], "-1"),
        (&["--message-bytes", "64K"], "expected a number from 1 to 2147483647"),
        (&["--drain", "-1"], "expected a number of seconds"),
        (&["--drain", "soon"], "expected a number of seconds"),
        (&["--log-format", "xml"], "expected text, json"),
        (&["--colour"], "--colour"),
        (&["8000"], "8000"),
    ] {
        let (code, text) = failure(&mut sigver_server(arguments));
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(
            text.starts_with("sigver-server: ") && text.contains(part),
            "{arguments:?}: {text}"
        );
    }
    let (code, text) = failure(sigver_server(&[]).env("SIGVER_DEMO", "maybe"));
    assert_eq!(code, Some(2));
    assert!(
        text.contains("SIGVER_DEMO") && text.contains("expected true or false"),
        "{text}"
    );
    let (code, text) = failure(sigver_server(&[]).env("PORT", "65536"));
    assert_eq!(code, Some(2));
    assert!(text.contains("PORT") && text.contains("65536"), "{text}");
}

#[test]
fn port_in_use_exits_with_1_and_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("it is bound").to_string();
    let Output { status, stdout, stderr } = sigver_server(&["--listen", &addr])
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&stderr);
    assert_eq!((status.code(), stdout), (Some(1), vec![]));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(&addr) && text.contains("in use"), "{text}");
}

#[test]
fn help_and_version_exit_with_0() {
    for argument in ["--help", "--version"] {
        let Output { status, stdout, stderr } = sigver_server(&[argument]).output().expect("the program starts");
        assert_eq!((status.code(), stderr), (Some(0), vec![]), "{argument}");
        assert!(!stdout.is_empty());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn failed_write_to_stdout_exits_with_1() {
    for arguments in [
        &["--help"][..],
        &["--check-config"],
        &["--completions", "bash"],
        &["--man"],
    ] {
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("Linux has /dev/full");
        let (code, text) = failure(sigver_server(arguments).stdout(full));
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(text.starts_with("sigver-server: cannot write to stdout: "), "{text}");
    }
}

#[test]
fn port_variable_sets_port_of_every_interface() {
    let program = Program::start(sigver_server(&[]).env("PORT", "0"));
    assert!(
        program.addr.ip().is_unspecified() && program.addr.port() != 0,
        "{}",
        program.addr
    );
    let loopback = SocketAddr::from(([127, 0, 0, 1], program.addr.port()));
    assert!(Client::connect(loopback, "/").is_ok());
}

#[test]
fn message_bytes_limits_messages() {
    let program = Program::start(&mut sigver_server(&[
        "--listen",
        "127.0.0.1:0",
        "--message-bytes",
        "32",
    ]));
    let mut client = program.client();
    let open = r#"{"type":"open","key":"tea12345"}"#;
    assert_eq!(open.len(), 32);
    client.send_text(open).expect("connected");
    client.sync();
    client.send_text(&format!("{open} ")).expect("connected");
    assert_eq!(
        client.receive(),
        Seen::Close(Some(1009), "message over the size limit".into())
    );
}

#[test]
fn check_config_prints_values_and_sources() {
    let mut command = sigver_server(&[
        "--check-config",
        "--key-bytes",
        "12",
        "--allow-origin",
        "https://a, https://b",
    ]);
    command
        .env("SIGVER_DEPTH", " 64 ")
        .env("SIGVER_TRUSTED_PROXY", "127.0.0.1 , 10.0.0.0/8,")
        .env("SIGVER_TOKEN_FILE", "")
        .env("SIGVER_DRAIN", " ")
        .env("SIGVER_ADMIN", "")
        .env("PORT", "0")
        .env("SIGVER_KEYBYTES", "9");
    let output = command.output();
    let Output { status, stdout, .. } = output.expect("the program starts");
    let text = String::from_utf8(stdout).expect("stdout is text");
    assert!(status.success());
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for line in [
        "--listen [::]:0 (PORT)",
        "--trusted-proxy 127.0.0.1 (environment)",
        "--trusted-proxy 10.0.0.0/8 (environment)",
        "--allow-origin https://a (command line)",
        "--allow-origin https://b (command line)",
        "--admin off (default)",
        "--token-file off (default)",
        "--key-bytes 12 (command line)",
        "--depth 64 (environment)",
        "--drain 5 (default)",
    ] {
        assert!(words.iter().any(|words| words.join(" ") == line), "{line} in {text}");
    }
    assert!(text.contains("unknown variable, ignored: SIGVER_KEYBYTES\n"), "{text}");
    assert!(text.contains("\nup to ") && text.contains(" MiB of memory: "), "{text}");
}

/// Whether or not there is room for them, the server takes any limits.
#[cfg(target_os = "linux")]
#[test]
fn limits_beyond_the_memory_cause_a_warning() {
    let largest = ["--backlog-total", "18446744073709551615", "--listen", "127.0.0.1:0"];
    let output = sigver_server(&largest).arg("--check-config").output();
    let Output { status, stdout, .. } = output.expect("the program starts");
    let text = String::from_utf8(stdout).expect("stdout is text");
    let warning = text.lines().last().unwrap_or_default();
    assert!(
        status.success() && warning.starts_with("warning: the worst case exceeds "),
        "{text}"
    );
    assert!(warning.contains("--backlog-total"), "{warning}");
    let mut program = Program::start(&mut sigver_server(&largest));
    program.until_logged(warning.trim_start_matches("warning: "));
    let mut client = program.client();
    client.sync();
}

/// A file of variables may have a line for each, most of them empty.
#[test]
fn empty_variable_is_unset() {
    let variables = [
        "PORT",
        "SIGVER_LISTEN",
        "SIGVER_ADMIN",
        "SIGVER_DEMO",
        "SIGVER_ALLOW_ORIGIN",
        "SIGVER_CONNECTIONS",
        "SIGVER_KEEP_ALIVE",
        "SIGVER_LOG_FORMAT",
        "SIGVER_COMPLETIONS",
        "SIGVER_CHECK_CONFIG",
    ];
    let mut with_empty = sigver_server(&["--check-config", "--listen", "127.0.0.1:0"]);
    with_empty.envs(variables.map(|name| (name, "")));
    let mut without = sigver_server(&["--check-config", "--listen", "127.0.0.1:0"]);
    let text = |command: &mut Command| {
        let Output { status, stdout, stderr } = command.output().expect("the program starts");
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).expect("stdout is text")
    };
    let (with_empty, without) = (text(&mut with_empty), text(&mut without));
    assert_eq!(with_empty, without);
    assert!(with_empty.contains("--allow-origin all "), "{with_empty}");
}

#[test]
fn check_config_exits_with_2_if_an_address_cannot_be_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("it is bound").to_string();
    for (flags, part) in [
        (["--listen", &taken], "in use"),
        (["--admin", &taken], "in use"),
        (["--listen", "192.0.2.1:8000"], "cannot listen on 192.0.2.1:8000: "),
    ] {
        let (code, text) = failure(
            sigver_server(&["--check-config", "--connections", "1"])
                .args(flags)
                .env("PORT", "0"),
        );
        assert_eq!(code, Some(2), "{flags:?}: {text}");
        assert!(
            text.starts_with("sigver-server: cannot listen on ") && text.contains(part),
            "{text}"
        );
    }
}

#[test]
fn host_name_is_resolved() {
    let program = Program::start(&mut sigver_server(&["--listen", "localhost:0"]));
    assert!(program.addr.ip().is_loopback(), "{}", program.addr);
    assert!(Client::connect(program.addr, "/").is_ok());
}

#[test]
fn unknown_variable_is_logged() {
    let mut command = sigver_server(&["--listen", "127.0.0.1:0"]);
    command.env("SIGVER_LISTN", "x").env("SIGVER_SERVICE_HOST", "10.0.0.1");
    let (_, log) = Program::start(&mut command).end(Signal::TERM);
    assert!(log.contains("unknown variables, ignored: SIGVER_LISTN\n"), "{log}");
}

/// The first signal begins the delay, the second the drain.
#[test]
fn second_signal_ends_the_pre_stop_delay() {
    let mut program = Program::start(&mut sigver_server(&[
        "--listen",
        "127.0.0.1:0",
        "--pre-stop-delay",
        "3600",
    ]));
    let mut client = program.client();
    program.signal(Signal::TERM);
    program.until_logged("in 3600 s");
    eventually("the delay has begun", || {
        get(program.addr, "/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 503 "))
    });
    let mut second = program.client();
    second.sync();
    let (code, log) = program.end(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    for client in [&mut client, &mut second] {
        assert_eq!(client.receive(), Seen::Close(Some(1001), "server shutting down".into()));
    }
}

#[test]
fn invalid_variable_is_named_in_the_error() {
    let (code, text) = failure(sigver_server(&["--check-config"]).env("SIGVER_KEEP_ALIVE", "0"));
    assert_eq!(code, Some(2));
    assert!(
        text.contains("SIGVER_KEEP_ALIVE") && text.contains("more than 0 seconds"),
        "{text}"
    );
    let (code, text) = failure(sigver_server(&["--check-config"]).env("SIGVER_TOKEN_FILE", "/no/such/file"));
    assert_eq!(code, Some(2));
    assert!(text.contains("/no/such/file"), "{text}");
}

#[test]
fn completions_contain_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let output = sigver_server(&["--completions", shell])
            .output()
            .expect("the program starts");
        assert!(output.status.success());
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("backlog-bytes"),
            "{shell}"
        );
    }
}

#[test]
fn man_prints_roff_with_every_flag_of_help() {
    let text = |argument| {
        let output = sigver_server(&[argument]).output().expect("the program starts");
        assert!(output.status.success(), "{argument}");
        String::from_utf8(output.stdout).expect("stdout is text")
    };
    let (man, help) = (text("--man"), text("--help"));
    assert!(
        man.starts_with(".ie ") && man.contains("\n.TH sigver-server 1 "),
        "{man}"
    );
    let flags: Vec<&str> = help
        .lines()
        .filter_map(|line| line.trim_start().trim_start_matches("-h, ").strip_prefix("--"))
        .filter_map(|flag| flag.split([' ', '[']).next())
        .collect();
    assert!(flags.len() > 20, "{help}");
    for flag in flags {
        // roff escapes hyphens.
        let escaped = format!("\\-\\-{}", flag.replace('-', "\\-"));
        assert!(man.contains(&escaped), "--{flag}: {man}");
    }
}

#[test]
fn first_signal_shuts_down_gracefully() {
    for signal in [Signal::TERM, Signal::INT] {
        let program = Program::start(&mut sigver_server(&["--listen", "127.0.0.1:0"]));
        let mut client = program.client();
        let (code, log) = program.end(signal);
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(client.receive(), Seen::Close(Some(1001), "server shutting down".into()));
        assert!(log.contains("ended"), "{log}");
    }
}

#[test]
fn demo_page_is_served() {
    let program = Program::start(&mut sigver_server(&["--listen", "127.0.0.1:0", "--demo"]));
    for (path, content_type, content) in [
        ("/", "text/html", "<!doctype html>"),
        ("/chat.js", "text/javascript", "RTCPeerConnection"),
        ("/sigver.js", "text/javascript", "export function open"),
        ("/README.md", "text/plain", "sigver"),
        ("/PROTOCOL.md", "text/plain", "sigver.v1"),
    ] {
        let answer = get(program.addr, path).expect("an answer");
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(content_type),
            "{path}: {answer}"
        );
        assert!(answer.contains(content), "{path}");
    }
    let answer = get(program.addr, "/other").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(
        Client::connect(program.addr, "/").is_ok(),
        "an upgrade request to the path of a page is accepted"
    );
}

/// Returns the log of a server with this limit on open files.
fn log_with_open_files(files: u32, connections: u32) -> String {
    let command = format!(r#"ulimit -n {files} && exec "$0" --listen 127.0.0.1:0 --connections {connections}"#);
    let mut limited = Command::new("sh");
    limited.args(["-c", &command, SIGVER_SERVER]).env_remove("RUST_LOG");
    let program = Program::start(&mut limited);
    program.end(Signal::TERM).1
}

#[test]
fn connection_limit_below_the_configured_one_is_a_warning() {
    let has_warning = |log: &str| {
        let line = log
            .lines()
            .find(|line| line.contains("raise the hard limit on open files"));
        line.is_some_and(|line| line.contains("WARN"))
    };
    for (files, connections, expected) in [(64, 0, true), (100, 1_000, true), (100, 0, false)] {
        let log = log_with_open_files(files, connections);
        assert!(log.contains("up to "), "{log}");
        assert_eq!(has_warning(&log), expected, "{log}");
    }
}

/// The limit on open files lowers the connection limit. Existing connections are not affected.
#[test]
fn connections_beyond_descriptor_limit_are_rejected_with_503() {
    let mut limited = Command::new("sh");
    limited
        .args([
            "-c",
            r#"ulimit -n 100 && exec "$0" --listen 127.0.0.1:0"#,
            SIGVER_SERVER,
        ])
        .env_remove("RUST_LOG");
    let program = Program::start(&mut limited);
    let mut clients: Vec<_> = (0..60).map_while(|_| Client::connect(program.addr, "/").ok()).collect();
    assert!(
        (20..50).contains(&clients.len()),
        "{} connections were accepted",
        clients.len()
    );
    for _ in 0..200 {
        let error = Client::connect(program.addr, "/")
            .err()
            .expect("the limit is reached")
            .to_string();
        assert!(error.contains("503"), "{error}");
    }
    assert!(
        clients.iter_mut().all(|client| client.leftover() == Seen::Nothing),
        "accepted clients are served"
    );
    clients.truncate(10);
    eventually("there is room again", || Client::connect(program.addr, "/").is_ok());
    drop(clients);
    let (code, log) = program.end(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(log.contains("raise the hard limit on open files"), "{log}");
}
