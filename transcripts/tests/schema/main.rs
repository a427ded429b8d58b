//! Compares the JSON Schemas with the codecs of the core: they must accept the same client messages, and the schemas must accept every server
//! message. `.ci/schema-test` checks that the schemas are valid JSON Schema.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    path::Path,
};

use jsonschema::Validator;
use proptest::{option, prelude::*, sample::select};
use serde_json::{Map, Value, json};
use sigver_core::{
    CloseReason, ConnId, Decoder, Dialect, Disconnect, Frame, Hub, IceServers, InboundMessage, Key, Limits, Member,
    OutboundMessage, Refusal, RoleEnd, Time, Token,
};
use sigver_transcripts::{self as transcripts, StepKind, Transcript, all};

use crate::generated::{frames, ice, outbound};

mod generated;

/// The role of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    None,
    Opener,
    Joiner,
    /// Only in `sigver.v1`.
    Waiting,
}

impl Role {
    const ALL: [Self; 4] = [Self::None, Self::Opener, Self::Joiner, Self::Waiting];

    fn of(dialect: Dialect) -> &'static [Self] {
        match dialect {
            Dialect::Plain => &[Self::None, Self::Opener, Self::Joiner],
            Dialect::V1 => &Self::ALL,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "no-role",
            Self::Opener => "opener",
            Self::Joiner => "joiner",
            Self::Waiting => "waiting",
        }
    }
}

/// How the core handles a frame from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Accepted, or refused because of the state of other clients.
    Accepted,
    /// Invalid for the sender's role. The sender may be closed with this reason.
    OutOfRole(Option<CloseReason>),
    /// Invalid for any sender.
    Invalid(CloseReason),
}

impl Verdict {
    /// Returns whether the schema must accept the frame from any client, and from a client in the sender's role.
    fn accepted(self) -> (bool, bool) {
        match self {
            Self::Accepted => (true, true),
            Self::OutOfRole(_) => (true, false),
            Self::Invalid(_) => (false, false),
        }
    }

    fn reason(self) -> Option<CloseReason> {
        match self {
            Self::Accepted => None,
            Self::OutOfRole(reason) => reason,
            Self::Invalid(reason) => Some(reason),
        }
    }
}

/// The schema of a dialect.
struct Schema {
    document: Value,
    definitions: BTreeMap<String, Validator>,
}

fn file(name: &str) -> Result<String, Box<dyn Error>> {
    Ok(fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name),
    )?)
}

impl Schema {
    fn of(dialect: Dialect) -> Self {
        Self::read(dialect).unwrap_or_else(|error| panic!("{}: {error}", dialect.subprotocol()))
    }

    fn read(dialect: Dialect) -> Result<Self, Box<dyn Error>> {
        let document: Value = serde_json::from_str(&file(&format!("{}.json", dialect.subprotocol()))?)?;
        let mut definitions = BTreeMap::new();
        for name in document["$defs"].as_object().ok_or("no $defs")?.keys() {
            let one = json!({
                "$schema": document["$schema"],
                "$ref": format!("#/$defs/{name}"),
                "$defs": document["$defs"],
            });
            definitions.insert(name.clone(), jsonschema::draft202012::new(&one)?);
        }
        Ok(Self { document, definitions })
    }

    fn accepts(&self, definition: &str, value: &Value) -> bool {
        let definition = self.definitions.get(definition);
        definition.is_some_and(|definition| definition.is_valid(value))
    }

    /// Returns whether the schema accepts a frame from any client, and from a client in this role.
    fn accepts_of(&self, role: Role, value: &Value) -> (bool, bool) {
        (
            self.accepts("client-to-server", value),
            self.accepts(&format!("{}-to-server", role.name()), value),
        )
    }

    fn accepts_to(&self, role: Role, value: &Value) -> bool {
        self.accepts(&format!("server-to-{}", role.name()), value)
    }

    fn codes(&self, definition: &str) -> BTreeSet<&str> {
        let codes = self.document["$defs"][definition]["enum"].as_array();
        codes.into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

/// A hub, and the dialect and role of each client.
struct Core {
    hub: Hub,
    limits: Limits,
    clients: BTreeMap<ConnId, (Dialect, Role)>,
}

/// The texts that were sent, with the dialect and role of each recipient.
type Sent = Vec<(Dialect, Role, String)>;

impl Core {
    /// Creates a core in which a join is refused at once: what follows is about one message.
    fn new(mut limits: Limits) -> Self {
        limits.plain_join_grace = core::time::Duration::ZERO;
        Self {
            hub: Hub::new(limits.clone()),
            limits,
            clients: BTreeMap::new(),
        }
    }

    fn connect(&mut self, dialect: Dialect) -> ConnId {
        let id = self
            .hub
            .connect(Time::ZERO, dialect.profile())
            .expect("no connection limit");
        self.clients.insert(id, (dialect, Role::None));
        id
    }

    /// Handles a frame from a connected client.
    fn handle(&mut self, from: ConnId, text: &str) -> (Verdict, Sent) {
        let (dialect, role) = self.clients[&from];
        let message = match Decoder::new(dialect, &self.limits).decode(text) {
            Ok(InboundMessage::OpenGenerated { id }) => InboundMessage::Open {
                key: Key::from_random(MADE, &self.limits).expect("within the limit"),
                id,
                token: None,
                new_token: Some(Token::from_random(MADE)),
            },
            Ok(mut message) => {
                if let InboundMessage::Open { new_token, .. } | InboundMessage::Meet { new_token, .. } = &mut message {
                    *new_token = Some(Token::from_random(MADE));
                }
                message
            }
            Err(reason) => {
                let outputs = self.hub.close(Time::ZERO, from, reason);
                return (Verdict::Invalid(reason), self.deliver(outputs));
            }
        };
        let gives_up = matches!(
            (&message, role),
            (InboundMessage::Leave, Role::Joiner | Role::Waiting) | (InboundMessage::CloseKey, Role::Opener)
        );
        let outputs = self.hub.handle(Time::ZERO, from, message);
        let to_itself = outputs.iter().find(|(to, _)| *to == from).map(|(_, message)| message);
        let verdict = match to_itself {
            Some(OutboundMessage::Refused(
                Refusal::HasRole | Refusal::NoRole | Refusal::WrongRole | Refusal::NoIndex,
            )) => Verdict::OutOfRole(None),
            Some(OutboundMessage::Close(
                reason @ (CloseReason::HasRole
                | CloseReason::NoRole
                | CloseReason::NoIndex
                | CloseReason::UnknownType
                | CloseReason::IndexMalformed),
            )) => Verdict::OutOfRole(Some(*reason)),
            _ => Verdict::Accepted,
        };
        if gives_up {
            self.clients.insert(from, (dialect, Role::None));
        }
        (verdict, self.deliver(outputs))
    }

    fn deliver(&mut self, outputs: Vec<(ConnId, OutboundMessage)>) -> Sent {
        let mut sent = Vec::new();
        for (to, message) in outputs {
            let Some((dialect, role)) = self.clients.get_mut(&to) else {
                continue;
            };
            match message {
                OutboundMessage::Opened { .. } => *role = Role::Opener,
                OutboundMessage::Joined { .. } => *role = Role::Joiner,
                OutboundMessage::Waiting { .. } => *role = Role::Waiting,
                _ => {}
            }
            let ends_role = matches!(message, OutboundMessage::RoleEnded(_));
            let frame = dialect.encode(message);
            let is_closed = matches!(frame, Some(Frame::Close(_)));
            if let Some(Frame::Text(text)) = frame {
                sent.push((*dialect, *role, text));
            }
            if ends_role {
                *role = Role::None;
            }
            if is_closed {
                self.clients.remove(&to);
            }
        }
        sent
    }
}

/// The random bits of generated keys and tokens.
const MADE: u128 = 0x1234_5678;

/// Valid JSON that `serde_json::Value` cannot represent, and its replacement. The schemas do not depend on the difference.
const STAND_INS: [(&str, &str); 3] = [
    ("e400", "e4"),
    (r"\ud800", r"\ufffd"),
    (r"\udf75\ud83c", r"\ufffd\ufffd"),
];

/// Known limitations: texts that the schema accepts although the core closes the client. Reasons, a snippet of the text, and an explanation.
const LIMITATIONS: [(&[CloseReason], &str, &str); 10] = [
    (
        &[
            CloseReason::Duplicate(Member::Type),
            CloseReason::Duplicate(Member::Key),
            CloseReason::Duplicate(Member::Index),
            CloseReason::Duplicate(Member::Data),
            CloseReason::Duplicate(Member::Id),
            CloseReason::Duplicate(Member::Wait),
            CloseReason::Duplicate(Member::Token),
        ],
        "",
        "a parsed object has each member only once",
    ),
    (
        &[CloseReason::TooBig],
        "",
        "the length of a text is not part of its value",
    ),
    (
        &[CloseReason::TooDeep],
        "",
        "JSON Schema cannot limit the nesting depth",
    ),
    (
        &[CloseReason::KeyTooLong],
        "",
        "JSON Schema counts characters, not bytes, and the transcript lowers the limit",
    ),
    (&[CloseReason::WaitMalformed], r#""wait":1.0"#, "1.0 is the integer 1"),
    (
        &[CloseReason::IdMalformed, CloseReason::TokenMalformed],
        "éé",
        "JSON Schema counts characters, not bytes",
    ),
    (&[CloseReason::IndexMalformed], r#""index":-0,"#, "-0 is the integer 0"),
    (
        &[CloseReason::IndexMalformed],
        r#""index":0.0,"#,
        "0.0 is the integer 0",
    ),
    (
        &[CloseReason::IndexMalformed],
        r#""index":1e0,"#,
        "1e0 is the integer 1",
    ),
    (
        &[CloseReason::IndexMalformed],
        r#""index":1.0,"#,
        "1.0 is the integer 1",
    ),
];

/// The comparison of schemas and core for the frames of transcripts.
struct Judge {
    schemas: BTreeMap<&'static str, Schema>,
    stand_ins: BTreeSet<usize>,
    limitations: BTreeSet<usize>,
    frames: usize,
    refused: usize,
    texts: usize,
    faults: Vec<String>,
}

impl Judge {
    /// Parses a text. Returns `None` if it is not JSON.
    fn value(&mut self, text: &str) -> Option<Value> {
        serde_json::from_str(text).ok().or_else(|| {
            let mut text = text.to_owned();
            let mut used = Vec::new();
            for (number, (what, stand_in)) in STAND_INS.iter().enumerate() {
                if text.contains(what) {
                    text = text.replace(what, stand_in);
                    used.push(number);
                }
            }
            let value = serde_json::from_str(&text).ok()?;
            self.stand_ins.extend(used);
            Some(value)
        })
    }

    fn frame(&mut self, place: &str, dialect: Dialect, role: Role, text: &str, verdict: Verdict) {
        self.frames += 1;
        self.refused += usize::from(verdict != Verdict::Accepted);
        let value = self.value(text);
        let schema = &self.schemas[dialect.subprotocol()];
        let accepted = value.map_or((false, false), |value| schema.accepts_of(role, &value));
        if accepted == verdict.accepted() {
            return;
        }
        let limitation = LIMITATIONS.iter().position(|(reasons, snippet, _)| {
            verdict.reason().is_some_and(|reason| reasons.contains(&reason)) && text.contains(snippet)
        });
        match limitation {
            Some(number) => _ = self.limitations.insert(number),
            None => self.faults.push(format!(
                "{place}: {verdict:?} of {role:?}, but accepted {accepted:?}: {text}"
            )),
        }
    }

    fn text(&mut self, place: &str, dialect: Dialect, role: Option<Role>, text: &str) {
        self.texts += 1;
        let value = self.value(text).unwrap_or_else(|| panic!("{place}: not JSON: {text}"));
        let schema = &self.schemas[dialect.subprotocol()];
        if !schema.accepts("server-to-client", &value) || role.is_some_and(|role| !schema.accepts_to(role, &value)) {
            self.faults.push(format!("{place}: {role:?} receives {text}"));
        }
    }

    fn transcript(&mut self, transcript: &Transcript) {
        let mut core = Core::new(transcripts::endpoint::config(transcript).limits);
        let mut names = BTreeMap::new();
        for step in &transcript.steps {
            let place = format!("{}.txt:{}", transcript.name, step.line);
            let Some(who) = step.kind.who() else { continue };
            let (id, dialect) = *names.entry(who).or_insert_with(|| {
                let offers = step.kind.subprotocol().into_iter().flat_map(|offer| offer.split(", "));
                let (dialect, _) = Dialect::negotiate(offers);
                (core.connect(dialect), dialect)
            });
            // The core makes only one string here.
            let with_made = |text: &str| {
                let mut parts = text.split('$');
                let first = parts.next().unwrap_or_default().to_owned();
                parts.fold(first, |text, part| text + &format!("{MADE:032x}") + &part[1..])
            };
            let sends = match &step.kind {
                StepKind::Sends(_, transcripts::Frame::Text(text)) => String::from_utf8(text.clone()).ok(),
                StepKind::Sends(_, transcripts::Frame::Pieces(pieces)) => Some(pieces.concat()),
                StepKind::SendsMade(_, text) => Some(with_made(text)),
                StepKind::Receives(_, text) => {
                    self.text(&place, dialect, None, text);
                    None
                }
                StepKind::ReceivesMade(_, text) => {
                    self.text(&place, dialect, None, &with_made(text));
                    None
                }
                StepKind::Closes(..) | StepKind::Vanishes(_) => {
                    let how = match step.kind {
                        StepKind::Vanishes(_) => Disconnect::Lost,
                        _ => Disconnect::Clean,
                    };
                    let outputs = core.hub.disconnect(Time::ZERO, id, how);
                    core.clients.remove(&id);
                    for (dialect, role, text) in core.deliver(outputs) {
                        self.text(&place, dialect, Some(role), &text);
                    }
                    None
                }
                StepKind::Sends(_, transcripts::Frame::Binary(_) | transcripts::Frame::Raw(_))
                | StepKind::Connects(..)
                | StepKind::Closed(..)
                | StepKind::Wait(_) => None,
            };
            // Frames from a closed client are not read.
            if let (Some(text), Some((_, role))) = (sends, core.clients.get(&id).copied()) {
                let (verdict, sent) = core.handle(id, &text);
                self.frame(&place, dialect, role, &text, verdict);
                for (dialect, role, text) in sent {
                    self.text(&place, dialect, Some(role), &text);
                }
            }
        }
    }
}

#[test]
fn frames_of_all_transcripts_match_the_schemas() -> Result<(), Box<dyn Error>> {
    let mut judge = Judge {
        schemas: Dialect::ALL
            .iter()
            .map(|dialect| (dialect.subprotocol(), Schema::of(*dialect)))
            .collect(),
        stand_ins: BTreeSet::new(),
        limitations: BTreeSet::new(),
        frames: 0,
        refused: 0,
        texts: 0,
        faults: Vec::new(),
    };
    for transcript in all()? {
        judge.transcript(&transcript);
    }
    assert!(judge.faults.is_empty(), "{:#?}", judge.faults);
    for (number, (_, _, why)) in LIMITATIONS.iter().enumerate() {
        assert!(
            judge.limitations.contains(&number),
            "no transcript shows this limitation: {why}"
        );
    }
    assert_eq!(judge.stand_ins.len(), STAND_INS.len(), "a stand-in is never used");
    assert!(
        judge.frames > 300 && judge.refused > 80 && judge.texts > 300,
        "too few: {} frames, of which {} refused, and {} texts",
        judge.frames,
        judge.refused,
        judge.texts
    );
    Ok(())
}

#[test]
fn error_and_end_codes_equal_those_of_the_core() {
    let schema = Schema::of(Dialect::V1);
    assert_eq!(
        schema.codes("error-code"),
        Refusal::NAMES.iter().copied().collect::<BTreeSet<_>>()
    );
    assert_eq!(
        schema.codes("closed-code"),
        ENDS.iter().map(|end| end.name()).collect::<BTreeSet<_>>()
    );
}

/// The AsyncAPI document lists the close codes of each dialect. The table in PROTOCOL.md marks those that only one dialect has.
#[test]
fn close_codes_per_dialect_equal_those_of_protocol_page() -> Result<(), Box<dyn Error>> {
    let asyncapi: Value = serde_json::from_str(&file("asyncapi.json")?)?;
    assert_eq!(asyncapi["info"]["version"], env!("CARGO_PKG_VERSION"));
    let page = file("../../PROTOCOL.md")?;
    for (channel, other) in [("plain", "[v1]"), ("v1", "[plain]")] {
        let codes = asyncapi["channels"][channel]["x-close-codes"]
            .as_array()
            .ok_or("no codes")?;
        let listed: BTreeSet<(String, &str)> = codes
            .iter()
            .filter_map(|close| Some((close["code"].to_string(), close["text"].as_str()?)))
            .collect();
        let texts: Vec<(String, String)> = CloseReason::ALL
            .iter()
            .map(|reason| (reason.code().to_string(), reason.to_string()))
            .collect();
        let expected: BTreeSet<(String, &str)> = texts
            .iter()
            .filter(|(code, text)| {
                let row = page
                    .lines()
                    .find(|line| line.starts_with(&format!("| {code} | `")) && line.contains(text));
                row.is_some_and(|row| !row.contains(&format!("` | {other}")))
            })
            .map(|(code, text)| (code.clone(), text.as_str()))
            .collect();
        assert_eq!(listed, expected, "{channel}");
        assert_eq!(listed.len(), codes.len(), "{channel}: duplicate close code");
    }
    Ok(())
}

const ENDS: &[RoleEnd] = RoleEnd::ALL;

/// Does not compile if a variant is added. Add it to [`outbound`], [`ENDS`] and the schema as well.
fn is_text(message: &OutboundMessage) -> bool {
    match message {
        OutboundMessage::RoleEnded(
            RoleEnd::OpenerLeft | RoleEnd::Kicked | RoleEnd::TakenOver | RoleEnd::TokenExpired,
        )
        | OutboundMessage::Opened { .. }
        | OutboundMessage::Reopened { .. }
        | OutboundMessage::Waiting { .. }
        | OutboundMessage::Joined { .. }
        | OutboundMessage::PeerJoined { .. }
        | OutboundMessage::Data { .. }
        | OutboundMessage::PeerLeft { .. }
        | OutboundMessage::Refused(_)
        | OutboundMessage::Pong => true,
        OutboundMessage::Close(_) => false,
    }
}

/// Returns variants of `message` with one invalid, missing or additional member.
fn invalid_variants(message: &Map<String, Value>) -> Vec<Value> {
    let mut all = Vec::new();
    for name in message.keys() {
        let mut without = message.clone();
        without.remove(name);
        all.push(without.into());
        if name != "data" {
            for wrong in [
                json!(null),
                json!([message[name]]),
                json!(-1),
                json!(0.5),
                json!(u32::MAX),
                json!(""),
            ] {
                if name == "wait" && wrong.is_u64() {
                    continue;
                }
                let mut other = message.clone();
                other.insert(name.clone(), wrong);
                all.push(other.into());
            }
        }
    }
    for (name, value) in [
        ("key", json!("k")),
        ("index", json!(0)),
        ("data", json!(null)),
        ("code", json!("kicked")),
        ("more", json!(null)),
    ] {
        if !message.contains_key(name) {
            let mut more = message.clone();
            more.insert(name.to_owned(), value);
            all.push(more.into());
        }
    }
    all
}

fn check_outbound(
    schemas: &[(Dialect, Schema)],
    role: Role,
    message: &OutboundMessage,
    ice: Option<&IceServers>,
) -> Result<(), TestCaseError> {
    prop_assert!(is_text(message));
    for (dialect, schema) in schemas {
        // The hub sends only objects to plain peers.
        let accepts = match message {
            OutboundMessage::Data { payload, .. } => payload.kind() <= dialect.profile().accepts,
            _ => true,
        };
        let Some(Frame::Text(text)) = dialect
            .encode_with_ice(message.clone(), || ice.cloned())
            .filter(|_| accepts)
        else {
            continue;
        };
        let value: Value = serde_json::from_str(&text).expect("the codecs write JSON");
        prop_assert!(schema.accepts("server-to-client", &value), "{text}");
        prop_assert!(schema.accepts_to(role, &value), "{role:?}: {text}");
        let array = json!([value]);
        prop_assert!(!schema.accepts("server-to-client", &array) && !schema.accepts_to(role, &array));
        let object = value.as_object().expect("an object");
        match dialect {
            Dialect::Plain if role == Role::Opener => {
                let mut bare = object.clone();
                bare.remove("index");
                let is_notice = Value::from(bare.clone()) == json!({"type": "join"});
                prop_assert_eq!(schema.accepts_to(role, &bare.clone().into()), is_notice);
                for wrong in [json!(null), json!("0"), json!(-1), json!(u32::MAX)] {
                    bare.insert("index".into(), wrong);
                    prop_assert!(!schema.accepts_to(role, &bare.clone().into()), "{bare:?}");
                }
            }
            // Any object is valid.
            Dialect::Plain => {}
            Dialect::V1 => {
                let is_for_any_role = matches!(message, OutboundMessage::Refused(_) | OutboundMessage::Pong);
                let ends_any_role = *message == OutboundMessage::RoleEnded(RoleEnd::TokenExpired);
                let has_role = |other| ends_any_role && matches!(other, Role::Opener | Role::Joiner);
                for other in Role::ALL
                    .into_iter()
                    .filter(|other| *other != role && !has_role(*other))
                {
                    prop_assert_eq!(
                        schema.accepts_to(other, &value),
                        is_for_any_role,
                        "{:?}: {}",
                        other,
                        &text
                    );
                }
                // `data` has an index to an opener and none to a joiner. In some errors the index is optional.
                let index_is_optional = matches!(
                    message,
                    OutboundMessage::Data { .. }
                        | OutboundMessage::Refused(Refusal::UnknownIndex { .. } | Refusal::NotAnObject { .. })
                );
                for wrong in invalid_variants(object) {
                    let other_index = wrong.get("index").is_some() != object.contains_key("index");
                    let lacks = |name| wrong.get(name).is_none() && object.contains_key(name);
                    let other_key = wrong.get("key").is_some() != object.contains_key("key");
                    let key_is_optional = matches!(message, OutboundMessage::Refused(Refusal::NotAllowed { .. }));
                    let is_valid = index_is_optional && other_index
                        || key_is_optional && other_key
                        || ["id", "joiners", "ice"].into_iter().any(lacks);
                    prop_assert!(is_valid || !schema.accepts("server-to-client", &wrong), "{wrong}");
                }
            }
        }
    }
    Ok(())
}

/// Returns a hub with an opener and its joiner (index 0), and the id of a client in `role`.
fn scene(dialect: Dialect, role: Role) -> (Core, ConnId) {
    let mut core = Core::new(Limits::default());
    let (opener, joiner) = (core.connect(dialect), core.connect(dialect));
    core.handle(opener, r#"{"type":"open","key":"the pair's"}"#);
    core.handle(joiner, r#"{"type":"join","key":"the pair's"}"#);
    let client = match role {
        Role::None => core.connect(dialect),
        Role::Opener => opener,
        Role::Joiner => joiner,
        Role::Waiting => {
            let client = core.connect(dialect);
            core.handle(client, r#"{"type":"join","key":"nobody's","wait":9}"#);
            client
        }
    };
    assert_eq!(core.clients[&client].1, role);
    (core, client)
}

#[test]
fn schemas_accept_encoded_messages_and_reject_invalid_variants() -> Result<(), Box<dyn Error>> {
    let schemas: Vec<_> = Dialect::ALL
        .iter()
        .map(|dialect| (*dialect, Schema::of(*dialect)))
        .collect();
    let mut runner = proptest::test_runner::TestRunner::default();
    runner.run(&(outbound(), option::of(ice())), |((role, message), ice)| {
        check_outbound(&schemas, role, &message, ice.as_ref())
    })?;
    Ok(())
}

/// For each role, the schema accepts a frame if and only if the core does.
#[test]
fn schemas_and_core_accept_the_same_client_frames() -> Result<(), Box<dyn Error>> {
    for &dialect in Dialect::ALL {
        let schema = Schema::of(dialect);
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(2_000));
        runner.run(&(select(Role::of(dialect)), frames()), |(role, frame)| {
            let text = frame.to_string();
            let (mut core, client) = scene(dialect, role);
            let (verdict, _) = core.handle(client, &text);
            prop_assert_eq!(
                schema.accepts_of(role, &frame),
                verdict.accepted(),
                "{:?}: {:?} of {:?}: {}",
                dialect,
                verdict,
                role,
                text
            );
            Ok(())
        })?;
    }
    Ok(())
}
