//! JSON Web Tokens: the flag, the file of keys, and what clients may do.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    process::Output,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::Sha256;
use sigver_transcripts::{Seen, kit::exchange, socket::Client};

use crate::support::{
    file::TempFile,
    handshake,
    program::{Program, sigver_server},
};

const V1: &str = "Sec-WebSocket-Protocol: sigver.v1\r\n";

/// Made with pyjwt 2.15.1 for `"kid":"e"` of [`EC`], until 2100: opens `alice-*` and joins `*`.
const ES256: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImUiLCJ0eXAiOiJKV1QifQ.eyJleHAiOjQxMDI0NDQ4MDAsInN1YiI6ImFsaWNlIiwib3BlbiI6WyJhbGljZS0qIl0sImpvaW4iOlsiKiJdfQ.5cM3LAX8k11meKqrs0OtTVoEHS8Fl708wTLVvsxS-XbtIsBtg6TldD-eWQ6fdhnsMo5JXeDso4UThIbwfPKQ-g";
const EC: &str = r#"{"kty":"EC","kid":"e","crv":"P-256","x":"Rxw-dYxJBChbun5TEY7Q9SSt6wdX0lvS-Oew1236cUw","y":"3VIPesqKi5F6zDf1HejwybvjrYWDgucC3CWhLQn3qFg"}"#;

/// Returns a key for HS256 whose secret consists of its id.
fn key(id: &str) -> String {
    let secret = BASE64_URL_SAFE_NO_PAD.encode(id.repeat(32));
    json!({"kty": "oct", "kid": id, "k": secret}).to_string()
}

fn set(keys: &[&str]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

/// Returns a token that [`key`] has signed.
fn sign(id: &str, claims: &Value) -> String {
    let header = json!({"alg": "HS256", "kid": id});
    let [header, claims] = [&header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    let mut mac = Hmac::<Sha256>::new_from_slice(id.repeat(32).as_bytes()).expect("any length");
    mac.update(signed.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{signed}.{signature}")
}

/// Returns a token of the key `a` that allows everything.
fn everything() -> Value {
    json!({"exp": 4_102_444_800_u64, "open": ["*"], "join": ["*"]})
}

fn start(arguments: &[&str]) -> Program {
    let arguments = [&["--listen=127.0.0.1:0"][..], arguments].concat();
    Program::start(&mut sigver_server(&arguments))
}

fn connect(addr: SocketAddr, token: &str, headers: &str) -> io::Result<Client> {
    let headers = format!("{headers}Authorization: Bearer {token}\r\n");
    handshake(TcpStream::connect(addr)?, "/", &headers).map(|(client, _)| client)
}

fn reload(program: &Program) {
    program.signal(Signal::HUP);
}

/// Sends a message and returns the type or the code of the reply.
fn ask(client: &mut Client, text: &str) -> String {
    client.send_text(text).expect("connected");
    match client.receive() {
        Seen::Text(text) => {
            let reply: Value = serde_json::from_str(&text).expect("JSON");
            let name = reply.get("code").unwrap_or(&reply["type"]);
            name.as_str().expect("a text").to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn token_allows_its_keys_in_each_place() -> io::Result<()> {
    let keys = TempFile::with("jwt-places", &set(&[EC, &key("a")]));
    let program = start(&["--jwt-keys", keys.path()]);
    let with_query = format!("/?token={ES256}");
    let with_subprotocol = format!("Sec-WebSocket-Protocol: sigver.bearer.{ES256}, sigver.v1\r\n");
    let with_header = format!("{V1}Authorization: Bearer {ES256}\r\n");
    let places = [(&*with_query, V1), ("/", &with_subprotocol), ("/", &with_header)];
    for ((target, headers), number) in places.into_iter().zip(1..) {
        let (mut client, head) = handshake(TcpStream::connect(program.addr)?, target, headers)?;
        assert!(!head.contains("sigver.bearer"), "{head}");
        let mut is = |text: &str, reply: &str| assert_eq!(ask(&mut client, text), reply, "{text}");
        is(r#"{"type":"open","key":"bob-1"}"#, "not-allowed");
        is(r#"{"type":"open"}"#, "not-allowed");
        is(r#"{"type":"meet","key":"bob-1"}"#, "not-allowed");
        is(r#"{"type":"join","key":"bob-1"}"#, "unknown-key");
        is(&format!(r#"{{"type":"meet","key":"alice-{number}"}}"#), "opened");
    }
    // A token without lists admits its client, which may do nothing.
    let nothing = json!({"exp": 4_102_444_800_u64, "sub": "a"});
    let mut client = connect(program.addr, &sign("a", &nothing), V1)?;
    for text in [
        r#"{"type":"open"}"#,
        r#"{"type":"open","key":"a"}"#,
        r#"{"type":"join","key":"a"}"#,
    ] {
        assert_eq!(ask(&mut client, text), "not-allowed");
    }
    let mut client = connect(program.addr, &sign("a", &everything()), V1)?;
    assert_eq!(ask(&mut client, r#"{"type":"open"}"#), "opened");
    let mut plain = connect(program.addr, &sign("a", &nothing), "")?;
    plain.send_text(r#"{"type":"open","key":"a"}"#)?;
    assert_eq!(plain.receive(), Seen::Close(Some(1008), "not allowed".into()));
    Ok(())
}

#[test]
fn expired_token_ends_role_and_connection() -> io::Result<()> {
    let keys = TempFile::with("jwt-expiry", &set(&[&key("a")]));
    let program = start(&["--jwt-keys", keys.path()]);
    let in_seconds = |seconds: f64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let mut claims = everything();
        claims["exp"] = json!(now.as_secs_f64() + seconds);
        sign("a", &claims)
    };
    let mut opener = loop {
        // On a slow machine, a token may expire before its client has opened.
        let Ok(mut opener) = connect(program.addr, &in_seconds(1.5), V1) else {
            continue;
        };
        let _ = opener.send_text(r#"{"type":"open","key":"a"}"#);
        match opener.receive() {
            Seen::Text(text) if text.starts_with(r#"{"type":"opened""#) => break opener,
            Seen::Close(Some(4004), _) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        opener.receive(),
        Seen::Text(r#"{"type":"closed","code":"token-expired"}"#.into())
    );
    assert_eq!(opener.receive(), Seen::Close(Some(4004), "token expired".into()));
    let mut plain = loop {
        if let Ok(plain) = connect(program.addr, &in_seconds(1.0), "") {
            break plain;
        }
    };
    assert_eq!(plain.receive(), Seen::Close(Some(4004), "token expired".into()));
    assert!(connect(program.addr, &in_seconds(-0.1), V1).is_err());
    Ok(())
}

#[test]
fn keys_are_rotated_on_sighup() -> io::Result<()> {
    let keys = TempFile::with("jwt-rotation", &set(&[&key("a")]));
    let mut program = start(&["--jwt-keys", keys.path()]);
    let addr = program.addr;
    let admits = |id: &str| connect(addr, &sign(id, &everything()), V1).is_ok();
    let mut first = connect(addr, &sign("a", &everything()), V1)?;
    assert!(!admits("b"));
    keys.write(&set(&[&key("a"), r#"{"kty":"RSA"}"#, &key("b")]));
    reload(&program);
    program.until_logged("reloaded 2 JSON Web Keys");
    program.until_logged("--jwt-keys: key 2 is ignored: `kty` is not oct, EC or OKP");
    assert!(admits("a") && admits("b"));
    keys.write(&set(&[&key("b"), &key("b")]));
    reload(&program);
    let log = program.until_logged("cannot reload JSON Web Keys, keeping what was read before");
    assert!(log.contains("key 2: the same `kid` as key 1"), "{log}");
    assert!(admits("a") && admits("b"));
    keys.write(&set(&[&key("b")]));
    reload(&program);
    program.until_logged("reloaded 1 JSON Web Key\n".trim_end());
    assert!(!admits("a") && admits("b"));
    assert_eq!(
        ask(&mut first, r#"{"type":"open","key":"a"}"#),
        "opened",
        "it stays connected"
    );
    Ok(())
}

#[test]
fn either_kind_of_token_admits() -> io::Result<()> {
    let keys = TempFile::with("jwt-either-keys", &set(&[EC]));
    let tokens = TempFile::with("jwt-either-tokens", "0123456789abcdef\n");
    let program = start(&["--token-file", tokens.path(), "--jwt-keys", keys.path()]);
    let mut unrestricted = connect(program.addr, "0123456789abcdef", V1)?;
    assert_eq!(ask(&mut unrestricted, r#"{"type":"open","key":"bob-1"}"#), "opened");
    let mut restricted = connect(program.addr, ES256, V1)?;
    assert_eq!(ask(&mut restricted, r#"{"type":"open","key":"bob-2"}"#), "not-allowed");
    assert_eq!(ask(&mut restricted, r#"{"type":"join","key":"bob-1"}"#), "joined");
    for token in ["0123456789abcdeF", "a.b.c"] {
        assert!(connect(program.addr, token, V1).is_err(), "{token}");
    }
    Ok(())
}

/// The client learns nothing, and the log nothing secret.
#[test]
fn reason_of_a_rejection_is_logged_and_not_sent() {
    let keys = TempFile::with("jwt-reasons", &set(&[EC, &key("a")]));
    for format in ["text", "json"] {
        let mut command = sigver_server(&[
            "--listen=127.0.0.1:0",
            "--log-format",
            format,
            "--jwt-keys",
            keys.path(),
        ]);
        let mut program = Program::start(command.env("RUST_LOG", "trace"));
        let expired = sign("a", &json!({"exp": 1}));
        let early = sign("a", &json!({"exp": 4_102_444_800_u64, "nbf": 4_102_444_799_u64}));
        let other_key = sign("c", &everything());
        let wrong = format!("{}A", &ES256[..ES256.len() - 1]);
        for (token, reason) in [
            ("", "no token"),
            ("SECRET-0123456789", "the token is not a signed JSON Web Token"),
            (&expired, "the token has expired"),
            (&early, "the token is not valid yet"),
            (&other_key, "no key of this algorithm has the `kid` of the token"),
            (&wrong, "the signature of the token is invalid"),
            (
                "eyJhbGciOiJub25lIn0.e30.",
                "the algorithm of the token is not HS256, ES256 or EdDSA",
            ),
        ] {
            let header = match token {
                "" => String::new(),
                token => format!("Authorization: Bearer {token}\r\n"),
            };
            let request = format!(
                "GET /a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}\r\n"
            );
            let answer = exchange(program.addr, request.as_bytes()).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
            assert!(answer.contains("\r\nWWW-Authenticate: Bearer\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\na token is needed to connect\n"), "{answer}");
            let log = program.until_logged("answered 401 Unauthorized to GET /a: ");
            assert!(log.contains(&format!("to GET /a: {reason}")), "{log}");
            let member = format!(r#","reason":{}"#, json!(reason));
            assert_eq!(log.contains(&member), format == "json", "{log}");
        }
        assert!(connect(program.addr, ES256, V1).is_ok());
        let (_, log) = program.end(Signal::TERM);
        for secret in [&ES256[..20], &ES256[ES256.len() - 20..], "SECRET", "alice"] {
            assert!(!log.contains(secret), "{log}");
        }
    }
}

#[test]
fn invalid_file_exits_with_2() {
    let short = r#"{"kty":"oct","k":"U0VDUkVU"}"#;
    let private = EC.replace('}', r#","d":"U0VDUkVU"}"#);
    for (text, message) in [
        ("", ": invalid JSON in line 1, column 0"),
        ("{\"keys\":\nU0VDUkVU}", ": invalid JSON in line 2, column 1"),
        ("[]", ": not a JWK Set, which is an object with a list `keys`"),
        (
            &key("U0VDUkVU"),
            ": this is one key; a JWK Set has its keys in a list, {\"keys\":[…]}",
        ),
        (&set(&[]), ": the set has no keys"),
        (
            &set(&[EC, short]),
            ", key 2: `k` has less than 32 bytes, which is too short for HS256",
        ),
        (
            &set(&[&private]),
            ", key 1: a private key: the server needs the public key only, so remove `d`",
        ),
        (&set(&[EC, EC]), ", key 2: the same `kid` as key 1"),
        (
            &set(&[r#"{"kty":"RSA","d":"U0VDUkVU"}"#]),
            ": no key for HS256, ES256 or EdDSA: key 1 is ignored: `kty` is not oct, EC or OKP",
        ),
    ] {
        let keys = TempFile::with("jwt-invalid", text);
        let output = sigver_server(&["--listen=127.0.0.1:0", "--jwt-keys", keys.path()]).output();
        let Output { status, stderr, stdout } = output.expect("the program starts");
        let expected = format!("sigver-server: {}{message}\n", keys.path());
        assert_eq!(
            (status.code(), &*String::from_utf8_lossy(&stderr)),
            (Some(2), &*expected)
        );
        assert!(stdout.is_empty());
    }
    let output = sigver_server(&["--jwt-keys=/does/not/exist"]).output();
    let Output { status, stderr, .. } = output.expect("the program starts");
    let text = "sigver-server: cannot read /does/not/exist: No such file or directory (os error 2)\n";
    assert_eq!((status.code(), &*String::from_utf8_lossy(&stderr)), (Some(2), text));
}

#[test]
fn check_config_shows_the_flag_and_ignored_keys() {
    let keys = TempFile::with("jwt-check", &set(&[EC, r#"{"kty":"RSA"}"#]));
    let shown = |path: &str| {
        let mut command = sigver_server(&["--listen=127.0.0.1:0", "--check-config"]);
        let output = command
            .env("SIGVER_JWT_KEYS", path)
            .output()
            .expect("the program starts");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("stdout is text");
        let line = text.lines().find(|line| line.starts_with("--jwt-keys "));
        let words: Vec<&str> = line.expect("a line").split_whitespace().collect();
        (
            words.join(" "),
            text.contains("\n--jwt-keys: key 2 is ignored: `kty` is not oct, EC or OKP\n"),
        )
    };
    assert_eq!(
        shown(keys.path()),
        (format!("--jwt-keys {} (environment)", keys.path()), true)
    );
    assert_eq!(shown(""), ("--jwt-keys off (default)".to_owned(), false));
}
