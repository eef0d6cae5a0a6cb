//! Tests that need a process of their own: the test binary starts itself again, and asks the system about itself.

use std::ffi::OsStr;
use std::process::Command;

/// Runs the test `child` of this test binary in a process of its own, which finds what to do in a variable.
pub fn child(variable: &str, value: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this binary"));
    command.args(["--exact", "child", "--nocapture"]).env(variable, value);
    command
}

/// A figure of this process as Linux tells it, in KiB: `VmHWM` is the most memory that it had, `VmSize` its address space.
#[cfg(target_os = "linux")]
pub fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells of processes");
    let figure = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = figure.and_then(|figure| figure.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or_else(|| panic!("no {name} in {status}"))
}
