//! ICMP errors: those of the router itself, and what they quote.

use super::{Content, ERRORS, FIRST, OUTPUT, Of, QUOTED, chain};
use crate::nft::excluded::EXCLUDED;
use crate::nft::rule::{ESP, Rule, family};
use crate::nft::table::Chain;
use crate::nft::{DROP, IN_CLEAR, IP};

impl Content<'_> {
    /// ICMP errors that the router itself sends. The kernel asks for their policy before it says
    /// where they leave, so one that goes to a LAN gets an SA. A mark that changes makes it route
    /// and ask again, with the interface; the second change does so without the mark.
    pub(super) fn own_errors(&self) -> [Chain; 2] {
        let rule = |comment: &str| Rule::new(IP, IP, comment).icmp();
        let first = [
            rule("").not_quoting().returned(),
            rule("asked again").goes_into_ours(self.ownership).mark_empty().mark_asked(),
        ];
        let second = [rule("").marked_asked().empty_mark()];
        [
            chain("ask_again", "route", OUTPUT, FIRST + 2, first.into()),
            chain("ask_unmarked", "route", OUTPUT, FIRST + 3, second.into()),
        ]
    }

    /// ICMP errors, by the packet that they quote.
    pub(super) fn quoted(&self) -> Vec<Chain> {
        let plain = |name: &str, rules| Chain { name: name.to_owned(), hook: None, rules };
        let rule = |comment: &str| Rule::new(IP, IP, comment);
        let packets = self.group_packets(IP, IP, Of::Quote, QUOTED);
        let mut errors = self.trusted_exits(IP);
        // Returns to the guard where it is none of the group's, which looks at its own addresses.
        errors.push(rule("").not_quoting().returned());
        errors.extend(self.quoted_of_tunnels());
        errors.extend(packets);
        let mut quoted = vec![rule("ciphertext").quoted_protocol(ESP).accepted()];
        // Of what arrived in clear the quote is no secret.
        let arriving = &self.preservation.exclude_arriving;
        let excluded = self.preservation.exclude.iter().chain(arriving);
        let excluded = excluded.filter(|selector| family(&selector.source) == IP);
        quoted.extend(excluded.map(|one| rule(EXCLUDED).quoted_selected(one).accepted()));
        quoted.push(rule(&format!("{DROP}{QUOTED}{IN_CLEAR}")).counted().dropped());
        let mut chains = vec![plain(QUOTED, quoted), plain(ERRORS, errors)];
        chains.extend(self.group_chain(IP, &[IP], Of::Quote, QUOTED));
        chains
    }
}
