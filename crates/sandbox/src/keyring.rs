//! The secrets of the pages, and the check of a signature against them.
//!
//! The sandbox's own check: it decodes what came and compares digests in constant time, where the
//! product encodes what goes. A page may have several secrets, for the time of a rotation.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A signature as sent: the 32 bytes of an HMAC-SHA256.
pub(crate) type Signature = [u8; 32];

/// Decodes a signature header; `None` if it is not standard base64 of 32 bytes.
pub(crate) fn decode(header: &[u8]) -> Option<Signature> {
    let mut room = [0; 48];
    let length = STANDARD.decode_slice(header.trim_ascii(), &mut room).ok()?;
    room[..length].try_into().ok()
}

/// See the module. Each secret is kept as the state of an HMAC that has read the key.
#[derive(Default)]
pub(crate) struct Keyring {
    pages: HashMap<String, Vec<Hmac<Sha256>>>,
    default: Vec<Hmac<Sha256>>,
}

impl Keyring {
    /// Replaces the secrets of a page, or those of every page without its own.
    pub fn set(&mut self, page: Option<&str>, secrets: &[String]) {
        let key = |secret: &String| Hmac::new_from_slice(secret.as_bytes()).ok();
        let keys = secrets.iter().filter_map(key).collect();
        match page {
            Some(page) => drop(self.pages.insert(page.to_owned(), keys)),
            None => self.default = keys,
        }
    }

    /// True if one of the page's secrets made this signature of these bytes.
    pub fn verify(&self, page: &str, body: &[u8], signature: Option<&Signature>) -> bool {
        let Some(signature) = signature else {
            return false;
        };
        let keys = self.pages.get(page).unwrap_or(&self.default);
        keys.iter().any(|key| {
            key.clone()
                .chain_update(body)
                .verify_slice(signature)
                .is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"what do ya want for nothing?";
    /// RFC 4231, test case 2.
    const SIGNATURE: &[u8] = b"W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=";

    #[test]
    fn a_published_vector_verifies_and_nothing_near_it_does() {
        let mut ring = Keyring::default();
        let signature = decode(SIGNATURE);
        assert!(
            !ring.verify("1", BODY, signature.as_ref()),
            "without any secret"
        );
        ring.set(None, &["wrong".to_owned(), "Jefe".to_owned()]);
        assert!(ring.verify("1", BODY, signature.as_ref()));
        assert!(!ring.verify("1", &BODY[1..], signature.as_ref()));
        assert!(!ring.verify("1", BODY, None));
        ring.set(Some("1"), &["other".to_owned()]);
        assert!(
            !ring.verify("1", BODY, signature.as_ref()),
            "the page's own secret counts"
        );
    }

    #[test]
    fn what_is_not_base64_of_32_bytes_is_no_signature() {
        assert!(decode(SIGNATURE).is_some());
        for bad in [
            &SIGNATURE[..43],
            b"",
            b"W9zB",
            b"5bdcc146bf60754e6a042426089575c7",
            &[0; 44],
        ] {
            assert_eq!(decode(bad), None);
        }
    }
}
