//! A generic message: cards side by side.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AtLeast, Button, DefaultAction};

/// Cards side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Generic {
    /// 1 to 10.
    #[schemars(extend("maxItems" = "generic_elements_max"))]
    pub elements: AtLeast<1, Card>,
    /// Whether it may be shared on; false if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharable: Option<bool>,
    /// The shape of the images; horizontal if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_aspect_ratio: Option<AspectRatio>,
}

/// The shape of a card's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AspectRatio {
    /// Wider than high.
    Horizontal,
    /// As wide as high.
    Square,
}

/// A card of a generic message: a title and at least one thing more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("anyOf" = [
    {"required": ["subtitle"], "properties": {"subtitle": {"pattern": "filled"}}},
    {"required": ["image_url"]},
    {"required": ["default_action"]},
    {"required": ["buttons"]}
]))]
pub struct Card {
    /// 1 to 80 characters, not only blanks.
    #[schemars(extend("pattern" = "filled", "maxLength" = "element_title_max"))]
    pub title: String,
    /// At most 80 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = "element_subtitle_max"))]
    pub subtitle: Option<String>,
    /// An absolute http or https URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "url"))]
    pub image_url: Option<String>,
    /// What a tap on it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<DefaultAction>,
    /// At most 3; none is written as no field, since an empty array breaks the card.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("minItems" = 1, "maxItems" = "buttons_max"))]
    pub buttons: Vec<Button>,
}

impl Card {
    /// A title alone, which is not enough yet.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            ..Self::default()
        }
    }

    /// With a line under the title.
    #[must_use]
    pub fn subtitle(self, subtitle: impl Into<String>) -> Self {
        Self {
            subtitle: Some(subtitle.into()),
            ..self
        }
    }

    /// With the image at `url`.
    #[must_use]
    pub fn image(self, url: impl Into<String>) -> Self {
        Self {
            image_url: Some(url.into()),
            ..self
        }
    }

    /// Opens a page when it is tapped.
    #[must_use]
    pub fn default_action(self, action: DefaultAction) -> Self {
        Self {
            default_action: Some(action),
            ..self
        }
    }

    /// With one button more.
    #[must_use]
    pub fn button(mut self, button: Button) -> Self {
        self.buttons.push(button);
        self
    }
}
