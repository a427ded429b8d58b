//! The modules of each crate in this package form layers.

use std::{io, path::Path};

use sigver_transcripts::modules::ModuleGraph;

#[test]
fn modules_form_layers() -> io::Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    ModuleGraph::assert_layers(&manifest.join("src"), 5)?;
    ModuleGraph::assert_layers(&manifest.join("src/bin/load"), 20)?;
    ModuleGraph::assert_layers(&manifest.join("src/bin/yardstick"), 2)
}
