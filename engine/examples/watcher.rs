//! A watcher: told live of what happens below a place, and able to catch up from the feed after it was away.

#![allow(clippy::print_stdout, reason = "examples show what they do")]

use larder::{Larder, Notice, Options};

fn watch(larder: &Larder) -> larder::Result<std::thread::JoinHandle<u64>> {
    let subscription = larder.session("watcher")?.subscribe("menus", 64)?;
    Ok(std::thread::spawn(move || {
        let mut last = 0;
        loop {
            match subscription.next_notice() {
                Notice::Events(events) => {
                    for event in &events {
                        println!("commit {}: {} {}", event.commit.sequence, event.kind.name(), event.place);
                    }
                    last = events.last().map_or(last, |event| event.commit.sequence);
                }
                Notice::Lagged { from } => println!("too slow: commits from {from} on are in the feed"),
                _ => return last,
            }
        }
    }))
}

fn main() -> larder::Result<()> {
    let larder = Options::new().open_in_memory()?;
    let ana = larder.session("ana")?;
    ana.put("menus/monday.txt", "beans")?; // before anybody watched

    let watcher = watch(&larder)?;
    ana.put("menus/friday.txt", "leek soup")?;
    ana.put("stock/leeks.txt", "12")?; // elsewhere
    ana.rename("menus/friday.txt", "menus/saturday.txt")?;

    // Whoever remembers a commit can go on from there.
    let missed = ana.feed_since(0, 100)?;
    println!("the feed has {} events since the beginning", missed.len());
    larder.close()?; // ends the watcher too
    let last = watcher.join().map_err(|_| larder::Error::abort("the watcher panicked"))?;
    println!("the watcher saw everything up to commit {last}");
    Ok(())
}
