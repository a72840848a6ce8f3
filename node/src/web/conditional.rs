//! What a browser says about what it can read and what it has (Spec: 13 §3).

use http::{HeaderMap, header};

/// Returns true when the request offers gzip: a token with a weight above zero.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut star = None;
    let mut named = None;
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for offer in value.to_str().unwrap_or_default().split(',') {
            let mut parts = offer.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let weight = parts
                .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
                .map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0));
            if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
                named = Some(weight > 0.0);
            } else if coding == "*" {
                star = Some(weight > 0.0);
            }
        }
    }
    named.or(star).unwrap_or(false)
}

/// Returns true when `If-None-Match` names `tag`: quoted tags, lists, weak forms and `*`.
pub(super) fn has_tag(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|candidate| {
            candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == tag
        })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(name: header::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn gzip_is_sent_only_when_it_is_offered() {
        for (values, expected) in [
            (&["gzip"][..], true),
            (&["br, GZIP;q=0.5"], true),
            (&["deflate", "x-gzip"], true),
            (&["*"], true),
            (&["*;q=0, gzip"], true),
            (&["gzip;q=0, *"], false),
            (&["gzip; q=0.000"], false),
            (&["gzip;q=x"], false),
            (&["gzipped", "identity"], false),
            (&[], false),
        ] {
            let headers = with(header::ACCEPT_ENCODING, values);
            assert_eq!(accepts_gzip(&headers), expected, "{values:?}");
        }
    }

    #[test]
    fn tags_are_compared_as_lists() {
        for (values, expected) in [
            (&["\"a\", W/\"b\""][..], true),
            (&["*"], true),
            (&["\"x\"", "\"b\""], true),
            (&["b"], false),
            (&["\"B\""], false),
            (&[], false),
        ] {
            let headers = with(header::IF_NONE_MATCH, values);
            assert_eq!(has_tag(&headers, "\"b\""), expected, "{values:?}");
        }
    }
}
