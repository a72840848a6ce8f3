//! Help texts are part of the product: a change of them is seen here.

use tests::Kastro;

fn kastro() -> (tempfile::TempDir, Kastro) {
    let folder = tempfile::tempdir().unwrap();
    let kastro = Kastro::new(crate::program(), folder.path());
    (folder, kastro)
}

#[test]
fn the_front_page_names_every_command() {
    let (_folder, kastro) = kastro();
    insta::assert_snapshot!("help", kastro.ok(&["-h"]));
}

#[test]
fn the_long_help_documents_the_exit_codes() {
    let (_folder, kastro) = kastro();
    insta::assert_snapshot!("long_help", kastro.ok(&["--help"]));
}

#[test]
fn each_command_teaches_by_example() {
    let (_folder, kastro) = kastro();
    for command in [
        "serve",
        "config",
        "users",
        "quota",
        "space-requests",
        "invite",
        "messages",
        "doctor",
        "signup",
        "login",
        "ls",
        "cat",
        "get",
        "put",
        "mv",
        "rm",
        "passwd",
    ] {
        let help = kastro.ok(&["help", command]);
        assert!(help.contains("Examples:"), "{command}: {help}");
        assert!(
            help.lines().all(|line| line.chars().count() <= 100),
            "{command}: {help}"
        );
    }
    insta::assert_snapshot!("help_put", kastro.ok(&["put", "-h"]));
    insta::assert_snapshot!("help_serve", kastro.ok(&["serve", "-h"]));
}

#[test]
fn the_version_is_told() {
    let (_folder, kastro) = kastro();
    assert_eq!(
        kastro.ok(&["--version"]),
        format!("kastro {}\n", env!("CARGO_PKG_VERSION"))
    );
}
