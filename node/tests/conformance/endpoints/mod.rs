//! One table of all endpoints (Spec: 05 §12): each is asked rightly and in every wrong way, and compared exactly.
//!
//! A row says what an endpoint takes, who may ask, and what comes back; from that the suite makes the refusals
//! that all calls share: every parameter missing, repeated and ill-formed, every wrong method on both kinds of
//! listener, every wrong authorisation, bodies too long and unreadable, users that are unknown, foreign and
//! somebody else. What is particular to a call stands in its row. No refusal may change a row or a block of the
//! store. The spec's own table is parsed and compared with ours and with what the node routes by.

mod blocks;
mod login;
mod names;
mod people;
mod pointers;
mod spec_table;
mod suite;
mod uploads;
mod world;

use champ::Cid;
use pki::wire::call::Call;

use self::world::World;

/// What a parameter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Hash of the identity key of the user whom the call is about.
    Owner,
    /// Name of that user.
    User,
    /// Hash of a key.
    Key,
    Cid,
    /// Server id.
    Peer,
    Hex,
    Integer,
    /// Multibase.
    Encoded,
    /// Anything goes.
    Text,
}

/// One parameter of a call.
#[derive(Debug, Clone, Copy)]
struct Param {
    name: &'static str,
    kind: Kind,
    is_optional: bool,
}

const fn needs(name: &'static str, kind: Kind) -> Param {
    Param {
        name,
        kind,
        is_optional: false,
    }
}

const fn may(name: &'static str, kind: Kind) -> Param {
    Param {
        name,
        kind,
        is_optional: true,
    }
}

/// What authorises a call, in the parameter `auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Auth {
    /// Nothing, or something in the body or another parameter, which the row's own refusals are about.
    Own,
    /// A signed time of the user, this many seconds either way.
    Time(i64),
    /// A signed request for the call's own path, this many seconds either way.
    Request(i64),
    /// The same, up to an hour old, five minutes ahead, and once.
    OnceRequest,
}

/// How long a body may be, and whether there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    /// Bytes.
    AtMost(usize),
}

/// A request: parameters without `auth`, body, headers.
#[derive(Debug, Clone, Default)]
struct Asked {
    query: Vec<(&'static str, String)>,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
}

/// What comes back.
#[derive(Clone, Copy)]
enum Reply {
    /// 200 with this content type, these caching headers, and a body that passes the check.
    Ok {
        kind: &'static str,
        /// The hash that the answer is a function of.
        hash: Option<fn(&World) -> Cid>,
        body: fn(&World, &[u8]) -> bool,
    },
    /// This node has the call and does not do it: 400 with this text.
    Refused(&'static str),
}

const fn fresh(kind: &'static str, body: fn(&World, &[u8]) -> bool) -> Reply {
    Reply::Ok {
        kind,
        hash: None,
        body,
    }
}

/// The text that a refusal carries, decoded.
#[derive(Clone, Copy)]
enum Text {
    /// Exactly this.
    Is(&'static str),
    /// Exactly what this world makes of it.
    Of(fn(&World) -> String),
    /// The text is free; this is how it begins.
    Begins(&'static str),
}

/// What is particular to a call.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// Spoils the right request.
    spoil: fn(&World, &mut Asked),
    status: u16,
    text: Text,
}

const fn case(name: &'static str, spoil: fn(&World, &mut Asked), text: Text) -> Case {
    Case {
        name,
        spoil,
        status: 400,
        text,
    }
}

/// A change of the request that is answered all the same.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    change: fn(&World, &mut Asked),
    body: fn(&World, &[u8]) -> bool,
}

/// One row.
struct Endpoint {
    call: Call,
    params: &'static [Param],
    takes: Takes,
    auth: Auth,
    /// False for calls that a user of another server may make here too, or that are about no user.
    is_for_local_users: bool,
    good: fn(&World) -> Asked,
    reply: Reply,
    cases: &'static [Case],
    /// Answered with 200 although something is odd; asked before the right request, and changes nothing.
    variants: &'static [Variant],
}

impl Asked {
    fn of<const N: usize>(query: [(&'static str, String); N]) -> Self {
        Self {
            query: query.into(),
            ..Self::default()
        }
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Replaces a parameter, or adds it.
    fn set(&mut self, name: &'static str, value: impl ToString) {
        let value = value.to_string();
        match self.query.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.query.push((name, value)),
        }
    }

    fn unset(&mut self, name: &str) {
        self.query.retain(|(known, _)| *known != name);
    }

    fn target(&self, call: Call) -> String {
        let query = self
            .query
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        let query = pki::wire::query::encode_query(query);
        match query.is_empty() {
            true => call.path().to_owned(),
            false => format!("{}?{query}", call.path()),
        }
    }
}

/// All rows.
fn rows() -> Vec<&'static Endpoint> {
    [
        blocks::ROWS,
        uploads::ROWS,
        pointers::ROWS,
        login::ROWS,
        people::ROWS,
        names::ROWS,
    ]
    .into_iter()
    .flatten()
    .collect()
}
