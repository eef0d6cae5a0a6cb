//! A pipeline with a partition for each day: a backfill of what is missing, lineage, and what is to be made again when a
//! source changes.
//!
//! `cargo run -p larder-layers --example daily_pipeline`

#![allow(clippy::print_stdout, reason = "examples show what they do")]

use std::collections::BTreeMap;

use larder::format::Date;
use larder::{Options, Part, Session};
use larder_layers::runs::{Asset, MadeState, Produced, RunState, Runs, RunsError};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let larder = Options::new().open_in_memory()?;
    let session = larder.session("kitchen")?;
    let runs = Runs::at("runs")?;

    // Three days are there. On the fourth day somebody wants two weeks.
    backfill(&session, &runs, "first", 1..=3)?;
    let made = backfill(&session, &runs, "second", 1..=14)?;
    println!("the second backfill made {made:?}");
    assert_eq!(made, BTreeMap::from([("clean", 11), ("orders", 11)]));

    report(&session, &runs, "second")?;
    let view = session.snapshot()?;
    let report_of_weeks = Asset::of("report", Part::Nil)?;
    println!("the report says {:?}", text(&runs, &view, &report_of_weeks)?);
    println!("it was made of {} others", runs.upstream(&view, &report_of_weeks, 100)?.len());

    // An order of the fifth day was wrong.
    let fifth = Asset::of("orders", day(5)?)?;
    drop(view);
    make(&session, &runs, "correction", &fifth, "99 soups", Vec::new())?;
    let view = session.snapshot()?;
    let impact = runs.impact(&view, &fifth, 100)?;
    for below in &impact {
        println!("to be made again: {} ({:?})", below.asset, below.state.map(MadeState::name));
    }
    drop(view);
    for below in impact {
        if below.asset.name() == "clean" {
            clean(&session, &runs, "correction", &below.asset)?;
        } else {
            report(&session, &runs, "correction")?;
        }
    }
    let view = session.snapshot()?;
    println!("the report says {:?}", text(&runs, &view, &report_of_weeks)?);
    assert!(!runs.is_stale(&view, &report_of_weeks)?);
    let (audit, _) = runs.audit(&view, Some("correction"), None, 100)?;
    println!("{} things happened in the correction, all in its audit", audit.len());
    Ok(())
}

fn day(number: u8) -> Result<Part, Box<dyn std::error::Error>> {
    Ok(Date::new(2026, 11, number)?.into())
}

/// Makes what is missing of some days; gives how many of each asset.
fn backfill(
    session: &Session,
    runs: &Runs,
    run: &str,
    days: std::ops::RangeInclusive<u8>,
) -> Result<BTreeMap<&'static str, usize>, Box<dyn std::error::Error>> {
    session.try_write(|txn| runs.set_run(txn, run, RunState::Running))?;
    let days: Vec<Part> = days.map(day).collect::<Result<_, _>>()?;
    let mut made = BTreeMap::new();
    for name in ["orders", "clean"] {
        // All of it from one view: what is made meanwhile does not change what is planned.
        let view = session.snapshot()?;
        for missing in runs.missing(&view, name, days.clone(), false) {
            let missing = missing?;
            match name {
                "orders" => make(session, runs, run, &missing, "7 soups", Vec::new())?,
                _ => clean(session, runs, run, &missing)?,
            }
            *made.entry(name).or_insert(0) += 1;
        }
    }
    session.try_write(|txn| runs.set_run(txn, run, RunState::Succeeded))?;
    Ok(made)
}

/// The value, that it was made, what of, and the audit: one commit.
fn make(
    session: &Session,
    runs: &Runs,
    run: &str,
    asset: &Asset,
    value: &str,
    from: Vec<Asset>,
) -> Result<(), RunsError> {
    let ticket = session.try_write(|txn| runs.start(txn, asset, run))?.value;
    let produced = Produced::new("text", value.to_owned()).from(from);
    let _ = session.try_write(|txn| runs.commit(txn, &ticket, produced))?.value;
    Ok(())
}

fn text(runs: &Runs, view: &larder::ReadTxn, asset: &Asset) -> Result<String, RunsError> {
    let value = runs.value(view, asset)?.map(|(_, value)| value).unwrap_or_default();
    Ok(String::from_utf8_lossy(&value).into_owned())
}

fn clean(session: &Session, runs: &Runs, run: &str, asset: &Asset) -> Result<(), RunsError> {
    let orders = Asset::of("orders", asset.partition().clone())?;
    let raw = text(runs, &session.snapshot()?, &orders)?;
    let count = raw.split(' ').next().unwrap_or("0").to_owned();
    make(session, runs, run, asset, &count, vec![orders])
}

fn report(session: &Session, runs: &Runs, run: &str) -> Result<(), RunsError> {
    let view = session.snapshot()?;
    let (mut sum, mut from) = (0_u64, Vec::new());
    for day in (1..=14).filter_map(|number| Date::new(2026, 11, number).ok()) {
        let part = Asset::of("clean", day)?;
        sum += text(runs, &view, &part)?.parse().unwrap_or(0);
        from.push(part);
    }
    drop(view);
    make(session, runs, run, &Asset::of("report", Part::Nil)?, &format!("{sum} soups in two weeks"), from)
}
