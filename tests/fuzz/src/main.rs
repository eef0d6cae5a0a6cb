//! One decoder under libFuzzer: that which the variable `DECODER` names. `tests/fuzz/run` runs all of them.

#![no_main]

use larder_format as format;
use std::sync::OnceLock;

#[path = "../../src/decoders.rs"]
mod decoders;

static DECODER: OnceLock<decoders::Decoder> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let decode = DECODER.get_or_init(|| {
        let name = std::env::var("DECODER").expect("DECODER names a decoder");
        let named = decoders::DECODERS.into_iter().find(|(decoder, _)| *decoder == name);
        named.expect("there is a decoder of that name").1
    });
    decode(bytes);
});
