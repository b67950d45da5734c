use super::*;

const FILE: &str = "\
# The router of the branch.
control-socket = \"/run/x.sock\"   # not the default

# Two clouds.

# The one in the east.
[[gateway]]
name = \"east\"
dh-group = [ 14 ] # as agreed

[[tunnel]]
name = \"one\" # the first
gateway = \"east\"
# One hour is what they want.
lifetime = \"1h\"    # agreed

  [tunnel.identity]
  fqdn = \"a.example\"

# The second.
[[tunnel]]
name = \"two\"
gateway = \"east\"

[[gateway]]
name = \"west\"

# End of the file.
";

fn argument(table: EditedTable, name: &str, edit: Edit) -> EditArgument {
    EditArgument { table, name: name.to_owned(), edit }
}

fn options(pairs: &[(&str, &str)]) -> Vec<OptionValue> {
    let pairs = pairs.iter();
    pairs
        .map(|(option, value)| OptionValue { option: (*option).into(), value: (*value).into() })
        .collect()
}

fn set(pairs: &[(&str, &str)], unset: &[&str]) -> Edit {
    let unset = unset.iter().map(|option| (*option).to_owned()).collect();
    Edit::Set { options: options(pairs), unset }
}

fn text(table: EditedTable, name: &str, change: Edit) -> String {
    edit(FILE, &argument(table, name, change)).unwrap().text
}

fn error(table: EditedTable, name: &str, change: Edit) -> String {
    edit(FILE, &argument(table, name, change)).unwrap_err().to_string()
}

#[test]
fn a_value_changes_and_nothing_else() {
    let changed = text(EditedTable::Tunnel, "one", set(&[("lifetime", "2h")], &[]));
    assert_eq!(
        changed,
        FILE.replace("lifetime = \"1h\"    # agreed", "lifetime = \"2h\"    # agreed")
    );
    let changed = text(EditedTable::Gateway, "east", set(&[("dh-group", "19,14")], &[]));
    assert_eq!(changed, FILE.replace("[ 14 ] # as", "[19, 14] # as"));
}

#[test]
fn options_come_at_the_end_of_their_table_and_go() {
    let changed = text(EditedTable::Tunnel, "two", set(&[("pfs", "off"), ("kilobytes", "5")], &[]));
    let expected = FILE.replace(
        "name = \"two\"\ngateway = \"east\"\n",
        "name = \"two\"\ngateway = \"east\"\npfs = \"off\"\nkilobytes = \"5\"\n",
    );
    assert_eq!(changed, expected);
    let changed = text(EditedTable::Tunnel, "one", set(&[], &["lifetime", "identity"]));
    assert!(!changed.contains("lifetime") && !changed.contains("a.example"), "{changed}");
    assert!(changed.contains("name = \"one\" # the first\ngateway = \"east\"\n"), "{changed}");
}

#[test]
fn what_is_typed_becomes_what_the_option_wants() {
    let pairs = [
        ("pfs", "19"),
        ("legacy", "true"),
        ("lifetime-kilobytes", "4096"),
        ("local-networks", "10.1.0.0/24, 10.2.0.0/24"),
        ("remote-networks", "[\"10.3.0.0/24\"]"),
        ("identity", "{ fqdn = \"b.example\" }"),
        ("peer", "203.0.113.1"),
        ("unheard-of", "7"),
    ];
    let changed = edit(FILE, &argument(EditedTable::Tunnel, "two", set(&pairs, &[]))).unwrap();
    assert_eq!(
        changed.table.unwrap(),
        "[[tunnel]]\nname = \"two\"\ngateway = \"east\"\npfs = 19\nlegacy = true\n\
         lifetime-kilobytes = 4096\nlocal-networks = [\"10.1.0.0/24\", \"10.2.0.0/24\"]\n\
         remote-networks = [\"10.3.0.0/24\"]\nidentity = { fqdn = \"b.example\" }\n\
         peer = \"203.0.113.1\"\nunheard-of = \"7\"\n"
    );
}

#[test]
fn a_new_table_stands_behind_the_others_of_its_kind() {
    let create = || Edit::Create { options: options(&[("gateway", "west")]) };
    let changed = text(EditedTable::Tunnel, "three", create());
    let expected = FILE.replace(
        "name = \"two\"\ngateway = \"east\"\n",
        "name = \"two\"\ngateway = \"east\"\n\n[[tunnel]]\nname = \"three\"\ngateway = \"west\"\n",
    );
    assert_eq!(changed, expected);
    let changed = text(EditedTable::Gateway, "north", Edit::Create { options: Vec::new() });
    assert_eq!(changed, format!("{FILE}\n[[gateway]]\nname = \"north\"\n"));
    let nothing = "# A file of comments.\n# [[tunnel]]\n";
    let first = edit(nothing, &argument(EditedTable::Gateway, "g", create())).unwrap().text;
    assert_eq!(first, format!("{nothing}\n[[gateway]]\nname = \"g\"\ngateway = \"west\"\n"));
}

#[test]
fn a_table_goes_with_the_comment_above_it() {
    let changed = text(EditedTable::Tunnel, "two", Edit::Delete);
    assert_eq!(
        changed,
        FILE.replace("\n# The second.\n[[tunnel]]\nname = \"two\"\ngateway = \"east\"\n", "")
    );
    let changed = text(EditedTable::Gateway, "west", Edit::Delete);
    assert_eq!(changed, FILE.replace("\n[[gateway]]\nname = \"west\"\n", ""));
    // What is written about more than the first one stays.
    let alone = FILE.replace("gateway = \"east\"\n", "");
    let changed = edit(&alone, &argument(EditedTable::Gateway, "east", Edit::Delete)).unwrap().text;
    assert!(changed.contains("# Two clouds.\n") && !changed.contains("in the east"), "{changed}");
    let first = changed.find("# Two clouds.").unwrap();
    assert!(first < changed.find("name = \"one\"").unwrap(), "{changed}");
    let last = "a = 1\n\n# Gateways.\n\n# One.\n[[gateway]]\nname = \"g\"\n";
    let changed = edit(last, &argument(EditedTable::Gateway, "g", Edit::Delete)).unwrap().text;
    assert_eq!(changed, "a = 1\n\n# Gateways.\n");
}

#[test]
fn what_cannot_be_changed_is_named_with_the_remedy() {
    use EditedTable::{Gateway, Tunnel};
    assert_eq!(
        error(Gateway, "east", Edit::Delete),
        "gateway \"east\" is used by tunnels one, two; delete what uses it first, or name another \
         gateway there"
    );
    assert_eq!(
        error(Tunnel, "three", Edit::Delete),
        "there is no tunnel \"three\"; known are one, two"
    );
    assert_eq!(
        error(Tunnel, "one", Edit::Create { options: Vec::new() }),
        "there is a tunnel \"one\" already; change it with `gdoictl tunnel set one`"
    );
    assert_eq!(
        error(Tunnel, "two", set(&[], &["lifetime"])),
        "tunnel \"two\" does not set lifetime; nothing to unset"
    );
    assert_eq!(
        error(Tunnel, "two", set(&[("pfs", "1"), ("pfs", "2")], &[])),
        "pfs: named twice; name it once"
    );
    let list = error(Tunnel, "two", set(&[("esp", "[\"aes")], &[]));
    assert!(list.starts_with("esp: [\"aes is not TOML"), "{list}");
    let broken = edit("a = \n", &argument(Tunnel, "x", Edit::Delete)).unwrap_err().to_string();
    assert!(broken.starts_with("the configuration is not TOML"), "{broken}");
    let inline = edit("tunnel = [{ name = \"x\" }]\n", &argument(Tunnel, "x", Edit::Delete));
    assert_eq!(
        inline.unwrap_err().to_string(),
        "tunnel is written as a list in the file; write [[tunnel]] tables"
    );
    let none = edit("", &argument(Gateway, "x", Edit::Delete)).unwrap_err().to_string();
    assert_eq!(none, "there is no gateway \"x\"; make one with `gdoictl gateway create`");
}
