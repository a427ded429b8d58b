//! Tokens and keys of the RFCs, of PyPI's `pyjwt` and npm's `jose`, and made here.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ed25519_dalek::Signer as _;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sigver_core::Role;

use crate::access::{
    jwt::{
        JwtKeys, JwtKeysError,
        key_set::{InvalidKeySet, KeySet},
        token::Rejection,
        verify,
    },
    permit::Permit,
};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const EC_X: &str = "Rxw-dYxJBChbun5TEY7Q9SSt6wdX0lvS-Oew1236cUw";
const EC_Y: &str = "3VIPesqKi5F6zDf1HejwybvjrYWDgucC3CWhLQn3qFg";
const EC_PRIVATE: [u8; 32] = {
    let half = 0x1234_5678_90ab_cdef_1234_5678_90ab_cdef_u128.to_be_bytes();
    let mut key = [0; 32];
    let mut index = 0;
    while index < 32 {
        key[index] = half[index % 16];
        index += 1;
    }
    key
};
const ED_X: &str = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";
/// 2026-11-28.
const NOW: u64 = 1_795_824_000;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn at(seconds: f64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn oct() -> Value {
    json!({"kty": "oct", "kid": "h", "alg": "HS256", "k": encode(SECRET)})
}

fn ec() -> Value {
    json!({"kty": "EC", "kid": "e", "crv": "P-256", "use": "sig", "x": EC_X, "y": EC_Y})
}

fn okp() -> Value {
    json!({"kty": "OKP", "kid": "d", "crv": "Ed25519", "alg": "EdDSA", "x": ED_X})
}

/// Returns a key with some members replaced, or removed by `null`.
fn with(mut key: Value, members: Value) -> Value {
    let (Some(key_members), Value::Object(members)) = (key.as_object_mut(), members) else {
        panic!("not objects");
    };
    for (name, value) in members {
        if value.is_null() {
            key_members.remove(&name);
        } else {
            key_members.insert(name, value);
        }
    }
    key
}

fn parse(keys: &[Value]) -> Result<KeySet, InvalidKeySet> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

fn set(keys: &[Value]) -> KeySet {
    parse(keys).unwrap_or_else(|error| panic!("{error:?}"))
}

fn all() -> KeySet {
    set(&[oct(), ec(), okp()])
}

enum SignedBy<'a> {
    Secret(&'a [u8]),
    Ec,
    Ed,
}

/// Signs a token in the way that the key requires, whatever its header says.
fn sign(header: &str, claims: &str, key: SignedBy<'_>) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = match key {
        SignedBy::Secret(secret) => {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length");
            mac.update(signed.as_bytes());
            mac.finalize().into_bytes().to_vec()
        }
        SignedBy::Ec => {
            let key = p256::ecdsa::SigningKey::from_slice(&EC_PRIVATE).expect("a key");
            let signature: p256::ecdsa::Signature = key.sign(signed.as_bytes());
            signature.to_bytes().to_vec()
        }
        SignedBy::Ed => {
            let private: Vec<u8> = (0..32).collect();
            let key = ed25519_dalek::SigningKey::try_from(&*private).expect("32 bytes");
            key.sign(signed.as_bytes()).to_bytes().to_vec()
        }
    };
    format!("{signed}.{}", encode(signature))
}

/// Returns what a token with these claims permits, or why it is rejected.
fn permit(claims: &str) -> Result<Permit, Rejection> {
    let token = sign(r#"{"alg":"HS256"}"#, claims, SignedBy::Secret(SECRET));
    verify(&token, &all(), now()).map(|claims| claims.into_permit())
}

fn rejection(token: &str, keys: &KeySet) -> Option<Rejection> {
    verify(token, keys, now()).err()
}

/// RFC 7515, appendices A.1, A.3 and A.5, RFC 8037, appendix A.4.
#[test]
fn examples_of_the_rfcs_are_verified() {
    let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let hs256 = json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"});
    let es256 = json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
    });
    let eddsa = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let keys = set(&[hs256, es256, eddsa]);
    for (header, signature) in [
        (
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        ),
        (
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
    ] {
        let token = format!("{header}.{claims}.{signature}");
        let outcome = |time| verify(&token, &keys, at(time)).err();
        assert_eq!(outcome(1_300_819_379.5), None);
        assert_eq!(outcome(1_300_819_380.0), Some(Rejection::Expired));
    }
    // Its payload is a text.
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(rejection(token, &keys), Some(Rejection::Claims));
    let changed = token.replace("hgyY0", "hgyY1");
    assert_eq!(rejection(&changed, &keys), Some(Rejection::Signature));
    let unsecured = format!("eyJhbGciOiJub25lIn0.{claims}.");
    assert_eq!(rejection(&unsecured, &keys), Some(Rejection::Algorithm));
}

/// Made with pyjwt 2.15.1 and jose 6.2.18, until 2100.
const OF_LIBRARIES: [&str; 7] = [
    "eyJhbGciOiJIUzI1NiIsImtpZCI6ImgiLCJ0eXAiOiJKV1QifQ.eyJleHAiOjQxMDI0NDQ4MDAsInN1YiI6ImFsaWNlIiwib3BlbiI6WyJhbGljZS0qIl0sImpvaW4iOlsiKiJdfQ.QYLi8GpDp4NVCa0IJtGXRR1XscyYSJ5PXeeKOk3paI4",
    "eyJhbGciOiJFUzI1NiIsImtpZCI6ImUiLCJ0eXAiOiJKV1QifQ.eyJleHAiOjQxMDI0NDQ4MDAsInN1YiI6ImFsaWNlIiwib3BlbiI6WyJhbGljZS0qIl0sImpvaW4iOlsiKiJdfQ.5cM3LAX8k11meKqrs0OtTVoEHS8Fl708wTLVvsxS-XbtIsBtg6TldD-eWQ6fdhnsMo5JXeDso4UThIbwfPKQ-g",
    "eyJhbGciOiJFZERTQSIsImtpZCI6ImQiLCJ0eXAiOiJKV1QifQ.eyJleHAiOjQxMDI0NDQ4MDAsInN1YiI6ImFsaWNlIiwib3BlbiI6WyJhbGljZS0qIl0sImpvaW4iOlsiKiJdfQ.S9tdaaQVtM0HQHjmoNMtxnf3DEJUHpVQAEe68IgEhFh2lmTw3NcbAC-eXi9h7_6xQ7KRs3zdwqbUx-KZWXUDAg",
    "eyJhbGciOiJIUzI1NiIsImtpZCI6ImgifQ.eyJvcGVuIjpbImFsaWNlLSoiXSwiam9pbiI6WyIqIl0sInN1YiI6ImFsaWNlIiwiZXhwIjo0MTAyNDQ0ODAwfQ.PIZ_UfHBlLOs3UAItYHn1vXNPJ3ZiLGxwO-hMXEHTd4",
    "eyJhbGciOiJFUzI1NiIsImtpZCI6ImUifQ.eyJvcGVuIjpbImFsaWNlLSoiXSwiam9pbiI6WyIqIl0sInN1YiI6ImFsaWNlIiwiZXhwIjo0MTAyNDQ0ODAwfQ.uVryyF8gxuo9bvJTQxwuaJloL4Ou_ADx18ls6TmS5E5HsCKHJ7Ks0dZ0SWqalr1z16CEaHrRf4lcn62-_IuQ1w",
    "eyJhbGciOiJFZERTQSIsImtpZCI6ImQifQ.eyJvcGVuIjpbImFsaWNlLSoiXSwiam9pbiI6WyIqIl0sInN1YiI6ImFsaWNlIiwiZXhwIjo0MTAyNDQ0ODAwfQ.opN8YL92DWw62waAKxtQfV2g2540GDT73G6p3YhBxHWPpLfQ5gTHNXaQ395yLl5sMicTsoldSWUwpilF1CC3DA",
    "eyJhbGciOiJFZDI1NTE5Iiwia2lkIjoiZCJ9.eyJvcGVuIjpbImFsaWNlLSoiXSwiam9pbiI6WyIqIl0sInN1YiI6ImFsaWNlIiwiZXhwIjo0MTAyNDQ0ODAwfQ.kmJdqAvJywhB7H3Z-oHJNfvjgkNKlqGnFWJFUyh7igAegJRE73Ml4BJC9OyTs6vcIgrIe5vqsJhxD79RoXx6DQ",
];

#[test]
fn tokens_of_pyjwt_and_jose_are_accepted_and_changed_ones_are_not() {
    let keys = all();
    for token in OF_LIBRARIES {
        let claims = verify(token, &keys, now()).unwrap_or_else(|why| panic!("{why}: {token}"));
        let permit = claims.into_permit();
        assert_eq!(permit.identity(), Some("alice"));
        assert_eq!(permit.expiry(), Some(at(4_102_444_800.0)));
        assert!(permit.may(Role::Opener, Some("alice-1")) && !permit.may(Role::Opener, Some("bob-1")));
        assert!(permit.may(Role::Joiner, Some("bob-1")));
        // Every third, because an unoptimized build takes a millisecond for each.
        for (position, letter) in token.char_indices().step_by(3) {
            let other = if letter == 'A' { "B" } else { "A" };
            let mut changed = token.to_owned();
            changed.replace_range(position..=position, other);
            assert!(verify(&changed, &keys, now()).is_err(), "{changed}");
        }
        for end in 0..token.len() {
            assert!(verify(&token[..end], &keys, now()).is_err());
        }
        for longer in ["A", "AA", "AAAA", "=", ".", ".AAAA", " "] {
            assert!(verify(&format!("{token}{longer}"), &keys, now()).is_err(), "{longer}");
        }
    }
}

#[test]
fn key_is_chosen_by_kid_and_algorithm() {
    let second = [7; 32];
    let keys = set(&[oct(), with(oct(), json!({"kid": "h2", "k": encode(second)})), ec()]);
    let claims = r#"{"exp":4102444800}"#;
    let outcome = |header, secret| rejection(&sign(header, claims, SignedBy::Secret(secret)), &keys);
    for (header, secret, expected) in [
        (r#"{"alg":"HS256"}"#, SECRET, None),
        (r#"{"alg":"HS256"}"#, &second, None),
        (r#"{"alg":"HS256","kid":"h"}"#, SECRET, None),
        (r#"{"alg":"HS256","kid":"h2"}"#, &second, None),
        (r#"{"kid":"\u0068","alg":"HS256","jwk":{"a":[1]}}"#, SECRET, None),
        (r#"{"alg":"HS256","kid":"h"}"#, &second, Some(Rejection::Signature)),
        (r#"{"alg":"HS256","kid":"x"}"#, SECRET, Some(Rejection::UnknownKey)),
        (r#"{"alg":"HS256","kid":""}"#, SECRET, Some(Rejection::UnknownKey)),
        (r#"{"alg":"HS256","kid":"e"}"#, SECRET, Some(Rejection::UnknownKey)),
        (r#"{"alg":"HS256"}"#, &[8; 32], Some(Rejection::Signature)),
        (r#"{"alg":"EdDSA"}"#, SECRET, Some(Rejection::NoKey)),
        (r#"{"alg":"ES256"}"#, SECRET, Some(Rejection::Signature)),
    ] {
        assert_eq!(outcome(header, secret), expected, "{header}");
    }
    // A key without an id signs tokens without one only.
    let keys = set(&[with(oct(), json!({"kid": null}))]);
    let outcome = |header| rejection(&sign(header, claims, SignedBy::Secret(SECRET)), &keys);
    assert_eq!(outcome(r#"{"alg":"HS256"}"#), None);
    assert_eq!(outcome(r#"{"alg":"HS256","kid":"h"}"#), Some(Rejection::UnknownKey));
}

#[test]
fn public_key_is_not_a_secret() {
    let (x, y) = (EC_X, EC_Y);
    let raw = [EC_X, EC_Y].map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64url"));
    let point = [&[4][..], &raw[0], &raw[1]].concat();
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}).to_string();
    let secrets = [&raw[0], &point, x.as_bytes(), jwk.as_bytes(), ED_X.as_bytes(), b""];
    for secret in secrets {
        for (header, expected) in [
            (r#"{"alg":"HS256"}"#, [Rejection::Signature, Rejection::NoKey]),
            (r#"{"alg":"HS256","kid":"e"}"#, [Rejection::UnknownKey; 2]),
            (r#"{"alg":"HS256","kid":"d"}"#, [Rejection::UnknownKey; 2]),
            (r#"{"alg":"ES256"}"#, [Rejection::Signature; 2]),
            (r#"{"alg":"ES256","kid":"e"}"#, [Rejection::Signature; 2]),
            (r#"{"alg":"EdDSA","kid":"d"}"#, [Rejection::Signature; 2]),
        ] {
            let token = sign(header, r#"{"exp":4102444800}"#, SignedBy::Secret(secret));
            let outcomes = [all(), set(&[ec(), okp()])].map(|keys| rejection(&token, &keys));
            assert_eq!(outcomes, expected.map(Some), "{header}");
        }
    }
    // A signature of one kind does not count as one of another.
    for (header, key) in [
        (r#"{"alg":"EdDSA"}"#, SignedBy::Ec),
        (r#"{"alg":"ES256"}"#, SignedBy::Ed),
        (r#"{"alg":"HS256"}"#, SignedBy::Ec),
    ] {
        let token = sign(header, r#"{"exp":4102444800}"#, key);
        assert_eq!(rejection(&token, &all()), Some(Rejection::Signature), "{header}");
    }
}

#[test]
fn header_is_understood_or_the_token_rejected() {
    let claims = r#"{"exp":4102444800}"#;
    for (header, expected) in [
        (r#"{"alg":"HS256","x":1e}"#, Rejection::NotSigned),
        (r#"{"alg":"none"}"#, Rejection::Algorithm),
        (r#"{"alg":"None"}"#, Rejection::Algorithm),
        (r#"{"alg":""}"#, Rejection::Algorithm),
        (r#"{"alg":"hs256"}"#, Rejection::Algorithm),
        (r#"{"alg":"HS512"}"#, Rejection::Algorithm),
        (r#"{"alg":"RS256"}"#, Rejection::Algorithm),
        (r#"{"alg":"ES256K"}"#, Rejection::Algorithm),
        (r#"{"alg":["HS256"]}"#, Rejection::NotSigned),
        (r#"{"alg":null}"#, Rejection::NotSigned),
        (r#"{}"#, Rejection::NotSigned),
        (r#"["HS256"]"#, Rejection::NotSigned),
        (r#"["HS256","h",null]"#, Rejection::NotSigned),
        (r#"{"alg":"HS256","alg":"HS256"}"#, Rejection::NotSigned),
        (r#"{"alg":"HS256","kid":null}"#, Rejection::NotSigned),
        (r#"{"alg":"HS256","kid":1}"#, Rejection::NotSigned),
        (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, Rejection::Critical),
        (r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, Rejection::Critical),
        (r#"{"alg":"HS256","crit":[]}"#, Rejection::Critical),
        (r#"{"alg":"HS256","crit":null}"#, Rejection::Critical),
        (r#"{"alg":"HS256"} {}"#, Rejection::NotSigned),
        (r#""alg""#, Rejection::NotSigned),
        ("", Rejection::NotSigned),
    ] {
        let token = sign(header, claims, SignedBy::Secret(SECRET));
        assert_eq!(rejection(&token, &all()), Some(expected), "{header}");
    }
    let token = sign("\u{feff}{\"alg\":\"HS256\"}", claims, SignedBy::Secret(SECRET));
    assert_eq!(rejection(&token, &all()), Some(Rejection::NotSigned));
    // Unknown members are skipped, in constant stack space.
    let deep = format!(
        r#" {{"x":{}{},"alg":"HS256","y":1e999}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let token = sign(&deep, claims, SignedBy::Secret(SECRET));
    assert_eq!(rejection(&token, &all()), None);
    for text in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "0123456789abcdef",
        "e30.e30.",
        "e30.e30.e30.e30.e30",
    ] {
        assert_eq!(rejection(text, &all()), Some(Rejection::NotSigned), "{text}");
    }
}

#[test]
fn token_is_valid_from_nbf_until_exp() {
    for (times, expected) in [
        (r#""exp":1795824001"#, None),
        (r#""exp":1795824000.5"#, None),
        (r#""exp":1.795824001e9"#, None),
        (r#""exp":1e300"#, None),
        (r#""exp":99999999999999999999999"#, None),
        (r#""exp":1795824000"#, Some(Rejection::Expired)),
        (r#""exp":1795823999.999"#, Some(Rejection::Expired)),
        (r#""exp":0"#, Some(Rejection::Expired)),
        (r#""exp":-1"#, Some(Rejection::Expired)),
        (r#""exp":-0.5"#, Some(Rejection::Expired)),
        (r#""exp":-1e300"#, Some(Rejection::Expired)),
        (r#""exp":1e-300"#, Some(Rejection::Expired)),
        (r#""exp":1e999"#, Some(Rejection::Claims)),
        (r#""exp":"1795824001""#, Some(Rejection::Claims)),
        (r#""exp":null"#, Some(Rejection::Claims)),
        (r#""exp":true"#, Some(Rejection::Claims)),
        (r#""exp":[1795824001]"#, Some(Rejection::Claims)),
        (r#""exp":NaN"#, Some(Rejection::Claims)),
        (r#""exp":1795824001,"exp":1795824001"#, Some(Rejection::Claims)),
        (r#""Exp":1795824001"#, Some(Rejection::Claims)),
        (r#""iat":1795823000"#, Some(Rejection::Claims)),
        (r#""exp":4102444800,"nbf":1795824000"#, None),
        (r#""exp":4102444800,"nbf":1795823999.5"#, None),
        (r#""exp":4102444800,"nbf":-1e300"#, None),
        (r#""exp":4102444800,"nbf":0"#, None),
        (r#""exp":4102444800,"nbf":1795824000.5"#, Some(Rejection::NotYet)),
        (r#""exp":4102444800,"nbf":1e300"#, Some(Rejection::NotYet)),
        (r#""exp":4102444800,"nbf":"0""#, Some(Rejection::Claims)),
        (r#""exp":4102444800,"nbf":null"#, Some(Rejection::Claims)),
        (r#""exp":4102444800,"iat":"soon","jti":7,"iss":[]"#, None),
    ] {
        assert_eq!(permit(&format!("{{{times}}}")).err(), expected, "{times}");
    }
    for (exp, expiry) in [("1795824000.25", Some(at(1_795_824_000.25))), ("1e300", None)] {
        let permit = permit(&format!(r#"{{"exp":{exp}}}"#));
        assert_eq!(permit.map(|permit| permit.expiry()), Ok(expiry));
    }
    for text in [
        "",
        "[1795824001]",
        "1795824001",
        "{}",
        "null",
        "{\"exp\":1795824001} x",
        "\u{feff}{}",
    ] {
        assert_eq!(permit(text).err(), Some(Rejection::Claims), "{text}");
    }
}

#[test]
fn audience_is_this_server_if_there_is_one() {
    for (audience, expected) in [
        (r#""sigver""#, None),
        (r#"["other","sigver"]"#, None),
        (r#""other""#, Some(Rejection::Audience)),
        (r#"["other"]"#, Some(Rejection::Audience)),
        (r#"[]"#, Some(Rejection::Audience)),
        (r#""""#, Some(Rejection::Audience)),
        (r#"null"#, Some(Rejection::Claims)),
        (r#"["sigver",1]"#, Some(Rejection::Claims)),
        (r#"{"sigver":1}"#, Some(Rejection::Claims)),
    ] {
        let claims = format!(r#"{{"exp":4102444800,"aud":{audience}}}"#);
        assert_eq!(permit(&claims).err(), expected, "{audience}");
    }
}

#[test]
fn keys_are_those_of_the_lists() {
    let may = |claims: &str, key: Option<&str>| {
        let permit =
            permit(&format!(r#"{{"exp":4102444800{claims}}}"#)).unwrap_or_else(|why| panic!("{why}: {claims}"));
        [Role::Opener, Role::Joiner].map(|role| permit.may(role, key))
    };
    for (claims, key, expected) in [
        ("", Some("a"), [false, false]),
        ("", None, [false, false]),
        (r#","open":[]"#, Some("a"), [false, false]),
        (r#","open":["a"]"#, Some("a"), [true, false]),
        (r#","join":["a"]"#, Some("a"), [false, true]),
        (r#","open":["b","a"],"join":["c"]"#, Some("a"), [true, false]),
        (r#","open":["a"]"#, Some("ab"), [false, false]),
        (r#","open":["a"]"#, Some("A"), [false, false]),
        (r#","open":["a"]"#, None, [false, false]),
        (r#","open":["a*"]"#, Some("a"), [true, false]),
        (r#","open":["a*"]"#, Some("ab"), [true, false]),
        (r#","open":["a*"]"#, Some("ba"), [false, false]),
        (r#","open":["a*"]"#, None, [false, false]),
        (r#","open":["*"]"#, Some("a"), [true, false]),
        (r#","open":["*"]"#, None, [true, false]),
        (r#","open":["a*b"]"#, Some("a*b"), [true, false]),
        (r#","open":["a*b"]"#, Some("axb"), [false, false]),
        (r#","open":["**"]"#, Some("a"), [false, false]),
        (r#","open":["**"]"#, Some("*a"), [true, false]),
        (r#","open":["**"]"#, None, [false, false]),
        (r#","open":["*a"]"#, Some("ba"), [false, false]),
        (r#","open":[""]"#, Some("a"), [false, false]),
        (r#","open":[""]"#, None, [false, false]),
        (r#","open":["\u00e9*"]"#, Some("é1"), [true, false]),
    ] {
        assert_eq!(may(claims, key), expected, "{claims} {key:?}");
    }
    for list in [r#""*""#, "null", "{}", "1", "true", "[1]", "[null]", r#"["*",[]]"#] {
        for name in ["open", "join"] {
            let claims = format!(r#"{{"exp":4102444800,"{name}":{list}}}"#);
            assert_eq!(permit(&claims).err(), Some(Rejection::Claims), "{claims}");
        }
    }
    let identity = |sub: &str| {
        let permit = permit(&format!(r#"{{"exp":4102444800{sub}}}"#));
        permit.map(|permit| permit.identity().map(str::to_owned))
    };
    assert_eq!(identity(""), Ok(None));
    assert_eq!(identity(r#","sub":"a b""#), Ok(Some("a b".into())));
    for sub in ["null", "1", "[]"] {
        assert_eq!(identity(&format!(r#","sub":{sub}"#)), Err(Rejection::Claims), "{sub}");
    }
}

#[test]
fn faulty_keys_are_errors() {
    let small_order = encode([0; 32]);
    let not_on_curve = encode([1; 32]);
    let long = encode([1; 33]);
    for (key, reason) in [
        (json!("a"), "a key is an object"),
        (with(oct(), json!({"kty": null})), "`kty` is missing"),
        (with(oct(), json!({"kty": 1})), "`kty` is not a string"),
        (with(ec(), json!({"crv": null})), "`crv` is missing"),
        (with(okp(), json!({"crv": []})), "`crv` is not a string"),
        (with(oct(), json!({"kid": 1})), "`kid` is not a string"),
        (with(oct(), json!({"alg": 1})), "`alg` is not a string"),
        (with(oct(), json!({"use": 1})), "`use` is not a string"),
        (with(oct(), json!({"key_ops": "verify"})), "`key_ops` is not a list"),
        (
            with(oct(), json!({"alg": "ES256"})),
            "`alg` and `kty` contradict each other",
        ),
        (
            with(ec(), json!({"alg": "HS256"})),
            "`alg` and `kty` contradict each other",
        ),
        (
            with(okp(), json!({"alg": "ES256"})),
            "`alg` and `kty` contradict each other",
        ),
        (with(oct(), json!({"k": null})), "`k` is not in base64url"),
        (with(oct(), json!({"k": 1})), "`k` is not in base64url"),
        (with(oct(), json!({"k": "a+/="})), "`k` is not in base64url"),
        (
            with(oct(), json!({"k": encode([1; 31])})),
            "`k` has less than 32 bytes, which is too short for HS256",
        ),
        (
            with(oct(), json!({"k": ""})),
            "`k` has less than 32 bytes, which is too short for HS256",
        ),
        (
            with(ec(), json!({"d": "AAAA"})),
            "a private key: the server needs the public key only, so remove `d`",
        ),
        (
            with(okp(), json!({"d": "AAAA"})),
            "a private key: the server needs the public key only, so remove `d`",
        ),
        (
            with(ec(), json!({"y": null})),
            "`x` and `y` are not a point of P-256 in base64url",
        ),
        (
            with(ec(), json!({"x": long})),
            "`x` and `y` are not a point of P-256 in base64url",
        ),
        (
            with(ec(), json!({"y": not_on_curve})),
            "`x` and `y` are not a point of P-256 in base64url",
        ),
        (
            with(okp(), json!({"x": null})),
            "`x` is not a key of Ed25519 in base64url",
        ),
        (
            with(okp(), json!({"x": long})),
            "`x` is not a key of Ed25519 in base64url",
        ),
        (
            with(okp(), json!({"x": small_order})),
            "`x` is not a key of Ed25519 in base64url",
        ),
        (with(oct(), json!({"kid": "first"})), "the same `kid` as key 1"),
    ] {
        let first = with(oct(), json!({"kid": "first"}));
        let outcome = parse(&[first, key.clone()]).err();
        assert_eq!(outcome, Some(InvalidKeySet::Key(2, reason.into())), "{key}");
    }
    // The same id for keys of different types is for the same key in two forms (RFC 7517 section 4.5).
    assert_eq!(set(&[oct(), with(ec(), json!({"kid": "h"}))]).len(), 2);
    let without = |key| with(key, json!({"kid": null}));
    assert_eq!(set(&[without(oct()), without(oct())]).len(), 2);
}

#[test]
fn keys_for_something_else_are_ignored() {
    for (key, reason) in [
        (
            json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
            "`kty` is not oct, EC or OKP",
        ),
        (json!({"kty": "AKP", "d": 1}), "`kty` is not oct, EC or OKP"),
        (
            with(ec(), json!({"crv": "P-384", "d": "AAAA"})),
            "`crv` is neither P-256 nor Ed25519",
        ),
        (
            with(ec(), json!({"crv": "Ed25519"})),
            "`crv` is neither P-256 nor Ed25519",
        ),
        (
            with(okp(), json!({"crv": "X25519"})),
            "`crv` is neither P-256 nor Ed25519",
        ),
        (with(ec(), json!({"use": "enc"})), "`use` is not sig"),
        (with(ec(), json!({"key_ops": ["sign"]})), "`key_ops` is without verify"),
        (
            with(oct(), json!({"alg": "HS512"})),
            "`alg` is not HS256, ES256 or EdDSA",
        ),
        (
            with(ec(), json!({"alg": "ECDH-ES"})),
            "`alg` is not HS256, ES256 or EdDSA",
        ),
    ] {
        let used = set(&[oct(), key.clone()]);
        assert_eq!(
            (used.len(), used.ignored()),
            (1, &[format!("key 2 is ignored: {reason}")][..])
        );
        let alone = format!("no key for HS256, ES256 or EdDSA: key 1 is ignored: {reason}");
        assert_eq!(parse(&[key]).err(), Some(InvalidKeySet::Set(alone.into())));
    }
    for key in [
        with(ec(), json!({"key_ops": ["sign", "verify"], "ext": true, "x5c": []})),
        with(okp(), json!({"alg": "Ed25519"})),
        with(okp(), json!({"alg": null, "use": "sig"})),
    ] {
        assert!(set(&[key]).ignored().is_empty());
    }
}

#[test]
fn file_that_is_no_set_is_an_error() {
    for (text, reason) in [
        ("", "invalid JSON in line 1, column 0"),
        ("{\"keys\":[\n  x]}", "invalid JSON in line 2, column 3"),
        ("[]", "not a JWK Set, which is an object with a list `keys`"),
        ("{}", "not a JWK Set, which is an object with a list `keys`"),
        ("{\"keys\":{}}", "not a JWK Set, which is an object with a list `keys`"),
        ("{\"keys\":[]}", "the set has no keys"),
        (
            "{\"kty\":\"oct\"}",
            "this is one key; a JWK Set has its keys in a list, {\"keys\":[…]}",
        ),
    ] {
        let outcome = KeySet::parse(text.as_bytes()).err();
        assert_eq!(outcome, Some(InvalidKeySet::Set(reason.into())), "{text}");
    }
    let text = format!("\u{feff}{}\n", json!({"keys": [oct()], "other": 1}));
    assert!(KeySet::parse(text.as_bytes()).is_ok_and(|keys| keys.len() == 1));
}

#[test]
fn reload_replaces_the_keys_or_changes_nothing() -> Result<(), JwtKeysError> {
    let path = std::env::temp_dir().join(format!("sigver-{}-jwt-keys", std::process::id()));
    let write = |text: String| fs::write(&path, text).expect("a temporary file");
    write(json!({"keys": [oct(), {"kty": "RSA"}]}).to_string());
    let keys = JwtKeys::from_file(&path)?;
    let is_valid = |token: &str| verify(token, &keys.keys(), now()).is_ok();
    assert_eq!(keys.ignored(), ["key 2 is ignored: `kty` is not oct, EC or OKP"]);
    let shown = format!("{keys:?}");
    assert!(
        shown.contains("count: 1") && !shown.contains(&encode(SECRET)[..8]),
        "{shown}"
    );
    for wrong in [
        json!({"keys": []}),
        json!({"keys": [ec(), with(oct(), json!({"k": "SECRET"}))]}),
        json!({"keys": [with(okp(), json!({"d": "SECRET"}))]}),
    ] {
        write(wrong.to_string());
        let error = keys.reload().expect_err("not valid").to_string();
        assert!(
            error.starts_with(path.to_str().expect("UTF-8")) && !error.contains("SECRET"),
            "{error}"
        );
        assert!(is_valid(OF_LIBRARIES[0]));
    }
    fs::remove_file(&path).expect("it exists");
    assert!(matches!(keys.reload(), Err(JwtKeysError::Read { .. })));
    write(json!({"keys": [ec(), okp()]}).to_string());
    assert_eq!(keys.reload()?, 2);
    assert_eq!(OF_LIBRARIES.map(is_valid), [false, true, true, false, true, true, true]);
    fs::remove_file(&path).expect("it exists");
    Ok(())
}
