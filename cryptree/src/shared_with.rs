//! What is shared with whom below one folder: the owner's own record of it (Spec: 23 §3).
//!
//! Secret links are recorded nowhere else, so whoever writes this keeps what it does not know.

use std::collections::BTreeMap;

use champ::{
    Cid,
    cbor::{Fields, Map, Record, RecordError, Value},
};
use zeroize::Zeroizing;

use crate::secret_link::{LinkPassword, SecretLink};

/// Largest file that is read, in bytes (Spec: 23, client check 10).
pub const MAX_SHARED_WITH_BYTES: u64 = 16 << 20;
/// Most links of one item (Spec: 23, client check 10).
pub const MAX_LINKS: usize = 1000;
/// Most people one item is shared with (Spec: 23, client check 10).
const MAX_SHAREES: usize = 10_000;

/// The content of a `sharedWith.cbor`: names are those of the children of one folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SharedWith {
    /// Secret links by name.
    pub links: BTreeMap<String, Vec<LinkProperties>>,
    /// Who may read, by name.
    pub readers: BTreeMap<String, Vec<String>>,
    /// Who may write, by name.
    pub writers: BTreeMap<String, Vec<String>>,
    unknown: Map,
}

/// A secret link as its owner remembers it. Its debug output hides the passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkProperties {
    /// Its label.
    pub label: u64,
    /// The password in its text.
    pub password: LinkPassword,
    /// What the visitor is asked for besides; empty for nothing.
    pub user_password: Zeroizing<String>,
    /// It leads to a capability to write.
    pub is_writable: bool,
    /// The page of the link opens the file at once.
    pub opens_file: bool,
    /// Most retrievals.
    pub max_retrievals: Option<i64>,
    /// Last moment, in UTC seconds since 1970.
    pub expiry_epoch_seconds: Option<i64>,
    /// The target that the label led to when this was written.
    pub target: Option<Cid>,
}

impl LinkProperties {
    /// Returns true when this is the link.
    pub const fn is(&self, link: &SecretLink) -> bool {
        self.label == link.label
    }
}

impl std::fmt::Debug for LinkProperties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkProperties({}, ..)", self.label)
    }
}

impl Record for LinkProperties {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("l", i64::try_from(self.label).unwrap_or(i64::MAX));
        map.insert("o", self.opens_file);
        map.insert("p", self.password.as_str());
        map.insert("u", self.user_password.as_str());
        map.insert("w", self.is_writable);
        map.insert_some("e", self.expiry_epoch_seconds);
        map.insert_some("h", self.target.as_ref().map(Value::from));
        map.insert_some("m", self.max_retrievals);
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "link properties")?;
        let label = fields.required("l")?.into_int("l")?;
        let password = fields.required("p")?.into_text("p")?;
        let int =
            |value: Option<Value>, field| value.map(|value| value.into_int(field)).transpose();
        Ok(Self {
            label: u64::try_from(label)
                .ok()
                .filter(|label| *label > 0)
                .ok_or(RecordError::OutOfRange { field: "l" })?,
            password: LinkPassword::of_text(password)
                .ok_or(RecordError::OutOfRange { field: "p" })?,
            user_password: Zeroizing::new(fields.required("u")?.into_text("u")?),
            is_writable: fields.required("w")?.into_bool("w")?,
            opens_file: fields.required("o")?.into_bool("o")?,
            max_retrievals: int(fields.optional("m"), "m")?,
            expiry_epoch_seconds: int(fields.optional("e"), "e")?,
            target: fields
                .optional("h")
                .map(|target| target.into_link("h"))
                .transpose()?,
        })
    }
}

impl Record for SharedWith {
    fn to_value(&self) -> Value {
        let mut map = self.unknown.clone();
        let names = |lists: &BTreeMap<String, Vec<String>>| {
            let lists = lists.iter().filter(|(_, list)| !list.is_empty());
            let lists = lists.map(|(name, list)| {
                let list = list.iter().map(|name| Value::from(name.as_str()));
                (name.clone(), Value::List(list.collect()))
            });
            Value::Map(lists.collect())
        };
        let links = self.links.iter().filter(|(_, list)| !list.is_empty());
        let links = links.map(|(name, list)| {
            let list = list.iter().map(Record::to_value).collect();
            (name.clone(), Value::List(list))
        });
        map.insert("l", Value::Map(links.collect()));
        map.insert("r", names(&self.readers));
        map.insert("w", names(&self.writers));
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "shared with")?;
        Ok(Self {
            links: match fields.optional("l") {
                Some(links) => lists(links, "l", MAX_LINKS, LinkProperties::from_value)?,
                None => BTreeMap::new(),
            },
            readers: lists(fields.required("r")?, "r", MAX_SHAREES, |name| {
                name.into_text("r")
            })?,
            writers: lists(fields.required("w")?, "w", MAX_SHAREES, |name| {
                name.into_text("w")
            })?,
            unknown: fields.rest(),
        })
    }
}

/// Reads a map of names to lists.
fn lists<T>(
    value: Value,
    field: &'static str,
    max: usize,
    read: impl Fn(Value) -> Result<T, RecordError>,
) -> Result<BTreeMap<String, Vec<T>>, RecordError> {
    let map = value.into_map(field)?;
    let mut lists = BTreeMap::new();
    for (name, list) in map.iter() {
        let list = list.clone().into_list(field)?;
        if list.len() > max {
            return Err(RecordError::OutOfRange { field });
        }
        let list = list.into_iter().map(&read).collect::<Result<Vec<_>, _>>()?;
        lists.insert(name.to_owned(), list);
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_refused_and_secrets_do_not_show() {
        let link = LinkProperties {
            label: 7,
            password: LinkPassword::of_text("hunter2".to_owned()).unwrap(),
            user_password: Zeroizing::new("swordfish".to_owned()),
            is_writable: false,
            opens_file: false,
            max_retrievals: None,
            expiry_epoch_seconds: None,
            target: None,
        };
        let shown = format!("{link:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("swordfish"));
        for (field, bad) in [
            ("l", Value::Int(0)),
            ("l", Value::Int(-1)),
            ("p", Value::from("")),
            ("u", Value::Null),
            ("w", Value::Int(1)),
        ] {
            let Value::Map(mut map) = link.to_value() else {
                panic!("a map");
            };
            map.insert(field, bad);
            assert!(
                LinkProperties::from_value(Value::Map(map)).is_err(),
                "{field}"
            );
        }
        let mut shared = SharedWith::default();
        shared
            .links
            .insert("a".to_owned(), vec![link; MAX_LINKS + 1]);
        assert!(SharedWith::from_value(shared.to_value()).is_err());
    }
}
