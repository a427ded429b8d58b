//! Owns the files of the demonstration page, built in. They are those of `examples/browser`. Never serves them: the library does.

use sigver_server::Page;

/// The page, its script, and the client that this imports.
pub(crate) const PAGES: &[Page] = &[
    Page {
        path: "/",
        content_type: "text/html; charset=utf-8",
        body: include_str!("../../../demo/index.html"),
    },
    Page {
        path: "/chat.js",
        content_type: "text/javascript; charset=utf-8",
        body: include_str!("../../../demo/chat.js"),
    },
    Page {
        path: "/sigver.js",
        content_type: "text/javascript; charset=utf-8",
        body: include_str!("../../../demo/sigver.js"),
    },
];
