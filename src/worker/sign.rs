//! Signatures of requests; the only file that knows the cipher.
