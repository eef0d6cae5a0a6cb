//! An asset manager in a page: what is there and good is served, what is not is made once, however many ask for it; what it
//! was made from is remembered, and when that changes, it expires in the same commit.

#![allow(clippy::print_stdout, reason = "examples show what they do")]

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::{Draft, Fenceable, Larder, LogKind, Lookup, Options, Session, Status};

/// How often something was made, for the example to show.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// Serves an asset, making it if it must be made.
fn serve(session: &Session, key: &str, from: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
    loop {
        if session.exists(key)?
            && let Lookup::Hit(asset) = session.get_loadable(key)?
        {
            return Ok(String::from_utf8(asset.bytes()?.to_vec())?);
        }
        // One makes it; the others wait until it is there.
        let minute = Duration::from_secs(60);
        let claim = session.claim(key).wait_max(minute).for_at_most(minute)?;
        if session.exists(key)? && session.get_loadable(key)?.miss().is_none() {
            continue;
        }
        MADE.fetch_add(1, Ordering::Relaxed);
        let source = session.get(from)?;
        let text = String::from_utf8(source.bytes()?.to_vec())?.to_uppercase();
        // The version that was read: if it has changed meanwhile, this is refused, and made again.
        let version = source.record().version();
        let draft = Draft::from(text).status(Status::Ready);
        match claim.put(draft.with(|about| about.depends_on_version(from, version))) {
            Ok(Fenceable::Done(_)) => {}
            Ok(Fenceable::Fenced { by }) => println!("somebody else ({by:?}) set {key} meanwhile"),
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let larder: Larder = Options::new().open_in_memory()?;
    let ana = larder.session("ana")?;
    ana.put("recipes/soup.txt", "leeks and salt")?;

    // Eight ask at once: it is made once.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| serve(&ana, "menu/soup.txt", "recipes/soup.txt").map(drop));
        }
    });
    println!(
        "{}  (made {} time)",
        serve(&ana, "menu/soup.txt", "recipes/soup.txt")?,
        MADE.load(Ordering::Relaxed)
    );

    // What it was made from changes: it expires with that, and is made again when somebody asks.
    ana.put("recipes/soup.txt", "leeks, salt and cream")?;
    if let Lookup::Miss(why) = ana.get_loadable("menu/soup.txt")? {
        println!("not served: {why}");
    }
    println!("{}", serve(&ana, "menu/soup.txt", "recipes/soup.txt")?);

    // What was said of the work lies apart from the record.
    ana.log("menu/soup.txt", LogKind::Info, "made twice today")?;
    let why = ana.why("menu/soup.txt")?;
    let made_from: Vec<String> = why.made_from.iter().map(|(seen, _)| seen.on.to_string()).collect();
    println!("made from {}, generation {}", made_from.join(", "), why.record.generation());
    larder.close()?;
    Ok(())
}
