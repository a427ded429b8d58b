//! What is wrong with a server: the known defects of the original sigver that sockets can show, one each, and a few more that a
//! server may have. Owns what each does to a text; what it does to connections is in the parent.
//!
//! Of the original's defects these have no place here, since no socket shows them: that joiners which left are kept for ever, and that
//! every open and join looks at every socket, are memory and time; that nobody is ever pinged shows after minutes; that an open is
//! never acknowledged, and that `{"type":"join"}` has no index, is the plain dialect itself, and what [`Defect::OnlyPlain`] is about.

use serde_json::{Map, Value, json};
use sigver_core::Dialect;

/// One thing that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Nothing.
    None,
    /// A text that is not JSON ends the process.
    BrokenJsonKills,
    /// A JSON value that is no object ends the process.
    NonObjectKills,
    /// A member `hasOwnProperty` ends the process.
    HasOwnPropertyKills,
    /// An `index` from a socket without a role ends the process.
    IndexWithoutRoleKills,
    /// An index that was never given to anyone, or is none, ends the process.
    IndexOfNobodyKills,
    /// An answer to a joiner that left ends the process.
    AnswerToGoneKills,
    /// A join while the opener is closing ends the process: its key is free only when its connection is gone.
    JoinWhileClosingKills,
    /// Broken frames, broken UTF-8 and messages over the limit end the process.
    BrokenFramesKill,
    /// The index is the opener's place in the list of all connections.
    IndexIsThePlaceOfTheOpener,
    /// The index is written as a string.
    IndexAsString,
    /// Joiners are not told that their opener left.
    OpenerLeavesInSilence,
    /// A second opener is refused, and has the key all the same.
    RefusedOpenerTakesTheKey,
    /// A second open forgets the first key, and all who joined it.
    SecondOpenOrphansTheFirst,
    /// A socket with a role may join as well, also itself.
    RolesAddUp,
    /// A joiner's message with a `key` is taken for an open or a join gone wrong.
    DataIsTakenForControl,
    /// An array from a joiner is relayed, without an index.
    ArrayIsRelayed,
    /// A joiner's message is parsed and written again.
    WrittenAgain,
    /// A key may be any JSON value, of any length.
    AnyKey,
    /// There is no limit on the length of a message.
    NoSizeLimit,
    /// Compression is agreed to.
    Compresses,
    /// Nothing but the plain dialect is spoken.
    OnlyPlain,
    /// An `index` that a joiner writes stands.
    JoinerForgesIndex,
    /// A request head may take for ever.
    HeadsTakeForEver,
    /// Whoever does not read holds up everyone.
    WaitsForReaders,
}

/// What a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Nothing,
    /// And how many have joined it.
    Opener(u32),
    /// Of which socket, with which index.
    Joiner(u64, u32),
}

/// What a defect makes of a text.
pub(crate) enum Twist {
    /// It is handled as it is.
    Nothing,
    /// It ends the process.
    Kill,
    /// It is handled as this one.
    As(String),
    /// Its sender is closed with 1007.
    Close,
    /// It goes to this socket as it is, if that one speaks the plain dialect.
    Relay(u64),
}

impl Defect {
    /// What becomes of a text, by what is in it and who sent it.
    pub(crate) fn twist(self, text: &str, dialect: Dialect, role: Role) -> Twist {
        let value: Option<Value> = serde_json::from_str(text).ok();
        let none = Map::new();
        let members = value.as_ref().and_then(Value::as_object).unwrap_or(&none);
        let plain = dialect == Dialect::Plain;
        let has = |name: &str| members.contains_key(name);
        let kill = |kill| if kill { Twist::Kill } else { Twist::Nothing };
        match (self, role) {
            (Self::HasOwnPropertyKills, _) => kill(has("hasOwnProperty")),
            (Self::IndexWithoutRoleKills, Role::Nothing) => kill(plain && has("index") && !has("key")),
            (Self::DataIsTakenForControl, Role::Joiner(..)) if plain && has("type") && has("key") => {
                let control = [json!("open"), json!("join")].contains(&members["type"]);
                if control { Twist::Nothing } else { Twist::Close }
            }
            (Self::ArrayIsRelayed, Role::Joiner(opener, _)) if plain && value.as_ref().is_some_and(Value::is_array) => {
                Twist::Relay(opener)
            }
            (Self::JoinerForgesIndex, Role::Joiner(opener, _)) if plain && has("index") => Twist::Relay(opener),
            (Self::WrittenAgain, Role::Joiner(..)) => match value {
                Some(value) if value.is_object() => Twist::As(value.to_string()),
                Some(_) | None => Twist::Nothing,
            },
            (Self::AnyKey, _) => match (members.get("type").and_then(Value::as_str), members.get("key")) {
                (Some(verb @ ("open" | "join")), Some(key)) if key.as_str().is_none_or(str::is_empty) => {
                    Twist::As(json!({ "type": verb, "key": key.to_string() }).to_string())
                }
                _ => Twist::Nothing,
            },
            _ => Twist::Nothing,
        }
    }
}
