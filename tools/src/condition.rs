//! How a store is, and where it lies: `health`, `doctor`.

use std::path::Path;

use larder::{Larder, Options};
use serde_json::{Value, json};

use crate::Context;
use crate::output::{Done, Failure, number, shown, size, time};

fn health_of(larder: &Larder) -> Result<Value, Failure> {
    serde_json::to_value(larder.health()).map_err(|error| Failure::Other(error.to_string()))
}

/// A store that nobody has open is looked at, and not changed.
pub(crate) fn health(context: &Context, file: &Path) -> Done {
    let (larder, _) = context.look(file)?;
    let (health, value) = (larder.health(), health_of(&larder)?);
    let is_well = health.open && !health.space.is_full && health.claims_overdue == 0;
    context.output.line(
        || {
            let mut lines = vec![
                format!(
                    "  last commit       {}, {}",
                    number(health.last_commit),
                    time(health.last_commit_time)
                ),
                format!(
                    "  file              {}, {} of it used",
                    size(health.space.file_bytes),
                    size(health.space.used_bytes)
                ),
                format!("  payloads          {}", size(health.space.payload_bytes)),
                format!(
                    "  rules             version {}, default {}",
                    health.rules_version, health.rules_default
                ),
                format!(
                    "  overdue           {} expiries, {} claims",
                    health.expiries_overdue, health.claims_overdue
                ),
            ];
            if let Some(room) = health.space.room_bytes {
                lines.push(format!("  room              {}", size(room)));
            }
            if let Some(error) = &health.last_error {
                lines.push(format!("  last error        {}", shown(error)));
            }
            lines.join("\n")
        },
        || value,
    )?;
    Ok(u8::from(!is_well))
}

/// File systems that were tested, and those that are known not to keep their promises to a database.
const TESTED: [&str; 3] = ["ext4", "tmpfs", "overlay"];
const EXPECTED: [&str; 5] = ["xfs", "btrfs", "f2fs", "zfs", "ntfs"];
const REFUSED: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"];

/// A line of what was looked at: whether it is well, what, and what was found.
struct Look {
    is_well: bool,
    what: &'static str,
    found: String,
}

pub(crate) fn doctor(context: &Context, file: &Path) -> Done {
    let mut looks = Vec::new();
    let mut look = |is_well, what, found: String| looks.push(Look { is_well, what, found });
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    look(!has_fast_commit_bug(kernel.trim()), "kernel", kernel.trim().to_owned());
    let path = std::fs::canonicalize(file)?;
    match mount_of(&path) {
        Some((point, kind, options)) => {
            let support = if TESTED.contains(&kind.as_str()) {
                "tested"
            } else if EXPECTED.contains(&kind.as_str()) {
                "expected to work"
            } else if REFUSED.contains(&kind.as_str()) {
                "a network file system: its locks and syncs are not those that a store needs"
            } else {
                "not known"
            };
            look(!REFUSED.contains(&kind.as_str()), "file system", format!("{kind} at {point}: {support}"));
            let weak = ["nobarrier", "barrier=0", "data=writeback", "sync=disabled"];
            let found = weak.into_iter().find(|option| options.split(',').any(|given| given == *option));
            look(
                found.is_none(),
                "mount options",
                found.map_or(options, |weak| format!("{weak}: a sync may not be one")),
            );
        }
        None => look(true, "file system", "it cannot be told here".to_owned()),
    }
    let metadata = path.metadata()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let links = metadata.nlink();
        look(
            links == 1,
            "names",
            format!("the file has {links}; its commit log lies beside one of them only"),
        );
    }
    look(metadata.is_file(), "file", size(metadata.len()));
    let locked = Options::new().open_read_only(&path);
    match &locked {
        Ok(larder) => {
            let health = larder.health();
            look(true, "lock", "nobody has the file open".to_owned());
            let recovery = larder.recovery().map_or("it was closed cleanly".to_owned(), |report| {
                format!(
                    "it was not closed: {} commits are in its log, and are taken at the next open",
                    report.replayed
                )
            });
            look(true, "commit log", recovery);
            let room = health.space.room_bytes;
            look(
                room.is_none_or(|room| room > 16 << 20),
                "room",
                room.map_or("it cannot be told here".to_owned(), size),
            );
        }
        Err(error) => look(false, "store", error.to_string()),
    }
    let is_well = looks.iter().all(|look| look.is_well);
    for look in looks {
        context.output.line(
            || {
                format!(
                    "  {}  {:<14} {}",
                    if look.is_well { "ok" } else { "!!" },
                    look.what,
                    shown(&look.found)
                )
            },
            || json!({"look": look.what, "well": look.is_well, "found": look.found}),
        )?;
    }
    Ok(u8::from(!is_well))
}

/// Tells whether a kernel has the bug of ext4's fast commits that loses what was synced: up to 5.10.93 and 5.15.16.
fn has_fast_commit_bug(release: &str) -> bool {
    let numbers: Vec<u32> =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok()).take(3).collect();
    match numbers.as_slice() {
        [5, 10, patch] => *patch < 94,
        [5, 15, patch] => *patch < 17,
        _ => false,
    }
}

/// Where the file system of a path is mounted, of what kind it is, and with which options.
fn mount_of(path: &Path) -> Option<(String, String, String)> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let lines = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with(point).then(|| (point.to_owned(), kind.to_owned(), options.to_owned()))
    });
    lines.max_by_key(|(point, ..)| point.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_lose_what_was_synced_are_known() {
        let known = [
            ("5.10.93", true),
            ("5.10.94-arch1", false),
            ("5.15.16-generic", true),
            ("6.1.0", false),
            ("", false),
        ];
        for (release, expected) in known {
            assert_eq!(has_fast_commit_bug(release), expected, "{release}");
        }
    }
}
