use std::{collections::BTreeSet, fs};

use node::store::FreeFloor;

use super::*;

fn load_file(text: &str) -> Result<Effective, Failure> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), text).unwrap();
    load(&Flags {
        data: Some(folder.path().to_path_buf()),
        ..Flags::default()
    })
}

fn flag(key: &str, value: &str) -> FlagValue {
    FlagValue {
        key: key.to_owned(),
        value: value.to_owned(),
        flag: format!("--set {key}"),
    }
}

/// The names of all fields of the node's settings, read off their debug form.
fn fields() -> BTreeSet<String> {
    let shown = format!("{:#?}", node::Config::default());
    let mut fields = BTreeSet::new();
    let mut inner = None;
    for line in shown.lines() {
        let depth = line.len() - line.trim_start().len();
        let Some((name, value)) = line.trim().split_once(": ") else {
            if depth == 4 {
                inner = None;
            }
            continue;
        };
        let is_struct = value.ends_with(" {") && value.starts_with(char::is_uppercase);
        match (depth, &inner) {
            (4, _) if is_struct => inner = Some(name.to_owned()),
            (4, _) => {
                fields.insert(name.to_owned());
            }
            (8, Some(outer)) => {
                fields.insert(format!("{outer}.{name}"));
            }
            _ => {}
        }
    }
    fields
}

#[test]
fn every_field_of_the_nodes_settings_has_a_key() {
    // The clock is for tests, and a new identity is for one start: a flag alone.
    // Other ways to other nodes than libp2p are for tests too.
    let without = ["clock", "allows_new_identity", "p2p.peers"];
    let mapped: BTreeSet<String> = KEYS
        .iter()
        .filter_map(|key| key.field.map(str::to_owned))
        .chain(without.map(str::to_owned))
        .collect();
    assert_eq!(
        mapped,
        fields(),
        "cli/src/config/keys.rs and node/src/config.rs have the same settings"
    );
}

#[test]
fn names_and_variables_are_unique() {
    let names: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
    let variables: BTreeSet<_> = KEYS.iter().map(Key::variable).collect();
    assert_eq!((names.len(), variables.len()), (KEYS.len(), KEYS.len()));
    for key in KEYS.iter().filter(|key| key.is_secret) {
        assert!(secrets::SECRET_VARIABLES.contains(&key.variable().as_str()));
    }
}

#[test]
fn the_manual_has_the_table_of_settings() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let manual = fs::read_to_string(path).unwrap();
    assert!(
        manual.contains(&table()),
        "put the output of `kastro config --table` into docs/configuration.md"
    );
}

#[test]
fn the_template_is_all_comments_and_says_what_is_built_in() {
    let text = template();
    let effective = load_file(&text).unwrap();
    assert!(
        KEYS.iter()
            .all(|key| key.name == "data" || *effective.origin(key.name) == Origin::Default)
    );
    let uncommented: String = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("# ")
                .or(line.starts_with('[').then_some(line))
        })
        .filter(|line| {
            line.starts_with('[')
                || line
                    .split_once(" = ")
                    .is_some_and(|(name, _)| !name.contains(' '))
        })
        .filter(|line| !line.starts_with("data = "))
        .map(|line| format!("{line}\n"))
        .collect();
    let given = load_file(&uncommented).unwrap();
    for key in KEYS.iter().filter(|key| key.name != "data") {
        assert_eq!(
            (key.show)(&given.settings),
            (key.show)(&Settings::default()),
            "{}\n{uncommented}",
            key.name
        );
    }
}

#[test]
fn what_is_printed_reads_back_as_the_same_settings() {
    let first = load_file(
        "listen = \"127.0.0.1:9000\"\nquota = \"1.5 GiB\"\nadmins = [\"alice\"]\nfree_floor = \"10M\"\n\
         [limits]\nheader_timeout = \"90 s\"\n",
    )
    .unwrap();
    let printed: String = effective(&first)
        .lines()
        .filter(|line| !line.starts_with("data = "))
        .map(|line| format!("{line}\n"))
        .collect();
    let again = load_file(&printed).unwrap();
    for key in KEYS
        .iter()
        .filter(|key| key.name != "data" && !key.is_secret)
    {
        assert_eq!(
            (key.show)(&first.settings),
            (key.show)(&again.settings),
            "{}",
            key.name
        );
    }
}

#[test]
fn a_file_is_read_with_its_types() {
    let effective = load_file(
        "# a node\nlisten = \"127.0.0.1:9000\"\npublic_host = \"example.org\"\nquota = \"10 GiB\"\n\
         max_users = 20\nadmins = [\"alice\", \"bob\"]\nwaiting_list = true\nfree_floor = 0\n\
         upload_window = \"12 h\"\nweb = \"page\"\n[limits]\nconnections = 10\nshutdown_grace = \"5 s\"\n",
    )
    .unwrap();
    let node = &effective.settings.node;
    assert_eq!(node.listen.port(), 9000);
    assert!(node.is_public, "follows from the host name");
    assert_eq!(
        *effective.origin("public"),
        Origin::Derived("public_host is set")
    );
    assert_eq!(node.default_quota_bytes, 10 << 30);
    assert_eq!((node.max_users, node.waiting_list), (20, true));
    assert_eq!(node.admins.len(), 2);
    assert_eq!(node.free_floor, FreeFloor::Bytes(0));
    assert_eq!(node.upload_window.as_secs(), 43_200);
    assert!(
        node.web.as_ref().unwrap().starts_with(effective.data()),
        "relative to the file"
    );
    assert_eq!(node.limits.connections, 10);
    assert_eq!(*effective.origin("limits.connections"), Origin::File(12));
    assert_eq!(*effective.origin("limits.keep_alive"), Origin::Default);
}

#[test]
fn mistakes_are_told_with_their_place_and_the_nearest_name() {
    for (text, place, why, help) in [
        (
            "lisen = \"x\"",
            ":1:1:",
            "unknown key lisen",
            "did you mean listen?",
        ),
        (
            "\n  max-users = 3",
            ":2:3:",
            "unknown key max-users",
            "did you mean max_users?",
        ),
        (
            "[limits]\nconections = 3",
            ":2:1:",
            "unknown key limits.conections",
            "limits.connections",
        ),
        ("[limts]\nconnections = 3", ":1:2:", "unknown key limts", ""),
        ("limits = 3", ":1:10:", "limits is a table", ""),
        (
            "quota = \"lots\"",
            ":1:9:",
            "quota: expected a size",
            "Space each new",
        ),
        ("quota = -1", ":1:9:", "expected a size", ""),
        ("max_users = 1.5", ":1:13:", "whole number", ""),
        ("upload_window = 30", ":1:17:", "a duration with a unit", ""),
        ("listen = \"8000\"", ":1:10:", "ADDRESS:PORT", ""),
        ("admins = [1]", ":1:10:", "list of texts", ""),
        ("waiting_list = 2020-01-01", ":1:16:", "true or false", ""),
        (
            "quota = \"1G\"\nquota = \"2G\"",
            ":2:1:",
            "duplicate key",
            "",
        ),
        ("quota = ", ":1:9:", "", ""),
        (
            "data = \"/srv\"",
            "",
            "names a data folder and lies in one",
            "--config",
        ),
    ] {
        let failure = load_file(text).unwrap_err();
        assert_eq!(failure.class, Class::Usage);
        assert!(
            failure.message.contains(place),
            "{text}: {}",
            failure.message
        );
        assert!(failure.message.contains(why), "{text}: {}", failure.message);
        let given = failure.help.clone().unwrap_or_default();
        assert!(given.contains(help), "{text}: {given}");
    }
}

#[test]
fn flags_count_more_than_the_file_and_know_no_other_names() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), "max_users = 1\nquota = \"1G\"\n").unwrap();
    let with = |values| {
        load(&Flags {
            data: Some(folder.path().to_path_buf()),
            config: None,
            values,
        })
    };
    let effective = with(vec![
        flag("max-users", "2"),
        flag("limits.connections", "7"),
    ])
    .unwrap();
    assert_eq!(effective.settings.node.max_users, 2);
    assert_eq!(effective.settings.node.default_quota_bytes, 1 << 30);
    assert_eq!(effective.settings.node.limits.connections, 7);
    assert!(matches!(effective.origin("max_users"), Origin::Flag(_)));
    let failure = with(vec![flag("max_user", "2")]).unwrap_err();
    assert!(failure.help.unwrap().contains("max_users"));
    assert!(with(vec![flag("max_users", "many")]).is_err());
}

#[test]
fn a_named_file_may_say_where_the_data_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    fs::write(&file, "data = \"store\"\nmax_users = 3\n").unwrap();
    let flags = Flags {
        config: Some(file),
        ..Flags::default()
    };
    let effective = load(&flags).unwrap();
    assert_eq!(effective.data(), folder.path().join("store"));
    assert_eq!(data_folder(&flags).unwrap(), effective.data());
    let missing = Flags {
        config: Some(folder.path().join("none.toml")),
        ..Flags::default()
    };
    assert_eq!(load(&missing).unwrap_err().class, Class::Local);
}
