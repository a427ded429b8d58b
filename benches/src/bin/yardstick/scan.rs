//! Reads JSON attributes by a byte scan, and adds the index.
//!
//! It uses the first attribute with the name, nested or not, which is enough for well-behaved clients.

use memchr::memmem::Finder;

/// A request for a role: the first message of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    Open(&'a [u8]),
    Join(&'a [u8]),
}

/// Parses a first message. Returns `None` if it requests no role.
pub(crate) fn request(text: &[u8]) -> Option<Request<'_>> {
    let kind = string(value_of(&Finder::new(r#""type""#), text)?)?;
    let key = string(value_of(&Finder::new(r#""key""#), text)?)?;
    match kind {
        b"open" => Some(Request::Open(key)),
        b"join" => Some(Request::Join(key)),
        _ => None,
    }
}

/// Finds the index of the joiner that a message of an opener is addressed to.
#[derive(Debug)]
pub(crate) struct IndexFinder(Finder<'static>);

impl IndexFinder {
    pub(crate) fn new() -> Self {
        Self(Finder::new(r#""index""#))
    }

    pub(crate) fn find(&self, text: &[u8]) -> Option<usize> {
        let value = value_of(&self.0, text)?;
        let digits = string(value).unwrap_or(value);
        let end = digits
            .iter()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(digits.len());
        std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
    }
}

/// Returns the text in two parts, and the attribute to insert between them.
pub(crate) fn splice(text: &[u8], index: usize) -> (&[u8], String, &[u8]) {
    let brace = memchr::memrchr(b'}', text).unwrap_or(text.len());
    let (head, tail) = text.split_at(brace);
    let comma = if head.trim_ascii_end().ends_with(b"{") { "" } else { "," };
    (head, format!(r#"{comma}"index":{index}"#), tail)
}

fn value_of<'a>(name: &Finder<'_>, text: &'a [u8]) -> Option<&'a [u8]> {
    let after = &text[name.find(text)? + name.needle().len()..];
    let value = after.trim_ascii_start().strip_prefix(b":")?;
    Some(value.trim_ascii_start())
}

fn string(value: &[u8]) -> Option<&[u8]> {
    let rest = value.strip_prefix(b"\"")?;
    Some(&rest[..memchr::memchr(b'"', rest)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_request_is_parsed() {
        let check = |text: &'static str, expected| {
            assert_eq!(request(text.as_bytes()), expected, "{text}");
        };
        check(r#"{"type":"open","key":"k"}"#, Some(Request::Open(b"k")));
        check(r#"{ "key" : "k", "type" : "join" }"#, Some(Request::Join(b"k")));
        check(r#"{"type":"offer","key":"k"}"#, None);
        check(r#"{"type":"open"}"#, None);
        check(r#"{"type":"open","key":"k"#, None);
        check(r#"{"type":"open","key":"#, None);
        check("", None);
    }

    #[test]
    fn index_is_found() {
        let finder = IndexFinder::new();
        let check = |text: &str, expected| assert_eq!(finder.find(text.as_bytes()), expected, "{text}");
        check(r#"{"index":12,"sdp":""}"#, Some(12));
        check(r#"{"sdp":"","index": "7" }"#, Some(7));
        check(r#"{"sdp":"\"index\":7"}"#, None);
        check(r#"{"index":"push"}"#, None);
        check(r#"{"index":99999999999999999999999}"#, None);
    }

    #[test]
    fn index_is_inserted_before_last_brace() {
        let check = |text: &str, expected: &str| {
            let (head, added, tail) = splice(text.as_bytes(), 3);
            let whole = [head, added.as_bytes(), tail].concat();
            assert_eq!(whole, expected.as_bytes());
        };
        check("{}", r#"{"index":3}"#);
        check(r#"{"a":{}}"#, r#"{"a":{},"index":3}"#);
        check("{\"a\":\"}\"}\n", "{\"a\":\"}\",\"index\":3}\n");
        check("no object", r#"no object,"index":3"#);
    }
}
