//! The nouns of the send API: a request, its recipient, its tag and the five messages.
//!
//! For producers written in Rust: they build a message here and store its JSON. Plain data in
//! the vendor's field names, without fields the vendor does not document, and without rules: a
//! title may be too long here, and [`crate::validate`] says so. The worker itself never reads
//! through these types, since that would change the producer's bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

mod button;
mod receipt;

pub use button::{Button, DefaultAction, HeightRatio, Payload, Postback, Target, WebUrl};
pub use receipt::{Address, Adjustment, Receipt, ReceiptElement, Summary};

/// One whole API request, the form that `postlane enqueue` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The Facebook page that sends.
    pub page_id: u64,
    /// Who receives it.
    pub recipient: Recipient,
    /// What is sent.
    pub message: Message,
    /// Why it may be sent outside the conversation window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// How long to wait before it is sent: 0 to 10 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<u8>,
}

/// Who receives a message: exactly one of four kinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipient {
    /// The Facebook id (PSID).
    Id(String),
    /// The phone that the user has bound.
    Phone(String),
    /// The e-mail address that the user has bound.
    Email(String),
    /// The JoinChat uuid of the Send-to-Messenger plugin.
    Uuid(String),
}

/// One of the five messages, told apart by `template_type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// 1 to 640 characters.
    pub text: String,
}

/// Text with buttons under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextWithButtons {
    /// 1 to 640 characters.
    pub text: String,
    /// 1 to 3.
    pub buttons: Vec<Button>,
    /// Whether it may be shared on; false if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharable: Option<bool>,
}

/// Cards side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generic {
    /// 1 to 10.
    pub elements: Vec<Element>,
    /// Whether it may be shared on; false if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharable: Option<bool>,
    /// The shape of the images; horizontal if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_aspect_ratio: Option<AspectRatio>,
}

/// The shape of a card's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AspectRatio {
    /// Wider than high.
    Horizontal,
    /// As wide as high.
    Square,
}

/// Rows one below the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// How the first row looks; large if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_element_style: Option<TopElementStyle>,
    /// 2 to 4.
    pub elements: Vec<Element>,
    /// The button below the rows: 1 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buttons: Vec<Button>,
    /// Whether it may be shared on; false if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharable: Option<bool>,
}

/// How the first row of a list looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopElementStyle {
    /// Like the others.
    Compact,
    /// Over its image, which it must have.
    Large,
}

/// A card of a generic message or a row of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    /// 1 to 80 characters.
    pub title: String,
    /// At most 80 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtitle: Option<String>,
    /// An absolute http or https URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_url: Option<String>,
    /// What a tap on it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<DefaultAction>,
    /// At most 3 in a card, 1 in a row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buttons: Vec<Button>,
}

macro_rules! tags {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $retired:literal;)+) => {
        /// Why a message may be sent outside the conversation window.
        ///
        /// The first 17 are those of the vendor's page; Meta has since replaced nearly all of
        /// them, and whether JoinChat maps them is not known.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Tag { $($(#[$doc])* #[serde(rename = $word)] $variant,)+ }

        impl Tag {
            /// Every tag, in the order of the vendor's page, then Meta's later ones.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// True if Meta no longer takes it (replaced in March 2020, or refused since
            /// 2026-04-27).
            pub const fn is_retired(self) -> bool {
                match self { $(Self::$variant => $retired,)+ }
            }
        }
    };
}

tags! {
    /// Offers to businesses that are the page's customers.
    BusinessProductivity = "BUSINESS_PRODUCTIVITY", true;
    /// Emergencies and utilities.
    CommunityAlert = "COMMUNITY_ALERT", true;
    /// An event the user signed up for.
    ConfirmedEventReminder = "CONFIRMED_EVENT_REMINDER", true;
    /// Subscriptions that do not advertise; only registered news pages still may.
    NonPromotionalSubscription = "NON_PROMOTIONAL_SUBSCRIPTION", false;
    /// A match between the user and somebody else.
    PairingUpdate = "PAIRING_UPDATE", true;
    /// An application the user made.
    ApplicationUpdate = "APPLICATION_UPDATE", true;
    /// A change of the user's account; the tag of every sample on the vendor's pages.
    AccountUpdate = "ACCOUNT_UPDATE", true;
    /// A payment.
    PaymentUpdate = "PAYMENT_UPDATE", true;
    /// The user's money.
    PersonalFinanceUpdate = "PERSONAL_FINANCE_UPDATE", true;
    /// A parcel.
    ShippingUpdate = "SHIPPING_UPDATE", true;
    /// A reservation.
    ReservationUpdate = "RESERVATION_UPDATE", true;
    /// A customer's complaint.
    IssueResolution = "ISSUE_RESOLUTION", true;
    /// An appointment.
    AppointmentUpdate = "APPOINTMENT_UPDATE", true;
    /// A game the user plays.
    GameEvent = "GAME_EVENT", true;
    /// A trip.
    TransportationUpdate = "TRANSPORTATION_UPDATE", true;
    /// A new feature of a bot.
    FeatureFunctionalityUpdate = "FEATURE_FUNCTIONALITY_UPDATE", true;
    /// A ticket for an event.
    TicketUpdate = "TICKET_UPDATE", true;
    /// Meta's later tag for events.
    ConfirmedEventUpdate = "CONFIRMED_EVENT_UPDATE", true;
    /// Meta's later tag for orders.
    PostPurchaseUpdate = "POST_PURCHASE_UPDATE", true;
    /// A human's answer within 7 days.
    HumanAgent = "HUMAN_AGENT", false;
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_in_code_is_the_documented_example() {
        let request = Request {
            page_id: 12345,
            recipient: Recipient::Id("123456".to_owned()),
            message: Message::text("Hello World"),
            tag: Some(Tag::AccountUpdate),
            delay: Some(1),
        };
        let example = include_str!("../tests/data/joinchat/samples/000-php-body.txt");
        assert_eq!(serde_json::to_string(&request).unwrap(), example);
    }

    #[test]
    fn every_tag_is_written_as_its_word() {
        for tag in Tag::ALL {
            assert_eq!(serde_json::to_string(tag).unwrap(), format!("\"{tag}\""));
        }
        assert_eq!(Tag::ALL.len(), 20);
    }
}
