//! Golden vectors: every case of a file is run, and an unknown kind is a failure.

use std::{collections::BTreeSet, path::PathBuf};

use champ::text;
use pki::keys::{PublicKeyHash, SecretKeyWithHash, SecretSigningKey};
use serde_json::Value;

/// One case of a vector file.
pub(crate) struct Case(Value);

impl Case {
    pub(crate) fn str(&self, field: &str) -> &str {
        self.0[field]
            .as_str()
            .unwrap_or_else(|| panic!("no text {field} in {}", self.0))
    }

    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.0[field].as_str()
    }

    pub(crate) fn hex(&self, field: &str) -> Vec<u8> {
        text::from_hex(self.str(field)).unwrap()
    }

    pub(crate) fn array<const N: usize>(&self, field: &str) -> [u8; N] {
        self.hex(field).try_into().unwrap()
    }

    pub(crate) fn int(&self, field: &str) -> i64 {
        self.0[field]
            .as_i64()
            .unwrap_or_else(|| panic!("no integer {field} in {}", self.0))
    }

    pub(crate) fn flag(&self, field: &str) -> bool {
        self.0[field].as_bool().unwrap()
    }

    pub(crate) fn raw(&self, field: &str) -> &Value {
        &self.0[field]
    }

    pub(crate) fn list(&self, field: &str) -> Vec<Self> {
        let items = self.0[field].as_array().unwrap();
        items.iter().cloned().map(Self).collect()
    }

    pub(crate) fn name(&self) -> &str {
        self.text("name").or(self.text("case")).unwrap_or("unnamed")
    }
}

/// A kind of case and what to do with each.
pub(crate) type Handler<'a> = (&'static str, &'a mut dyn FnMut(&Case));

/// Runs every case of `file`. `tag` is the field that holds the kind; `elsewhere` lists the kinds that
/// other crates exercise.
pub(crate) fn each(file: &str, tag: &str, elsewhere: &[&str], mut handlers: Vec<Handler<'_>>) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "vectors", file]
        .iter()
        .collect();
    let whole: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut ran = BTreeSet::new();
    for case in whole["cases"].as_array().unwrap() {
        let kind = case[tag].as_str().unwrap();
        if elsewhere.contains(&kind) {
            continue;
        }
        let (known, handler) = handlers
            .iter_mut()
            .find(|(known, _)| *known == kind)
            .unwrap_or_else(|| panic!("{file}: unknown kind {kind}"));
        ran.insert(*known);
        handler(&Case(case.clone()));
    }
    for (kind, _) in &handlers {
        assert!(ran.contains(kind), "{file}: no case of kind {kind}");
    }
}

pub(crate) fn key_of_seed(seed: [u8; 32]) -> SecretKeyWithHash {
    SecretKeyWithHash::new(SecretSigningKey::from_seed(&seed))
}

pub(crate) fn key(n: u8) -> SecretKeyWithHash {
    key_of_seed([n; 32])
}

pub(crate) fn key_hash(text: &str) -> PublicKeyHash {
    text.parse().unwrap()
}

/// Runs a future that never waits.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(future).expect("nothing here waits")
}
