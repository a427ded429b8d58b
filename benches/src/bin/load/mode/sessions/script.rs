//! What both ends of a session send, in the protocols of several servers. In each, 18 messages are relayed: offer, answer and eight candidates
//! each way.
//!
//! | protocol | opener | joiner |
//! |---|---|---|
//! | plain | opens the key, answers | joins, and offers at once |
//! | matchbox | is in the room; offers when the server reports a new peer | connects to the room, answers |
//! | PeerJS | has the id `KEY-opener`, answers | has the id `KEY-joiner`, offers at once |

use sigver_benches::{
    frame::{self, Opcode},
    payload,
};

use crate::run::servers::Protocol;

const CANDIDATES: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Opener,
    Joiner,
}

#[derive(Debug)]
pub(super) struct Script {
    protocol: Protocol,
    /// The path in the URL of the server.
    path: String,
    /// The frames of the plain protocol, which are the same in each session.
    offer: Vec<u8>,
    answer_and_candidates: Vec<u8>,
    candidates: Vec<u8>,
}

impl Script {
    pub(super) fn new(protocol: Protocol, path: &str) -> Self {
        let candidates =
            |index| (0..CANDIDATES).flat_map(move |number| frame::client_text(&payload::candidate(number, index)));
        Self {
            protocol,
            path: path.to_owned(),
            offer: frame::client_text(&payload::offer()),
            answer_and_candidates: frame::client_text(&payload::answer(0))
                .into_iter()
                .chain(candidates(Some(0)))
                .collect(),
            candidates: candidates(None).collect(),
        }
    }

    /// Returns the request path of an end, if it is not that of the server.
    pub(super) fn path(&self, end: End, key: &str) -> Option<String> {
        let path = &self.path;
        match self.protocol {
            Protocol::Plain => None,
            Protocol::Matchbox => Some(format!("{path}{key}")),
            Protocol::PeerJs => Some(format!("{path}?key=peerjs&token=t&id={}", peerjs_id(end, key))),
        }
    }

    /// Returns what an end sends when it is connected. The pong to the opener's ping follows its registration.
    pub(super) fn begin(&self, end: End, key: &str) -> Vec<u8> {
        match end {
            End::Opener => {
                let mut frames = match self.protocol {
                    Protocol::Plain => frame::client_text(&payload::open(key)),
                    Protocol::Matchbox | Protocol::PeerJs => Vec::new(),
                };
                frame::push_client_frame(&mut frames, Opcode::Ping, b"");
                frames
            }
            End::Joiner => match self.protocol {
                Protocol::Plain => [frame::client_text(&payload::join(key)), self.offer.clone()].concat(),
                Protocol::Matchbox => Vec::new(),
                Protocol::PeerJs => to_peerjs("OFFER", &peerjs_id(End::Opener, key), &payload::offer()),
            },
        }
    }

    /// Returns what an end sends after its message with this number, counted from 1.
    pub(super) fn react(&self, end: End, key: &str, number: u32, message: &[u8]) -> Option<Vec<u8>> {
        match (self.protocol, end, number) {
            (Protocol::Plain, End::Opener, 2) => Some(self.answer_and_candidates.clone()),
            (Protocol::Plain, End::Joiner, 1) => Some(self.candidates.clone()),
            (Protocol::Matchbox, End::Opener, 2) => {
                Some(to_matchbox(text_after(message, r#""NewPeer":""#)?, [payload::offer()]))
            }
            (Protocol::Matchbox, End::Opener, 3) => Some(to_matchbox(text_after(message, SENDER)?, candidates())),
            (Protocol::Matchbox, End::Joiner, 2) => {
                let answer = [payload::answer(0)].into_iter().chain(candidates());
                Some(to_matchbox(text_after(message, SENDER)?, answer))
            }
            (Protocol::PeerJs, _, 2) => {
                let other = match end {
                    End::Opener => peerjs_id(End::Joiner, key),
                    End::Joiner => peerjs_id(End::Opener, key),
                };
                let mut frames = Vec::new();
                if end == End::Opener {
                    frames = to_peerjs("ANSWER", &other, &payload::answer(0));
                }
                frames.extend(candidates().flat_map(|candidate| to_peerjs("CANDIDATE", &other, &candidate)));
                Some(frames)
            }
            _ => None,
        }
    }

    /// Returns how many messages an end receives.
    pub(super) const fn messages(&self, end: End) -> u32 {
        let before_candidates = match (self.protocol, end) {
            // The join notice and the offer; the answer.
            (Protocol::Plain, End::Opener) => 2,
            (Protocol::Plain, End::Joiner) => 1,
            // Its id, the joiner's id and the answer; its id and the offer.
            (Protocol::Matchbox, End::Opener) => 3,
            (Protocol::Matchbox, End::Joiner) => 2,
            // `OPEN`, and the offer or the answer.
            (Protocol::PeerJs, _) => 2,
        };
        before_candidates + CANDIDATES
    }
}

const SENDER: &str = r#""sender":""#;

fn candidates() -> impl Iterator<Item = Vec<u8>> {
    (0..CANDIDATES).map(|number| payload::candidate(number, None))
}

fn peerjs_id(end: End, key: &str) -> String {
    match end {
        End::Opener => format!("{key}-opener"),
        End::Joiner => format!("{key}-joiner"),
    }
}

fn to_peerjs(kind: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let payload = String::from_utf8_lossy(payload);
    frame::client_text(format!(r#"{{"type":"{kind}","payload":{payload},"dst":"{to}"}}"#).as_bytes())
}

fn to_matchbox(receiver: &str, payloads: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let signal = |payload: Vec<u8>| {
        let payload = String::from_utf8_lossy(&payload);
        frame::client_text(format!(r#"{{"Signal":{{"receiver":"{receiver}","data":{payload}}}}}"#).as_bytes())
    };
    payloads.into_iter().flat_map(signal).collect()
}

/// Returns the text between `before` and the next quotation mark.
fn text_after<'a>(message: &'a [u8], before: &str) -> Option<&'a str> {
    let (_, rest) = std::str::from_utf8(message).ok()?.split_once(before)?;
    Some(rest.split_once('"')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the payloads of unmasked or masked text frames, in order.
    fn texts(mut frames: &[u8]) -> Vec<String> {
        let mut texts = Vec::new();
        while let [head, length, rest @ ..] = frames {
            let (length, rest) = match length & 0x7f {
                126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
                length => (usize::from(length), rest),
            };
            let (mask, rest) = rest.split_at(4);
            let text = rest[..length]
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask);
            if head & 0x0f == 1 {
                texts.push(String::from_utf8(text.collect()).expect("UTF-8"));
            }
            frames = &rest[length..];
        }
        texts
    }

    /// Plays a session between both ends with a server that this function is, and returns how many messages each end has received.
    fn play(
        protocol: Protocol,
        mut serve: impl FnMut(End, &str) -> Option<(End, String)>,
        greetings: [&[&str]; 2],
    ) -> [u32; 2] {
        let script = Script::new(protocol, "/");
        let mut received = [0; 2];
        let mut waiting: Vec<(End, String)> = Vec::new();
        for (end, greetings) in [(End::Opener, greetings[0]), (End::Joiner, greetings[1])] {
            waiting.extend(greetings.iter().map(|text| (end, (*text).to_owned())));
            waiting.extend(
                texts(&script.begin(end, "k"))
                    .iter()
                    .filter_map(|text| serve(end, text)),
            );
        }
        while !waiting.is_empty() {
            let (end, message) = waiting.remove(0);
            let count = &mut received[end as usize];
            *count += 1;
            if let Some(frames) = script.react(end, "k", *count, message.as_bytes()) {
                waiting.extend(texts(&frames).iter().filter_map(|text| serve(end, text)));
            }
        }
        assert_eq!(
            received,
            [End::Opener, End::Joiner].map(|end| script.messages(end)),
            "{protocol:?}"
        );
        received
    }

    const fn other(end: End) -> End {
        match end {
            End::Opener => End::Joiner,
            End::Joiner => End::Opener,
        }
    }

    #[test]
    fn both_ends_receive_what_the_other_sends_in_every_protocol() {
        let plain = |end, text: &str| match text {
            r#"{"type":"open","key":"k"}"# => None,
            r#"{"type":"join","key":"k"}"# => Some((End::Opener, r#"{"type":"join"}"#.to_owned())),
            text => Some((other(end), text.to_owned())),
        };
        assert_eq!(play(Protocol::Plain, plain, [&[], &[]]), [10, 9]);
        let peerjs = |end, text: &str| Some((other(end), text.to_owned()));
        assert_eq!(play(Protocol::PeerJs, peerjs, [&["OPEN"], &["OPEN"]]), [10, 10]);
        let matchbox = |end: End, text: &str| {
            assert!(
                text.starts_with(&format!(
                    r#"{{"Signal":{{"receiver":"{}","#,
                    ["o", "j"][other(end) as usize]
                )),
                "{text}"
            );
            Some((
                other(end),
                format!(r#"{{"Signal":{{"sender":"{}","data":0}}}}"#, ["o", "j"][end as usize]),
            ))
        };
        let greetings: [&[&str]; 2] = [
            &[r#"{"IdAssigned":"o"}"#, r#"{"NewPeer":"j"}"#],
            &[r#"{"IdAssigned":"j"}"#],
        ];
        assert_eq!(play(Protocol::Matchbox, matchbox, greetings), [11, 10]);
    }
}
