//! What a sender asks of the secrets of pages: a signature, and which of them it was.

use crate::sign::signature;

/// Identifies a secret within this process without revealing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretId(pub u64);

/// A signature, and which secret made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The value of the header.
    pub signature: String,
    /// The secret that was in use.
    pub secret: SecretId,
}

/// Which of a page's two secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The one that signs.
    Current,
    /// The one before it, for the time of a rotation.
    Previous,
}

impl Slot {
    /// As logs have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Current => Self::Previous,
            Self::Previous => Self::Current,
        }
    }
}

/// What follows from a refused signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The page has no other secret.
    Sole,
    /// The page goes on with its other one.
    Switched(Slot),
    /// The page goes on with its other one, but that was refused before it: probably neither works.
    Both(Slot),
    /// The page has already switched.
    Late,
}

/// Where the secrets of pages come from.
pub trait Secrets: Send + Sync {
    /// Signs a body for a page; none if the page has no secret.
    fn sign(&self, page: &str, body: &[u8]) -> Option<Signed>;
    /// True if the page has a secret.
    fn has(&self, page: &str) -> bool;
    /// The receiver refused what this secret signed for the page.
    fn refused(&self, _page: &str, _secret: SecretId) -> Refusal {
        Refusal::Sole
    }
    /// The receiver took what this secret signed for the page.
    fn accepted(&self, _page: &str, _secret: SecretId) {}
    /// Pages whose secret changed since the last call; `default` stands for all pages without their own (see
    /// [`Self::has_own`]).
    fn take_changed(&self) -> Vec<String> {
        Vec::new()
    }
    /// True if the page does not take the secret of `default`.
    fn has_own(&self, _page: &str) -> bool {
        true
    }
}

/// Signs with one secret.
pub fn sign_with(secret: &[u8], body: &[u8]) -> String {
    signature(secret, body)
}
