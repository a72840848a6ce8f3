//! Reading vector files.

use std::path::Path;

use champ::{Block, text};
use data_encoding::BASE64;
use serde_json::Value as Json;

/// One case of a vector file.
pub(crate) struct Case(pub(crate) Json);

/// Runs `each` on every case of the file; a file without cases is a failure.
pub(crate) fn for_each_case(file: &str, mut each: impl FnMut(&Case)) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let bytes = std::fs::read(path.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let json: Json = serde_json::from_slice(&bytes).unwrap();
    let cases = json["cases"].as_array().unwrap();
    assert!(!cases.is_empty(), "{file} holds no cases");
    for (i, case) in cases.iter().enumerate() {
        let case = Case(case.clone());
        let name = case.0["name"].as_str().or(case.0["kind"].as_str());
        // Shown when the case fails.
        eprintln!("{file} {i} {}", name.unwrap_or_default());
        each(&case);
    }
}

impl Case {
    pub(crate) fn kind(&self) -> &str {
        self.text("kind")
    }

    pub(crate) fn has(&self, field: &str) -> bool {
        !self.0[field].is_null()
    }

    pub(crate) fn part(&self, field: &str) -> Self {
        assert!(self.has(field), "{field}");
        Self(self.0[field].clone())
    }

    pub(crate) fn list(&self, field: &str) -> Vec<Self> {
        let list = self.0[field]
            .as_array()
            .unwrap_or_else(|| panic!("{field}"));
        list.iter().cloned().map(Case).collect()
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_else(|| panic!("{field}"))
    }

    pub(crate) fn optional_text(&self, field: &str) -> Option<&str> {
        self.has(field).then(|| self.text(field))
    }

    pub(crate) fn flag(&self, field: &str) -> bool {
        self.0[field].as_bool().unwrap_or_else(|| panic!("{field}"))
    }

    pub(crate) fn int(&self, field: &str) -> i64 {
        self.0[field].as_i64().unwrap_or_else(|| panic!("{field}"))
    }

    pub(crate) fn size(&self, field: &str) -> usize {
        usize::try_from(self.int(field)).unwrap()
    }

    pub(crate) fn hex(&self, field: &str) -> Vec<u8> {
        text::from_hex(self.text(field)).unwrap()
    }

    pub(crate) fn optional_hex(&self, field: &str) -> Option<Vec<u8>> {
        self.has(field).then(|| self.hex(field))
    }

    pub(crate) fn array<const N: usize>(&self, field: &str) -> [u8; N] {
        self.hex(field).try_into().unwrap()
    }

    pub(crate) fn base64(&self, field: &str) -> Vec<u8> {
        BASE64.decode(self.text(field).as_bytes()).unwrap()
    }

    /// The blocks of a map from CID to base64, verified.
    pub(crate) fn blocks(&self, field: &str) -> Vec<Block> {
        let Some(map) = self.0[field].as_object() else {
            return Vec::new();
        };
        map.iter()
            .map(|(cid, bytes)| {
                let bytes = BASE64.decode(bytes.as_str().unwrap().as_bytes()).unwrap();
                Block::verified(cid.parse().unwrap(), bytes).unwrap()
            })
            .collect()
    }
}

/// The content of the synthetic files: `file_pattern(n)[i]` depends on the offset in the whole file.
pub(crate) fn file_pattern(start: usize, length: usize) -> Vec<u8> {
    (start..start + length)
        .map(|i| u8::try_from((7 * i + 13 * (i >> 8) + 3) % 251).unwrap())
        .collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).to_vec()
}
