//! Makes JSON texts in every way of writing them, and knows what they say because it put them together: nothing is parsed here.

use proptest::{char, collection::vec, option, prelude::*, sample::select};
use sigver_core::{Addressee, CloseReason, Index, Limits, Member};

/// What a text says in the plain dialect, by the protocol page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Open(String),
    Join(String),
    Data(Addressee),
    Lookalike(Addressee),
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

    /// What the text says, and why its sender is closed when it says nothing.
    pub(crate) fn reading(&self, limits: &Limits) -> Result<Reading, CloseReason> {
        if self.text().len() > limits.message_bytes as usize {
            return Err(CloseReason::TooBig);
        }
        if self.depth() > limits.depth {
            return Err(CloseReason::TooDeep);
        }
        if let Some(member) = self.twice() {
            return Err(CloseReason::Duplicate(member));
        }
        let to = self.value(Member::Index).map_or(Addressee::Unnamed, Value::addressee);
        let (Some(kind), Some(key)) = (self.value(Member::Type), self.value(Member::Key)) else {
            return Ok(Reading::Data(to));
        };
        let control = match kind.says.as_deref() {
            Some("open") => Reading::Open,
            Some("join") => Reading::Join,
            _ => return Ok(Reading::Lookalike(to)),
        };
        let key = key.says.clone().ok_or(CloseReason::KeyNotString)?;
        match key.len() {
            0 => Err(CloseReason::KeyEmpty),
            length if length > limits.key_bytes as usize => Err(CloseReason::KeyTooLong),
            _ => Ok(control(key)),
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

    /// The first member of the server's own that is there again.
    fn twice(&self) -> Option<Member> {
        let mut seen = Vec::new();
        self.members.iter().filter_map(Attribute::means).find(|member| {
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
            _ => None,
        }
    }
}

impl Value {
    fn scalar(spelled: impl Into<String>) -> Self {
        Self {
            spelled: spelled.into(),
            depth: 0,
            says: None,
        }
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

/// Any object: few members, most of them those that the server reads, now and then one of them twice.
pub(crate) fn objects() -> BoxedStrategy<Object> {
    let kind = || attribute(spelling("type"), prop_oneof![4 => kinds(), 1 => values()]);
    let key = || attribute(spelling("key"), prop_oneof![4 => strings(), 1 => values()]);
    let index = || attribute(spelling("index"), prop_oneof![4 => indexes(), 1 => values()]);
    let other = prop_oneof![24 => attribute(names(), values()), 1 => kind(), 1 => key(), 1 => index()];
    let members = (
        option::weighted(0.7, kind()),
        option::weighted(0.7, key()),
        option::of(index()),
        vec(other, 0..4),
    );
    let members = members
        .prop_map(|(kind, key, index, others)| {
            kind.into_iter()
                .chain(key)
                .chain(index)
                .chain(others)
                .collect::<Vec<_>>()
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
    const NEAR: &[&str] = &["Type", "types", "", "indexes", "index ", "key\0", "ındex"];
    prop_oneof![2 => strings(), 1 => select(NEAR).prop_flat_map(spelling)].boxed()
}

/// What a `type` says.
fn kinds() -> BoxedStrategy<Value> {
    const KINDS: &[&str] = &["open", "join", "open", "join", "offer", "Open", "join "];
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
    }
}
