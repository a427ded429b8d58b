//! How the log names a request.

use std::fmt;

use crate::http::{
    head::Head,
    page::{self, Page},
};

/// The longest path in a log line, in characters. A longer one is cut.
const MAX_PATH: usize = 100;

/// The method and the path of a request. The query may have secrets.
pub(crate) struct RequestLine {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    /// Whether this is a health probe or the request of a page, which are logged at `debug`.
    pub(crate) is_routine: bool,
}

impl RequestLine {
    pub(crate) fn of(head: &Head<'_>, pages: &[Page]) -> Self {
        const METHODS: [&str; 9] = [
            "GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "CONNECT", "TRACE",
        ];
        let method = METHODS.into_iter().find(|method| *method == head.method);
        let is_shown = |letter: char| letter.is_ascii_graphic();
        let shown = |letter| if is_shown(letter) { letter } else { '?' };
        let mut path: String = head.path.chars().take(MAX_PATH).map(shown).collect();
        if head.path.chars().nth(MAX_PATH).is_some() {
            path.push_str("...");
        }
        Self {
            method: method.unwrap_or("other"),
            path,
            is_routine: page::is_routine(head, pages),
        }
    }
}

impl fmt::Display for RequestLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::http::head;

    use super::RequestLine;

    #[test]
    fn request_line_shows_method_and_path_without_query() {
        for (request, shown) in [
            ("GET /a/b?token=x", "GET /a/b"),
            ("POST http://example.org/a?b", "POST /a"),
            ("SECRET /a", "other /a"),
            ("GET /\u{202e}a\u{85}", "GET /?a?"),
            (
                &format!("GET /{}", "x".repeat(200)),
                &format!("GET /{}...", "x".repeat(99)),
            ),
        ] {
            let head = format!("{request} HTTP/1.1\r\n\r\n");
            let line = head::parse(head.as_bytes(), |head| Ok(RequestLine::of(head, &[]).to_string()));
            assert_eq!(line, Some(Ok((shown.to_owned(), head.len()))));
        }
    }
}
