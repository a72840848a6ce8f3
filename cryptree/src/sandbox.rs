//! Labels of sandbox hosts: every workspace in which foreign code runs has an origin of its own (Spec: 13 §7).
//!
//! Nodes do not know these labels. Web applications use the same, so that what a browser keeps for an app is found
//! again.

use champ::{Multihash, text};
use sha2::{Digest as _, Sha256};

/// Returns the label of the workspace of an app or file viewer.
pub fn app_label(workspace: &str) -> String {
    label(Sha256::digest(normal(workspace)).into())
}

/// Returns the label of an HTML viewer: of the user who owns the page, and the page or folder that was opened.
pub fn viewer_label(workspace: &str, page: &str) -> String {
    let parts = [workspace, page].map(|text| Sha256::digest(normal(text)));
    label(Sha256::digest(parts.concat()).into())
}

fn label(digest: [u8; 32]) -> String {
    let hash = Multihash::from_sha2_256(digest).to_bytes();
    format!("b{}", text::to_base32_upper(&hash).to_ascii_lowercase())
}

/// Evens out white space and slashes at the ends, and repeated slashes.
fn normal(text: &str) -> String {
    let text = text.trim().replace('\\', "/");
    let text = text.strip_prefix('/').unwrap_or(&text);
    let text = text.strip_suffix('/').unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_labels_are_made() {
        let json: serde_json::Value =
            serde_json::from_str(include_str!("../tests/vectors/gateway.json")).unwrap();
        let mut compared = 0;
        for case in json["cases"].as_array().unwrap() {
            let text = |field: &str| case[field].as_str().unwrap();
            let label = match text("kind") {
                "app_subdomain" => app_label(text("path")),
                "app_subdomain_anon" => viewer_label(text("path"), text("anonymity_class")),
                // Compared by the node.
                "host_match" | "static" => continue,
                other => panic!("unknown kind {other}"),
            };
            assert_eq!(label, text("subdomain"));
            assert!(label.starts_with("bciq") && label.len() == 56);
            compared += 1;
        }
        assert_eq!(compared, 5);
    }

    #[test]
    fn slashes_and_blanks_at_the_ends_do_not_count() {
        for same in ["a/b", " /a/b/ ", "a//b", "\\a\\b", "a///b/"] {
            assert_eq!(normal(same), "a/b", "{same}");
        }
        assert_ne!(viewer_label("a", "b"), viewer_label("b", "a"));
    }
}
