//! A key server whose configuration changes while members hold keys.

use gcks::config::change::Change;
use gcks::group::key_generation::OsEntropy;
use gcks::group::signing_key::SigningKeys;
use gcks::server::KeyServer;

use super::world::*;
use super::*;

/// A key server with members 1 and 2 of group one and 3 of group two, and the text that it was
/// configured with.
pub struct Lab {
    pub world: World,
    pub text: String,
    pub signing: SigningKeys,
    pub keys: tempfile::TempDir,
}

impl Lab {
    pub fn new(tek: &str, tail: &str) -> Self {
        let keys = keys();
        let text = configuration_with(keys.path(), "", "10.0.0", tek, tail);
        // Keys for groups that get pushes later, too.
        let with_pushes = configuration_with(keys.path(), "", "10.0.0", tek, &pushes(""));
        let signing = signing_keys(&parse(&with_pushes));
        let mut world = World::new(KeyServer::new(parse(&text), &signing, [1; 32], OsEntropy));
        for (number, group) in [(1, 1), (2, 1), (3, 2)] {
            world.join(number, group);
        }
        world.run(seconds(5));
        world.sent.clear();
        Self { world, text, signing, keys }
    }

    /// Reads the text again, changed by `change`. Returns what a dry run and what the reload says.
    pub fn change(&mut self, change: impl Fn(&str) -> String) -> (Vec<Change>, Vec<Change>) {
        let text = change(&self.text);
        let planned = self.world.service.plan(&parse(&text), &self.signing);
        let changes = self.world.service.reload(parse(&text), &self.signing, self.world.now);
        self.text = text;
        self.world.settle();
        (planned, changes)
    }

    /// The same, what follows as a line for each change.
    pub fn reload(&mut self, change: impl Fn(&str) -> String) -> Vec<String> {
        let (planned, changes) = self.change(change);
        assert_eq!(changes, planned, "a dry run tells what a reload does");
        changes.iter().map(ToString::to_string).collect()
    }

    pub fn pulls(&self) -> Vec<u64> {
        self.world.nodes.iter().map(|node| node.pulls).collect()
    }

    pub fn pushes(&self) -> usize {
        self.world.sent.iter().filter(|sent| is_push(sent)).count()
    }
}
