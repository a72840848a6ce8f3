//! The calls, one module per family: parse, ask a service, encode (Spec: 05 §2, §12).

mod admin;
mod bats;
mod core;
mod links;
mod login;
mod messages;
mod mutable;
mod second_factors;
mod social;
mod space;
mod storage;

use bytes::Bytes;
use pki::wire::{Body, WireError};

use crate::{
    error::Refusal,
    http::{Call, Reply, RequestBody},
};

/// The families of calls, by path prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `/api/v0/`: blocks.
    Storage,
    /// `/peergos/v0/core/`: names and sign-up.
    Core,
    /// `/peergos/v0/mutable/`: pointers.
    Mutable,
    /// `/peergos/v0/login/`: accounts.
    Login,
    /// `/peergos/v0/social/`: follow requests.
    Social,
    /// `/peergos/v0/storage/`: space.
    Space,
    /// `/peergos/v0/admin/`: administration.
    Admin,
    /// `/peergos/v0/bats/`: mirror tokens.
    Bats,
    /// `/peergos/v0/server-message/`: messages.
    Messages,
}

impl Family {
    /// Returns the family of a decoded path and what follows the prefix.
    pub(crate) fn of_path(path: &str) -> Option<(Self, &str)> {
        if let Some(rest) = path.strip_prefix("/api/v0/") {
            return Some((Self::Storage, rest));
        }
        let (family, rest) = path.strip_prefix("/peergos/v0/")?.split_once('/')?;
        let family = match family {
            "core" => Self::Core,
            "mutable" => Self::Mutable,
            "login" => Self::Login,
            "social" => Self::Social,
            "storage" => Self::Space,
            "admin" => Self::Admin,
            "bats" => Self::Bats,
            "server-message" => Self::Messages,
            _ => return None,
        };
        Some((family, rest))
    }

    /// Splits the name of a call from further path segments; below `/api/v0/` the whole rest is the name.
    pub(crate) fn split(self, rest: &str) -> (&str, &str) {
        match self {
            Self::Storage => (rest, ""),
            _ => rest.split_once('/').unwrap_or((rest, "")),
        }
    }

    /// Returns true when a call needs a request body, and so cannot come as GET on a public node.
    pub(crate) fn takes_body(self, call: &str) -> bool {
        match self {
            Self::Storage => matches!(
                call,
                "block/put/bulk" | "block/put" | "blockstore/auth" | "blockstore/auth-reads"
            ),
            Self::Core => call != "getUsernamesGzip",
            Self::Mutable => call != "getPointer",
            Self::Login => matches!(call, "setLogin" | "registerWebauthnComplete"),
            Self::Social => call != "getFollowRequests",
            Self::Messages => call == "send",
            Self::Space | Self::Admin | Self::Bats => false,
        }
    }

    /// Returns the reference text for a call that does not exist.
    fn unknown_call(self, call: &str) -> Refusal {
        Refusal::UnknownCall(match self {
            Self::Storage => return Refusal::NotFound,
            Self::Core => "Unknown pkinode method!".into(),
            Self::Mutable => "Unknown method in mutable pointers!".into(),
            Self::Login => "Unknown method in AccountHandler!".into(),
            Self::Social => format!("Unknown method {call}").into(),
            Self::Space => "Unknown method in StorageHandler!".into(),
            Self::Admin => "Unknown method in admin handler!".into(),
            Self::Bats => "Unknown method in BatsHandler!".into(),
            Self::Messages => "Unknown method in ServerMessageHandler!".into(),
        })
    }
}

/// Answers one call.
pub(crate) async fn answer(
    family: Family,
    call: &Call<'_>,
    body: &mut RequestBody,
) -> Result<Reply, Refusal> {
    let reply = match family {
        Family::Storage => storage::answer(call, body).await?,
        Family::Core => core::answer(call, body).await?,
        Family::Mutable => mutable::answer(call, body).await?,
        Family::Login => login::answer(call, body).await?,
        Family::Social => social::answer(call, body).await?,
        Family::Space => space::answer(call).await?,
        Family::Admin => admin::answer(call).await?,
        Family::Bats => bats::answer(call).await?,
        Family::Messages => messages::answer(call, body).await?,
    };
    reply.ok_or_else(|| family.unknown_call(call.name))
}

/// Reads a body of a wire type within its limit.
async fn read<B: Body>(body: &mut RequestBody) -> Result<B, Refusal> {
    let bytes = body.read(B::MAX_BYTES).await?;
    B::from_body(&bytes).map_err(wire)
}

/// Reads a body of at most `max` bytes.
async fn read_bytes(body: &mut RequestBody, max: usize) -> Result<Bytes, Refusal> {
    body.read(max).await
}

/// Turns unreadable input into an answer that says what is wrong with it.
fn wire(error: WireError) -> Refusal {
    let text = match &error {
        WireError::Record(source) => format!("{error}: {source}"),
        WireError::Stream(source) => format!("{error}: {source}"),
        _ => error.to_string(),
    };
    Refusal::malformed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_select_families() {
        assert_eq!(
            Family::of_path("/api/v0/block/get"),
            Some((Family::Storage, "block/get"))
        );
        assert_eq!(
            Family::of_path("/peergos/v0/admin/version/extra"),
            Some((Family::Admin, "version/extra"))
        );
        assert_eq!(Family::Admin.split("version/extra"), ("version", "extra"));
        assert_eq!(Family::Storage.split("id/"), ("id/", ""));
        for other in [
            "/api/v0",
            "//api/v0/id",
            "/peergos/v0/admin",
            "/peergos/v0/stop/",
            "/nosuch",
            "/",
            "/API/v0/id",
        ] {
            assert_eq!(Family::of_path(other), None, "{other}");
        }
    }
}
