//! A store that many share: everyone has a drawer, nobody reads another's private one, and every answer can be
//! explained.

#![allow(clippy::print_stdout, reason = "examples show what they do")]

use larder::{DocumentKind, ErrorKind, Options, Right};

const RULES: &str = r#"
default = "deny"
[[rule]]
name = "own drawer"
allow = ["read", "write", "delete", "list"]
who = ["*"]
on = "users/{principal}/**"
[[rule]]
name = "cooks read all menus"
allow = ["read", "list"]
who = ["group:cooks"]
on = "users/*/menus/**"
[[rule]]
name = "nobody reads a private drawer but its owner"
deny = ["read", "list"]
who = ["*"]
except = ["{owner}"]
on = "users/{owner}/private/**"
"#;

fn main() -> larder::Result<()> {
    let larder = Options::new().open_in_memory()?;
    let root = larder.root()?; // the holder of the file: no rule applies
    root.set_document(DocumentKind::Rules, RULES)?;

    let ana = larder.session("ana")?;
    ana.put("users/ana/menus/friday.txt", "leek soup")?;
    ana.put("users/ana/private/diary.txt", "too much salt")?;

    let bob = larder.session("bob")?;
    let refused = bob.get("users/ana/private/diary.txt").map(drop);
    println!("{refused:?}");
    assert!(matches!(refused, Err(error) if matches!(error.kind(), ErrorKind::NotFound)));
    let cook = larder.session("bob")?.in_groups(["cooks"])?;
    println!("{:?}", cook.get("users/ana/menus/friday.txt")?.bytes()?);

    // Lists show only what one may see.
    let names =
        |entries: Vec<larder::Entry>| entries.iter().map(|entry| entry.name().to_owned()).collect::<Vec<_>>();
    println!(
        "ana sees {:?}, the cook sees {:?}",
        names(ana.list("users/ana")?),
        names(cook.list("users/ana")?)
    );

    println!("{}", root.explain("bob", [], Right::READ, "users/ana/private/diary.txt")?);
    for (_, entry) in root.audit(0, 10)? {
        println!("audit: {} may not {} {}", entry.principal, entry.right, entry.place);
    }
    larder.close()
}
