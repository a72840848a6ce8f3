//! `shared_with.json`: what is shared with whom, and secret links as their owner remembers them.

use std::collections::BTreeMap;

use champ::cbor::Record;
use cryptree::shared_with::{LinkProperties, SharedWith};

use crate::support::{Case, for_each_case};

#[test]
fn records_of_what_is_shared() {
    for_each_case("shared_with.json", |case| match case.kind() {
        "link_properties" => link_properties(case),
        "shared_with" => shared_with(case),
        other => panic!("{other}"),
    });
}

fn link_properties(case: &Case) {
    let bytes = case.hex("cbor");
    let link = LinkProperties::decode(&bytes).unwrap();
    assert_eq!(link.encode(), bytes);
    assert_eq!(i64::try_from(link.label).unwrap(), case.int("l"));
    assert_eq!(link.password.as_str(), case.text("p"));
    assert_eq!(link.user_password.as_str(), case.text("u"));
    assert_eq!(link.is_writable, case.flag("w"));
    assert_eq!(link.opens_file, case.flag("o"));
    let optional = |field| case.has(field).then(|| case.int(field));
    assert_eq!(link.max_retrievals, optional("m"));
    assert_eq!(link.expiry_epoch_seconds, optional("e"));
    let target = link.target.map(|target| target.to_string());
    assert_eq!(target.as_deref(), case.optional_text("h"));
}

fn shared_with(case: &Case) {
    let bytes = case.hex("file");
    let shared = SharedWith::decode(&bytes).unwrap();
    let lists = |field: &str| -> BTreeMap<String, Vec<String>> {
        serde_json::from_value(case.0[field].clone()).unwrap()
    };
    assert_eq!(shared.readers, lists("r"));
    assert_eq!(shared.writers, lists("w"));
    let links = shared.links.iter().map(|(name, links)| {
        let links = links.iter().map(|link| champ::text::to_hex(&link.encode()));
        (name.clone(), links.collect::<Vec<_>>())
    });
    assert_eq!(links.collect::<BTreeMap<_, _>>(), lists("l"));
    // Old records have no links; ours always say so.
    let is_legacy = !case.text("name").contains("legacy");
    assert_eq!(shared.encode() == bytes, is_legacy);
    assert_eq!(SharedWith::decode(&shared.encode()).unwrap(), shared);
}
