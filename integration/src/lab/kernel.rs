//! Everything of ours in a member's kernel as text without what differs from run to run, to compare
//! two members or two moments.

use crate::lab::nodes::Node;
use crate::observe::states;
use anyhow::Result;
use std::collections::BTreeSet;

/// States, policies, tables and routes on a node. SPIs, keys, counters and handles are left out;
/// what is listed in no particular order is sorted.
///
/// # Errors
/// When iproute2 or nft refuse.
pub fn picture(node: Node) -> Result<String> {
    let states = node.ip("xfrm state")?;
    let spis: BTreeSet<u32> = states::parse(&states)?.iter().map(|state| state.spi).collect();
    let parts = [
        sorted_blocks(&states::mask(&states)),
        sorted_blocks(&node.ip("xfrm policy")?),
        sorted_tables(&node.run("nft", &["list", "ruleset"])?),
        node.ip("route show table all")?
            .lines()
            .filter(|line| line.starts_with("192.0.2."))
            .collect(),
    ];
    Ok(parts.iter().map(|part| without_numbers(part, &spis)).collect::<Vec<_>>().join("\n"))
}

/// Removes everything of ours and everything else of that kind, as if the machine had just been
/// started.
///
/// # Errors
/// When iproute2 or nft refuse.
pub fn clean(node: Node) -> Result<()> {
    node.ip("xfrm policy flush")?;
    node.ip("xfrm state flush")?;
    node.run("nft", &["flush", "ruleset"])?;
    for line in node.ip("route show table all")?.lines().filter(|line| line.starts_with("192.0.2."))
    {
        let target = line.split_whitespace().next().unwrap_or_default();
        node.ip(&format!("route del {target}"))?;
    }
    Ok(())
}

/// The lines that differ, `-` before those of the first and `+` before those of the second.
pub fn difference(first: &str, second: &str) -> String {
    let only = |one: &str, other: &str, sign: char| -> Vec<String> {
        let known: Vec<&str> = other.lines().collect();
        one.lines()
            .filter(|line| !known.contains(line))
            .map(|line| format!("{sign} {}", line.trim()))
            .collect()
    };
    let mut lines = only(first, second, '-');
    lines.extend(only(second, first, '+'));
    if lines.is_empty() && first != second {
        lines.push(format!(
            "{} lines against {}, the same ones",
            first.lines().count(),
            second.lines().count()
        ));
    }
    lines.join("\n")
}

/// Entries begin at the margin; the lines after that are theirs.
fn sorted_blocks(text: &str) -> String {
    let mut blocks: Vec<String> = Vec::new();
    for line in text.lines() {
        match blocks.last_mut() {
            Some(block) if line.starts_with(char::is_whitespace) => {
                block.push('\n');
                block.push_str(line);
            }
            _ => blocks.push(line.to_owned()),
        }
    }
    blocks.sort();
    blocks.join("\n")
}

/// A table that is made again moves behind the others.
fn sorted_tables(text: &str) -> String {
    let mut tables: Vec<&str> = text.split_inclusive("\n}\n").collect();
    tables.sort_unstable();
    tables.concat()
}

fn without_numbers(text: &str, spis: &BTreeSet<u32>) -> String {
    let mut lines = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.contains("anti-replay context") && !line.contains("expires"))
    {
        let mut words: Vec<String> = Vec::new();
        let mut counter = 0;
        for word in line.split_whitespace() {
            let bare = word.trim_matches([',', '{', '}']);
            let number = match bare.strip_prefix("0x") {
                Some(digits) => {
                    u32::from_str_radix(digits.split('(').next().unwrap_or_default(), 16).ok()
                }
                None => bare.parse().ok(),
            };
            counter = match word {
                "counter" => 5,
                _ if counter > 0 => counter - 1,
                _ => 0,
            };
            match number {
                Some(number) if spis.contains(&number) => words.push("SPI".to_owned()),
                Some(_) if counter > 0 => words.push("N".to_owned()),
                _ => words.push(word.to_owned()),
            }
        }
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_left_out() {
        let spis = BTreeSet::from([0x1300]);
        let line = "ip saddr 10.0.1.1 counter packets 5 bytes 77 drop comment \"x\"";
        assert_eq!(
            without_numbers(line, &spis),
            "ip saddr 10.0.1.1 counter packets N bytes N drop comment \"x\""
        );
        assert_eq!(without_numbers("elements = { 0x00001300, 7 }", &spis), "elements = { SPI 7 }");
        assert_eq!(
            without_numbers("  proto esp spi 0x00001300 reqid 9", &spis),
            "proto esp spi SPI reqid 9"
        );
        assert_eq!(without_numbers("spi 4864(0x1300) anti-replay context: seq 1", &spis), "");
    }

    #[test]
    fn entries_are_sorted_whole_and_differences_named() {
        assert_eq!(sorted_blocks("b\n\t1\na\n\t2\n"), "a\n\t2\nb\n\t1");
        assert_eq!(
            sorted_tables("table b {\n\tx\n}\ntable a {\n}\n"),
            "table a {\n}\ntable b {\n\tx\n}\n"
        );
        assert_eq!(difference("a\nb", "a\nc"), "- b\n+ c");
        assert_eq!(difference("a\nb", "a\nb"), "");
        assert_ne!(difference("a\nb", "a\nb\nb"), "", "an entry twice is a difference");
    }
}
