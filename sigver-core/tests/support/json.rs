//! Makes JSON texts in every way of writing them, and knows what they say because it put them together: nothing is parsed here.

use proptest::{char, collection::vec, option, prelude::*, sample::select};
use sigver_core::{Addressee, CloseReason, Dialect, Index, Limits, Member, Shape};

/// The random bits of a key that is made, and the key.
pub(crate) const RANDOM: u128 = 0x00c0_ffee;
pub(crate) const MADE: &str = "00000000000000000000000000c0ffee";

/// What a text says, by the protocol page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Open(String),
    Join(String),
    /// What is carried is of this shape, and this is its text.
    Data(Addressee, Shape, String),
    Lookalike(Addressee, Shape, String),
    Kick(Index),
    Leave,
    CloseKey,
}

/// One JSON object, as the pieces that its text is made of.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    before: String,
    /// Behind the opening brace.
    gap: String,
    members: Vec<Attribute>,
    after: String,
}

/// One member of an object. The gaps are before and behind the colon and behind the value.
#[derive(Clone, Debug)]
struct Attribute {
    lead: String,
    name: Value,
    gaps: [String; 3],
    value: Value,
}

#[derive(Clone, Debug)]
struct Value {
    spelled: String,
    /// How deep it nests: 0 where nothing does.
    depth: u32,
    /// What it says, if it is a string of Unicode text.
    says: Option<String>,
    /// What it is put together from, if it is the object of a `data`.
    object: Option<Box<Object>>,
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
        const SHARED: &[Member] = &[Member::Type, Member::Key, Member::Index];
        if self.text().len() > limits.message_bytes as usize {
            return Err(CloseReason::TooBig);
        }
        if self.depth() > limits.depth {
            return Err(CloseReason::TooDeep);
        }
        let read = |member: &Member| SHARED.contains(member) || dialect == Dialect::V1;
        if let Some(member) = self.twice(read) {
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
            return Ok(Reading::Data(to, Shape::Object, self.text()));
        };
        match kind.says.as_deref() {
            Some("open") => key.key(limits).map(Reading::Open),
            Some("join") => key.key(limits).map(Reading::Join),
            _ => Ok(Reading::Lookalike(to, Shape::Object, self.text())),
        }
    }

    fn v1_reading(&self, to: Addressee, limits: &Limits) -> Result<Reading, CloseReason> {
        let key = self.value(Member::Key);
        let kind = self.value(Member::Type).and_then(|kind| kind.says.as_deref());
        match kind {
            Some("open") => match key {
                Some(key) => key.key(limits).map(Reading::Open),
                None => legal_key(MADE, limits).map(Reading::Open),
            },
            Some("join") => key.ok_or(CloseReason::KeyMissing)?.key(limits).map(Reading::Join),
            Some("send") => {
                let data = self.value(Member::Data).ok_or(CloseReason::DataMissing)?;
                match to {
                    Addressee::Malformed => Err(CloseReason::IndexMalformed),
                    Addressee::Unnamed | Addressee::Index(_) => {
                        Ok(Reading::Data(to, data.shape(), data.spelled.clone()))
                    }
                }
            }
            Some("kick") => match to {
                Addressee::Unnamed => Err(CloseReason::IndexMissing),
                Addressee::Malformed => Err(CloseReason::IndexMalformed),
                Addressee::Index(index) => Ok(Reading::Kick(index)),
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

    /// The first member of those that are read that is there again.
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
    fn scalar(spelled: impl Into<String>) -> Self {
        Self {
            spelled: spelled.into(),
            depth: 0,
            says: None,
            object: None,
        }
    }

    /// The value of a `data` that is an object.
    fn object(mut object: Object) -> Self {
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
    fn shape(&self) -> Shape {
        match &self.object {
            Some(object) if object.twice(|member| *member == Member::Index).is_none() => Shape::Object,
            Some(_) | None => Shape::Any,
        }
    }

    fn key(&self, limits: &Limits) -> Result<String, CloseReason> {
        legal_key(self.says.as_ref().ok_or(CloseReason::KeyNotString)?, limits)
    }

    /// An index is what a number gives back when it is written down.
    fn addressee(&self) -> Addressee {
        let text = self.says.as_ref().unwrap_or(&self.spelled);
        match text.parse::<u128>() {
            Ok(number) if number.to_string() == *text => {
                let index = u32::try_from(number).map_or(Index::NOBODY, Index::new);
                Addressee::Index(index)
            }
            Ok(_) | Err(_) => Addressee::Malformed,
        }
    }
}

/// Any object: few members, most of them those that the plain dialect reads, now and then one of them twice.
pub(crate) fn objects() -> BoxedStrategy<Object> {
    let index = option::of(index_member());
    object((0.7, kinds()), 0.7, index, Just(None), Just(None))
}

/// Any object, as one in `sigver.v1` may be: most have what their `type` wants, and some more.
pub(crate) fn frames() -> BoxedStrategy<Object> {
    let index = option::weighted(0.4, index_member());
    let data = || attribute(spelling("data"), data_values());
    let again = option::weighted(0.03, data());
    object((0.9, v1_kinds()), 0.5, index, option::weighted(0.8, data()), again)
}

fn object(
    (typed, kinds): (f64, BoxedStrategy<Value>),
    keys: f64,
    index: impl Strategy<Value = Option<Attribute>> + 'static,
    data: impl Strategy<Value = Option<Attribute>> + 'static,
    more: impl Strategy<Value = Option<Attribute>> + 'static,
) -> BoxedStrategy<Object> {
    let kind = move || {
        let kinds = kinds.clone();
        attribute(spelling("type"), prop_oneof![4 => kinds, 1 => values()])
    };
    let key = || attribute(spelling("key"), prop_oneof![4 => strings(), 1 => values()]);
    let other = prop_oneof![24 => attribute(names(), values()), 1 => kind(), 1 => key(), 1 => index_member()];
    let members = (
        option::weighted(typed, kind()),
        option::weighted(keys, key()),
        index,
        data,
        more,
        vec(other, 0..4),
    );
    let members = members
        .prop_map(|(kind, key, index, data, more, others)| {
            let members = [kind, key, index, data, more].into_iter().flatten();
            members.chain(others).collect::<Vec<_>>()
        })
        .prop_shuffle();
    (gap(), gap(), members, gap())
        .prop_map(|(before, gap, members, after)| Object {
            before,
            gap,
            members,
            after,
        })
        .boxed()
}

fn index_member() -> BoxedStrategy<Attribute> {
    attribute(spelling("index"), prop_oneof![4 => indexes(), 1 => values()])
}

/// What a `data` may be: an object of which it is known what it is put together from, or any value that is none.
fn data_values() -> BoxedStrategy<Value> {
    let other = values().prop_map(|value| {
        if value.spelled.starts_with('{') {
            nest('[', &[value], ']')
        } else {
            value
        }
    });
    prop_oneof![3 => objects().prop_map(Value::object), 2 => other].boxed()
}

fn attribute(
    name: impl Strategy<Value = Value> + 'static,
    value: impl Strategy<Value = Value> + 'static,
) -> BoxedStrategy<Attribute> {
    (gap(), name, [gap(), gap(), gap()], value)
        .prop_map(|(lead, name, gaps, value)| Attribute {
            lead,
            name,
            gaps,
            value,
        })
        .boxed()
}

/// White space as JSON has it, most often none.
fn gap() -> BoxedStrategy<String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"].boxed()
}

/// Names that are not the server's, or nearly.
fn names() -> BoxedStrategy<Value> {
    const NEAR: &[&str] = &["Type", "types", "", "indexes", "index ", "key\0", "ındex", "Data"];
    prop_oneof![2 => strings(), 1 => select(NEAR).prop_flat_map(spelling)].boxed()
}

/// What a `type` says.
fn kinds() -> BoxedStrategy<Value> {
    const KINDS: &[&str] = &["open", "join", "open", "join", "offer", "Open", "join "];
    select(KINDS).prop_flat_map(spelling).boxed()
}

/// What a `type` says in `sigver.v1`.
fn v1_kinds() -> BoxedStrategy<Value> {
    const KINDS: &[&str] = &[
        "open", "join", "send", "send", "send", "send", "send", "send", "kick", "kick", "leave", "close", "Send",
        "data",
    ];
    select(KINDS).prop_flat_map(spelling).boxed()
}

/// Indexes, right and wrong, as numbers and as strings.
fn indexes() -> BoxedStrategy<Value> {
    const INTEGERS: &[&str] = &[
        "0",
        "7",
        "10",
        "4294967294",
        "4294967295",
        "4294967296",
        "18446744073709551616",
    ];
    const NEAR: &[&str] = &["-0", "-1", "0.0", "1e0", "null"];
    const NO_VALUES: &[&str] = &["00", "01", "+1", " 0", "0 ", "", "push", "0x1", "١", "1_0"];
    prop_oneof![
        2 => select(INTEGERS).prop_map(Value::scalar),
        2 => select(INTEGERS).prop_flat_map(spelling),
        2 => select(NEAR).prop_map(Value::scalar),
        1 => select(NEAR).prop_flat_map(spelling),
        1 => select(NO_VALUES).prop_flat_map(spelling),
    ]
    .boxed()
}

/// Any JSON value, small.
fn values() -> BoxedStrategy<Value> {
    const NUMBERS: &[&str] = &[
        "0",
        "-0",
        "1.0",
        "1e0",
        "1E+2",
        "1e400",
        "0.10",
        "9223372036854775808",
        "18446744073709551616",
        "3.141592653589793238462643383279",
    ];
    let leaf = prop_oneof![
        2 => select(&["null", "true", "false"]).prop_map(Value::scalar),
        2 => select(NUMBERS).prop_map(Value::scalar),
        1 => any::<i64>().prop_map(|number| Value::scalar(number.to_string())),
        4 => strings(),
    ];
    leaf.prop_recursive(4, 12, 3, |inner| {
        let name = prop_oneof![names(), spelling("index"), spelling("type")];
        let member = (gap(), name, gap(), inner.clone(), gap()).prop_map(|(a, name, b, value, c)| {
            let spelled = format!("{a}{}{b}:{}{c}", name.spelled, value.spelled);
            Value { spelled, ..value }
        });
        let element = (gap(), inner, gap()).prop_map(|(before, value, behind)| {
            let spelled = format!("{before}{}{behind}", value.spelled);
            Value { spelled, ..value }
        });
        prop_oneof![
            vec(element, 0..3).prop_map(|elements| nest('[', &elements, ']')),
            vec(member, 0..3).prop_map(|members| nest('{', &members, '}')),
        ]
    })
    .boxed()
}

fn nest(open: char, parts: &[Value], close: char) -> Value {
    let spelled: Vec<&str> = parts.iter().map(|part| part.spelled.as_str()).collect();
    Value {
        spelled: format!("{open}{}{close}", spelled.join(",")),
        depth: 1 + parts.iter().map(|part| part.depth).max().unwrap_or(0),
        says: None,
        object: None,
    }
}

/// A character of a JSON string, or half of one: how it is spelled and which UTF-16 code units it stands for.
type Spelled = (String, Vec<u16>);

/// Any JSON string: also one with escapes where none are needed, and one that is not Unicode.
fn strings() -> BoxedStrategy<Value> {
    const SHORT: &[(&str, char)] = &[
        (r#"\""#, '"'),
        (r"\\", '\\'),
        (r"\/", '/'),
        (r"\b", '\u{8}'),
        (r"\n", '\n'),
    ];
    let character = prop_oneof![
        6 => char::range('#', 'Z').prop_map(raw),
        1 => any::<char>().prop_filter("needs no escape", |c| !matches!(c, '\0'..' ' | '"' | '\\')).prop_map(raw),
        1 => select(SHORT).prop_map(|(spelled, c)| (spelled.to_owned(), units(c))),
        1 => any::<u16>().prop_map(|unit| (format!("\\u{unit:04x}"), vec![unit])),
        1 => any::<char>().prop_map(escaped),
    ];
    let lone = (0xD800..=0xDFFF_u16).prop_map(|unit| (format!("\\u{unit:04X}"), vec![unit]));
    let json = select(&['{', '[', '[', '{', ']', ':']).prop_map(raw);
    prop_oneof![
        4 => vec(character.clone(), 0..6),
        1 => vec(prop_oneof![lone, character.clone()], 1..4),
        1 => vec(prop_oneof![4 => json, 1 => character], 1..6),
    ]
    .prop_map(string)
    .boxed()
}

/// `text` as a JSON string, each character raw or escaped.
fn spelling(text: &str) -> BoxedStrategy<Value> {
    let characters: Vec<char> = text.chars().collect();
    let escapes = prop_oneof![
        2 => Just(vec![false; characters.len()]),
        1 => vec(any::<bool>(), characters.len()),
    ];
    escapes
        .prop_map(move |escapes| {
            let spelled = characters.iter().zip(escapes).map(|(&character, escape)| {
                if escape || character < ' ' {
                    escaped(character)
                } else {
                    (character.to_string(), units(character))
                }
            });
            string(spelled.collect())
        })
        .boxed()
}

fn raw(character: char) -> Spelled {
    (character.to_string(), units(character))
}

fn escaped(character: char) -> Spelled {
    let units = units(character);
    let spelled = units.iter().map(|unit| format!("\\u{unit:04x}"));
    (spelled.collect(), units)
}

fn units(character: char) -> Vec<u16> {
    character.encode_utf16(&mut [0; 2]).to_vec()
}

fn string(characters: Vec<Spelled>) -> Value {
    let (spelled, units): (Vec<String>, Vec<Vec<u16>>) = characters.into_iter().unzip();
    Value {
        spelled: format!("\"{}\"", spelled.concat()),
        depth: 0,
        says: String::from_utf16(&units.concat()).ok(),
        object: None,
    }
}
