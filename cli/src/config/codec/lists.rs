//! Lists.

use std::{collections::BTreeSet, marker::PhantomData, str::FromStr};

use champ::Cid;
use pki::username::Username;

use super::{Codec, Given, Raw, quoted, wrong};

/// Returns the items of a list; on the command line and in the environment they are separated by commas.
fn list(given: &Given) -> Result<Vec<String>, String> {
    match &given.raw {
        Raw::List(items) => Ok(items.clone()),
        Raw::Text(text) => Ok(text
            .split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect()),
        _ => wrong("a list of texts"),
    }
}

fn show_list<T: ToString>(items: impl IntoIterator<Item = T>) -> Option<String> {
    let items: Vec<_> = items
        .into_iter()
        .map(|item| quoted(&item.to_string()))
        .collect();
    Some(format!("[{}]", items.join(", ")))
}

pub(in crate::config) struct Texts;

impl Codec for Texts {
    type Value = Vec<String>;
    const FORM: &'static str = "list";

    fn read(given: &Given) -> Result<Vec<String>, String> {
        list(given)
    }

    fn show(value: &Vec<String>) -> Option<String> {
        show_list(value)
    }
}

pub(in crate::config) struct Names;

impl Codec for Names {
    type Value = BTreeSet<String>;
    const FORM: &'static str = "list of user names";

    fn read(given: &Given) -> Result<BTreeSet<String>, String> {
        let names = list(given)?;
        match names.iter().find(|name| Username::parse(name).is_err()) {
            Some(name) => Err(format!("`{name}` is not a user name")),
            None => Ok(names.into_iter().collect()),
        }
    }

    fn show(value: &BTreeSet<String>) -> Option<String> {
        show_list(value)
    }
}

/// A list of what the program reads from text by itself, in the collection `L`.
pub(in crate::config) struct Each<L>(PhantomData<L>);

impl<L, T> Codec for Each<L>
where
    L: IntoIterator<Item = T> + FromIterator<T>,
    for<'a> &'a L: IntoIterator<Item = &'a T>,
    T: FromStr<Err: ToString> + ToString + 'static,
{
    type Value = L;
    const FORM: &'static str = "list";

    fn read(given: &Given) -> Result<L, String> {
        list(given)?
            .iter()
            .map(|item| {
                item.parse()
                    .map_err(|error: T::Err| format!("`{item}`: {}", error.to_string()))
            })
            .collect()
    }

    fn show(value: &L) -> Option<String> {
        show_list(value.into_iter().map(ToString::to_string))
    }
}

pub(in crate::config) struct Ids;

impl Codec for Ids {
    type Value = Vec<Cid>;
    const FORM: &'static str = "list of server ids";

    fn read(given: &Given) -> Result<Vec<Cid>, String> {
        let ids = list(given)?;
        ids.iter()
            .map(|id| Cid::parse_peer_id(id).map_err(|_| format!("`{id}` is not a server id")))
            .collect()
    }

    fn show(value: &Vec<Cid>) -> Option<String> {
        show_list(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_from_arrays_and_from_commas() {
        let commas = Given::text(" alice , bob,");
        assert_eq!(list(&commas).unwrap(), ["alice", "bob"]);
        assert_eq!(Names::read(&commas).unwrap().len(), 2);
        assert!(Names::read(&Given::text(&format!("alice,{}", "x".repeat(100)))).is_err());
    }
}
