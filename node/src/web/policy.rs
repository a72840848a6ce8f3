//! The headers of every page, and the content policy among them (Spec: 13 §4, §5).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Label, PageSettings};

/// What kind of host a page is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// The site itself, which handles the keys of everyone who logs in.
    Main,
    /// A host of its own for code that must not reach the site.
    Sandbox(&'a Label),
}

/// Where the site is: the parts of its origin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    /// `https:` or `http:`.
    pub(crate) scheme: &'a str,
    /// Host name and port as browsers send them.
    pub(crate) host: &'a str,
}

/// Adds the headers of every page.
pub(super) fn add_page_headers(
    headers: &mut HeaderMap,
    site: Site<'_>,
    place: Place<'_>,
    settings: &PageSettings,
) {
    for (name, value) in [
        ("cross-origin-embedder-policy", "require-corp"),
        ("cross-origin-opener-policy", "same-origin"),
        ("origin-agent-cluster", "?1"),
        ("x-xss-protection", "1; mode=block"),
        ("x-dns-prefetch-control", "off"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        (
            "permissions-policy",
            "interest-cohort=(), geolocation=(), gyroscope=(), magnetometer=(), accelerometer=(), microphone=(), camera=(self), fullscreen=(self)",
        ),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let reachable_from = match place {
        Place::Main => {
            headers.insert(
                HeaderName::from_static("x-frame-options"),
                HeaderValue::from_static("sameorigin"),
            );
            "same-origin"
        }
        // The main page frames it, and loads from it.
        Place::Sandbox(_) => "cross-origin",
    };
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static(reachable_from),
    );
    // Every part was checked when it was read. A policy that is no header value all the same would mean a page
    // without one, so the page gets the strictest instead.
    let policy = HeaderValue::from_str(&content_policy(site, place, settings))
        .unwrap_or(HeaderValue::from_static("default-src 'none';sandbox;"));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
}

/// Returns the policy text; the blanks are those of the recorded one.
fn content_policy(site: Site<'_>, place: Place<'_>, settings: &PageSettings) -> String {
    let Site { scheme, host } = site;
    let origin = format!("{scheme}//{host}");
    let frames: String = settings
        .frame_sources
        .iter()
        .map(|source| format!("{source} "))
        .collect();
    let (scripts, style, sandbox, framed, blocks) = match place {
        Place::Main => (
            String::new(),
            String::new(),
            "",
            format!("{scheme}//*.{host}"),
            settings
                .block_hosts
                .iter()
                .map(|host| format!(" https://{host}"))
                .collect(),
        ),
        Place::Sandbox(label) => (
            settings
                .inline_scripts
                .iter()
                .map(|hash| format!(" 'sha256-{hash}'"))
                .collect(),
            format!(" 'unsafe-inline' https://{label}.{host}"),
            "sandbox allow-same-origin allow-scripts allow-forms allow-modals;",
            String::new(),
            String::new(),
        ),
    };
    format!(
        "default-src 'self' {origin};script-src 'self' {origin}{scripts};style-src 'self'  {origin}{style};{sandbox}\
         frame-src 'self' {frames}{framed};frame-ancestors 'self' {origin};\
         connect-src 'self' {origin} peergos-drop:{blocks};media-src 'self' {origin} blob:;\
         img-src 'self' {origin} data: blob:;object-src 'none';"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_site_has_no_holes() {
        let site = Site {
            scheme: "https:",
            host: "example.org",
        };
        let main = content_policy(site, Place::Main, &PageSettings::default());
        assert_eq!(
            main,
            "default-src 'self' https://example.org;script-src 'self' https://example.org;\
             style-src 'self'  https://example.org;frame-src 'self' https://*.example.org;\
             frame-ancestors 'self' https://example.org;connect-src 'self' https://example.org peergos-drop:;\
             media-src 'self' https://example.org blob:;img-src 'self' https://example.org data: blob:;\
             object-src 'none';"
        );
        let label = "x".parse().unwrap();
        let sandbox = content_policy(site, Place::Sandbox(&label), &PageSettings::default());
        assert!(sandbox.contains(
            "style-src 'self'  https://example.org 'unsafe-inline' https://x.example.org;sandbox allow-same-origin allow-scripts allow-forms allow-modals;frame-src 'self' ;"
        ));
        assert!(!sandbox.contains("allow-top-navigation"));
        for policy in [main, sandbox] {
            assert!(!policy.contains("unsafe-eval"));
            assert!(policy.ends_with("object-src 'none';"));
        }
    }
}
