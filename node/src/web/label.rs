//! Host labels: what stands before the site host of a sandbox (Spec: 13 §2).

use std::{fmt, str::FromStr};

/// Longest label of a host name.
pub const MAX_LABEL_BYTES: usize = 63;

/// One label of a host name: 1 to 63 of `a-z 0-9 -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// Text that is no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 1 to {MAX_LABEL_BYTES} of a-z, 0-9 and -")]
pub struct InvalidLabel;

impl Label {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let is_label = (1..=MAX_LABEL_BYTES).contains(&text.len())
            && text
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        is_label.then(|| Self(text.to_owned())).ok_or(InvalidLabel)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short_and_of_few_characters() {
        for good in ["a", "0", "-", "markup-viewer", &"a".repeat(63)] {
            assert_eq!(good.parse::<Label>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "A",
            "a.b",
            "a_b",
            "a b",
            "\u{e4}",
            "a\0",
            &"a".repeat(64),
        ] {
            assert_eq!(bad.parse::<Label>(), Err(InvalidLabel), "{bad}");
        }
    }
}
