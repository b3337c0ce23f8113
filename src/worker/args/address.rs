//! Where the server's API is.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An http or https URL with a host and perhaps a path: no credentials, no query, no fragment, no slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) struct ApiAddress {
    text: String,
    scheme: Scheme,
    /// An IPv6 address without its brackets.
    host: String,
    port: u16,
    /// Without a slash at its end.
    path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// What is wrong with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::worker) enum BadAddress {
    #[error("it begins with neither `http://` nor `https://`")]
    Scheme,
    #[error("it has no host")]
    NoHost,
    #[error("its host is no name and no address")]
    Host,
    #[error("its port is no number from 1 to 65535")]
    Port,
    #[error("it has a user or a password in it, which every log would show")]
    Credentials,
    #[error("it has a query or a fragment (`?`, `#`), which belong to single requests")]
    QueryOrFragment,
    #[error("its path has a character that no URL has")]
    Path,
}

impl ApiAddress {
    /// Reads an address.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub(in crate::worker) fn parse(text: &str) -> Result<Self, BadAddress> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or(BadAddress::Scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _other => return Err(BadAddress::Scheme),
        };
        let (authority, after) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(BadAddress::Credentials);
        }
        let (host, port) = host_and_port(authority)?;
        if after.contains(['?', '#']) {
            return Err(BadAddress::QueryOrFragment);
        }
        // RFC 3986, 2: what a URL is made of.
        let is_fit = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
        if !after.chars().all(is_fit) {
            return Err(BadAddress::Path);
        }
        let port = port.unwrap_or(match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        });
        let path = after.trim_end_matches('/').to_owned();
        Ok(Self { text: text.trim_end_matches('/').to_owned(), scheme, host, port, path })
    }

    /// The address, without a slash at its end.
    pub(in crate::worker) fn as_str(&self) -> &str {
        &self.text
    }

    /// The address in the one form that all ways to write it have: what tells this server from others.
    pub(in crate::worker) fn identity(&self) -> String {
        let Self { host, port, path, .. } = self;
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        if host.contains(':') {
            format!("{scheme}://[{host}]:{port}{path}")
        } else {
            format!("{scheme}://{host}:{port}{path}")
        }
    }

    /// Tells whether nobody on the way can read what is sent there.
    pub(in crate::worker) fn is_private(&self) -> bool {
        match self.scheme {
            Scheme::Https => true,
            Scheme::Http => is_loopback(&self.host),
        }
    }
}

fn host_and_port(authority: &str) -> Result<(String, Option<u16>), BadAddress> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(BadAddress::Host)?;
            let host = host.parse::<Ipv6Addr>().map_err(|_| BadAddress::Host)?.to_string();
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or(BadAddress::Host)?) })
        }
        None => {
            let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
            (host.to_ascii_lowercase(), port)
        }
    };
    if host.is_empty() {
        return Err(BadAddress::NoHost);
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    if !host.chars().all(is_name) {
        return Err(BadAddress::Host);
    }
    let number = |port: &str| {
        let number = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
        number.filter(|number| *number > 0).ok_or(BadAddress::Port)
    };
    Ok((host, port.map(number).transpose()?))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers_are_taken_without_a_slash_at_their_end() {
        for (text, expected) in [
            ("http://localhost:8080", "http://localhost:8080"),
            ("https://a.example.org/", "https://a.example.org"),
            ("HTTPS://A.example.org/grading/v2//", "HTTPS://A.example.org/grading/v2"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("http://127.0.0.1:65535", "http://127.0.0.1:65535"),
            ("http://chickadee_server/a%20b", "http://chickadee_server/a%20b"),
        ] {
            assert_eq!(ApiAddress::parse(text).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn one_server_has_one_identity_however_its_address_is_written() {
        for (texts, identity) in [
            (&["http://Localhost", "HTTP://localhost:80/", "http://localhost:0080//"][..], "http://localhost:80"),
            (&["https://a.example.org/x/", "https://A.example.org:443/x"], "https://a.example.org:443/x"),
            (&["http://[::1]:8080", "http://[0:0::1]:8080/"], "http://[::1]:8080"),
        ] {
            for text in texts {
                assert_eq!(ApiAddress::parse(text).unwrap().identity(), identity, "{text}");
            }
        }
        let different = ["http://a", "https://a", "http://a:81", "http://a/x", "http://a/X", "http://b"];
        let identities: std::collections::BTreeSet<_> =
            different.iter().map(|text| ApiAddress::parse(text).unwrap().identity()).collect();
        assert_eq!(identities.len(), different.len());
    }

    #[test]
    fn what_is_no_address_of_a_server_is_refused_for_what_it_is() {
        for (text, expected) in [
            ("", BadAddress::Scheme),
            ("localhost:8080", BadAddress::Scheme),
            ("file:///etc/passwd", BadAddress::Scheme),
            ("ftp://host", BadAddress::Scheme),
            ("http://", BadAddress::NoHost),
            ("http:///path", BadAddress::NoHost),
            ("http://:80", BadAddress::NoHost),
            ("http://user:password@host", BadAddress::Credentials),
            ("http://user@host", BadAddress::Credentials),
            ("http://ho st", BadAddress::Host),
            ("http://host\r\nX: y", BadAddress::Host),
            ("http://hóst", BadAddress::Host),
            ("http://[::1", BadAddress::Host),
            ("http://[1.2.3.4]", BadAddress::Host),
            ("http://[::1]x", BadAddress::Host),
            ("http://host:", BadAddress::Port),
            ("http://host:0", BadAddress::Port),
            ("http://host:65536", BadAddress::Port),
            ("http://host:+80", BadAddress::Port),
            ("http://host:80:90", BadAddress::Port),
            ("http://host?a=b", BadAddress::QueryOrFragment),
            ("http://host/#a", BadAddress::QueryOrFragment),
            ("http://host/a b", BadAddress::Path),
            ("http://host/a\nb", BadAddress::Path),
            ("http://host/a\\b", BadAddress::Path),
        ] {
            assert_eq!(ApiAddress::parse(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn only_tls_and_this_machine_are_private() {
        for text in ["https://a", "http://localhost", "http://127.9.9.9:1", "http://[::1]", "http://x.localhost"] {
            assert!(ApiAddress::parse(text).unwrap().is_private(), "{text}");
        }
        for text in ["http://a", "http://localhost.a", "http://10.0.0.1", "http://[::2]", "http://127.0.0.1.a"] {
            assert!(!ApiAddress::parse(text).unwrap().is_private(), "{text}");
        }
    }
}
