//! Snapshots that promise more than they hold, or hold more than they promise: each is refused, in bounded memory.

use larder::format::{
    ContentHash, Operation, PIECE_HEADER_LENGTH, PieceHeader, PieceKind, SNAPSHOT_CONTENT_MAX,
};
use larder::{Draft, RestoreOptions, SnapshotFile, SnapshotOptions, restore};
use larder_tests::{Lab, in_memory};

const MIB: usize = 1 << 20;

/// The pieces of a snapshot of one asset: headers and frames, without the end.
fn pieces() -> Vec<(PieceHeader, Vec<u8>)> {
    let larder = in_memory();
    larder.session("ana").unwrap().put("soup.txt", Draft::from("leek")).unwrap();
    let mut bytes = Vec::new();
    larder.snapshot_into(&mut bytes, &SnapshotOptions::new()).unwrap();
    let (mut rest, mut pieces) = (bytes.as_slice(), Vec::new());
    while let Some((header, after)) = rest.split_first_chunk::<PIECE_HEADER_LENGTH>() {
        let header = PieceHeader::decode(header).unwrap();
        let (frame, after) = after.split_at(header.frame_length as usize);
        if header.kind != PieceKind::End {
            pieces.push((header, frame.to_vec()));
        }
        rest = after;
    }
    pieces
}

/// Puts pieces together, each with the number and the digest that it should have, and the end behind them.
fn whole(pieces: Vec<(PieceHeader, Vec<u8>)>) -> Vec<u8> {
    let (mut headers, mut bytes) = (Vec::new(), Vec::new());
    for (number, (header, frame)) in (0..).zip(pieces) {
        let frame_length = u32::try_from(frame.len()).unwrap();
        let digest = ContentHash::of(&frame).0;
        let header = PieceHeader { number, frame_length, digest, ..header }.encode();
        headers.extend_from_slice(&header);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&frame);
    }
    let number = (headers.len() / PIECE_HEADER_LENGTH) as u64;
    let digest = ContentHash::of(&headers).0;
    let end = PieceHeader { kind: PieceKind::End, number, frame_length: 0, content_length: 0, digest };
    bytes.extend_from_slice(&end.encode());
    bytes
}

/// What stands in the place of the rows: so many bytes of content, as the header says, and a frame.
fn with_rows(content_length: u32, frame: &[u8], times: usize) -> Vec<u8> {
    let mut pieces = pieces();
    let (header, _) = pieces.remove(1);
    for _ in 0..times {
        pieces.insert(1, (PieceHeader { content_length, ..header }, frame.to_vec()));
    }
    whole(pieces)
}

fn zeros(length: usize) -> Vec<u8> {
    zstd::bulk::compress(&vec![0; length], 1).unwrap()
}

/// The smallest operations that there are, as many as fit: each takes many times its bytes in memory.
fn operations(length: usize) -> Vec<u8> {
    // The removal of a key of two bytes, from one key to the next and over again.
    let operations: Vec<u8> = (0..1_024_u16)
        .flat_map(|key| {
            let [high, low] = key.to_be_bytes();
            [2, 1, 2, 0, 0, 0, 0, 0, high, low]
        })
        .collect();
    let content: Vec<u8> = operations.iter().copied().cycle().take(length / 10 * 10).collect();
    zstd::bulk::compress(&content, 1).unwrap()
}

/// The rows of a snapshot with its first one twice, and without its second.
fn first_row_twice() -> Vec<u8> {
    let (_, frame) = pieces().remove(1);
    let content = bytes::Bytes::from(zstd::decode_all(frame.as_slice()).unwrap());
    let (mut ends, mut at) = (Vec::new(), 0);
    while at < content.len() {
        Operation::decode(&content, &mut at).unwrap();
        ends.push(at);
    }
    let content = [&content[..ends[0]], &content[..ends[0]], &content[ends[1]..]].concat();
    with_rows(u32::try_from(content.len()).unwrap(), &zstd::bulk::compress(&content, 1).unwrap(), 1)
}

fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let most = SNAPSHOT_CONTENT_MAX as usize;
    // An endless frame: without the length of its content.
    let mut streamed = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 1 << 30), &mut streamed).unwrap();
    let streamed = streamed.finish().unwrap();
    let mut cut = with_rows(SNAPSHOT_CONTENT_MAX, &zeros(most), 1);
    cut.truncate(PIECE_HEADER_LENGTH * 2 + 200);
    vec![
        ("1 GiB in a frame that should have 4 KiB", with_rows(4_096, &zeros(1 << 30), 1)),
        ("1 GiB in a frame that does not say so", with_rows(4_096, &streamed, 1)),
        ("the same, as large as a piece may be", with_rows(SNAPSHOT_CONTENT_MAX, &streamed, 1)),
        ("4 KiB in a frame that should have 65 MiB", with_rows(SNAPSHOT_CONTENT_MAX, &zeros(4_096), 1)),
        ("65 MiB of zeros, twenty times", with_rows(SNAPSHOT_CONTENT_MAX, &zeros(most), 20)),
        ("65 MiB of small operations", with_rows(SNAPSHOT_CONTENT_MAX / 10 * 10, &operations(most), 20)),
        ("a piece that is cut off", cut),
        ("a piece larger than the limit", with_rows(SNAPSHOT_CONTENT_MAX + 1, &zeros(most + 1), 1)),
        ("the same row twice", first_row_twice()),
        ("two frames in a piece", with_rows(8_192, &[zeros(4_096), zeros(4_096)].concat(), 1)),
    ]
}

/// What a process of this test's own is to read.
const CHILD: &str = "LARDER_TEST_BOMB_CHILD";

/// Not a test of its own: a process that verifies and restores one snapshot, on two threads, and says what that took.
#[cfg(target_os = "linux")]
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let peak = || larder_tests::status_kib("VmHWM");
    let before = peak();
    let verified = SnapshotFile::open(&path).and_then(|snapshot| snapshot.verify(2, None));
    let mut target = path.clone();
    target.push(".restored");
    let restored = restore(&[&path], &target, &RestoreOptions::new());
    let refused = verified.is_err() && restored.is_err() && !std::path::Path::new(&target).exists();
    println!("said {refused} {}", peak() - before);
}

/// T27, issue of trust 1: memory is bounded by the largest piece that there may be and 8 MiB, whatever a snapshot promises.
#[cfg(target_os = "linux")]
#[test]
fn t27_what_a_snapshot_promises_takes_no_more_memory_than_the_largest_piece_may() {
    let lab = Lab::new();
    for (number, (what, bytes)) in bombs().into_iter().enumerate() {
        let path = lab.path(&format!("bomb-{number}"));
        std::fs::write(&path, bytes).unwrap();
        let child = larder_tests::child(CHILD, &path).output().unwrap();
        let out = String::from_utf8(child.stdout).unwrap();
        let said = out.split_once("said ").unwrap_or_else(|| panic!("{what}: {out}")).1;
        let mut words = said.split_whitespace();
        assert_eq!(words.next(), Some("true"), "{what}: not refused, or something was restored");
        let kib: usize = words.next().unwrap().parse().unwrap();
        println!("{what}: {kib} KiB");
        assert!(kib << 10 <= SNAPSHOT_CONTENT_MAX as usize + 8 * MIB, "{what}: {kib} KiB");
        std::fs::remove_file(&path).unwrap();
    }
}
