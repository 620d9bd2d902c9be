//! A list message: rows one below the other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AtLeast, Button, DefaultAction};

/// Rows one below the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct List {
    /// How the first row looks; large if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_element_style: Option<TopElementStyle>,
    /// 2 to 4.
    #[schemars(extend("maxItems" = "list_elements_max"))]
    pub elements: AtLeast<2, Row>,
    /// The button below the rows.
    #[serde(
        rename = "buttons",
        with = "one",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "[Button; 1]")]
    pub button: Option<Button>,
    /// Whether it may be shared on; false if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharable: Option<bool>,
}

/// How the first row of a list looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TopElementStyle {
    /// Like the others.
    Compact,
    /// Over its image, which it must have.
    Large,
}

/// A row of a list: a title, and a subtitle or an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("anyOf" = [
    {"required": ["subtitle"], "properties": {"subtitle": {"pattern": "filled"}}},
    {"required": ["image_url"]}
]))]
pub struct Row {
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
    /// Its button.
    #[serde(
        rename = "buttons",
        with = "one",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "[Button; 1]")]
    pub button: Option<Button>,
}

impl Row {
    /// A title with a line under it.
    pub fn with_subtitle(title: impl Into<String>, subtitle: impl Into<String>) -> Self {
        Self {
            subtitle: Some(subtitle.into()),
            ..Self::bare(title.into())
        }
    }

    /// A title with the image at `url`.
    pub fn with_image(title: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            image_url: Some(url.into()),
            ..Self::bare(title.into())
        }
    }

    fn bare(title: String) -> Self {
        Self {
            title,
            subtitle: None,
            image_url: None,
            default_action: None,
            button: None,
        }
    }
}

/// One button, which the API takes as an array.
mod one {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::Button;

    pub(super) fn serialize<S: Serializer>(
        button: &Option<Button>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        button.as_slice().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Button>, D::Error> {
        let [button] = <[Button; 1]>::deserialize(from)?;
        Ok(Some(button))
    }
}
