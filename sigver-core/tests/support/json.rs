//! One JSON object as the pieces of its text, and what it says by the protocol page. Nothing is parsed here: `texts.rs` puts objects
//! together, and the oracle of the fuzz target `decode` takes texts apart.

use sigver_core::{
    Addressee, CloseReason, Decoder, Dialect, Frame, InboundMessage, Index, Limits, Member, OutboundMessage,
    PayloadKind,
};

/// What a text says, by the protocol page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Open(String),
    OpenGenerated,
    Join(String),
    /// What is carried is of this kind, and this is its text.
    Data(Addressee, PayloadKind, String),
    UnknownControl(Addressee, PayloadKind, String),
    Kick(Option<Index>),
    Leave,
    CloseKey,
}

/// One JSON object, as the pieces that its text is made of.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) before: String,
    /// Behind the opening brace.
    pub(crate) gap: String,
    pub(crate) members: Vec<Attribute>,
    pub(crate) after: String,
}

/// One member of an object. The gaps are before and behind the colon and behind the value.
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
    /// How deep it nests: 0 where nothing does.
    pub(crate) depth: u32,
    /// What it says, if it is a string of Unicode text.
    pub(crate) says: Option<String>,
    /// What it is put together from, if it is the object of a `data`.
    pub(crate) object: Option<Box<Object>>,
}

impl Object {
    /// The text.
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

    /// The text with `"index":N` directly behind the last member, or in place of the value of an `index` that is there.
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

    /// The value of `data` as it was sent.
    pub(crate) fn data(&self) -> Option<&str> {
        self.value(Member::Data).map(|data| data.spelled.as_str())
    }

    /// The value of `data` with `"index":N` in it, if that is an object.
    pub(crate) fn data_with_index(&self, number: u32) -> Option<String> {
        let object = self.value(Member::Data)?.object.as_ref()?;
        Some(object.text_with_index(number))
    }

    /// What the text says in `dialect`, and why its sender is closed when it says nothing.
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
        match kind.says.as_deref() {
            Some("open") => key.key(limits).map(Reading::Open),
            Some("join") => key.key(limits).map(Reading::Join),
            _ => Ok(Reading::UnknownControl(to, PayloadKind::Object, self.text())),
        }
    }

    fn v1_reading(&self, to: Addressee, limits: &Limits) -> Result<Reading, CloseReason> {
        let key = self.value(Member::Key);
        let kind = self.value(Member::Type).and_then(|kind| kind.says.as_deref());
        match kind {
            Some("open") => match key {
                Some(key) => key.key(limits).map(Reading::Open),
                None => Ok(Reading::OpenGenerated),
            },
            Some("join") => key.ok_or(CloseReason::KeyMissing)?.key(limits).map(Reading::Join),
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
            _ => Err(CloseReason::UnknownMessage),
        }
    }

    /// How deep it nests, itself counted.
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

    /// The first member that is there again of those that `dialect` reads.
    pub(crate) fn repeats(&self, dialect: Dialect) -> Option<Member> {
        const SHARED: &[Member] = &[Member::Type, Member::Key, Member::Index];
        self.twice(|member| SHARED.contains(member) || dialect == Dialect::V1)
    }

    /// The first member that is there again of those that are `read`.
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

impl Attribute {
    fn means(&self) -> Option<Member> {
        match self.name.says.as_deref()? {
            "type" => Some(Member::Type),
            "key" => Some(Member::Key),
            "index" => Some(Member::Index),
            "data" => Some(Member::Data),
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
            says: None,
            object: None,
        }
    }

    /// The value of a `data` that is an object.
    pub(crate) fn object(mut object: Object) -> Self {
        // White space around it belongs to the message that it is in.
        (object.before, object.after) = (String::new(), String::new());
        Self {
            spelled: object.text(),
            depth: object.depth(),
            says: None,
            object: Some(Box::new(object)),
        }
    }

    /// What a `data` is to a recipient of objects, which understands one that repeats `index` as it likes.
    fn kind(&self) -> PayloadKind {
        match &self.object {
            Some(object) if object.twice(|member| *member == Member::Index).is_none() => PayloadKind::Object,
            Some(_) | None => PayloadKind::Any,
        }
    }

    fn key(&self, limits: &Limits) -> Result<String, CloseReason> {
        legal_key(self.says.as_ref().ok_or(CloseReason::KeyNotString)?, limits)
    }

    /// An index is digits, and what a number gives back when it is written down. No number is too large for that.
    fn addressee(&self) -> Addressee {
        let text = self.says.as_ref().unwrap_or(&self.spelled);
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

/// What a peer that speaks `hearer` gets for `text`, if that is data: from the joiner with this index, or from the opener.
pub(crate) fn carried(speaker: Dialect, text: &str, hearer: Dialect, from: Option<u32>) -> Option<String> {
    let message = Decoder::new(speaker, &Limits::default()).decode(text).ok()?;
    let (InboundMessage::Data { payload, .. } | InboundMessage::UnknownControl { payload, .. }) = message else {
        return None;
    };
    let from = from.map(Index::new);
    match hearer.encode(OutboundMessage::Data { from, payload }) {
        Some(Frame::Text(out)) => Some(out),
        other => panic!("data is text, not {other:?}"),
    }
}

/// A message, as a text of it reads.
pub(crate) fn reading(message: InboundMessage) -> Reading {
    match message {
        InboundMessage::Open { key } => Reading::Open(key.as_str().to_owned()),
        InboundMessage::OpenGenerated => Reading::OpenGenerated,
        InboundMessage::Join { key } => Reading::Join(key.as_str().to_owned()),
        InboundMessage::Data { to, kind, payload } => Reading::Data(to, kind, payload.as_str().to_owned()),
        InboundMessage::UnknownControl { to, kind, payload } => {
            Reading::UnknownControl(to, kind, payload.as_str().to_owned())
        }
        InboundMessage::Kick { index } => Reading::Kick(index),
        InboundMessage::Leave => Reading::Leave,
        InboundMessage::CloseKey => Reading::CloseKey,
    }
}
