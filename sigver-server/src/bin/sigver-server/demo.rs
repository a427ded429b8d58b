//! The files of the demo page, built in. They are those of `examples/browser`.

use sigver_server::Page;

/// Path, media type and content of the page, its script, the client that the script imports, and the texts that the page links to.
const PAGES: [(&str, &str, &str); 5] = [
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
    (
        "/README.md",
        "text/plain; charset=utf-8",
        include_str!("../../../demo/README.md"),
    ),
    (
        "/PROTOCOL.md",
        "text/plain; charset=utf-8",
        include_str!("../../../demo/PROTOCOL.md"),
    ),
];

pub(crate) fn pages() -> Vec<Page> {
    let page = |(path, content_type, body): (&str, &str, &str)| Page::new(path, content_type, body.as_bytes());
    PAGES.map(page).into()
}
