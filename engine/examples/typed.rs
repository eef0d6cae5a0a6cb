//! Typed values, read where they lie: no copy, no parsing, one validation.

#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "examples show what they do")]

use larder::{ErrorKind, Options};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Debug, PartialEq)]
struct Embedding {
    model: String,
    vector: Vec<f32>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Menu {
    dishes: Vec<String>,
}

fn main() -> larder::Result<()> {
    let larder = Options::new().open_in_memory()?;
    let ana = larder.session("ana")?;
    let leek =
        Embedding { model: "kitchen-1".into(), vector: (0..4_096).map(|at| at as f32 / 4_096.0).collect() };
    ana.put_typed("embeddings/leek", &leek)?;

    let read = ana.get_typed::<Embedding>("embeddings/leek")?;
    println!("{}: vector[2048] = {}, read {:?}", read.model, read.vector[2_048], read.placement());
    assert_eq!(read.deserialize()?, leek);

    // Another type is an error, never a misread.
    let other = ana.get_typed::<Menu>("embeddings/leek").map(drop);
    println!("{other:?}");
    assert!(matches!(other, Err(error) if matches!(error.kind(), ErrorKind::TypeMismatch { .. })));
    drop(read); // a value that is held in its page counts as a reader
    larder.close()
}
