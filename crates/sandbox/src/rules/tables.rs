//! The fields of a request and of the five messages, as the newer of the vendor's two documents
//! has them; where only the older one or a sample speaks, the remark says so.

use super::Kind::{
    AtMost, Choice, Country, Digits, Flag, List, Number, Object, Page, Payload, Price, Seconds,
    Text, Url, Word,
};
use super::{Field, Kind, Need, Shape, Together};

/// The most code points of a payload: Meta refuses more.
pub(super) const PAYLOAD: usize = 1000;
/// What a payload that is an object may name; the older document's form.
pub(super) const PAYLOAD_IDS: &[&str] = &["block_id", "flow_id"];

/// As many as anybody likes.
const ANY: usize = usize::MAX;
const STRING: Kind = AtMost(ANY);

const fn must(name: &'static str, kind: Kind) -> Field {
    field(name, Need::Must, kind)
}

const fn may(name: &'static str, kind: Kind) -> Field {
    field(name, Need::May, kind)
}

const fn field(name: &'static str, need: Need, kind: Kind) -> Field {
    Field { name, need, kind }
}

const fn shape(fields: &'static [Field]) -> Shape {
    Shape {
        fields,
        together: Together::Nothing,
    }
}

pub(super) static REQUEST: Shape = shape(&[
    must("page_id", Page),
    must("recipient", Object(&RECIPIENT)),
    must("message", Choice("template_type", MESSAGES)),
    field("tag", Need::MayBeNull, Word(TAGS)),
    field("delay", Need::MayBeNull, Seconds(10)),
]);

static RECIPIENT: Shape = Shape {
    fields: &[
        may("id", Text(ANY)),
        may("phone", Text(ANY)),
        may("email", Text(ANY)),
        may("uuid", Text(ANY)),
    ],
    together: Together::One,
};

/// The vendor's 17, and three that Meta has put in their place.
const TAGS: &[&str] = &[
    "BUSINESS_PRODUCTIVITY",
    "COMMUNITY_ALERT",
    "CONFIRMED_EVENT_REMINDER",
    "NON_PROMOTIONAL_SUBSCRIPTION",
    "PAIRING_UPDATE",
    "APPLICATION_UPDATE",
    "ACCOUNT_UPDATE",
    "PAYMENT_UPDATE",
    "PERSONAL_FINANCE_UPDATE",
    "SHIPPING_UPDATE",
    "RESERVATION_UPDATE",
    "ISSUE_RESOLUTION",
    "APPOINTMENT_UPDATE",
    "GAME_EVENT",
    "TRANSPORTATION_UPDATE",
    "FEATURE_FUNCTIONALITY_UPDATE",
    "TICKET_UPDATE",
    "CONFIRMED_EVENT_UPDATE",
    "POST_PURCHASE_UPDATE",
    "HUMAN_AGENT",
];

const MESSAGES: &[(&str, &Shape)] = &[
    ("text", &TEXT),
    ("button", &BUTTON),
    ("generic", &GENERIC),
    ("list", &LIST),
    ("receipt", &RECEIPT),
];

static TEXT: Shape = shape(&[must("text", Text(640))]);

static BUTTON: Shape = shape(&[
    must("text", Text(640)),
    must("buttons", List(1, 3, &A_BUTTON)),
    may("sharable", Flag),
]);

static GENERIC: Shape = shape(&[
    must("elements", List(1, 10, &Object(&CARD))),
    may("sharable", Flag),
    may("image_aspect_ratio", Word(&["horizontal", "square"])),
]);

static CARD: Shape = Shape {
    fields: &[
        must("title", Text(80)),
        may("subtitle", AtMost(80)),
        may("image_url", Url),
        may("default_action", Object(&ACTION)),
        may("buttons", List(1, 3, &A_BUTTON)),
    ],
    together: Together::AnyOf(&["subtitle", "image_url", "default_action", "buttons"]),
};

static LIST: Shape = shape(&[
    must("elements", List(2, 4, &Object(&ROW))),
    may("top_element_style", Word(&["compact", "large"])),
    may("buttons", List(1, 1, &A_BUTTON)),
    may("sharable", Flag),
]);

static ROW: Shape = Shape {
    fields: &[
        must("title", Text(80)),
        may("subtitle", AtMost(80)),
        may("image_url", Url),
        may("default_action", Object(&ACTION)),
        may("buttons", List(1, 1, &A_BUTTON)),
    ],
    together: Together::AnyOf(&["image_url", "subtitle"]),
};

static A_BUTTON: Kind = Choice("type", &[("web_url", &LINK), ("postback", &POSTBACK)]);

static LINK: Shape = shape(&[
    must("title", Text(20)),
    must("url", Url),
    may("webview_height_ratio", RATIO),
    may("messenger_extensions", Flag), // in samples only, like the next
    may("fallback_url", Url),
]);

static POSTBACK: Shape = shape(&[must("title", Text(20)), must("payload", Payload)]);

/// A link without a title.
static ACTION: Shape = shape(&[
    must("type", Word(&["web_url"])),
    must("url", Url),
    field("title", Need::MustNot, STRING),
    may("webview_height_ratio", RATIO),
    may("messenger_extensions", Flag),
    may("fallback_url", Url),
]);

const RATIO: Kind = Word(&["compact", "tall", "full"]);

static RECEIPT: Shape = shape(&[
    must("recipient_name", STRING),
    must("order_number", STRING),
    must("currency", STRING),
    must("payment_method", STRING),
    must("summary", Object(&SUMMARY)),
    may("sharable", Flag),
    may("timestamp", Digits),
    may("order_url", Url), // in a sample only
    may("elements", List(0, 100, &Object(&LINE))),
    may("address", Object(&ADDRESS)),
    may("adjustments", List(0, ANY, &Object(&ADJUSTMENT))),
]);

static SUMMARY: Shape = shape(&[
    must("total_cost", Number),
    may("subtotal", Number),
    may("shipping_cost", Number),
    may("total_tax", Number),
]);

static LINE: Shape = shape(&[
    must("title", Text(ANY)),
    must("price", Price),
    may("subtitle", STRING),
    may("quantity", Number),
    may("currency", STRING),
    may("image_url", Url),
]);

static ADDRESS: Shape = shape(&[
    must("street_1", STRING),
    must("city", STRING),
    must("postal_code", STRING),
    must("state", STRING),
    must("country", Country),
    may("street_2", STRING), // empty in a sample
]);

static ADJUSTMENT: Shape = shape(&[must("name", STRING), must("amount", Number)]);
