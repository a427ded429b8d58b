//! The modules of each crate in this package form layers.

use std::{error::Error, path::Path};

use sigver_transcripts::modules::ModuleGraph;

#[test]
fn modules_do_not_use_each_other_in_circles() -> Result<(), Box<dyn Error>> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (src, least) in [("src", 5), ("src/bin/load", 20), ("src/bin/yardstick", 2)] {
        let graph = ModuleGraph::read(&manifest.join(src))?;
        assert_eq!(graph.circle(), None, "in {src}");
        assert!(
            graph.users_of_root().is_empty(),
            "in {src}: {:?}",
            graph.users_of_root()
        );
        let (modules, arrows) = graph.size();
        assert!(
            modules >= least && arrows >= least,
            "only {modules} and {arrows} in {src}"
        );
    }
    Ok(())
}
