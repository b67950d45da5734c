//! Nodes of a tree, numbered as in a heap.

/// The nodes above `node`, root last.
pub(super) fn ancestors(node: u16) -> impl Iterator<Item = u16> {
    core::iter::successors(Some(node >> 1), |node| Some(node >> 1)).take_while(|node| *node != 0)
}

pub(super) fn children(node: u16) -> impl Iterator<Item = u16> {
    let left = node.checked_mul(2);
    left.into_iter().chain(left.and_then(|left| left.checked_add(1)))
}

/// The nodes so many levels below `node`.
pub(super) fn below(node: u16, levels: u32) -> impl Iterator<Item = u16> {
    let first = u32::from(node).checked_shl(levels).unwrap_or(u32::MAX);
    let end = first.saturating_add(1_u32.checked_shl(levels).unwrap_or(0));
    (first..end).filter_map(|node| u16::try_from(node).ok())
}
