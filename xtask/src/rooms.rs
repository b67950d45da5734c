//! The direction of the arrows between the rooms of a crate, its modules.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command;

/// Rooms of a crate from the bottom up: none names one behind it. Rooms that are not listed may
/// name any and be named by any.
const LAYERS: &[(&str, &[&str])] = &[
    ("gdoi", &["group", "wire", "kek_cipher", "lkh", "config", "pull", "push", "server"]),
    ("gcks", &["config", "members", "group", "state", "server", "event_loop"]),
    ("agent", &["config", "persistence", "membership", "member", "show", "event_loop"]),
    ("ike", &["crypto", "wire", "phase1", "quick", "session", "endpoint", "peer"]),
];

/// Checks every arrow; the answer is one line for the reader.
///
/// # Errors
/// Names the files with an arrow that points upwards.
pub(crate) fn check() -> Result<String> {
    let mut wrong = Vec::new();
    for (name, layers) in LAYERS {
        let source = command::workspace().join(name).join("src");
        for (place, room) in layers.iter().enumerate() {
            let above = layers.get(place + 1..).unwrap_or_default();
            let file = source.join(room).with_extension("rs");
            let mut files = Vec::new();
            collect(&source.join(room), &mut files)?;
            files.extend(file.exists().then_some(file));
            if files.is_empty() {
                bail!("{name} has no room {room} any more: mend xtask/src/rooms.rs");
            }
            for file in files {
                let text = std::fs::read_to_string(&file)?;
                for upper in named(&text, above) {
                    wrong.push(format!("{} must not name {upper}", file.display()));
                }
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(format!("rooms: the arrows within {} crates point downwards", LAYERS.len()))
}

/// Source files below `folder`, tests apart: those may look from above.
fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default();
        if stem == "tests" || stem == "testing" {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Which of `rooms` code outside its tests and comments names by `crate::`.
fn named<'r>(text: &str, rooms: &[&'r str]) -> Vec<&'r str> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.flat_map(|line| [line, "\n"]).collect();
    let starts = |rest: &str, room: &str| {
        rest.strip_prefix(room).is_some_and(|behind| {
            !behind.starts_with(|next: char| next.is_alphanumeric() || next == '_')
        })
    };
    let is_named = |room: &&&str| {
        code.split("crate::").skip(1).any(|rest| match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split(';').next().unwrap_or_default();
                list.split([',', '{']).any(|one| starts(one.trim_start(), room))
            }
            None => starts(rest, room),
        })
    };
    rooms.iter().filter(is_named).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn arrows_point_downwards() {
        super::check().unwrap();
    }

    #[test]
    fn an_arrow_is_found_however_it_is_written() {
        let rooms = &["member", "server"];
        assert_eq!(named("use crate::server::Event;\n", rooms), ["server"]);
        assert_eq!(named("fn one() -> crate::member::Member {}\n", rooms), ["member"]);
        assert_eq!(named("use crate::{config, server};\n", rooms), ["server"]);
        assert_eq!(
            named("use crate::{\n    config::Group,\n    member::Member,\n};\n", rooms),
            ["member"]
        );
        assert!(
            named("use crate::membership::Event;\nuse crate::{members, servers};\n", rooms)
                .is_empty()
        );
        assert!(named("//! See [`crate::server`].\nlet member = 1;\n", rooms).is_empty());
        assert!(named("#[cfg(test)]\nmod tests {\n    use crate::server;\n}\n", rooms).is_empty());
    }
}
