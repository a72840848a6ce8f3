//! Records of the published tree (Spec: 04 §7).

use champ::{
    Cid,
    cbor::{Fields, Map, Record, RecordError, Value},
    map::{Champ, KeyHash},
};

use super::PublishedCapability;

/// Longest name in UTF-16 units.
pub const MAX_NAME_UNITS: usize = 255;
/// Most children of a directory that is a plain list.
pub const MAX_SMALL_DIRECTORY: usize = 32;

/// The block behind a root block's `public` field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicRoot {
    /// Number of the next inode.
    pub inode_count: u64,
    /// Champ of directories.
    pub directories: Cid,
}

/// Names a directory or file of the published tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    number: u64,
    name: String,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Which.
    pub inode: Inode,
    /// What opens it, if it is published itself.
    pub capability: Option<PublishedCapability>,
}

/// A directory.
#[derive(Debug, Clone)]
pub enum Directory {
    /// At most [`MAX_SMALL_DIRECTORY`] children in a list.
    Small(Vec<Child>),
    /// A champ by name.
    Big(Champ),
}

impl Inode {
    /// Returns the inode of the root.
    pub const fn root() -> Self {
        Self {
            number: 0,
            name: String::new(),
        }
    }

    /// Makes an inode; the name has been checked as an element of a path.
    pub(super) const fn new(number: u64, name: String) -> Self {
        Self { number, name }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn count(value: Value, field: &'static str) -> Result<u64, RecordError> {
    u64::try_from(value.into_int(field)?).map_err(|_| RecordError::OutOfRange { field })
}

/// Numbers are read from and stay within non-negative integers of 64 bits with a sign.
fn number(value: u64) -> Value {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

impl Record for PublicRoot {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([
            ("c", number(self.inode_count)),
            ("r", Value::from(&self.directories)),
        ]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "public data")?;
        Ok(Self {
            inode_count: count(fields.required("c")?, "c")?,
            directories: fields.required("r")?.into_link("r")?,
        })
    }
}

impl Record for Inode {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([
            ("i", number(self.number)),
            ("n", Value::from(self.name.as_str())),
        ]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "inode")?;
        let number = count(fields.required("i")?, "i")?;
        let name = fields.required("n")?.into_text("n")?;
        if name.contains('/') || name.encode_utf16().count() > MAX_NAME_UNITS {
            return Err(RecordError::OutOfRange { field: "n" });
        }
        Ok(Self { number, name })
    }
}

impl Record for Child {
    fn to_value(&self) -> Value {
        let mut map = Map::from_iter([("i", self.inode.to_value())]);
        map.insert_some("c", self.capability.as_ref().map(Record::to_value));
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "published child")?;
        Ok(Self {
            inode: Inode::from_value(fields.required("i")?)?,
            capability: fields
                .optional("c")
                .map(PublishedCapability::from_value)
                .transpose()?,
        })
    }
}

impl Directory {
    /// Reads a directory record: a map is small, a list is the root node of a champ.
    ///
    /// # Errors
    /// [`RecordError`]; a small directory with more than [`MAX_SMALL_DIRECTORY`] children is refused.
    pub fn from_value(value: Value) -> Result<Self, RecordError> {
        if matches!(value, Value::List(_)) {
            return Champ::inline(value)
                .map(|champ| Self::Big(champ.hashed_by(KeyHash::Sha256)))
                .map_err(|_| RecordError::OutOfRange { field: "directory" });
        }
        let children = Fields::of(value, "directory")?
            .required("c")?
            .into_list("c")?;
        if children.len() > MAX_SMALL_DIRECTORY {
            return Err(RecordError::OutOfRange { field: "c" });
        }
        children
            .into_iter()
            .map(Child::from_value)
            .collect::<Result<_, _>>()
            .map(Self::Small)
    }

    /// Returns the record of a small directory.
    pub(super) fn small_value(children: &[Child]) -> Value {
        let children = children.iter().map(Record::to_value).collect();
        Value::Map(Map::from_iter([("c", Value::List(children))]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_inode_has_the_specified_bytes() {
        assert_eq!(Inode::root().encode(), b"\xa2\x61i\x00\x61n\x60");
    }

    #[test]
    fn records_out_of_range_are_refused() {
        let inode = |number: i64, name: &str| {
            Inode::from_value(Value::Map(Map::from_iter([
                ("i", Value::Int(number)),
                ("n", Value::from(name)),
            ])))
        };
        assert!(inode(0, "a").is_ok());
        assert!(inode(1, &"\u{1f600}".repeat(127)).is_ok());
        for (number, name) in [(-1, "a"), (0, "a/b"), (0, &*"\u{1f600}".repeat(128))] {
            assert!(inode(number, name).is_err(), "{number} {name}");
        }
        let child = Child {
            inode: Inode::root(),
            capability: None,
        };
        let full = Directory::small_value(&vec![child.clone(); MAX_SMALL_DIRECTORY]);
        assert!(Directory::from_value(full).is_ok());
        let over = Directory::small_value(&vec![child; MAX_SMALL_DIRECTORY + 1]);
        assert!(Directory::from_value(over).is_err());
        for bad in [Value::Null, Value::List(vec![]), Value::Map(Map::new())] {
            assert!(Directory::from_value(bad).is_err());
        }
    }
}
