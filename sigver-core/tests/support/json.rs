//! A JSON object as the pieces of its text, and its meaning by the protocol page. Nothing is parsed here: `texts.rs` generates objects, and
//! the oracle of the fuzz target `decode` splits texts.

use core::time::Duration;

use sigver_core::{
    Addressee, CloseReason, Decoder, Dialect, Frame, InboundMessage, Index, Key, Limits, Member, OutboundMessage,
    PayloadKind, PeerId, Token,
};

/// The meaning of a text, by the protocol page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Open(Request),
    /// With the `id`, if there is one.
    OpenGenerated(Option<String>),
    Join(Request),
    Meet(Request),
    /// The payload has this kind and this text.
    Data(Addressee, PayloadKind, String),
    UnknownControl(Addressee, PayloadKind, String),
    Kick(Option<Index>),
    Leave,
    CloseKey,
    Ping,
}

/// The members of a message that requests a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) key: String,
    pub(crate) id: Option<String>,
    /// Of an open or a meet.
    pub(crate) token: Option<String>,
    /// Of a join, in seconds, after the limit.
    pub(crate) wait: u64,
}

/// A JSON object, as the pieces of its text.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) before: String,
    /// White space after the opening brace.
    pub(crate) gap: String,
    pub(crate) members: Vec<Attribute>,
    pub(crate) after: String,
}

/// A member of an object. The gaps are before and after the colon, and after the value.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub(crate) lead: String,
    pub(crate) name: Value,
    pub(crate) gaps: [String; 3],
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) spelled: String,
    /// The depth of nesting: 0 for a scalar.
    pub(crate) depth: u32,
    /// The decoded string, if it is one of Unicode text.
    pub(crate) decoded: Option<String>,
    /// Its pieces, if it is the object of a `data`.
    pub(crate) object: Option<Box<Object>>,
}

impl Object {
    /// Returns the text.
    pub(crate) fn text(&self) -> String {
        let member = |attribute: &Attribute| {
            let Attribute {
                lead,
                name,
                gaps: [before_colon, behind_colon, behind_value],
                value,
            } = attribute;
            let (name, value) = (&name.spelled, &value.spelled);
            format!("{lead}{name}{before_colon}:{behind_colon}{value}{behind_value}")
        };
        let members: Vec<String> = self.members.iter().map(member).collect();
        let (before, gap, after) = (&self.before, &self.gap, &self.after);
        format!("{before}{{{gap}{}}}{after}", members.join(","))
    }

    /// Returns the text with `"index":N` directly after the last member, or in place of the value of an existing `index`.
    pub(crate) fn text_with_index(&self, number: u32) -> String {
        let mut object = self.clone();
        let names = |attribute: &&mut Attribute| attribute.means() == Some(Member::Index);
        if let Some(index) = object.members.iter_mut().find(names) {
            index.value.spelled = number.to_string();
        } else if let Some(last) = object.members.last_mut() {
            last.value.spelled += &format!(r#","index":{number}"#);
        } else {
            object.gap.insert_str(0, &format!(r#""index":{number}"#));
        }
        object.text()
    }

    /// Returns the value of `data` as it was sent.
    pub(crate) fn data(&self) -> Option<&str> {
        self.value(Member::Data).map(|data| data.spelled.as_str())
    }

    /// Returns the value of `data` with `"index":N` in it, if it is an object.
    pub(crate) fn data_with_index(&self, number: u32) -> Option<String> {
        let object = self.value(Member::Data)?.object.as_ref()?;
        Some(object.text_with_index(number))
    }

    /// Returns the meaning of the text in `dialect`, or the reason to close its sender with.
    pub(crate) fn reading(&self, dialect: Dialect, limits: &Limits) -> Result<Reading, CloseReason> {
        if self.text().len() > limits.message_bytes as usize {
            return Err(CloseReason::TooBig);
        }
        if self.depth() > limits.depth {
            return Err(CloseReason::TooDeep);
        }
        if let Some(member) = self.repeats(dialect) {
            return Err(CloseReason::Duplicate(member));
        }
        let to = self.value(Member::Index).map_or(Addressee::Unnamed, Value::addressee);
        match dialect {
            Dialect::Plain => self.plain_reading(to, limits),
            Dialect::V1 => self.v1_reading(to, limits),
        }
    }

    fn plain_reading(&self, to: Addressee, limits: &Limits) -> Result<Reading, CloseReason> {
        let (Some(kind), Some(key)) = (self.value(Member::Type), self.value(Member::Key)) else {
            return Ok(Reading::Data(to, PayloadKind::Object, self.text()));
        };
        match kind.decoded.as_deref() {
            Some("open") => key.key(limits).map(Request::of_key).map(Reading::Open),
            Some("join") => key.key(limits).map(Request::of_key).map(Reading::Join),
            _ => Ok(Reading::UnknownControl(to, PayloadKind::Object, self.text())),
        }
    }

    fn v1_reading(&self, to: Addressee, limits: &Limits) -> Result<Reading, CloseReason> {
        let key = self.value(Member::Key);
        let kind = self.value(Member::Type).and_then(|kind| kind.decoded.as_deref());
        match kind {
            Some("open") => match key {
                Some(key) => self.opening(key, limits).map(Reading::Open),
                None => self.token().and_then(|_| self.id()).map(Reading::OpenGenerated),
            },
            Some("join") => {
                let key = key.ok_or(CloseReason::KeyMissing)?;
                let request = self.request(key, limits)?;
                let wait = self.wait(limits)?;
                Ok(Reading::Join(Request { wait, ..request }))
            }
            Some("meet") => {
                let key = key.ok_or(CloseReason::KeyMissing)?;
                self.opening(key, limits).map(Reading::Meet)
            }
            Some("send") => {
                let data = self.value(Member::Data).ok_or(CloseReason::DataMissing)?;
                match to {
                    Addressee::Malformed => Err(CloseReason::IndexMalformed),
                    Addressee::Unnamed | Addressee::Index(_) | Addressee::OutOfRange => {
                        Ok(Reading::Data(to, data.kind(), data.spelled.clone()))
                    }
                }
            }
            Some("kick") => match to {
                Addressee::Unnamed => Err(CloseReason::IndexMissing),
                Addressee::Malformed => Err(CloseReason::IndexMalformed),
                Addressee::Index(index) => Ok(Reading::Kick(Some(index))),
                Addressee::OutOfRange => Ok(Reading::Kick(None)),
            },
            Some("leave") => Ok(Reading::Leave),
            Some("close") => Ok(Reading::CloseKey),
            Some("ping") => Ok(Reading::Ping),
            _ => Err(CloseReason::UnknownMessage),
        }
    }

    fn request(&self, key: &Value, limits: &Limits) -> Result<Request, CloseReason> {
        Ok(Request {
            key: key.key(limits)?,
            id: self.id()?,
            token: None,
            wait: 0,
        })
    }

    fn opening(&self, key: &Value, limits: &Limits) -> Result<Request, CloseReason> {
        let request = self.request(key, limits)?;
        let token = self.token()?;
        Ok(Request { token, ..request })
    }

    fn token(&self) -> Result<Option<String>, CloseReason> {
        match self.value(Member::Token) {
            None => Ok(None),
            Some(Value {
                decoded: Some(token), ..
            }) if token.len() <= 64 => Ok(Some(token.clone())),
            Some(_) => Err(CloseReason::TokenMalformed),
        }
    }

    /// Returns the `wait` in seconds: digits that are the canonical form of a number of any size, cut to the limit.
    fn wait(&self, limits: &Limits) -> Result<u64, CloseReason> {
        let Some(wait) = self.value(Member::Wait) else {
            return Ok(0);
        };
        let digits = &wait.spelled;
        let is_number =
            digits.bytes().all(|byte| byte.is_ascii_digit()) && (*digits == "0" || !digits.starts_with('0'));
        if !is_number {
            return Err(CloseReason::WaitMalformed);
        }
        let most = limits.join_wait.as_secs();
        Ok(digits.parse::<u64>().map_or(most, |wait| wait.min(most)))
    }

    fn id(&self) -> Result<Option<String>, CloseReason> {
        match self.value(Member::Id) {
            None => Ok(None),
            Some(Value { decoded: Some(id), .. }) if (1..=64).contains(&id.len()) => Ok(Some(id.clone())),
            Some(_) => Err(CloseReason::IdMalformed),
        }
    }

    /// Returns the depth of nesting, the object itself included.
    pub(crate) fn depth(&self) -> u32 {
        let inner = self.members.iter().map(|attribute| attribute.value.depth);
        1 + inner.max().unwrap_or(0)
    }

    fn value(&self, member: Member) -> Option<&Value> {
        let mut members = self.members.iter();
        members
            .find(|attribute| attribute.means() == Some(member))
            .map(|attribute| &attribute.value)
    }

    /// Returns the first repeated member that `dialect` reads.
    pub(crate) fn repeats(&self, dialect: Dialect) -> Option<Member> {
        const SHARED: &[Member] = &[Member::Type, Member::Key, Member::Index];
        self.twice(|member| SHARED.contains(member) || dialect == Dialect::V1)
    }

    /// Returns the first repeated member that is `read`.
    fn twice(&self, read: impl Fn(&Member) -> bool) -> Option<Member> {
        let mut seen = Vec::new();
        let members = self.members.iter().filter_map(Attribute::means);
        members.filter(read).find(|member| {
            let again = seen.contains(member);
            seen.push(*member);
            again
        })
    }
}

impl Request {
    fn of_key(key: String) -> Self {
        Self {
            key,
            id: None,
            token: None,
            wait: 0,
        }
    }
}

impl Attribute {
    fn means(&self) -> Option<Member> {
        match self.name.decoded.as_deref()? {
            "type" => Some(Member::Type),
            "key" => Some(Member::Key),
            "index" => Some(Member::Index),
            "data" => Some(Member::Data),
            "id" => Some(Member::Id),
            "wait" => Some(Member::Wait),
            "token" => Some(Member::Token),
            _ => None,
        }
    }
}

fn legal_key(key: &str, limits: &Limits) -> Result<String, CloseReason> {
    match key.len() {
        0 => Err(CloseReason::KeyEmpty),
        length if length > limits.key_bytes as usize => Err(CloseReason::KeyTooLong),
        _ => Ok(key.to_owned()),
    }
}

impl Value {
    pub(crate) fn scalar(spelled: impl Into<String>) -> Self {
        Self {
            spelled: spelled.into(),
            depth: 0,
            decoded: None,
            object: None,
        }
    }

    /// Returns the value of a `data` that is an object.
    pub(crate) fn object(mut object: Object) -> Self {
        // White space around the object belongs to the message.
        (object.before, object.after) = (String::new(), String::new());
        Self {
            spelled: object.text(),
            depth: object.depth(),
            decoded: None,
            object: Some(Box::new(object)),
        }
    }

    /// Returns the kind of a `data`. If `index` is repeated, recipients may differ in which one they read.
    fn kind(&self) -> PayloadKind {
        match &self.object {
            Some(object) if object.twice(|member| *member == Member::Index).is_none() => PayloadKind::Object,
            Some(_) | None => PayloadKind::Any,
        }
    }

    fn key(&self, limits: &Limits) -> Result<String, CloseReason> {
        legal_key(self.decoded.as_ref().ok_or(CloseReason::KeyNotString)?, limits)
    }

    /// Returns the addressee of an index: digits that are the canonical form of a number of any size.
    fn addressee(&self) -> Addressee {
        let text = self.decoded.as_ref().unwrap_or(&self.spelled);
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<u128>() {
            _ if !is_digits => Addressee::Malformed,
            Ok(number) if number.to_string() == *text => {
                let index = u32::try_from(number).ok().filter(|number| *number < u32::MAX);
                index.map_or(Addressee::OutOfRange, |number| Addressee::Index(Index::new(number)))
            }
            Err(_) if !text.starts_with('0') => Addressee::OutOfRange,
            Ok(_) | Err(_) => Addressee::Malformed,
        }
    }
}

/// Returns the text that a recipient of data in `text` receives, from the joiner with this index or from the opener. `None` if `text` is not
/// data.
pub(crate) fn relayed(sender: Dialect, text: &str, recipient: Dialect, index: Option<u32>) -> Option<String> {
    let message = Decoder::new(sender, &Limits::default()).decode(text).ok()?;
    let (InboundMessage::Data { payload, .. } | InboundMessage::UnknownControl { payload, .. }) = message else {
        return None;
    };
    let from = index.map(Index::new);
    match recipient.encode(OutboundMessage::Data { from, payload }) {
        Some(Frame::Text(out)) => Some(out),
        other => panic!("data is text, not {other:?}"),
    }
}

/// Returns the meaning of a decoded message.
pub(crate) fn reading(message: InboundMessage) -> Reading {
    match message {
        InboundMessage::Open { key, id, token, .. } => Reading::Open(request(&key, id, token, Duration::ZERO)),
        InboundMessage::OpenGenerated { id } => Reading::OpenGenerated(id.map(|id| id.as_str().to_owned())),
        InboundMessage::Join { key, id, wait } => Reading::Join(request(&key, id, None, wait)),
        InboundMessage::Meet { key, id, token, .. } => Reading::Meet(request(&key, id, token, Duration::ZERO)),
        InboundMessage::Data { to, kind, payload } => Reading::Data(to, kind, payload.as_str().to_owned()),
        InboundMessage::UnknownControl { to, kind, payload } => {
            Reading::UnknownControl(to, kind, payload.as_str().to_owned())
        }
        InboundMessage::Kick { index } => Reading::Kick(index),
        InboundMessage::Leave => Reading::Leave,
        InboundMessage::CloseKey => Reading::CloseKey,
        InboundMessage::Ping => Reading::Ping,
        InboundMessage::NotAllowed { .. } => panic!("no client can send it"),
    }
}

fn request(key: &Key, id: Option<PeerId>, token: Option<Token>, wait: Duration) -> Request {
    Request {
        key: key.as_str().to_owned(),
        id: id.map(|id| id.as_str().to_owned()),
        token: token.map(|token| token.as_str().to_owned()),
        wait: wait.as_secs(),
    }
}
