//! Replays the seeds of the fuzz targets, without a fuzzer. See `fuzz/README.md`.

use std::error::Error;

use proptest::{prelude::*, test_runner::Config};
use sigver_core::{Dialect, Limits};

use crate::{
    json::Object,
    reader::{self, Text},
    replay::replay,
    texts::{frames, objects},
};

#[path = "../../../fuzz/oracles/decode.rs"]
mod decode;
#[path = "../../../fuzz/oracles/endpoint.rs"]
mod endpoint;

#[test]
fn decoder_agrees_with_the_oracle_on_every_seed() -> Result<(), Box<dyn Error>> {
    replay("decode", decode::check)
}

#[test]
fn endpoint_agrees_with_the_model_on_every_seed() -> Result<(), Box<dyn Error>> {
    replay("endpoint", endpoint::check)
}

/// The oracle of `decode` depends on its reader.
#[test]
fn reader_splits_generated_texts_into_their_pieces() {
    let texts = prop_oneof![objects(), frames()];
    proptest!(Config { failure_persistence: None, ..Config::default() }, |(object in texts, number: u32)| {
        let Text::Object(read) = reader::read(&object.text()) else {
            panic!("{} is an object", object.text());
        };
        let readings = |object: &Object| [Dialect::Plain, Dialect::V1].map(|dialect| object.reading(dialect, &Limits::default()));
        assert_eq!(read.text(), object.text());
        assert_eq!(read.depth(), object.depth());
        assert_eq!(readings(&read), readings(&object));
        assert_eq!(read.text_with_index(number), object.text_with_index(number));
        assert_eq!(read.data_with_index(number), object.data_with_index(number));
    });
}
