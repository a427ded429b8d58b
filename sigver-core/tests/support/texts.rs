//! Strategies for JSON texts in every spelling. Their meaning is known, because they are assembled here.

use proptest::{char, collection::vec, option, prelude::*, sample::select};

use crate::json::{Attribute, Object, Value};

/// Returns any object: few members, mostly those that the plain dialect reads, sometimes repeated.
pub(crate) fn objects() -> BoxedStrategy<Object> {
    let index = option::of(index_member());
    object((0.7, kinds()), 0.7, vec![index.boxed()])
}

/// Returns any object of `sigver.v1`: most have the members that their `type` requires, and others.
pub(crate) fn frames() -> BoxedStrategy<Object> {
    let data = || attribute(spelling("data"), data_values());
    let id = || attribute(spelling("id"), ids());
    let wait = || attribute(spelling("wait"), prop_oneof![waits(), indexes()]);
    let members = vec![
        option::weighted(0.5, index_member()).boxed(),
        option::weighted(0.8, data()).boxed(),
        option::weighted(0.02, data()).boxed(),
        option::weighted(0.3, id()).boxed(),
        option::weighted(0.02, id()).boxed(),
        option::weighted(0.2, wait()).boxed(),
        option::weighted(0.02, wait()).boxed(),
    ];
    object((0.9, v1_kinds()), 0.5, members)
}

fn object(
    (typed, kinds): (f64, BoxedStrategy<Value>),
    keys: f64,
    members: Vec<BoxedStrategy<Option<Attribute>>>,
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
        members,
        vec(other, 0..4),
    );
    let members = members
        .prop_map(|(kind, key, members, others)| {
            let members = [kind, key].into_iter().chain(members).flatten();
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

/// Returns values of `id`: strings of the shortest and the longest valid length, one byte more, and any other value.
fn ids() -> BoxedStrategy<Value> {
    const EDGES: &[&str] = &["", "i", "é"];
    let longest = select(&["i", "é"]).prop_flat_map(|unit| {
        let longest = unit.repeat(64 / unit.len());
        prop_oneof![spelling(&longest), spelling(&(longest.clone() + "i"))]
    });
    prop_oneof![4 => strings(), 1 => select(EDGES).prop_flat_map(spelling), 1 => longest, 1 => values()].boxed()
}

/// Returns values of `data`: an object with known pieces, or any other value.
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

/// Returns JSON white space, mostly none.
fn gap() -> BoxedStrategy<String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"].boxed()
}

/// Returns names that the server does not read, some of them similar.
fn names() -> BoxedStrategy<Value> {
    const NEAR: &[&str] = &["Type", "types", "", "indexes", "index ", "key\0", "ındex", "Data", "ID"];
    prop_oneof![2 => strings(), 1 => select(NEAR).prop_flat_map(spelling)].boxed()
}

/// Returns values of `type`.
fn kinds() -> BoxedStrategy<Value> {
    const KINDS: &[&str] = &["open", "join", "open", "join", "offer", "Open", "join "];
    select(KINDS).prop_flat_map(spelling).boxed()
}

/// Returns values of `type` in `sigver.v1`.
fn v1_kinds() -> BoxedStrategy<Value> {
    const CONTROL: &[&str] = &["open", "join", "meet", "kick", "kick", "leave", "close", "ping"];
    const UNKNOWN: &[&str] = &["Send", "data"];
    prop_oneof![10 => Just("send"), 6 => select(CONTROL), 1 => select(UNKNOWN)]
        .prop_flat_map(spelling)
        .boxed()
}

/// Returns valid and invalid indexes, as numbers and as strings.
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
        4 => select(INTEGERS).prop_map(Value::scalar),
        4 => select(INTEGERS).prop_flat_map(spelling),
        2 => select(NEAR).prop_map(Value::scalar),
        1 => select(NEAR).prop_flat_map(spelling),
        1 => select(NO_VALUES).prop_flat_map(spelling),
    ]
    .boxed()
}

/// Returns valid times to wait, below and above the limit.
fn waits() -> BoxedStrategy<Value> {
    const SECONDS: &[&str] = &[
        "0",
        "1",
        "119",
        "120",
        "121",
        "18446744073709551615",
        "18446744073709551616",
    ];
    select(SECONDS).prop_map(Value::scalar).boxed()
}

/// Returns any small JSON value.
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
        decoded: None,
        object: None,
    }
}

/// A character of a JSON string, or half of one: its spelling and its UTF-16 code units.
type Spelled = (String, Vec<u16>);

/// Returns any JSON string, also with unneeded escapes and with text that is not Unicode.
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

/// Returns `text` as a JSON string, with each character raw or escaped.
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
        decoded: String::from_utf16(&units.concat()).ok(),
        object: None,
    }
}
