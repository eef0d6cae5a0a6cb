//! What an upload endpoint needs: limits by pattern, checked before and while the bytes come in, and refusals that
//! say what to answer.

#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "examples show what they do")]

use std::io::Read;

use larder::{DocumentKind, ErrorKind, Options, Session};

/// What would be answered over HTTP.
fn upload(session: &Session, key: &str, body: &mut dyn Read, announced: Option<u64>) -> larder::Result<u16> {
    let stored = announced
        .map_or(Ok(()), |length| session.check_upload(key, length)) // known in advance: refused before the first byte
        .and_then(|()| session.put_reader(key, body, "")); // met in mid-stream: nothing is left behind
    match stored {
        Ok(receipt) => Ok(if receipt.value.is_new() { 201 } else { 200 }),
        Err(error) => {
            println!("{error}");
            match error.kind() {
                ErrorKind::BinaryTooLarge { .. } => Ok(413),
                ErrorKind::AccessDenied { .. } => Ok(403),
                ErrorKind::InvalidKey { .. } => Ok(400),
                _ => Err(error),
            }
        }
    }
}

fn main() -> larder::Result<()> {
    let larder = Options::new().open_in_memory()?;
    larder.root()?.set_document(
        DocumentKind::Limits,
        r#"
        max_binary_size = "64 KiB"
        [[limit]]
        on = "users/*/uploads/**"
        max_binary_size = "1 MiB"
        "#,
    )?;
    let ana = larder.session("ana")?;
    let film = vec![7; 2 << 20];
    let answers = [
        upload(&ana, "users/ana/uploads/photo.png", &mut &film[..500_000], Some(500_000))?,
        upload(&ana, "users/ana/uploads/film.mov", &mut film.as_slice(), Some(film.len() as u64))?,
        upload(&ana, "users/ana/uploads/film.mov", &mut film.as_slice(), None)?,
        upload(&ana, "notes/../secret", &mut "x".as_bytes(), None)?,
    ];
    println!("{answers:?}");
    assert_eq!(answers, [201, 413, 413, 400]);
    assert_eq!(larder.statistics()?.total.assets, 1);
    larder.close()
}
