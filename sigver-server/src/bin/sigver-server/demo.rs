//! The files of the demo page, built in. They are those of `examples/browser`.

use sigver_server::Page;

/// Path, media type and content of the page, its script, and the client that the script imports.
const PAGES: [(&str, &str, &str); 3] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("../../../demo/index.html"),
    ),
    (
        "/chat.js",
        "text/javascript; charset=utf-8",
        include_str!("../../../demo/chat.js"),
    ),
    (
        "/sigver.js",
        "text/javascript; charset=utf-8",
        include_str!("../../../demo/sigver.js"),
    ),
];

pub(crate) fn pages() -> Vec<Page> {
    let page = |(path, content_type, body): (&str, &str, &str)| Page::new(path, content_type, body.as_bytes());
    PAGES.map(page).into()
}
