//! JSON texts to send: the messages of a WebRTC session, and unique payloads for delivery checks.
//!
//! A payload is a function of its [`Stream`] and its number, so that a receiver in another process can compute it.

/// Returns the message that opens a key.
#[must_use]
pub fn open(key: &str) -> Vec<u8> {
    format!(r#"{{"type":"open","key":"{key}"}}"#).into_bytes()
}

/// Returns the message that joins a key.
#[must_use]
pub fn join(key: &str) -> Vec<u8> {
    format!(r#"{{"type":"join","key":"{key}"}}"#).into_bytes()
}

/// Returns a message of this length, at least 8 bytes.
#[must_use]
pub fn filler(len: usize) -> Vec<u8> {
    format!(r#"{{"x":"{}"}}"#, "x".repeat(len.saturating_sub(8))).into_bytes()
}

/// The join notice that an opener receives for each joiner.
pub const JOINED: &[u8] = br#"{"type":"join"}"#;

/// Returns an offer of a data channel, about 1.2 KB.
#[must_use]
pub fn offer() -> Vec<u8> {
    format!(r#"{{"type":"offer","sdp":"{}"}}"#, sdp("actpass")).into_bytes()
}

/// Returns the answer to the joiner with `index`, about 1.2 KB.
#[must_use]
pub fn answer(index: u32) -> Vec<u8> {
    let sdp = sdp("active");
    format!(r#"{{"type":"answer","sdp":"{sdp}","index":{index}}}"#).into_bytes()
}

/// Returns a trickled ICE candidate. An opener adds the `index` of the joiner.
#[must_use]
pub fn candidate(number: u32, index: Option<u32>) -> Vec<u8> {
    let index = index.map_or(String::new(), |index| format!(r#","index":{index}"#));
    format!(
        r#"{{"candidate":"candidate:{number} 1 udp 2122260223 192.0.2.{number} 5{number}400 typ host generation 0 ufrag Zk4c network-cost 999","sdpMid":"0","sdpMLineIndex":0{index}}}"#
    )
    .into_bytes()
}

fn sdp(setup: &str) -> String {
    let mut sdp = format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=extmap-allow-mixed\r\n\
         a=msid-semantic: WMS\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n\
         a=ice-ufrag:Zk4c\r\na=ice-pwd:WvQ6lXkQfGnJ0M1m7bYp9TzA\r\na=ice-options:trickle\r\n\
         a=fingerprint:sha-256 7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08\r\n\
         a=setup:{setup}\r\na=mid:0\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n"
    );
    let mut host = 1;
    while sdp.len() < 1_100 {
        sdp.push_str(&format!(
            "a=candidate:{host} 1 udp 2122260223 192.0.2.{host} 54400 typ host generation 0\r\n"
        ));
        host += 1;
    }
    sdp.replace("\r\n", "\\r\\n")
}

/// The end of a pair that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The opener, which addresses the joiner by its index.
    Opener,
    /// The joiner. The server adds the index to its messages.
    Joiner,
}

/// The payloads from one connection to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    /// The number of the key.
    pub key: u32,
    /// The joiner's index.
    pub joiner: u32,
    /// The sender.
    pub from: Side,
}

/// Range of payload lengths in bytes. Lengths are distributed log-uniformly.
#[derive(Clone, Copy, Debug)]
pub struct SizeRange {
    /// Minimum. Payloads that need more for their identifier are longer.
    pub min: usize,
    /// Maximum.
    pub max: usize,
}

/// Returns the payload with this number in `stream`.
#[must_use]
pub fn build(stream: Stream, number: u32, sizes: SizeRange) -> Vec<u8> {
    let Stream { key, joiner, from } = stream;
    let side = match from {
        Side::Opener => 'o',
        Side::Joiner => 'j',
    };
    let mut random = SplitMix64::new(stream, number);
    let size = random.size(sizes);
    let mut text = format!(r#"{{"v":"{key}.{joiner}.{side}.{number}""#);
    if from == Side::Opener {
        text.push_str(&format!(r#","index":{joiner}"#));
    }
    // The filler follows the index, so that a byte scan for the index finds the right one first.
    const FRAME: usize = r#","x":""}"#.len();
    if size > text.len() + FRAME {
        let filler = size - text.len() - FRAME;
        text.push_str(r#","x":""#);
        let end = text.len() + filler;
        while text.len() < end {
            let fragment = FILLER_FRAGMENTS[random.below(FILLER_FRAGMENTS.len())];
            text.push_str(if text.len() + fragment.len() <= end {
                fragment
            } else {
                "."
            });
        }
        text.push('"');
    }
    text.push('}');
    text.into_bytes()
}

/// Parses the stream and the number of a payload. Returns `None` if there are none.
#[must_use]
pub fn parse_id(text: &[u8]) -> Option<(Stream, u32)> {
    let rest = text.strip_prefix(br#"{"v":""#)?;
    let end = memchr::memchr(b'"', rest)?;
    let mut parts = std::str::from_utf8(&rest[..end]).ok()?.split('.');
    let key = parts.next()?.parse().ok()?;
    let joiner = parts.next()?.parse().ok()?;
    let from = match parts.next()? {
        "o" => Side::Opener,
        "j" => Side::Joiner,
        _ => return None,
    };
    let number = parts.next()?.parse().ok()?;
    let stream = Stream { key, joiner, from };
    parts.next().is_none().then_some((stream, number))
}

/// Returns whether `received` is `sent` with the index added as its last attribute and no other change.
#[must_use]
pub fn equals_with_index(received: &[u8], sent: &[u8], index: u32) -> bool {
    let Some(brace) = sent.iter().rposition(|&byte| byte == b'}') else {
        return false;
    };
    let last = sent[..brace].trim_ascii_end();
    let comma = if last.ends_with(b"{") { "" } else { "," };
    let added = format!(r#"{comma}"index":{index}"#);
    // White space before the brace may be before or after the added attribute.
    [brace, last.len()].into_iter().any(|at| {
        received
            .strip_prefix(&sent[..at])
            .and_then(|rest| rest.strip_prefix(added.as_bytes()))
            == Some(&sent[at..])
    })
}

/// Filler that a server with a careless scanner or serializer would corrupt.
const FILLER_FRAGMENTS: [&str; 12] = [
    "a=candidate:1 1 udp 2122260223",
    "\\r\\n",
    "\\\"",
    "\\\\",
    "\\u00e9",
    "\\ud83d",
    "\\/",
    "}{",
    "\\\"index\\\":7,",
    "é",
    "\u{1f980}",
    "],[",
];

/// A small pseudo-random generator with the same output on all platforms.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn new(stream: Stream, number: u32) -> Self {
        let side = u64::from(stream.from == Side::Opener);
        let mut random = Self(u64::from(stream.key) << 32 | u64::from(stream.joiner) << 1 | side);
        random.0 ^= random.next() ^ u64::from(number);
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn size(&mut self, sizes: SizeRange) -> usize {
        let ratio = sizes.max as f64 / sizes.min.max(1) as f64;
        let fraction = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (sizes.min.max(1) as f64 * ratio.powf(fraction)) as usize
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const PAYLOAD_SIZES: SizeRange = SizeRange { min: 1, max: 60_000 };

    fn streams() -> impl Iterator<Item = Stream> {
        (0..3).flat_map(|key| {
            (0..3).flat_map(move |joiner| [Side::Opener, Side::Joiner].map(|from| Stream { key, joiner, from }))
        })
    }

    #[test]
    fn session_messages_are_json_of_expected_size() {
        for (text, size) in [
            (offer(), 1_150..1_300),
            (answer(0), 1_150..1_300),
            (candidate(8, Some(3)), 100..200),
        ] {
            assert!(size.contains(&text.len()), "{} bytes", text.len());
            serde_json::from_slice::<Value>(&text).expect("JSON");
        }
    }

    #[test]
    fn payloads_are_unique_and_within_size_range() {
        let mut seen = std::collections::HashSet::new();
        let mut lengths = (usize::MAX, 0);
        for stream in streams() {
            for number in 0..60 {
                let text = build(stream, number, PAYLOAD_SIZES);
                assert_eq!(parse_id(&text), Some((stream, number)));
                assert!(text.len() <= PAYLOAD_SIZES.max);
                assert!(std::str::from_utf8(&text).is_ok_and(|text| text.ends_with('}')));
                lengths = (lengths.0.min(text.len()), lengths.1.max(text.len()));
                assert!(seen.insert(text), "{stream:?} {number} is not unique");
            }
        }
        assert!(lengths.0 < 30 && lengths.1 > 50_000, "{lengths:?}");
    }

    #[test]
    fn truncated_or_changed_id_is_rejected() {
        for text in [
            "",
            "{}",
            r#"{"v":"1.2.o.3"#,
            r#"{"v":"1.2.o"}"#,
            r#"{"v":"1.2.x.3"}"#,
            r#"{"v":"1.2.o.3.4"}"#,
        ] {
            assert_eq!(parse_id(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn only_added_index_may_differ() {
        for (sent, received, same) in [
            ("{}", r#"{"index":3}"#, true),
            ("{ }", r#"{ "index":3}"#, true),
            (r#"{"a":1}"#, r#"{"a":1,"index":3}"#, true),
            (r#"{"a":1 }"#, r#"{"a":1 ,"index":3}"#, true),
            (r#"{"a":1 }"#, r#"{"a":1,"index":3 }"#, true),
            (r#"{"a":1 }"#, r#"{"a":1,"index":3}"#, false),
            (r#"{"a":1}"#, r#"{"a":1,"index":4}"#, false),
            (r#"{"a":1}"#, r#"{"a":1}"#, false),
            (r#"{"a":1.0}"#, r#"{"a":1,"index":3}"#, false),
            ("", "", false),
        ] {
            let found = equals_with_index(received.as_bytes(), sent.as_bytes(), 3);
            assert_eq!(found, same, "{sent} {received}");
        }
    }
}
