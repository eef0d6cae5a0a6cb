//! The first ten lines, and what they print.

#![allow(clippy::print_stdout, reason = "examples show what they do")]

use larder::{Edit, Larder, Outcome, TagPolicy};

fn main() -> larder::Result<()> {
    let folder = std::env::temp_dir().join(format!("larder-quick-start-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(larder::Error::abort)?;
    let path = folder.join("pantry.larder");

    let larder = Larder::open(&path)?; // made if it is not there
    let ana = larder.session("ana")?; // a principal

    ana.put("menus/friday.json", br#"{"soup":"leek"}"#)?; // on disk when this returns
    let dish = ana.get("menus/friday.json")?;
    println!("{}, {} bytes", dish.record().media_type(), dish.bytes()?.len());

    // A transaction is a closure; what it returns is what you get.
    let receipt = ana.write(|txn| {
        let stock = txn.put("stock/leeks.txt", "12")?;
        txn.put("log/1.txt", "twelve leeks came in")?;
        Ok(stock.generation)
    })?;
    println!("generation {} in commit {}", receipt.value, receipt.commit.sequence);

    // Outcomes are values.
    match ana.apply(Edit::put("stock/leeks.txt", "10").if_generation(7))?.value {
        Outcome::Refused(refusal) => println!("refused: expected {}", refusal.expected),
        other => println!("{other:?}"),
    }

    ana.tag("menus/friday.json", ["soup", "vegetarian"], TagPolicy::Union)?;
    for (key, record) in ana.find_by_tag("soup")? {
        println!("{key}: {:?}", record.tags().collect::<Vec<_>>());
    }
    for entry in ana.list("")? {
        println!("{}{}", entry.name(), if entry.is_directory() { "/" } else { "" });
    }
    larder.close()?;
    std::fs::remove_dir_all(&folder).map_err(larder::Error::abort)
}
