//! What is sent: the messages of a WebRTC session, and payloads that can be told apart.
//!
//! Owns no frame: it makes JSON texts. A [`Stream`]'s payloads are a function of its name and a number, so that a
//! receiver in another process knows what it should have got.

/// The message that takes a key.
#[must_use]
pub fn open(key: &str) -> Vec<u8> {
    format!(r#"{{"type":"open","key":"{key}"}}"#).into_bytes()
}

/// The message that joins a key.
#[must_use]
pub fn join(key: &str) -> Vec<u8> {
    format!(r#"{{"type":"join","key":"{key}"}}"#).into_bytes()
}

/// What an opener gets for each joiner.
pub const JOINED: &[u8] = br#"{"type":"join"}"#;

/// An offer of a data channel, about 1.2 KB.
#[must_use]
pub fn offer() -> Vec<u8> {
    format!(r#"{{"type":"offer","sdp":"{}"}}"#, sdp("actpass")).into_bytes()
}

/// The answer to the joiner of that index, about 1.2 KB.
#[must_use]
pub fn answer(index: u32) -> Vec<u8> {
    let sdp = sdp("active");
    format!(r#"{{"type":"answer","sdp":"{sdp}","index":{index}}}"#).into_bytes()
}

/// A trickled candidate; from an opener with the `index` of its joiner.
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

/// Which end of a pair sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The opener, who names the joiner by its index.
    Opener,
    /// The joiner, to whose texts the server adds the index.
    Joiner,
}

/// Everything that one socket sends to one other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    /// The number of the key.
    pub key: u32,
    /// The joiner's index.
    pub joiner: u32,
    /// Who sends.
    pub from: Side,
}

/// How long payloads are, in bytes: spread evenly over the orders of magnitude between the two.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The least; a payload is never shorter than its name needs.
    pub least: usize,
    /// The most.
    pub most: usize,
}

/// The payload of that number in a stream.
#[must_use]
pub fn build(stream: Stream, number: u32, sizes: Sizes) -> Vec<u8> {
    let Stream { key, joiner, from } = stream;
    let side = match from {
        Side::Opener => 'o',
        Side::Joiner => 'j',
    };
    let mut random = Random::new(stream, number);
    let size = random.size(sizes);
    let mut text = format!(r#"{{"v":"{key}.{joiner}.{side}.{number}""#);
    if from == Side::Opener {
        text.push_str(&format!(r#","index":{joiner}"#));
    }
    // Kept apart from the filling, so that a byte scan for the index finds the sender's own first.
    const FRAME: usize = r#","x":""}"#.len();
    if size > text.len() + FRAME {
        let filling = size - text.len() - FRAME;
        text.push_str(r#","x":""#);
        let end = text.len() + filling;
        while text.len() < end {
            let piece = PIECES[random.below(PIECES.len())];
            text.push_str(if text.len() + piece.len() <= end { piece } else { "." });
        }
        text.push('"');
    }
    text.push('}');
    text.into_bytes()
}

/// Reads which payload a text claims to be.
#[must_use]
pub fn parse_name(text: &[u8]) -> Option<(Stream, u32)> {
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

/// Whether `received` is `sent` with the index added as its last attribute, and nothing else changed.
#[must_use]
pub fn is_spliced(received: &[u8], sent: &[u8], index: u32) -> bool {
    let Some(brace) = sent.iter().rposition(|&byte| byte == b'}') else {
        return false;
    };
    let last = sent[..brace].trim_ascii_end();
    let comma = if last.ends_with(b"{") { "" } else { "," };
    let added = format!(r#"{comma}"index":{index}"#);
    // White space before the brace may stay on either side of what was added.
    [brace, last.len()].into_iter().any(|at| {
        received
            .strip_prefix(&sent[..at])
            .and_then(|rest| rest.strip_prefix(added.as_bytes()))
            == Some(&sent[at..])
    })
}

/// What strings are filled with: what a server that re-serialises or scans carelessly would change or trip over.
const PIECES: [&str; 12] = [
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

/// SplitMix64: small, and the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
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

    fn size(&mut self, sizes: Sizes) -> usize {
        let ratio = sizes.most as f64 / sizes.least.max(1) as f64;
        let fraction = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (sizes.least.max(1) as f64 * ratio.powf(fraction)) as usize
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const SIZES: Sizes = Sizes { least: 1, most: 60_000 };

    fn streams() -> impl Iterator<Item = Stream> {
        (0..3).flat_map(|key| {
            (0..3).flat_map(move |joiner| [Side::Opener, Side::Joiner].map(|from| Stream { key, joiner, from }))
        })
    }

    #[test]
    fn session_messages_are_json_of_the_right_size() {
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
    fn payloads_are_unique_named_and_within_their_sizes() {
        let mut seen = std::collections::HashSet::new();
        let mut lengths = (usize::MAX, 0);
        for stream in streams() {
            for number in 0..60 {
                let text = build(stream, number, SIZES);
                assert_eq!(parse_name(&text), Some((stream, number)));
                assert!(text.len() <= SIZES.most);
                assert!(std::str::from_utf8(&text).is_ok_and(|text| text.ends_with('}')));
                lengths = (lengths.0.min(text.len()), lengths.1.max(text.len()));
                assert!(seen.insert(text), "{stream:?} {number} is not unique");
            }
        }
        assert!(lengths.0 < 30 && lengths.1 > 50_000, "{lengths:?}");
    }

    #[test]
    fn a_name_cut_or_changed_is_none() {
        for text in [
            "",
            "{}",
            r#"{"v":"1.2.o.3"#,
            r#"{"v":"1.2.o"}"#,
            r#"{"v":"1.2.x.3"}"#,
            r#"{"v":"1.2.o.3.4"}"#,
        ] {
            assert_eq!(parse_name(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_splice_is_all_that_may_differ() {
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
            let found = is_spliced(received.as_bytes(), sent.as_bytes(), 3);
            assert_eq!(found, same, "{sent} {received}");
        }
    }
}
