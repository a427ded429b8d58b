//! An RFC 8259 parser that is independent of the core. It does not interpret messages: `json.rs`, beside the laws, does.

use crate::json::{Attribute, Object, Value};

/// The syntax of a text.
pub(crate) enum Text {
    Object(Object),
    /// Another JSON value, and its depth of nesting.
    Other(u32),
    /// Not JSON. If it begins as an object, the members before the error.
    Broken(Option<Object>),
}

pub(crate) fn read(text: &str) -> Text {
    let mut reader = Reader { text, at: 0 };
    let before = reader.gap();
    if reader.peek() != Some(b'{') {
        let depth = reader.skip();
        reader.gap();
        return match depth.filter(|_| reader.is_at_end()) {
            Some(depth) => Text::Other(depth),
            None => Text::Broken(None),
        };
    }
    let mut object = Object {
        before,
        gap: String::new(),
        members: Vec::new(),
        after: String::new(),
    };
    let is_whole = reader.object(&mut object, true).is_some();
    object.after = reader.gap();
    if is_whole && reader.is_at_end() {
        Text::Object(object)
    } else {
        Text::Broken(Some(object))
    }
}

/// Methods return `None` at an error of syntax.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    /// Advances while the bytes match.
    fn run(&mut self, is: impl Fn(u8) -> bool) -> String {
        let start = self.at;
        while self.peek().is_some_and(&is) {
            self.at += 1;
        }
        self.since(start)
    }

    fn since(&self, start: usize) -> String {
        self.text[start..self.at].to_owned()
    }

    fn gap(&mut self) -> String {
        self.run(|byte| b" \t\r\n".contains(&byte))
    }

    fn eat(&mut self, wanted: &str) -> Option<()> {
        let is_there = self.text[self.at..].starts_with(wanted);
        self.at += if is_there { wanted.len() } else { 0 };
        is_there.then_some(())
    }

    /// Adds the next members to `object`, each when its value is complete. Only the pieces of objects in the `outermost` one are kept.
    fn object(&mut self, object: &mut Object, outermost: bool) -> Option<()> {
        self.eat("{")?;
        let mut lead = self.gap();
        if self.eat("}").is_some() {
            object.gap = lead;
            return Some(());
        }
        loop {
            let name = self.string()?;
            let before_colon = self.gap();
            self.eat(":")?;
            let behind_colon = self.gap();
            let value = self.value(outermost)?;
            object.members.push(Attribute {
                lead,
                name,
                gaps: [before_colon, behind_colon, String::new()],
                value,
            });
            let behind_value = self.gap();
            if let Some(member) = object.members.last_mut() {
                member.gaps[2] = behind_value;
            }
            if self.eat("}").is_some() {
                return Some(());
            }
            self.eat(",")?;
            lead = self.gap();
        }
    }

    fn value(&mut self, outermost: bool) -> Option<Value> {
        let start = self.at;
        if self.peek() == Some(b'"') {
            return self.string();
        }
        let depth = self.skip()?;
        let spelled = self.since(start);
        let object = if outermost { object(&spelled) } else { None };
        Some(Value {
            spelled,
            depth,
            decoded: None,
            object: object.map(Box::new),
        })
    }

    /// Skips the next value. Returns its depth of nesting.
    fn skip(&mut self) -> Option<u32> {
        match self.peek()? {
            b'{' => self.nest("}", |reader| {
                reader.string()?;
                reader.gap();
                reader.eat(":")?;
                reader.gap();
                reader.skip()
            }),
            b'[' => self.nest("]", Self::skip),
            b'"' => self.string().map(|_| 0),
            b't' => self.eat("true").map(|()| 0),
            b'f' => self.eat("false").map(|()| 0),
            b'n' => self.eat("null").map(|()| 0),
            _ => self.number().map(|()| 0),
        }
    }

    fn nest(&mut self, close: &str, one: impl Fn(&mut Self) -> Option<u32>) -> Option<u32> {
        self.at += 1;
        self.gap();
        if self.eat(close).is_some() {
            return Some(1);
        }
        let mut depth = 0;
        loop {
            self.gap();
            depth = one(self)?.max(depth);
            self.gap();
            if self.eat(close).is_some() {
                return Some(depth + 1);
            }
            self.eat(",")?;
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.eat("-");
        let integer = self.digits()?;
        if integer.len() > 1 && integer.starts_with('0') {
            return None;
        }
        if self.eat(".").is_some() {
            self.digits()?;
        }
        if self.eat("e").or_else(|| self.eat("E")).is_some() {
            let _ = self.eat("+").or_else(|| self.eat("-"));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<String> {
        let digits = self.run(|byte| byte.is_ascii_digit());
        (!digits.is_empty()).then_some(digits)
    }

    fn string(&mut self) -> Option<Value> {
        let start = self.at;
        self.eat("\"")?;
        let mut units = Vec::new();
        loop {
            let character = self.text[self.at..].chars().next()?;
            self.at += character.len_utf8();
            match character {
                '"' => break,
                '\\' => units.push(self.escape()?),
                '\0'..' ' => return None,
                _ => units.extend_from_slice(character.encode_utf16(&mut [0; 2])),
            }
        }
        Some(Value {
            spelled: self.since(start),
            depth: 0,
            decoded: String::from_utf16(&units).ok(),
            object: None,
        })
    }

    /// Returns the UTF-16 code unit of the escape after the backslash.
    fn escape(&mut self) -> Option<u16> {
        let escape = self.peek()?;
        let character = match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.code_unit(),
            _ => return None,
        };
        self.at += 1;
        Some(character.into())
    }

    fn code_unit(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at + 1..self.at + 5)?;
        // A sign is not a digit.
        let unit = u16::from_str_radix(digits, 16)
            .ok()
            .filter(|_| !digits.starts_with('+'));
        self.at += 5;
        unit
    }
}

/// Returns the pieces of the object `spelled`; `None` for another value.
fn object(spelled: &str) -> Option<Object> {
    let mut object = Object {
        before: String::new(),
        gap: String::new(),
        members: Vec::new(),
        after: String::new(),
    };
    let mut reader = Reader { text: spelled, at: 0 };
    reader.object(&mut object, false)?;
    Some(object)
}
