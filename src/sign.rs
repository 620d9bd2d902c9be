//! The signature of a request: HMAC-SHA256 over the exact body bytes, in standard base64.
//!
//! Signs bytes and nothing else: it does not build a body, know a header name or look a secret
//! up. The vendor's prose says "encrypt with sha256"; its PHP line is the truth:
//! `base64_encode(hash_hmac('sha256', $body, $secret, true))`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// The block of SHA-256 in bytes, which is the key length HMAC works with (RFC 2104).
const BLOCK: usize = 64;

/// The value of the signature header for `body`: always 44 characters, the last one `=`.
///
/// `secret` is used as it is: a newline at its end (a file read carelessly) gives another
/// signature.
pub fn signature(secret: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new(&block_key(secret).into());
    mac.update(body);
    STANDARD.encode(mac.finalize().into_bytes())
}

/// The key as RFC 2104 pads it. Done here because the crate's constructor for a fixed block
/// cannot fail, and the one for a slice returns an error that would have to be invented away.
fn block_key(secret: &[u8]) -> [u8; BLOCK] {
    let mut key = [0; BLOCK];
    if secret.len() > BLOCK {
        let digest = Sha256::digest(secret);
        key[..digest.len()].copy_from_slice(&digest);
    } else {
        key[..secret.len()].copy_from_slice(secret);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Vector {
        name: String,
        secret: String,
        body: String,
        signature_base64: String,
    }

    #[test]
    fn every_published_vector_is_reproduced() {
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("../tests/data/joinchat/vectors.json")).unwrap();
        assert_eq!(vectors.len(), 19);
        for vector in vectors {
            let signed = signature(vector.secret.as_bytes(), vector.body.as_bytes());
            assert_eq!(signed, vector.signature_base64, "{}", vector.name);
            assert_eq!(signed.len(), 44, "{}", vector.name);
        }
    }

    #[test]
    fn secrets_around_one_block_are_told_apart() {
        let signed: Vec<String> = [63, 64, 65]
            .iter()
            .map(|length| signature(&vec![b's'; *length], b"x"))
            .collect();
        assert_eq!(signed[0], "uS5XixHhBLXVw4iD3DPtqnl42F5QS3ljeYYMmWwvms4=");
        assert_eq!(signed[1], "COOm/lM1DsmbtwMV8gkdUDnobvUU76eNd0Gpgqqm3TY=");
        assert_eq!(signed[2], "BqlGjpeeZarxOWLd/mHYdm9Lr9KR+8Wjkv5pZ/f3K34=");
    }
}
