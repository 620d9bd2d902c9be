//! A receipt: an order as a message. Numbers keep the spelling they are given in (`75.00`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Number;

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// Who ordered.
    pub recipient_name: String,
    /// Must be unique; only the API can check that.
    pub order_number: String,
    /// The currency of all amounts, for example `USD`.
    pub currency: String,
    /// For example `Visa 2345`.
    pub payment_method: String,
    /// The order's page, an absolute http or https URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "url"))]
    pub order_url: Option<String>,
    /// When it was ordered: seconds since 1970, as digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]+$"))]
    pub timestamp: Option<String>,
    /// Where it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// What it costs.
    pub summary: Summary,
    /// What was taken off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adjustments: Vec<Adjustment>,
    /// What was ordered: at most 100, shown in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = "receipt_elements_max"))]
    pub elements: Vec<ReceiptElement>,
    /// Whether it may be shared on; false if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharable: Option<bool>,
}

/// What an order costs, in the receipt's currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Before shipping and tax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtotal: Option<Number>,
    /// Shipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping_cost: Option<Number>,
    /// Tax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_tax: Option<Number>,
    /// All of it.
    pub total_cost: Number,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptElement {
    /// What it is; not only blanks.
    #[schemars(extend("pattern" = "filled"))]
    pub title: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtitle: Option<String>,
    /// How many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<Number>,
    /// The price of the line; 0 is allowed, less is not.
    #[schemars(extend("minimum" = 0))]
    pub price: Number,
    /// The currency of the price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// An absolute http or https URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "url"))]
    pub image_url: Option<String>,
}

/// Where an order goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// Street and number.
    pub street_1: String,
    /// More of the street; may be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub street_2: Option<String>,
    /// City.
    pub city: String,
    /// Postal code.
    pub postal_code: String,
    /// State or region.
    pub state: String,
    /// Two letters, for example `US`.
    #[schemars(extend("pattern" = "^[A-Za-z]{2}$"))]
    pub country: String,
}

/// What was taken off an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Adjustment {
    /// Why.
    pub name: String,
    /// How much, in the receipt's currency.
    pub amount: Number,
}
