//! Signatures of requests; the only file that knows the cipher.
//!
//! Source: docs/protocol.md, "Signing". A signature is made for one attempt: its nonce is remembered by the server, and a second use
//! is refused as a replay.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::os::disk::{hex, sha256_text};

/// Random bytes of a nonce: 128 bits do not meet again.
const NONCE_BYTES: usize = 16;

/// The headers of one signed attempt, in the order in which they are sent.
pub(super) type Headers = [(&'static str, String); 5];

/// Signs requests with the secret that this worker and the server share.
pub(super) struct Signer {
    /// The keyed cipher, before any text.
    mac: Hmac<Sha256>,
    worker_id: String,
    random: File,
}

/// What of a request is signed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    /// In upper case.
    pub(super) method: &'a str,
    /// As it is sent, without the query.
    pub(super) path: &'a str,
    /// Empty for a GET.
    pub(super) body: &'a [u8],
}

impl Signer {
    /// A signer for `worker_id`.
    ///
    /// # Errors
    ///
    /// When the system's random numbers cannot be had.
    pub(super) fn new(secret: &str, worker_id: &str) -> io::Result<Self> {
        let mac = Hmac::new_from_slice(secret.as_bytes()).map_err(io::Error::other)?;
        Ok(Self { mac, worker_id: worker_id.to_owned(), random: File::open("/dev/urandom")? })
    }

    /// Returns the headers of one attempt that is made now.
    ///
    /// # Errors
    ///
    /// When the system's random numbers cannot be had.
    pub(super) fn sign(&self, request: Signed<'_>) -> io::Result<Headers> {
        let mut nonce = [0; NONCE_BYTES];
        (&self.random).read_exact(&mut nonce)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(self.headers(request, now.as_secs(), &hex(&nonce)))
    }

    fn headers(&self, request: Signed<'_>, unix_secs: u64, nonce: &str) -> Headers {
        let body = sha256_text(request.body);
        let text = format!("{}\n{}\n{body}\n{unix_secs}\n{nonce}", request.method, request.path);
        let signature = self.mac.clone().chain_update(text).finalize().into_bytes();
        [
            ("X-Worker-Timestamp", unix_secs.to_string()),
            ("X-Worker-Nonce", nonce.to_owned()),
            ("X-Worker-Body-SHA256", body),
            ("X-Worker-Id", self.worker_id.clone()),
            ("X-Worker-Signature", hex(&signature)),
        ]
    }
}

/// Without the key: a signer may end up in a log.
impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Signer").field("worker_id", &self.worker_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn value<'a>(headers: &'a Headers, name: &str) -> &'a str {
        &headers.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// The signatures were computed with Python's `hmac` and `hashlib`.
    #[test]
    fn signatures_are_those_of_another_implementation() {
        let signer = Signer::new("s3cret", "worker-1").unwrap();
        let cases = [
            (
                Signed { method: "POST", path: "/api/v1/worker/request", body: br#"{"workerID":"worker-1"}"# },
                "813b4806e675baceb88bc515a1928e1a1f56f57100487e1bf6aeb4714ab4054c",
                "13b0f753607e1e1139d8e6e19b3ea5feda4263f09138bab80d395fba9f2d6f1e",
            ),
            (
                Signed { method: "GET", path: "/files/set-up.zip", body: b"" },
                "4d180750766ec2ad059331f211e5c8512d2f30a26993148e24cc548160d8363a",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
        ];
        for (request, signature, body) in cases {
            let headers = signer.headers(request, 1_771_596_250, "000102030405060708090a0b0c0d0e0f");
            let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
            assert_eq!(value(&headers, "X-Worker-Signature"), signature, "{request:?} {names:?}");
            assert_eq!(value(&headers, "X-Worker-Body-SHA256"), body);
            assert_eq!(value(&headers, "X-Worker-Timestamp"), "1771596250");
            assert_eq!(value(&headers, "X-Worker-Id"), "worker-1");
        }
    }

    #[test]
    fn every_attempt_has_a_nonce_of_its_own() {
        let signer = Signer::new("s3cret", "worker-1").unwrap();
        let request = Signed { method: "GET", path: "/", body: b"" };
        let nonces: BTreeSet<_> =
            (0..100).map(|_| value(&signer.sign(request).unwrap(), "X-Worker-Nonce").to_owned()).collect();
        assert_eq!(nonces.len(), 100);
        assert!(nonces.iter().all(|nonce| nonce.len() == 32 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }

    #[test]
    fn the_secret_is_in_no_text_of_a_signer() {
        let signer = Signer::new("s3cret", "worker-1").unwrap();
        let headers = signer.sign(Signed { method: "GET", path: "/", body: b"" }).unwrap();
        assert!(!format!("{signer:?} {headers:?}").contains("s3cret"));
    }
}
