//! What the browser said it was doing: `CollectedClientData` (W3C Web Authentication level 2, §5.8.1).

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use subtle::ConstantTimeEq as _;

use super::{Challenge, Rejection, RelyingParty, check_length};

/// What an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ceremony {
    Registration,
    Login,
}

impl Ceremony {
    const fn client_data_type(self) -> &'static str {
        match self {
            Self::Registration => "webauthn.create",
            Self::Login => "webauthn.get",
        }
    }
}

/// The members that are checked; all others are ignored.
struct ClientData {
    kind: String,
    challenge: String,
    origin: String,
}

/// Returns the challenge an answer claims to be for, so that the caller can find it among the open ones.
///
/// # Errors
/// [`Rejection::TooLong`], [`Rejection::ClientData`], and [`Rejection::Challenge`] for what cannot be one.
pub fn presented_challenge(client_data: &[u8]) -> Result<Challenge, Rejection> {
    let text = ClientData::parse(client_data)?.challenge;
    BASE64URL_NOPAD
        .decode(text.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .map(Challenge)
        .ok_or(Rejection::Challenge)
}

/// Checks that the browser was asked this, now and by this site.
pub(super) fn check_client_data(
    client_data: &[u8],
    ceremony: Ceremony,
    challenge: &Challenge,
    rp: &RelyingParty,
) -> Result<(), Rejection> {
    let data = ClientData::parse(client_data)?;
    let expected = ceremony.client_data_type();
    if data.kind != expected {
        return Err(Rejection::ClientDataType { expected });
    }
    let text = BASE64URL_NOPAD.encode(&challenge.0);
    if !bool::from(data.challenge.as_bytes().ct_eq(text.as_bytes())) {
        return Err(Rejection::Challenge);
    }
    if !rp.is_origin(&data.origin) {
        return Err(Rejection::Origin);
    }
    Ok(())
}

impl ClientData {
    fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        check_length(bytes)?;
        serde_json::from_slice(bytes).map_err(|_| Rejection::ClientData)
    }
}

// By hand: a derived implementation would take a JSON array for the object.
impl<'de> Deserialize<'de> for ClientData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = ClientData;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("client data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ClientData, A::Error> {
        let (mut kind, mut challenge, mut origin) = (None, None, None);
        while let Some(member) = map.next_key::<String>()? {
            let place = match member.as_str() {
                "type" => &mut kind,
                "challenge" => &mut challenge,
                "origin" => &mut origin,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            // Which of two would count is a matter of taste; an attacker must not have the choice.
            if place.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(ClientData {
            kind: kind.ok_or_else(|| A::Error::missing_field("type"))?,
            challenge: challenge.ok_or_else(|| A::Error::missing_field("challenge"))?,
            origin: origin.ok_or_else(|| A::Error::missing_field("origin"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHALLENGE: Challenge = Challenge([7; 32]);
    const TEXT: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";

    fn check(json: &str) -> Result<(), Rejection> {
        let rp = RelyingParty::new(Some("example.org"), 8000).unwrap();
        check_client_data(json.as_bytes(), Ceremony::Login, &CHALLENGE, &rp)
    }

    fn json(kind: &str, challenge: &str, origin: &str) -> String {
        format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{origin}"}}"#)
    }

    #[test]
    fn members_in_any_order_and_further_ones_are_fine() {
        assert_eq!(
            check(&json("webauthn.get", TEXT, "https://example.org")),
            Ok(())
        );
        assert_eq!(
            check(&format!(
                r#" {{"tokenBinding":{{"status":"x","a":[[1.5,null]]}},"origin":"https:\/\/example.org",
                    "crossOrigin":true,"a":1,"a":2,"challenge":"{TEXT}","type":"webauthn\u002eget"}} "#
            )),
            Ok(())
        );
        // Skipped without recursion, so depth is no danger.
        let nested = format!(r#","x":{}1{}}}"#, "[".repeat(900), "]".repeat(900));
        let good = json("webauthn.get", TEXT, "https://example.org");
        assert_eq!(check(&good.replace('}', &nested)), Ok(()));
    }

    #[test]
    fn type_challenge_and_origin_are_each_checked() {
        assert_eq!(
            check(&json("webauthn.create", TEXT, "https://example.org")),
            Err(Rejection::ClientDataType {
                expected: "webauthn.get"
            })
        );
        assert_eq!(
            check(&json("webauthn.get", TEXT, "https://example.com")),
            Err(Rejection::Origin)
        );
        let padded = format!("{TEXT}=");
        // The last character holds two bits that must be zero.
        let slack = format!("{}d", &TEXT[..42]);
        for bad in ["", &TEXT[1..], &padded, &slack, &TEXT.to_lowercase()] {
            assert_eq!(
                check(&json("webauthn.get", bad, "https://example.org")),
                Err(Rejection::Challenge),
                "{bad}"
            );
        }
    }

    #[test]
    fn only_an_object_with_each_member_once_is_client_data() {
        let good = json("webauthn.get", TEXT, "https://example.org");
        for bad in [
            String::new(),
            "null".to_owned(),
            format!(r#"["webauthn.get","{TEXT}","https://example.org"]"#),
            format!("[{good}]"),
            format!("{good}x"),
            format!("{good}{good}"),
            format!("\u{feff}{good}"),
            good.replacen('{', r#"{"type":"webauthn.get","#, 1),
            good.replacen('{', r#"{"origin":"https://evil.example","#, 1),
            good.replacen('{', r#"{"\u006frigin":"https://evil.example","#, 1),
            good.replacen('{', &format!(r#"{{"challenge":"{TEXT}","#), 1),
            good.replace("origin", "Origin"),
            good.replace("challenge", "x"),
            good.replace("type", "x"),
            good.replace(r#""webauthn.get""#, "1"),
            good.replace("webauthn", "webauthn\n"),
            good.replace('}', r#","x":{}"#),
        ] {
            assert_eq!(check(&bad), Err(Rejection::ClientData), "{bad}");
        }
        assert_eq!(
            check(&good.replace('}', &" ".repeat(3000))),
            Err(Rejection::TooLong(good.len() + 2999))
        );
        let mut broken = good.into_bytes();
        broken[12] = 0xff;
        assert_eq!(presented_challenge(&broken), Err(Rejection::ClientData));
    }

    #[test]
    fn the_presented_challenge_is_found() {
        let good = json("anything", TEXT, "anywhere");
        assert_eq!(presented_challenge(good.as_bytes()), Ok(CHALLENGE));
        let short = json("anything", &TEXT[..4], "anywhere");
        assert_eq!(
            presented_challenge(short.as_bytes()),
            Err(Rejection::Challenge)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes: Vec<u8>) {
            prop_assert!(presented_challenge(&bytes).is_err());
        }

        #[test]
        fn a_challenge_matches_itself_and_no_other(a: [u8; 32], b: [u8; 32]) {
            let rp = RelyingParty::new(Some("example.org"), 8000).unwrap();
            let text = json("webauthn.get", &BASE64URL_NOPAD.encode(&a), "https://example.org");
            let check = |challenge| {
                check_client_data(text.as_bytes(), Ceremony::Login, &Challenge(challenge), &rp)
            };
            prop_assert_eq!(check(a), Ok(()));
            prop_assert_eq!(check(b).is_ok(), a == b);
            prop_assert_eq!(presented_challenge(text.as_bytes()), Ok(Challenge(a)));
        }
    }
}
