//! Names of options for those that are not told where they stand in the file.

use daemon::configuration::{Declaration as _, Name};

use super::{file, rekey};

/// An option of `[group.rekey]`.
pub fn in_rekey(option: Name) -> Name {
    option.inside(file::Group::rekey().name())
}

macro_rules! names {
    ($($(#[$about:meta])* $name:ident = $option:expr $(, in $table:expr)?;)*) => {$(
        $(#[$about])*
        pub fn $name() -> Name {
            $option.name()$(.inside($table.name()))?
        }
    )*};
}

names! {
    address = file::Member::address();
    cluster = file::Group::cluster();
    cluster_servers = file::File::servers();
    etcd = file::File::etcd();
    gap_activation = file::Gap::activation(), in file::Group::gap();
    gap_deactivation = file::Gap::deactivation(), in file::Group::gap();
    group_id = file::Group::id();
    group_name = file::Group::name();
    groups = file::Member::groups();
    ike = file::File::ike();
    member_byte_order = file::MemberInteroperability::group_id_byte_order(),
        in file::Member::interoperability();
    member_name = file::Member::name();
    member_threshold = file::Group::member_threshold();
    rekey = file::Group::rekey();
    rekey_acknowledgements = rekey::File::acknowledgements(), in file::Group::rekey();
    rekey_encryption = rekey::File::encryption(), in file::Group::rekey();
    rekey_lifetime = rekey::File::lifetime(), in file::Group::rekey();
    rekey_lkh = rekey::File::lkh(), in file::Group::rekey();
    rekey_period = rekey::File::period(), in file::Group::rekey();
    rekey_repetitions = rekey::File::repetitions(), in file::Group::rekey();
    rekey_signature_hash = rekey::File::signature_hash(), in file::Group::rekey();
    sender_id_bits = file::Group::sender_id_bits();
    server_identity = file::File::identity();
    signing_key = rekey::File::signing_key(), in file::Group::rekey();
    signing_key_file = rekey::File::signing_key_file(), in file::Group::rekey();
    state_key = file::File::state_key();
    tek_encryption = file::TekKeys::encryption(), in file::Group::teks();
    tek_integrity = file::TekKeys::integrity(), in file::Group::teks();
    tek_lifetime = file::TekKeys::lifetime(), in file::Group::teks();
    tek_policy = file::Tek::policies(), in file::Group::teks();
}
