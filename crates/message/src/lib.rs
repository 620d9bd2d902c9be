//! The nouns of the send API: a request, its recipient, its tag and the five messages.
//!
//! For producers written in Rust: they build a request here, have it judged, and insert its parts
//! with whatever driver they have; nothing here does I/O. Plain data in the vendor's field names,
//! without fields the vendor does not document. What the types can rule out they do (two kinds of
//! recipient, a message without its buttons, a second button under a row); what depends on figures,
//! which are configurable, is judged by [`Request::check`] with the same rules and refusals that the
//! worker has ([`validate`]). The worker itself never reads through these types, since that would
//! change the producer's bytes.
//!
//! ```
//! use postlane_message::validate::Limits;
//! use postlane_message::{Button, Card, Message, PageId, Recipient, Request, Tag};
//!
//! let message = Message::generic([
//!     Card::new("A hat").subtitle("Warm").button(Button::postback("Buy", "buy-7")),
//!     Card::new("A scarf").image("https://shop.example/scarf.png"),
//! ]);
//! let page = PageId::new(12345).expect("not zero");
//! let request = Request::new(page, Recipient::id("123456"), message).tag(Tag::HumanAgent);
//!
//! // The values for the INSERT. Only a request that breaks no rule has any.
//! let columns = request.check(&Limits::default())?;
//! assert_eq!(columns.page_id(), "12345");
//! assert_eq!(columns.recipient(), r#"{"id":"123456"}"#);
//! assert!(columns.message().starts_with(r#"{"template_type":"generic","elements":[{"title":"A hat""#));
//! assert_eq!((columns.tag(), columns.delay()), (Some("HUMAN_AGENT"), 0));
//!
//! // A refusal names the rule, the place, the figure and the bound.
//! let long = Message::buttons("Next?", [Button::web_url("x".repeat(21), "https://shop.example")]);
//! let refusal = long.check(&Limits::default()).unwrap_err();
//! assert_eq!(refusal.rule, "button.title.max_20");
//! assert_eq!(refusal.place, "message.buttons[0].title");
//! assert_eq!(refusal.detail, "is 21 characters, at most 20");
//! # Ok::<(), postlane_message::validate::Refusal>(())
//! ```
//!
//! A message without a button that must have one does not compile:
//!
//! ```compile_fail
//! use postlane_message::{Button, Message};
//! let none: [Button; 0] = [];
//! let message = Message::buttons("Next?", none);
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod at_least;
mod button;
mod card;
mod list;
mod page;
mod receipt;
mod tag;
pub mod validate;

pub use at_least::{AtLeast, TooFew};
pub use button::{BlockId, Button, DefaultAction, HeightRatio, Payload, Postback, Target, WebUrl};
pub use card::{AspectRatio, Card, Generic};
pub use list::{List, Row, TopElementStyle};
pub use page::PageId;
pub use receipt::{Address, Adjustment, Receipt, ReceiptElement, Summary};
pub use tag::Tag;

/// One whole API request, the form that `postlane enqueue` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The Facebook page that sends.
    pub page_id: PageId,
    /// Who receives it.
    pub recipient: Recipient,
    /// What is sent.
    pub message: Message,
    /// Why it may be sent outside the conversation window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// How long to wait before it is sent: 0 to 10 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maximum" = "delay_max"))]
    pub delay: Option<u8>,
}

impl Request {
    /// A request without tag and delay.
    pub const fn new(page_id: PageId, recipient: Recipient, message: Message) -> Self {
        Self {
            page_id,
            recipient,
            message,
            tag: None,
            delay: None,
        }
    }

    /// With a message tag.
    #[must_use]
    pub fn tag(self, tag: Tag) -> Self {
        Self {
            tag: Some(tag),
            ..self
        }
    }

    /// With a delay of so many seconds, 0 to 10.
    #[must_use]
    pub fn delay(self, seconds: u8) -> Self {
        Self {
            delay: Some(seconds),
            ..self
        }
    }
}

/// Who receives a message: exactly one of four kinds, never blank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Recipient {
    /// The Facebook id (PSID).
    Id(#[schemars(extend("pattern" = "name"))] String),
    /// The phone that the user has bound.
    Phone(#[schemars(extend("pattern" = "name"))] String),
    /// The e-mail address that the user has bound.
    Email(#[schemars(extend("pattern" = "name"))] String),
    /// The JoinChat uuid of the Send-to-Messenger plugin.
    Uuid(#[schemars(extend("pattern" = "name"))] String),
}

impl Recipient {
    /// By Facebook id (PSID).
    pub fn id(id: impl Into<String>) -> Self {
        Self::Id(id.into())
    }

    /// By phone.
    pub fn phone(phone: impl Into<String>) -> Self {
        Self::Phone(phone.into())
    }

    /// By e-mail address.
    pub fn email(email: impl Into<String>) -> Self {
        Self::Email(email.into())
    }

    /// By JoinChat uuid.
    pub fn uuid(uuid: impl Into<String>) -> Self {
        Self::Uuid(uuid.into())
    }
}

/// One of the five messages, told apart by `template_type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "template_type", rename_all = "lowercase")]
pub enum Message {
    /// Plain text.
    Text(Text),
    /// Text with buttons under it.
    Button(TextWithButtons),
    /// Cards side by side.
    Generic(Generic),
    /// Rows one below the other; Meta has deprecated it.
    List(List),
    /// An order.
    Receipt(Box<Receipt>),
}

impl Message {
    /// A text message.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Text { text: text.into() })
    }

    /// A text with buttons under it.
    pub fn buttons(text: impl Into<String>, buttons: impl Into<AtLeast<1, Button>>) -> Self {
        Self::Button(TextWithButtons {
            text: text.into(),
            buttons: buttons.into(),
            sharable: None,
        })
    }

    /// Cards side by side.
    pub fn generic(cards: impl Into<AtLeast<1, Card>>) -> Self {
        Self::Generic(Generic {
            elements: cards.into(),
            sharable: None,
            image_aspect_ratio: None,
        })
    }

    /// Rows one below the other.
    pub fn list(rows: impl Into<AtLeast<2, Row>>) -> Self {
        Self::List(List {
            top_element_style: None,
            elements: rows.into(),
            button: None,
            sharable: None,
        })
    }
}

impl From<Receipt> for Message {
    fn from(receipt: Receipt) -> Self {
        Self::Receipt(Box::new(receipt))
    }
}

/// Plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Text {
    /// 1 to 640 characters, not only blanks.
    #[schemars(extend("pattern" = "filled", "maxLength" = "text_max"))]
    pub text: String,
}

/// Text with buttons under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TextWithButtons {
    /// 1 to 640 characters, not only blanks.
    #[schemars(extend("pattern" = "filled", "maxLength" = "text_max"))]
    pub text: String,
    /// 1 to 3.
    #[schemars(extend("maxItems" = "buttons_max"))]
    pub buttons: AtLeast<1, Button>,
    /// Whether it may be shared on; false if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharable: Option<bool>,
}
