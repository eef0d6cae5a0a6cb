//! Every public operation, measured with criterion, on a store in a file with unsynced commits.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use larder::{Annotation, BatchMode, Draft, Durability, Edit, Options, PageRequest, Session, TagPolicy};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Embedding {
    model: String,
    vector: Vec<f32>,
}

fn store(folder: &tempfile::TempDir) -> (larder::Larder, Session) {
    let options = Options::new().durability(Durability::Lazy);
    let larder = options.open(folder.path().join("bench.larder")).expect("a new store");
    let session = larder.session("bench").expect("a session");
    (larder, session)
}

fn writes(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let (_larder, session) = store(&folder);
    let mut number = 0u64;
    for size in [0usize, 1 << 10, 100 << 10, 1 << 20] {
        criterion.bench_function(&format!("put/{size}"), |bencher| {
            bencher.iter_batched(
                || {
                    number += 1;
                    (format!("put/{number}.bin"), number.to_le_bytes().repeat(size / 8))
                },
                |(key, payload)| session.put(key, payload).expect("a put"),
                BatchSize::SmallInput,
            );
        });
    }
    session.put("one.txt", "soup").expect("a put");
    criterion.bench_function("annotate", |bencher| {
        bencher.iter(|| {
            session.annotate("one.txt", Annotation::new().attribute("seen", 1i64)).expect("annotated")
        });
    });
    criterion.bench_function("tag", |bencher| {
        bencher.iter(|| session.tag("one.txt", ["a", "b"], TagPolicy::Union).expect("tagged"));
    });
    criterion.bench_function("put+delete", |bencher| {
        bencher.iter(|| {
            session.put("gone.txt", "x").expect("a put");
            session.delete("gone.txt").expect("a removal")
        });
    });
    criterion.bench_function("copy", |bencher| {
        bencher.iter(|| session.copy("one.txt", "two.txt").expect("a copy"));
    });
    criterion.bench_function("batch of 100", |bencher| {
        bencher.iter(|| {
            let edits = (0..100).map(|at| Edit::put(format!("batch/{at}.txt"), "x"));
            session.batch(edits, BatchMode::Atomic).expect("a batch")
        });
    });
}

fn reads(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let (_larder, session) = store(&folder);
    for batch in 0..100 {
        session
            .write(|txn| {
                for at in 0..100 {
                    txn.put(format!("shelf/{batch:02}/{at:02}.txt"), Draft::from("leek soup").tag("soup"))?;
                }
                Ok(())
            })
            .expect("a batch");
    }
    session.put("big.bin", vec![7; 16 << 20]).expect("a put");
    let vector = vec![0.5; 100_000];
    session.put_typed("embedding", &Embedding { model: "m".into(), vector }).expect("a put");
    criterion
        .bench_function("get", |bencher| bencher.iter(|| session.get("shelf/42/42.txt").expect("an asset")));
    criterion
        .bench_function("record", |bencher| bencher.iter(|| session.record("shelf/42/42.txt").expect("one")));
    criterion
        .bench_function("exists", |bencher| bencher.iter(|| session.exists("shelf/42/42.txt").expect("yes")));
    criterion
        .bench_function("list of 100", |bencher| bencher.iter(|| session.list("shelf").expect("a list")));
    criterion.bench_function("page of 50", |bencher| {
        bencher.iter(|| session.page("shelf", &PageRequest::new()).expect("a page"));
    });
    criterion.bench_function("walk of 10 000", |bencher| {
        bencher.iter(|| session.read(|view| Ok(view.walk("shelf")?.count())).expect("a walk"));
    });
    criterion.bench_function("range of 4 KiB in 16 MiB", |bencher| {
        bencher.iter(|| {
            let mut reader = session.open("big.bin").expect("a reader");
            black_box(reader.range(9_000_000..9_004_096).expect("a range"))
        });
    });
    criterion.bench_function("get_typed, one of 100 000 numbers", |bencher| {
        bencher.iter(|| {
            let value = session.get_typed::<Embedding>("embedding").expect("a value");
            black_box(value.vector[99_999].to_native())
        });
    });
}

criterion_group!(operations, writes, reads);
criterion_main!(operations);
