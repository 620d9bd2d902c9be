//! Buttons, and what a tap on an element opens.

use serde::{Deserialize, Serialize};

/// A button, told apart by `type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Button {
    /// Opens a page.
    WebUrl(WebUrl),
    /// Tells the bot that it was tapped.
    Postback(Postback),
}

/// A button that opens a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebUrl {
    /// 1 to 20 characters.
    pub title: String,
    /// What it opens.
    #[serde(flatten)]
    pub target: Target,
}

/// A button that tells the bot that it was tapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postback {
    /// 1 to 20 characters.
    pub title: String,
    /// What the bot is told.
    pub payload: Payload,
}

/// What a postback tells the bot. Either form goes out as a string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Payload {
    /// A string that the bot understands, 1 to 1000 characters.
    Opaque(String),
    /// A block or a flow of the bot; at least one of the two.
    Block {
        /// The block to go to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        block_id: Option<String>,
        /// The flow to go to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flow_id: Option<String>,
    },
}

/// What a tap on an element opens: like a [`WebUrl`] button, without a title.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "web_url")]
pub struct DefaultAction {
    /// What it opens.
    #[serde(flatten)]
    pub target: Target,
}

/// A page and how it opens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// An absolute http or https URL, its domain on JoinChat's white list.
    pub url: String,
    /// How much of the screen it takes; full if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webview_height_ratio: Option<HeightRatio>,
    /// Whether the page uses Messenger's extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messenger_extensions: Option<bool>,
    /// What opens where the extensions are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_url: Option<String>,
}

/// How much of the screen a page takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeightRatio {
    /// About half.
    Compact,
    /// About three quarters.
    Tall,
    /// All of it.
    Full,
}
