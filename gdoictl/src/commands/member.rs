//! `show member`: each group at a glance.

use control::MemberSnapshot;
use control::member::{KekSa, MemberGroup, MembershipState, PassedOver};

use crate::format::{Fields, counts, duration, or_dash};

pub(super) fn text(snapshot: &MemberSnapshot) -> String {
    let mut fields = Fields::default();
    let drops = snapshot.guard_drops;
    fields
        .add("Version", &snapshot.program_version)
        .add("Running for", duration(snapshot.uptime_seconds))
        .add("Clear packets dropped", format!("{} packets, {} octets", drops.packets, drops.octets))
        .add("Kernel repairs", snapshot.repairs)
        .add("Discards", counts(&snapshot.discards));
    for problem in &snapshot.problems {
        fields.add("Problem", problem);
    }
    let mut text = fields.render(0);
    for group in &snapshot.groups {
        text.push('\n');
        text.push_str(&self::group(group));
    }
    text
}

fn group(group: &MemberGroup) -> String {
    let mut fields = Fields::default();
    fields.add("State", state(group));
    fields.add("Local address", or_dash(group.local));
    fields.add("Key server", or_dash(group.server));
    if let Some(trying) = group.trying {
        fields.add("Trying", trying);
    }
    let servers: Vec<String> = group.servers.iter().map(ToString::to_string).collect();
    fields.add("Configured", servers.join(", "));
    fields.add(
        "Next registration",
        or_dash(group.next_registration_seconds.map(|left| format!("in {}", duration(left)))),
    );
    list(&mut fields, "Passed over", &group.passed_over);
    list(&mut fields, "History", &group.history);
    if let Some(sa) = &group.kek {
        kek(&mut fields, sa);
    }
    let used = group.teks.iter().filter(|tek| tek.sends).map(|tek| format!("{:#010x}", tek.spi));
    let used: Vec<String> = used.collect();
    fields.add("Sending SPI", if used.is_empty() { "-".to_owned() } else { used.join(", ") });
    let counters = &group.counters;
    fields.add(
        "Pulls",
        format!(
            "{} succeeded, {} failed, {} timed out, {} aborted",
            counters.pulls_succeeded,
            counters.pulls_failed,
            counters.pulls_timed_out,
            counters.pulls_aborted
        ),
    );
    fields.add(
        "Pushes",
        format!("{} accepted, {} unusable", counters.pushes_accepted, counters.pushes_unusable),
    );
    let milliseconds = |micro: u64| format!("{}.{} ms", micro / 1000, micro % 1000 / 100);
    let times =
        [counters.push_to_kernel_microseconds, counters.push_to_kernel_longest_microseconds];
    let [last, longest] = times.map(milliseconds);
    fields.add(
        "Push to kernel",
        or_dash((times[0] > 0).then(|| format!("last {last}, longest {longest}"))),
    );
    fields.add("Acknowledgements", counters.acknowledgements_sent);
    fields.add("Pushes discarded", counts(&group.push_discards));
    fields.add("Attempts", counters.attempts);
    fields.add("Server failovers", counters.failovers);
    fields.add("Key expirations", counters.expirations);
    fields.add("Discards", counts(&group.discards));
    format!("Group {} ({})\n{}", crate::format::clean(&group.name), group.id, fields.render(2))
}

pub(super) fn kek(fields: &mut Fields, sa: &KekSa) {
    fields.add("KEK SPI", &sa.spi);
    fields.add("KEK algorithms", format!("{}, {}", sa.encryption, sa.signature));
    fields.add("KEK lifetime left", duration(sa.lifetime_left_seconds));
    fields.add("Pushes go to", or_dash(sa.destination));
    fields.add("Last sequence number", sa.sequence_number);
    fields.add("Acknowledgement", or_dash(sa.acknowledgement.as_ref()));
    let encoding: Vec<&str> =
        sa.signature_form.iter().chain(&sa.signed_length).map(String::as_str).collect();
    fields.add(
        "Signature encoding",
        if encoding.is_empty() { "-".to_owned() } else { encoding.join(", ") },
    );
}

fn list(fields: &mut Fields, name: &str, passed: &[PassedOver]) {
    for (index, passed) in passed.iter().enumerate() {
        let line = format!(
            "{} {} ago: {}: {}",
            passed.server,
            duration(passed.seconds_ago),
            passed.reason,
            passed.detail
        );
        fields.add(if index == 0 { name } else { "" }, line);
    }
}

fn state(group: &MemberGroup) -> String {
    let state = match group.state {
        MembershipState::Suspended => "suspended: no local address",
        MembershipState::Registering => "registering",
        MembershipState::Waiting => "waiting: every key server failed",
        MembershipState::Registered => return String::from("registered"),
        MembershipState::CannotSend => {
            return String::from("registered, but nothing can be sent: see Problems");
        }
        MembershipState::ReRegistering => return String::from("registered, asking for new keys"),
        MembershipState::Expired => "expired: no valid key",
    };
    let traffic = if group.open_without_key { "passes in clear" } else { "is blocked" };
    format!("{state}; group traffic {traffic}")
}
