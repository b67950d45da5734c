//! Rules that move addresses: those of received ESP to where XFRM looks for its state, and the
//! inner addresses of sent ESP to the outer header (RFC 6407 §5.5.1.1.1).

use core::net::IpAddr;

use super::pairs::layers;
use super::rule::{ESP, Rule};
use super::table::{Elements, Set};
use super::{DROP, DontFragment, GroupPreservation, IP};

/// Name of the set of a group's inbound SPIs.
pub(crate) fn set_name(placeholder: IpAddr) -> String {
    format!("inbound_{placeholder}")
}

fn fragments_name(placeholder: IpAddr, number: usize) -> String {
    format!("fragments_{placeholder}_{number}")
}

/// Rules that give received ESP of a group to XFRM, and the sets that they need.
pub(crate) fn restored(placeholder: IpAddr, group: &GroupPreservation) -> (Vec<Rule>, Vec<Set>) {
    let rule = |comment: &str| Rule::new(IP, IP, comment).protocol(ESP);
    let own = rule("to XFRM").spi_in(&set_name(placeholder));
    let mut rules = vec![own.set_destination(group.local).untracked().counted().accepted()];
    let spis = Elements::Spis(group.inbound_spis.clone());
    let mut sets = vec![Set { name: set_name(placeholder), elements: spis }];
    for (number, pairs) in layers(group.fragments.iter(), IP).into_iter().enumerate() {
        let name = fragments_name(placeholder, number);
        let fragment = rule("later fragments to XFRM").later_fragment().pair_in(&name);
        rules.push(fragment.set_destination(group.local).untracked().counted().accepted());
        sets.push(Set { name, elements: Elements::Pairs(IP, pairs) });
    }
    (rules, sets)
}

/// Rules that put the inner addresses of a group's ESP outside.
pub(crate) fn preserved(placeholder: IpAddr, group: &GroupPreservation) -> [Rule; 2] {
    let ours = |comment: &str| {
        let rule = Rule::new(IP, IP, comment).protocol(ESP).comes_from(group.local);
        rule.goes_to(placeholder)
    };
    let no_addresses = format!("{DROP}no inner addresses for ESP");
    let outside = ours("inner addresses outside").restore_stashed();
    let outside = match group.dont_fragment {
        DontFragment::Set => outside.set_dont_fragment(),
        // `flag nopmtudisc` on the state clears it; without the flag XFRM copies it.
        DontFragment::Clear | DontFragment::Copy => outside,
    };
    [ours(&no_addresses).mark_empty().counted().dropped(), outside.untracked().counted()]
}
