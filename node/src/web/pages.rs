//! Answers for everything that is not an API call: files of the web application (Spec: 13 §2 to §6).

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body_util::Full;

use super::{
    Label, PageSettings, Place, RootError, Site, WebRoot,
    conditional::{accepts_gzip, has_tag},
    policy::add_page_headers,
    root::{Body, is_compressible},
};
use crate::error::Refusal;

/// What `/` answers when no web application is configured.
const WELCOME: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Kastro</title>\n</head>\n<body>\n<h1>Kastro</h1>\n<p>This is a storage node. It keeps encrypted files for its users and cannot read them.</p>\n<p>Use it with the <code>kastro</code> command or any client that speaks the same protocol:</p>\n<pre>kastro --server SITE signup NAME</pre>\n</body>\n</html>\n";
/// The page behind secret links.
const SECRET_PAGE: &str = "secret.html";

/// The pages of a node.
#[derive(Debug)]
pub(crate) struct Pages {
    root: Option<WebRoot>,
    settings: PageSettings,
}

impl Pages {
    /// Serves the files of `folder`, or the built-in page.
    ///
    /// # Errors
    /// When the folder cannot be indexed.
    pub(crate) fn new(folder: Option<&Path>, settings: PageSettings) -> Result<Self, RootError> {
        Ok(Self {
            root: folder.map(WebRoot::open).transpose()?,
            settings,
        })
    }

    /// Returns the web application that is served.
    pub(crate) const fn root(&self) -> Option<&WebRoot> {
        self.root.as_ref()
    }

    /// Answers a request for `path`, which is percent-decoded already. Every answer has the headers of a page.
    pub(crate) async fn answer(
        &self,
        parts: &Parts,
        path: &str,
        site: Site<'_>,
        place: Place<'_>,
    ) -> Response<Full<Bytes>> {
        let Some((name, body)) = self
            .body(path, site, place, accepts_gzip(&parts.headers))
            .await
        else {
            return self.refuse(Refusal::NotFound, site, place);
        };
        // After the look-up: what does not exist is 404 for every method.
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return self.refuse(Refusal::Method, site, place);
        }
        let mut response = Response::new(Full::new(Bytes::new()));
        let headers = response.headers_mut();
        add_page_headers(headers, site, place, &self.settings);
        if let Some(kind) = content_type(&name) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if body.is_gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if is_compressible(&name) {
            headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        // The first page is fetched anew each time, so that a new version is seen at once.
        if !is_first_page(path) {
            headers.insert(
                header::CACHE_CONTROL,
                HeaderValue::from_static("public, max-age=600"),
            );
            if let Ok(tag) = HeaderValue::from_str(&body.tag) {
                headers.insert(header::ETAG, tag);
            }
            if has_tag(&parts.headers, &body.tag) {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return response;
            }
        }
        let bytes = body.shared();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        if parts.method == Method::GET {
            *response.body_mut() = Full::new(bytes);
        }
        response
    }

    /// Answers with a refusal that has the headers of a page.
    pub(crate) fn refuse(
        &self,
        refusal: Refusal,
        site: Site<'_>,
        place: Place<'_>,
    ) -> Response<Full<Bytes>> {
        let mut response = refusal.into_response();
        add_page_headers(response.headers_mut(), site, place, &self.settings);
        response
    }

    async fn body(
        &self,
        path: &str,
        site: Site<'_>,
        place: Place<'_>,
        gzip: bool,
    ) -> Option<(String, Arc<Body>)> {
        let name = self.file_name(path, place)?;
        let body = match &self.root {
            Some(root) => root.body(&name, gzip).await?,
            None if name == "index.html" && is_first_page(path) => {
                let page = WELCOME.replace("SITE", &format!("{}//{}", site.scheme, site.host));
                Arc::new(Body::new(page.into_bytes(), false))
            }
            None => return None,
        };
        Some((name, body))
    }

    /// Returns the name of the file that a path asks for, if the host may have it (Spec: 13 §3).
    fn file_name(&self, path: &str, place: Place<'_>) -> Option<String> {
        let mut name = path.strip_prefix('/').unwrap_or(path).replace("//", "/");
        if name.is_empty() {
            name.push_str("index.html");
        }
        // Whatever follows: nothing tells from the page whether a link exists.
        if name.starts_with("secret/") {
            SECRET_PAGE.clone_into(&mut name);
        }
        match place {
            Place::Main => {
                if name.starts_with("apps/sandbox/") {
                    return None;
                }
            }
            Place::Sandbox(label) if self.is_app(label) => {
                if !name.starts_with(&format!("apps/{label}/")) {
                    return None;
                }
            }
            Place::Sandbox(_) => name.insert_str(0, "apps/sandbox/"),
        }
        let is_plain = name
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0', ':']));
        is_plain.then_some(name)
    }

    fn is_app(&self, label: &Label) -> bool {
        self.settings.apps.contains(label)
    }
}

fn is_first_page(path: &str) -> bool {
    matches!(path, "" | "/")
}

/// Returns the type by the end of the name (Spec: 13 §3).
fn content_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "js" | "mjs" => "text/javascript",
        "html" => "text/html",
        "css" => "text/css",
        "json" => "application/json",
        "png" => "image/png",
        "woff" => "application/font-woff",
        "svg" => "image/svg+xml",
        "wasm" => "application/wasm",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Pages {
        Pages::new(None, PageSettings::default()).unwrap()
    }

    fn named(path: &str, label: Option<&str>) -> Option<String> {
        let label = label.map(|label| label.parse::<Label>().unwrap());
        let place = label.as_ref().map_or(Place::Main, Place::Sandbox);
        pages().file_name(path, place)
    }

    #[test]
    fn paths_become_names_by_the_host() {
        let calendar = Some("calendar");
        let other = Some("bciqabc");
        for (path, label, expected) in [
            ("/", None, Some("index.html")),
            ("", None, Some("index.html")),
            ("//", None, None),
            ("/js//a.js", None, Some("js/a.js")),
            ("/secret/zowner/1", None, Some("secret.html")),
            ("/secret/../../x", None, Some("secret.html")),
            ("/secret", None, Some("secret")),
            ("/apps/calendar/x.css", None, Some("apps/calendar/x.css")),
            ("/apps/sandbox/x", None, None),
            ("/apps//sandbox/x", None, None),
            ("//apps/sandbox/x", None, None),
            ("/apps/sandbox", None, Some("apps/sandbox")),
            (
                "/apps/calendar/x.css",
                calendar,
                Some("apps/calendar/x.css"),
            ),
            ("/apps/calendarx/a", calendar, None),
            ("/apps/pdf/x", calendar, None),
            ("/apps/sandbox/x", calendar, None),
            ("/", calendar, None),
            ("/secret/z/1", calendar, None),
            ("/x.html", other, Some("apps/sandbox/x.html")),
            ("/", other, Some("apps/sandbox/index.html")),
            ("/secret/z/1", other, Some("apps/sandbox/secret.html")),
            ("/../calendar/x", other, None),
            (
                "/apps/calendar/x",
                other,
                Some("apps/sandbox/apps/calendar/x"),
            ),
        ] {
            assert_eq!(named(path, label).as_deref(), expected, "{path} {label:?}");
        }
    }

    #[test]
    fn prg_002_no_path_is_anything_but_names() {
        for path in [
            "/../etc/passwd",
            "/..",
            "/.",
            "/./a",
            "/a/.",
            "/a/../b",
            "/a/..",
            "/a\\..\\b",
            "\\a",
            "/a\0",
            "/c:/x",
            "/c:x",
            "///etc/passwd",
            "/a///b",
            "/a/",
            "/apps/calendar/../sandbox/x",
        ] {
            assert_eq!(named(path, None), None, "{path}");
            assert_eq!(named(path, Some("bciqabc")), None, "{path}");
            assert_eq!(named(path, Some("calendar")), None, "{path}");
        }
    }
}
