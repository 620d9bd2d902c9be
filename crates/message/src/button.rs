//! Buttons, and what a tap on an element opens.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// A button, told apart by `type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Button {
    /// Opens a page.
    WebUrl(WebUrl),
    /// Tells the bot that it was tapped.
    Postback(Postback),
}

impl Button {
    /// Opens `url`.
    pub fn web_url(title: impl Into<String>, url: impl Into<String>) -> Self {
        Self::WebUrl(WebUrl {
            title: title.into(),
            target: Target::new(url),
        })
    }

    /// Tells the bot `payload`.
    pub fn postback(title: impl Into<String>, payload: impl Into<Payload>) -> Self {
        Self::Postback(Postback {
            title: title.into(),
            payload: payload.into(),
        })
    }
}

/// A button that opens a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebUrl {
    /// 1 to 20 characters, not only blanks.
    #[schemars(extend("pattern" = "filled", "maxLength" = "button_title_max"))]
    pub title: String,
    /// What it opens.
    #[serde(flatten)]
    pub target: Target,
}

/// A button that tells the bot that it was tapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Postback {
    /// 1 to 20 characters, not only blanks.
    #[schemars(extend("pattern" = "filled", "maxLength" = "button_title_max"))]
    pub title: String,
    /// What the bot is told.
    pub payload: Payload,
}

/// What a postback tells the bot. Any form goes out as a string of at most 1000 characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Payload {
    /// A string that the bot understands.
    Opaque(#[schemars(extend("pattern" = "filled", "maxLength" = "payload_max"))] String),
    /// A block of the bot, and perhaps its flow.
    Block {
        /// The block to go to.
        block_id: BlockId,
        /// The flow it is in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flow_id: Option<BlockId>,
    },
    /// A flow of the bot.
    #[schemars(extend("not" = {"required": ["block_id"]}))]
    Flow {
        /// The flow to go to.
        flow_id: BlockId,
    },
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self::Opaque(text.to_owned())
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self::Opaque(text)
    }
}

/// The id of a block or a flow: a string on the vendor's older page, a number on the newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum BlockId {
    /// A string, not only blanks.
    Name(#[schemars(extend("pattern" = "filled", "maxLength" = "payload_max"))] String),
    /// A whole number.
    Number(i64),
}

impl From<&str> for BlockId {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<i64> for BlockId {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

// Not derived: where numbers keep their spelling, an untagged `i64` is never found.
impl<'de> Deserialize<'de> for BlockId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Name(String),
            Number(serde_json::Number),
        }
        match Form::deserialize(deserializer)? {
            Form::Name(name) => Ok(Self::Name(name)),
            Form::Number(number) => number
                .as_i64()
                .map(Self::Number)
                .ok_or_else(|| D::Error::custom("an id must be a whole number of 64 bits")),
        }
    }
}

/// What a tap on an element opens: like a `web_url` button, without a title.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(extend("not" = {"required": ["title"]}))]
pub enum DefaultAction {
    /// A page.
    WebUrl(Target),
}

impl DefaultAction {
    /// Opens `url`.
    pub fn web_url(url: impl Into<String>) -> Self {
        Self::WebUrl(Target::new(url))
    }
}

/// A page and how it opens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// An absolute http or https URL, its domain on JoinChat's white list.
    #[schemars(extend("pattern" = "url"))]
    pub url: String,
    /// How much of the screen it takes; full if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webview_height_ratio: Option<HeightRatio>,
    /// Whether the page uses Messenger's extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messenger_extensions: Option<bool>,
    /// What opens where the extensions are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "url"))]
    pub fallback_url: Option<String>,
}

impl Target {
    /// `url`, opened as Messenger does by default.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }
}

/// How much of the screen a page takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeightRatio {
    /// About half.
    Compact,
    /// About three quarters.
    Tall,
    /// All of it.
    Full,
}
