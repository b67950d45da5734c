//! Commands that clear: keys and members of groups, figures, the channels of the cluster.

use ike::BootTime;

use super::KeyServer;
use super::command::CommandError;
use super::statistics::Counters;
use crate::group::key_generation::Entropy;
use crate::group::push::PushError;
use crate::group::push_plan::RekeyRequest;
use crate::group::tek_schedule::Renewal;

impl<E: Entropy> KeyServer<E> {
    /// Replaces the TEKs and the KEK of a group by a push; the old ones go as the group's delays
    /// say. With `at_once`, deletes all keys at the members and forgets the members and their
    /// ISAKMP SAs. Without a name, of all groups that have keys to replace. What was done, as a
    /// line.
    ///
    /// # Errors
    /// There is no such group, it has no pushes or no keys, or no group has.
    pub fn clear(
        &mut self,
        group: Option<&str>,
        at_once: bool,
        now: BootTime,
    ) -> Result<String, CommandError> {
        if let Some(group) = group {
            return self.clear_group(group, at_once, now);
        }
        let names: Vec<String> =
            self.groups.values().map(|group| group.name().to_string()).collect();
        let (mut lines, mut first_error) = (Vec::new(), None);
        for name in names {
            match self.clear_group(&name, at_once, now) {
                Ok(line) => lines.push(line),
                Err(error) => {
                    // A group that nobody has keys of needs nothing.
                    if !matches!(error, CommandError::Push(PushError::NoKeys(_))) {
                        lines.push(error.to_string());
                    }
                    first_error.get_or_insert(error);
                }
            }
        }
        match first_error {
            Some(error) if lines.is_empty() => Err(error),
            _ if lines.is_empty() => Ok(String::from("there is no group")),
            _ => Ok(lines.join("; ")),
        }
    }

    fn clear_group(
        &mut self,
        group: &str,
        at_once: bool,
        now: BootTime,
    ) -> Result<String, CommandError> {
        if at_once {
            return self.remove_all(group, now);
        }
        let id = self.group_named(group)?;
        let (state, mut keys) = self.group_mut(id)?;
        let purpose = "operator: clear";
        let request = RekeyRequest { renewal: Renewal::All, roll: true, delete: false, purpose };
        let pushed = state.push_keys(request, &mut keys, now);
        self.settle(now);
        Ok(format!(
            "new TEKs and KEK for group {group}, the old ones go as its delays say: {}",
            pushed?
        ))
    }

    /// Everything counts from 0 again. What was done, as a line.
    pub fn clear_statistics(&mut self) -> String {
        self.server.clear_statistics();
        self.counters = Counters::default();
        self.groups.values_mut().for_each(crate::group::Group::clear_counters);
        self.cluster.clear_counters();
        String::from("the statistics of the server and its groups count from 0")
    }

    /// Ends the ISAKMP SAs with the other servers and resets the channels. Keys and members stay.
    /// Returns what was done, as a line.
    pub fn clear_cluster(&mut self, now: BootTime) -> String {
        let servers = self.cluster.reconnect(now);
        self.settle(now);
        match servers {
            0 => String::from("this server has no cluster"),
            1 => String::from("the channel to 1 server is reset; keys and members stay"),
            _ => format!("the channels to {servers} servers are reset; keys and members stay"),
        }
    }
}
