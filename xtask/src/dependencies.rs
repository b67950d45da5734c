//! The direction of the dependencies between the crates, and what the pure crates must not pull in.

use crate::command;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;

/// The workspace's crates and what each may depend on, directly, among them.
const ALLOWED: &[(&str, &[&str])] = &[
    ("ike", &[]),
    ("gdoi", &["ike"]),
    ("cluster", &["ike"]),
    ("xfrm", &[]),
    ("control", &[]),
    ("gdoictl", &["control"]),
    ("policies", &["gdoi", "ike", "xfrm"]),
    ("daemon", &["gdoi", "ike"]),
    ("agent", &["control", "daemon", "gdoi", "ike", "policies", "xfrm"]),
    ("gcks", &["cluster", "control", "daemon", "gdoi", "ike"]),
    ("testing", &["agent", "daemon", "gdoi", "ike", "policies", "xfrm"]),
    ("integration", &["agent", "daemon", "gdoi", "ike", "testing", "xfrm"]),
    ("xtask", &[]),
];

/// Crates without I/O, clock, threads and randomness of their own, and the one of their dependencies
/// that is not looked at: `policies` uses the model of `xfrm`, and its clippy.toml bans the netlink.
const PURE: &[(&str, Option<&str>)] =
    &[("ike", None), ("gdoi", None), ("cluster", None), ("policies", Some("xfrm"))];

/// Crates that bring I/O, a clock, threads or the operating system's randomness.
const IMPURE: &[&str] =
    &["async-std", "getrandom", "mio", "nix", "rand", "rustix", "smol", "socket2", "tokio"];

/// Checks every arrow; the answer is one line for the reader.
///
/// # Errors
/// Names the arrows that point the wrong way.
pub(crate) fn check() -> Result<String> {
    let mut wrong = Vec::new();
    for (name, allowed) in ALLOWED {
        let direct = packages_of(name, &["--depth", "1"])?;
        for (other, _) in ALLOWED {
            if other != name && direct.contains(*other) && !allowed.contains(other) {
                wrong.push(format!("{name} must not depend on {other}"));
            }
        }
    }
    for (pure, aside) in PURE {
        let prune: Vec<&str> = aside.iter().flat_map(|name| ["--prune", *name]).collect();
        let everything = packages_of(pure, &prune)?;
        for name in IMPURE {
            if everything.contains(*name) {
                wrong.push(format!(
                    "{pure} must stay free of I/O and randomness, but pulls in {name}"
                ));
            }
        }
    }
    for member in members()? {
        if !ALLOWED.iter().any(|(name, _)| *name == member) {
            wrong.push(format!(
                "{member} is new: say in xtask/src/dependencies.rs what it may depend on"
            ));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(format!("dependencies: the arrows between {} crates point the right way", ALLOWED.len()))
}

/// Names of the packages in a crate's tree, itself included.
fn packages_of(name: &str, more: &[&str]) -> Result<BTreeSet<String>> {
    let mut arguments = vec![
        "tree",
        "--all-features",
        "--package",
        name,
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    arguments.extend(more);
    let output = command::cargo(&arguments).output().context("cannot start cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

/// The members as the workspace's manifest lists them.
fn members() -> Result<Vec<String>> {
    let manifest = std::fs::read_to_string(command::workspace().join("Cargo.toml"))?;
    let line = manifest
        .lines()
        .find(|line| line.starts_with("members"))
        .context("no members in Cargo.toml")?;
    Ok(line.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn arrows_point_the_right_way() {
        super::check().unwrap();
    }

    #[test]
    fn a_tree_lists_the_crate_and_its_dependencies() {
        let packages = super::packages_of("policies", &["--depth", "1"]).unwrap();
        assert!(
            packages.contains("policies") && packages.contains("gdoi") && packages.contains("xfrm")
        );
    }
}
