//! Trees against members that know only what they were sent.

use proptest::prelude::*;

use super::*;

fn rng() -> SeededRng {
    SeededRng::from_seed([5; 32])
}

fn member(tree: &KeyTree, leaf: u16) -> KeyPath {
    KeyPath::new(tree.algorithm.into(), Some(128), &tree.download(leaf).unwrap()).unwrap().unwrap()
}

#[test]
fn a_download_goes_from_leaf_to_root() {
    let mut tree = KeyTree::new(3, Some(128), 8, &mut rng()).unwrap();
    let leaf = tree.join(&mut rng()).unwrap();
    let download = tree.download(leaf).unwrap();
    assert_eq!(download.keys.iter().map(|key| key.node).collect::<Vec<_>>(), [8, 4, 2, 1]);
    assert_eq!(&download.keys[3].data, tree.kek().unwrap());
    assert_eq!(tree.leaf_key(leaf).unwrap().expose(), &download.keys[0].data.expose()[16..]);
    assert_eq!(member(&tree, leaf).leaf_key(), tree.leaf_key(leaf));
    assert_eq!(tree.download(leaf + 1), None);
}

#[test]
fn a_removal_costs_what_the_depth_costs() {
    let mut tree = KeyTree::new(3, Some(256), 8, &mut rng()).unwrap();
    let leaves: Vec<u16> = (0..8).map(|_| tree.join(&mut rng()).unwrap()).collect();
    assert_eq!(tree.join(&mut rng()), Err(TreeError::Full(8)));
    let updates = tree.remove(&leaves[5..6], &mut rng()).unwrap();
    let shape: Vec<(u16, usize)> =
        updates.iter().map(|update| (update.node, update.keys.len())).collect();
    assert_eq!(shape, [(2, 1), (7, 2), (12, 3)]);
    assert!(updates.iter().all(|update| update.keys.last().unwrap().node == 1));
}

#[test]
fn ciphers_without_whole_blocks_and_trees_too_large() {
    assert_eq!(
        KeyTree::new(3, Some(192), 8, &mut rng()).unwrap_err(),
        TreeError::Kek(KekUnusable::Hierarchy(24))
    );
    assert!(matches!(
        KeyTree::new(3, None, 8, &mut rng()),
        Err(TreeError::Kek(KekUnusable::Cipher { .. }))
    ));
    assert_eq!(
        KeyTree::new(3, Some(128), 32_769, &mut rng()).unwrap_err(),
        TreeError::TooLarge(32_769)
    );
    let mut largest = KeyTree::new(3, Some(128), 32_768, &mut rng()).unwrap();
    largest.members.extend(32_768..u16::MAX);
    assert_eq!(largest.join(&mut rng()), Ok(u16::MAX));
    assert!(largest.is_occupied(1) && largest.is_occupied(3));
}

#[test]
fn a_tree_survives_its_stored_form() {
    let mut tree = KeyTree::new(3, Some(128), 8, &mut rng()).unwrap();
    let leaf = tree.join(&mut rng()).unwrap();
    tree.join(&mut rng()).unwrap();
    let stored = tree.export().unwrap();
    let again = KeyTree::import(3, Some(128), 8, &stored).unwrap();
    assert_eq!(
        (again.members(), again.kek(), again.download(leaf)),
        (tree.members(), tree.kek(), tree.download(leaf))
    );
    for cut in 0..stored.len() {
        let cut = Secret::copy_from(&stored.expose()[..cut]);
        assert_eq!(KeyTree::import(3, Some(128), 8, &cut).unwrap_err(), TreeError::Damaged);
    }
    assert_eq!(KeyTree::import(3, Some(256), 8, &stored).unwrap_err(), TreeError::Damaged);
    assert_eq!(KeyTree::import(3, Some(128), 2, &stored).unwrap_err(), TreeError::Damaged);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever the order of joins and removals: who is in follows to every new KEK, who is out
    /// follows to none, even with everything it ever held and every update ever sent.
    #[test]
    fn who_is_in_follows_and_who_is_out_does_not(steps in prop::collection::vec((0..4_u8, any::<u16>()), 1..40)) {
        let mut rng = rng();
        let mut tree = KeyTree::new(3, Some(128), 16, &mut rng).unwrap();
        let mut inside: Vec<(u16, KeyPath)> = Vec::new();
        let mut outside: Vec<KeyPath> = Vec::new();
        for (action, which) in steps {
            let updates = match action {
                0 | 1 => {
                    if let Ok(leaf) = tree.join(&mut rng) {
                        inside.push((leaf, member(&tree, leaf)));
                    }
                    continue;
                }
                2 if !inside.is_empty() => {
                    let count = 1 + usize::from(which % 3);
                    let mut leaves = Vec::new();
                    for _ in 0..count.min(inside.len()) {
                        let (leaf, path) = inside.remove(usize::from(which) % inside.len());
                        leaves.push(leaf);
                        outside.push(path);
                    }
                    tree.remove(&leaves, &mut rng).unwrap()
                }
                _ => tree.refresh(&mut rng).unwrap(),
            };
            let kek = tree.kek().unwrap();
            for (leaf, path) in &mut inside {
                let update = path.open(&updates).unwrap();
                prop_assert_eq!(update.root().unwrap(), kek);
                path.accept(update);
                prop_assert_eq!(path.leaf_key(), tree.leaf_key(*leaf));
                prop_assert!(path.keys.iter().all(|(node, key)| tree.keys[node].data == key.data));
            }
            for path in &outside {
                prop_assert_eq!(path.open(&updates).unwrap_err(), KekUnusable::Excluded);
                // Not by its handle alone: no key it holds opens any array.
                for update in &updates {
                    for held in path.keys.values() {
                        let first = Kek::with(path.encryption, &held.data).unwrap();
                        let data = first.decrypt(update.keys[0].data.expose()).unwrap();
                        prop_assert_ne!(&tree.keys[&update.keys[0].node].data, &Secret::copy_from(&data));
                    }
                }
            }
        }
    }
}
