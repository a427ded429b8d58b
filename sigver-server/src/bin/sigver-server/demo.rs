//! The demo page: the files of `examples/browser`, built into the binary.

use sigver_server::Page;

/// The page, its script, and the client module that the script imports.
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
