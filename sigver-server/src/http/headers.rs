//! The headers of a request.

use httparse::Header;

#[derive(Clone, Copy)]
pub(crate) struct Headers<'a>(pub(crate) &'a [Header<'a>]);

impl<'a> Headers<'a> {
    /// Returns the values of every header with this name, in order. Case does not matter.
    pub(crate) fn all(self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// Returns the value of a header that occurs exactly once.
    pub(crate) fn only(self, name: &'static str) -> Option<&'a [u8]> {
        let mut values = self.all(name);
        let value = values.next()?.trim_ascii();
        values.next().is_none().then_some(value)
    }

    /// Returns the items of a header that is a list (RFC 9110 section 5.6.1), over all its lines.
    fn items(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|item| !item.is_empty())
    }

    /// Whether a header that is a list has this item. Case does not matter.
    pub(crate) fn lists(self, name: &'static str, item: &str) -> bool {
        self.items(name).any(|one| one.eq_ignore_ascii_case(item.as_bytes()))
    }

    /// Returns the offered subprotocols. Items that are not UTF-8 are left out: no token has such bytes.
    pub(crate) fn subprotocols(self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.items("Sec-WebSocket-Protocol")
            .filter_map(|name| std::str::from_utf8(name).ok())
    }
}
