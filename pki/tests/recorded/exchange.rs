//! Loads the recordings.

use bytes::Bytes;
use champ::text::from_hex;
use pki::wire::{
    call::{Call, Target},
    query::{Query, percent_decode},
};
use serde_json::Value as Json;

/// Request or reply bytes, or only their beginning.
pub(super) enum Payload {
    Whole(Bytes),
    Beginning(Bytes),
}

impl Payload {
    fn of(json: &Json) -> Self {
        let bytes = |field: &str| {
            json[field]
                .as_str()
                .map(|hex| Bytes::from(from_hex(hex).unwrap()))
        };
        match (bytes("hex"), bytes("prefix_hex")) {
            (Some(whole), _) => {
                assert_eq!(json["len"].as_u64(), u64::try_from(whole.len()).ok());
                Self::Whole(whole)
            }
            (None, Some(beginning)) => Self::Beginning(beginning),
            (None, None) => {
                assert_eq!(json["len"].as_u64().unwrap_or(0), 0);
                Self::Whole(Bytes::new())
            }
        }
    }
}

pub(super) struct Exchange {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// None when the server closed the connection.
    pub(super) status: Option<u64>,
    pub(super) trailer: Option<String>,
    pub(super) message: Option<String>,
    pub(super) request: Payload,
    pub(super) reply: Payload,
}

impl Exchange {
    fn trace(file: &str, case: &Json) -> Self {
        let target = case["target"].as_str().unwrap();
        Self {
            name: format!("{file} {}", case["n"]),
            request: Payload::of(&case["body"]),
            reply: Payload::of(&case["response"]),
            ..Self::common(target, case["status"].as_u64(), &case["headers"])
        }
    }

    fn example(file: &str, case: &Json) -> Option<Self> {
        let request = &case["request"];
        // Raw requests are about framing, which is for the server to test.
        let target = request["target"].as_str()?;
        let response = &case["response"];
        Some(Self {
            name: format!("{file} {}", case["name"]),
            message: case["error_message_decoded"].as_str().map(str::to_owned),
            request: Payload::of(&request["body"]),
            reply: Payload::of(&response["body"]),
            ..Self::common(target, response["status"].as_u64(), &response["headers"])
        })
    }

    fn common(target: &str, status: Option<u64>, headers: &Json) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Self {
            name: String::new(),
            path: path.to_owned(),
            query,
            status,
            trailer: headers["trailer"].as_str().map(str::to_owned),
            message: None,
            request: Payload::Whole(Bytes::new()),
            reply: Payload::Whole(Bytes::new()),
        }
    }

    pub(super) fn succeeded(&self) -> bool {
        self.status == Some(200)
    }

    /// The path as the table of calls wants it.
    pub(super) fn decoded_path(&self) -> String {
        percent_decode(&self.path).unwrap().into_owned()
    }

    pub(super) fn call(&self) -> Option<(Call, Query<'_>)> {
        let Target::Call(call, _) = Call::at_path(&self.decoded_path()) else {
            return None;
        };
        let query = Query::parse(self.query.as_deref().unwrap_or_default()).ok()?;
        Some((call, query))
    }
}

pub(super) fn exchanges() -> Vec<Exchange> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let read = |path: &std::path::Path| -> Json {
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let mut all = Vec::new();
    let mut files = 0;
    for entry in std::fs::read_dir(root.join("traces")).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        let cases = read(&path);
        let cases = cases["cases"].as_array().unwrap();
        assert!(!cases.is_empty(), "{file}");
        all.extend(cases.iter().map(|case| Exchange::trace(file, case)));
        files += 1;
    }
    assert_eq!(files, 40);
    for file in [
        "http",
        "api_account",
        "api_pointer",
        "api_space_admin",
        "api_storage",
    ] {
        let file = format!("{file}_examples.json");
        let cases = read(&root.join(&file));
        let cases = cases["cases"].as_array().unwrap();
        all.extend(
            cases
                .iter()
                .filter_map(|case| Exchange::example(&file, case)),
        );
    }
    assert!(all.len() > 1000, "{}", all.len());
    all
}
