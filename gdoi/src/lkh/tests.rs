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
        updates.as_slice().iter().map(|update| (update.node, update.keys.len())).collect();
    assert_eq!(shape, [(2, 1), (7, 2), (12, 3)]);
    assert!(updates.as_slice().iter().all(|update| update.keys.last().unwrap().node == 1));
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
    let export = |tree: &KeyTree, nodes: &[u16]| -> Vec<Secret> {
        nodes.iter().filter_map(|node| tree.export(*node)).collect()
    };
    let import = |bits, capacity, stored: &[Secret]| {
        KeyTree::import(3, Some(bits), capacity, stored.iter().map(Secret::expose))
    };
    let nodes: Vec<u16> = tree.nodes().collect();
    let mut stored = export(&tree, &nodes);
    let again = import(128, 8, &stored).unwrap();
    assert_eq!(
        (again.members(), again.kek(), again.download(leaf)),
        (tree.members(), tree.kek(), tree.download(leaf))
    );
    for missing in 0..stored.len() {
        let mut rest = export(&tree, &nodes);
        rest.remove(missing);
        // Without its leaf a member is not in the tree; every other key leads somebody on.
        let is_leaf = usize::from(nodes[missing]) >= 8;
        assert_eq!(import(128, 8, &rest).is_ok(), is_leaf);
    }
    let last = stored.pop().unwrap();
    for cut in 0..last.len() {
        stored.push(Secret::copy_from(&last.expose()[..cut]));
        assert_eq!(import(128, 8, &stored).unwrap_err(), TreeError::Damaged);
        stored.pop();
    }
    stored.push(last);
    assert_eq!(import(256, 8, &stored).unwrap_err(), TreeError::Damaged);
    assert_eq!(import(128, 2, &stored).unwrap_err(), TreeError::Damaged);
}

#[test]
fn a_stored_tree_follows_by_the_nodes_that_have_changed() {
    let mut tree = KeyTree::new(3, Some(128), 64, &mut rng()).unwrap();
    let mut stored: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    assert_eq!(tree.unsaved(), None, "a new one as a whole");
    let save = |tree: &mut KeyTree, stored: &mut BTreeMap<u16, Vec<u8>>| {
        let nodes = tree.unsaved().cloned().unwrap_or_else(|| tree.nodes().collect());
        for node in &nodes {
            match tree.export(*node) {
                Some(octets) => _ = stored.insert(*node, octets.expose().to_vec()),
                None => _ = stored.remove(node),
            }
        }
        tree.saved();
        nodes.len()
    };
    save(&mut tree, &mut stored);
    let mut leaves = Vec::new();
    for round in 0..40 {
        leaves.push(tree.join(&mut rng()).unwrap());
        assert!(save(&mut tree, &mut stored) <= 7, "a leaf and the way to the root at most");
        if round % 5 == 4 {
            tree.remove(&[leaves.remove(0), leaves.remove(1)], &mut rng()).unwrap();
            save(&mut tree, &mut stored);
        }
        if round % 7 == 6 {
            tree.release(leaves.remove(2));
            save(&mut tree, &mut stored);
        }
        let nodes = stored.values().map(Vec::as_slice);
        let again = KeyTree::import(3, Some(128), 64, nodes).unwrap();
        assert_eq!((again.members(), again.kek()), (tree.members(), tree.kek()));
        for leaf in &leaves {
            assert_eq!(again.download(*leaf), tree.download(*leaf));
        }
    }
}

/// Somebody with every key that it ever held, and every update array that was ever sent.
struct Attacker {
    encryption: Phase1Encryption,
    keys: BTreeSet<Vec<u8>>,
}

impl Attacker {
    fn new(path: &KeyPath) -> Self {
        let keys = path.keys.values().map(|key| key.data.expose().to_vec());
        Self { encryption: path.encryption, keys: keys.collect() }
    }

    /// Tries every key on every element of every array, and keeps what is a key of `tree`. Returns
    /// the nodes whose keys came out.
    fn try_all(&mut self, arrays: &[LkhUpdate], tree: &KeyTree) -> BTreeSet<u16> {
        let mut found = BTreeSet::new();
        loop {
            let known = self.keys.len();
            for element in arrays.iter().flat_map(|array| &array.keys) {
                let secret = &tree.keys[&element.node].data;
                let opens = self.keys.iter().any(|key| {
                    let kek = Kek::with(self.encryption, &Secret::copy_from(key)).unwrap();
                    kek.decrypt(element.data.expose())
                        .is_ok_and(|data| Secret::copy_from(&data) == *secret)
                });
                if opens {
                    found.insert(element.node);
                    self.keys.insert(secret.expose().to_vec());
                }
            }
            if self.keys.len() == known {
                return found;
            }
        }
    }
}

/// What the property below calls a breach is one: a member that stays finds the new keys with the
/// same search, and so does one that was taken out of the member list alone.
#[test]
fn the_search_of_an_attacker_finds_what_there_is() {
    let mut rng = rng();
    let mut tree = KeyTree::new(3, Some(128), 8, &mut rng).unwrap();
    let leaves: Vec<u16> = (0..4).map(|_| tree.join(&mut rng).unwrap()).collect();
    let mut stays = Attacker::new(&member(&tree, leaves[0]));
    let mut removed = Attacker::new(&member(&tree, leaves[1]));
    let updates = tree.remove(&leaves[1..2], &mut rng).unwrap();
    assert_eq!(stays.try_all(updates.as_slice(), &tree), [1, 2, 4].into());
    assert_eq!(removed.try_all(updates.as_slice(), &tree), [].into());
    let mut forgotten = Attacker::new(&member(&tree, leaves[2]));
    tree.members.remove(&leaves[2]);
    let updates = tree.refresh(&mut rng).unwrap();
    assert!(forgotten.try_all(updates.as_slice(), &tree).contains(&1));
}

#[test]
fn a_tree_without_members_leads_nobody() {
    let mut tree = KeyTree::new(3, Some(128), 8, &mut rng()).unwrap();
    assert_eq!(tree.refresh(&mut rng()).unwrap_err(), TreeError::Deserted);
    let leaf = tree.join(&mut rng()).unwrap();
    let root = tree.kek().unwrap().duplicate();
    assert_eq!(tree.remove(&[leaf], &mut rng()).unwrap_err(), TreeError::Deserted);
    assert_eq!((tree.kek().unwrap(), tree.members().len()), (&root, 1), "nothing has changed");
    assert!(!tree.refresh(&mut rng()).unwrap().as_slice().is_empty());
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
        let mut outside: Vec<Attacker> = Vec::new();
        let mut sent: Vec<LkhUpdate> = Vec::new();
        for (action, which) in steps {
            let result = match action {
                0 | 1 => {
                    if let Ok(leaf) = tree.join(&mut rng) {
                        inside.push((leaf, member(&tree, leaf)));
                    }
                    continue;
                }
                2 if !inside.is_empty() => {
                    let count = (1 + usize::from(which % 3)).min(inside.len());
                    let mut leaves = Vec::new();
                    let mut removed = Vec::new();
                    for _ in 0..count {
                        let (leaf, path) = inside.remove(usize::from(which) % inside.len());
                        leaves.push(leaf);
                        removed.push((leaf, path));
                    }
                    let result = tree.remove(&leaves, &mut rng);
                    match &result {
                        Ok(_) => outside.extend(removed.iter().map(|(_, path)| Attacker::new(path))),
                        // The last ones cannot be removed by the tree: they are all in it still.
                        Err(_) => inside = removed,
                    }
                    result
                }
                _ => tree.refresh(&mut rng),
            };
            let updates = match result {
                Ok(updates) => updates,
                Err(error) => {
                    prop_assert_eq!(error, TreeError::Deserted);
                    continue;
                }
            };
            prop_assert!(!updates.as_slice().is_empty());
            let kek = tree.kek().unwrap();
            for (leaf, path) in &mut inside {
                let update = path.open(updates.as_slice()).unwrap();
                prop_assert_eq!(update.root().unwrap(), kek);
                path.accept(update);
                prop_assert_eq!(path.leaf_key(), tree.leaf_key(*leaf));
                prop_assert!(path.keys.iter().all(|(node, key)| tree.keys[node].data == key.data));
            }
            // Only elements whose key is in use still can be told apart from noise.
            sent.extend(updates.into_vec());
            for array in &mut sent {
                array.keys.retain(|key| {
                    tree.keys.get(&key.node).is_some_and(|now| now.handle == key.handle)
                });
            }
            for attacker in &mut outside {
                prop_assert_eq!(attacker.try_all(&sent, &tree), BTreeSet::new());
            }
        }
    }
}

#[test]
fn a_leaf_that_is_free_again_is_given_again() {
    let mut tree = KeyTree::new(3, Some(128), 8, &mut rng()).unwrap();
    let leaves: Vec<u16> = (0..8).map(|_| tree.join(&mut rng()).unwrap()).collect();
    assert_eq!(leaves, [8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!(tree.join(&mut rng()).unwrap_err(), TreeError::Full(8));
    tree.remove(&[13, 10], &mut rng()).unwrap();
    tree.release(9);
    let again: Vec<u16> = (0..3).map(|_| tree.join(&mut rng()).unwrap()).collect();
    assert_eq!(again, [9, 10, 13]);
    assert_eq!(tree.join(&mut rng()).unwrap_err(), TreeError::Full(8));
}

/// The part of a tree that another server has, and what it knows about its leaves.
fn part_of(tree: &KeyTree, blocks: &BTreeSet<u16>, spare: BTreeSet<u16>) -> KeyTree {
    let octets: Vec<Secret> =
        tree.part(blocks).into_iter().filter_map(|node| tree.export(node)).collect();
    let mut part = KeyTree::import(3, Some(128), 64, octets.iter().map(Secret::expose)).unwrap();
    part.set_spare(spare);
    part
}

#[test]
fn leaves_of_a_block_are_given_by_another_server() {
    let mut rng = rng();
    let mut tree = KeyTree::new(3, Some(128), 64, &mut rng).unwrap();
    let own = tree.join(&mut rng).unwrap();
    let (one, two) = (tree.grant(&mut rng).unwrap(), tree.grant(&mut rng).unwrap());
    assert_eq!((own, one, two, tree.block_size()), (64, 31, 30, 4));
    let leaves: BTreeSet<u16> = (124..128).collect();
    let mut part = part_of(&tree, &[one].into(), leaves.clone());
    assert_eq!(part.leaves().collect::<BTreeSet<_>>(), leaves);
    let members: Vec<(u16, KeyPath)> = (0..4)
        .map(|_| {
            let leaf = part.join(&mut rng).unwrap();
            (leaf, member(&part, leaf))
        })
        .collect();
    assert_eq!(part.join(&mut rng), Err(TreeError::Full(64)));
    assert!(members.iter().all(|(leaf, path)| path.leaf_key() == tree.leaf_key(*leaf)));
    let at_root = member(&tree, own);
    // One of the other server's members goes.
    let before = tree.handle(members[1].0);
    let updates = tree.remove(&[members[1].0], &mut rng).unwrap();
    for (leaf, path) in members.iter().chain([&(own, at_root)]) {
        match path.open(updates.as_slice()) {
            Ok(update) => assert_eq!(update.root(), tree.kek()),
            Err(error) => assert_eq!((*leaf, error), (members[1].0, KekUnusable::Excluded)),
        }
    }
    assert_ne!(tree.handle(members[1].0), before, "the leaf is there again with another key");
    let mut part = part_of(&tree, &[one].into(), [members[1].0].into());
    assert_eq!(part.join(&mut rng), Ok(members[1].0));
    // Our own members' leaves are in no block.
    let all: Vec<u16> = std::iter::from_fn(|| tree.join(&mut rng).ok()).collect();
    assert_eq!(all.len(), 64 - 8 - 1);
    assert_eq!(tree.grant(&mut rng), None);
}

#[test]
fn a_block_that_is_taken_out_as_a_whole_is_there_again() {
    let mut rng = rng();
    let mut tree = KeyTree::new(3, Some(128), 64, &mut rng).unwrap();
    tree.join(&mut rng).unwrap();
    let block = tree.grant(&mut rng).unwrap();
    let before = part_of(&tree, &[block].into(), BTreeSet::new());
    tree.remove(&[124, 125, 126, 127], &mut rng).unwrap();
    let after = part_of(&tree, &[block].into(), BTreeSet::new());
    assert!(before.nodes().eq(after.nodes()));
    assert!(before.nodes().all(|node| before.handle(node) != after.handle(node)));
}
