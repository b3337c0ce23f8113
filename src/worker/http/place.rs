//! Where a request goes: addresses, their origins, and where a redirect leads.

use ureq::http::Uri;
use ureq::http::uri::PathAndQuery;

/// Of an address in a log.
const SHOWN_CHARS_MAX: usize = 300;
/// In place of what may be a password.
const HIDDEN: &str = "***";

/// Returns the address `url`: http or https, with a host, without a name and password.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn parse(url: &str) -> Result<Uri, &'static str> {
    let without_fragment = url.split('#').next().unwrap_or_default();
    let place: Uri = without_fragment.parse().map_err(|_| "it is no absolute URL")?;
    if !matches!(place.scheme_str(), Some("http" | "https")) {
        return Err("only http and https are fetched");
    }
    match place.authority() {
        Some(authority) if authority.as_str().contains('@') => Err("it holds a name or a password"),
        Some(authority) if authority.host().is_empty() => Err("it has no host"),
        Some(_) => Ok(place),
        None => Err("it has no host"),
    }
}

/// Returns the address of the API call `path` (with a slash before it) below `base`, which may end in a slash.
///
/// # Errors
///
/// When the two make no address.
pub(super) fn below(base: &Uri, path: &str) -> Result<Uri, &'static str> {
    with_path(base, &format!("{}{path}", base.path().trim_end_matches('/')))
}

/// Whether scheme, host and port are the same.
pub(super) fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    origin(one) == origin(other)
}

fn origin(place: &Uri) -> (Option<&str>, Option<String>, Option<u16>) {
    let usual_port = if place.scheme_str() == Some("https") { 443 } else { 80 };
    let port = place.port_u16().unwrap_or(usual_port);
    (place.scheme_str(), place.host().map(str::to_ascii_lowercase), Some(port))
}

/// Returns where `location`, a redirect's header, leads from `from`; never to another origin.
///
/// # Errors
///
/// When it leads elsewhere, or nowhere.
pub(super) fn follow(from: &Uri, location: &str) -> Result<Uri, &'static str> {
    let next = match location {
        absolute if has_scheme(absolute) => parse(absolute)?,
        sibling if sibling.starts_with("//") => parse(&format!("{}:{sibling}", from.scheme_str().unwrap_or_default()))?,
        rooted if rooted.starts_with('/') => with_path(from, rooted)?,
        relative => {
            let folder = from.path().rfind('/').map_or("/", |slash| &from.path()[..=slash]);
            with_path(from, &format!("{folder}{relative}"))?
        }
    };
    if is_same_origin(from, &next) { Ok(next) } else { Err("a redirect to another origin is not followed") }
}

/// Whether `location` begins with a scheme. Source: RFC 3986, 3.1.
fn has_scheme(location: &str) -> bool {
    location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// Returns `place` with `path` (and its query) in place of its own.
fn with_path(place: &Uri, path: &str) -> Result<Uri, &'static str> {
    let path: PathAndQuery = path.split('#').next().unwrap_or_default().parse().map_err(|_| "its path is not one")?;
    let mut parts = place.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| "its path is not one")
}

/// Returns `place` for people and logs: without the query, which may hold a key.
pub(super) fn shown(place: &Uri) -> String {
    let authority = place.authority().map_or("", |authority| authority.as_str());
    // The library takes what no address may hold, as long as it is UTF-8.
    readable(&[place.scheme_str().unwrap_or_default(), "://", authority, place.path()])
}

/// Returns `url`, which need be no address, for people and logs: without what may be a query, a name or a password.
pub(in crate::worker) fn shown_text(url: &str) -> String {
    let is_scheme =
        |before: &str| before.is_empty() || has_scheme(before) && before.find(':') == Some(before.len() - 1);
    let start = url.find("//").filter(|slashes| is_scheme(&url[..*slashes])).map_or(0, |slashes| slashes + 2);
    let (scheme, place) = url.split_at(start);
    let (place, query) = place.split_at(place.find(['?', '#']).unwrap_or(place.len()));
    // In what is no address a password may hold any of `/?#@`.
    match place.rsplit_once('@') {
        _ if query.contains('@') => readable(&[scheme, HIDDEN]),
        Some((_, place)) => readable(&[scheme, HIDDEN, "@", place]),
        None => readable(&[scheme, place]),
    }
}

/// Returns an address as it can be written into a line, and no more of it than people read.
fn readable(parts: &[&str]) -> String {
    parts.concat().escape_debug().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_lie_below_the_base_with_or_without_a_slash() {
        let cases = [
            ("http://h:8080", "http://h:8080/api/x"),
            ("http://h:8080/", "http://h:8080/api/x"),
            ("https://h/some/prefix", "https://h/some/prefix/api/x"),
            ("https://h/some/prefix/", "https://h/some/prefix/api/x"),
            ("http://[::1]:8080/", "http://[::1]:8080/api/x"),
        ];
        for (base, expected) in cases {
            assert_eq!(below(&parse(base).unwrap(), "/api/x").unwrap().to_string(), expected);
        }
    }

    #[test]
    fn only_plain_web_addresses_are_addresses() {
        for url in ["http://h", "https://h:1/a?b=c#d", "http://127.0.0.1:80/x", "HTTP://h/"] {
            assert!(parse(url).is_ok(), "{url}");
        }
        let others = [
            "file:///etc/passwd",
            "ftp://h/",
            "/a",
            "h/a",
            "http:///a",
            "http://n:p@h/",
            "http://h/a b",
            "",
            "http://",
        ];
        for url in others {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn redirects_stay_on_their_origin() {
        let from = parse("http://h:8080/a/b?c").unwrap();
        let followed = [
            ("/d?e=f", "http://h:8080/d?e=f"),
            ("d", "http://h:8080/a/d"),
            ("http://H:8080/d#e", "http://H:8080/d"),
            ("//h:8080/d", "http://h:8080/d"),
        ];
        for (location, expected) in followed {
            assert_eq!(follow(&from, location).map(|next| next.to_string()), Ok(expected.to_owned()), "{location}");
        }
        let refused = [
            "http://h/d",
            "https://h:8080/d",
            "http://other:8080/d",
            "//other:8080/d",
            "http://h:8080@other/d",
            "file:///etc/passwd",
            "javascript:x",
            "http://h:8080.other/d",
        ];
        for location in refused {
            assert!(follow(&from, location).is_err(), "{location}");
        }
        assert!(follow(&parse("https://h/a").unwrap(), "https://h:443/b").is_ok(), "the usual port may be said");
    }

    #[test]
    fn what_is_shown_has_no_query_and_no_control_characters() {
        assert_eq!(shown(&parse("http://h:1/a?key=1").unwrap()), "http://h:1/a");
        assert_eq!(shown(&parse("http://h/\u{85}\u{202e}").unwrap()), "http://h/\\u{85}\\u{202e}");
        assert_eq!(shown(&parse(&format!("http://h/{}", "a".repeat(1000))).unwrap()).len(), SHOWN_CHARS_MAX);
        assert_eq!(shown_text("file:///a\u{1b}?key=1"), "file:///a\\u{1b}");
    }

    #[test]
    fn what_is_shown_has_no_password() {
        for (url, expected) in [
            ("http://name:password@h/a", "http://***@h/a"),
            ("http://n:pass@word@h", "http://***@h"),
            ("http://n:pass/word@h", "http://***@h"),
            ("http://n:pass?word@h", "http://***"),
            ("http://h/a?key=n@m", "http://***"),
            ("http:/n:p@h", "***@h"),
            ("n:pass//word@h", "***@h"),
            ("n:pass://word@h", "***@h"),
            ("//n:p@h/", "//***@h/"),
            ("n:p@h", "***@h"),
        ] {
            assert_eq!(shown_text(url), expected);
        }
        assert_eq!(shown(&parse("http://h/a@b").unwrap()), "http://h/a@b", "it has none");
    }
}
