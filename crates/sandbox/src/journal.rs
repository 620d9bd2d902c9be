//! The log file: one JSON line when a head was read, a body was read, an answer is about to go.
//!
//! A line is written before the bytes it speaks of, by one `write`, so the file tells what happened
//! even if everything else is killed; with `sync` it survives the machine, too.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::order::Order;
use crate::record::Seen;

/// See the module.
pub(crate) struct Journal {
    file: Mutex<File>,
    sync: bool,
}

impl Journal {
    pub fn open(path: &Path, sync: bool) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            file: Mutex::new(file),
            sync,
        })
    }

    pub fn head(&self, request: u64, at_ns: u64, peer: SocketAddr) -> io::Result<()> {
        self.write(&json!({"event": "head", "request": request, "at_ns": at_ns, "peer": peer}))
    }

    /// `order` is `None` for what is not a send request at all.
    pub fn body(
        &self,
        seen: Seen,
        order: Option<&Order<'_>>,
        body: &[u8],
        signature: bool,
    ) -> io::Result<()> {
        self.write(&json!({
            "event": "body",
            "request": seen.request,
            "at_ns": seen.body_ns,
            "page_id": order.map(|order| &order.page_id),
            "kind": order.map(|order| order.kind),
            "recipient": order.map(|order| &order.recipient),
            "number": order.and_then(|order| order.number),
            "sha256": STANDARD.encode(Sha256::digest(body)),
            "signature": signature,
        }))
    }

    pub fn answer(&self, request: u64, at_ns: u64, status: Option<u16>) -> io::Result<()> {
        self.write(&json!({
            "event": "answer", "request": request, "at_ns": at_ns, "status": status,
        }))
    }

    fn write(&self, line: &Value) -> io::Result<()> {
        let mut line = line.to_string();
        line.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes())?;
        if self.sync { file.sync_data() } else { Ok(()) }
    }
}
