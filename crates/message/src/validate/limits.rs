//! The bounds that the rules check, and the tags they let pass.
//!
//! Figures only: which field a bound holds for is said by the rules and by the schema, which ask
//! for it by name. The configuration's section `[message]` fills it.

use super::WireForm;
use crate::Tag;

/// The bounds that the rules check, all inclusive; lengths in Unicode code points.
///
/// The defaults are those of the vendor's page. Names of rules follow the bound: with a
/// `text_max` of 2000 the rule is `text.max_2000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The text of a text or button message: 640.
    pub text_max: usize,
    /// The title of a button: 20.
    pub button_title_max: usize,
    /// The title of a generic or list element: 80.
    pub element_title_max: usize,
    /// The subtitle of a generic or list element: 80.
    pub element_subtitle_max: usize,
    /// The buttons of a button message or a generic element: 3.
    pub buttons_max: usize,
    /// The elements of a generic message: 10.
    pub generic_elements_max: usize,
    /// The elements of a list message: 4; at least 2.
    pub list_elements_max: usize,
    /// The elements of a receipt: 100.
    pub receipt_elements_max: usize,
    /// A postback payload: 1000 (Meta's error 100 above it).
    pub payload_max: usize,
    /// The delay: 10 seconds. The column has the same bound, so it is not configurable.
    pub delay_max: i64,
    /// The text of the message object: 65536 bytes. The column has the same bound, so it is not
    /// configurable.
    pub message_bytes_max: usize,
    /// The tags that are sent: the 17 of the vendor's page and three of Meta's later ones.
    pub tags: Vec<String>,
    /// The tags that get a warning, because Meta refuses them since 2026-04-27 or earlier.
    pub tags_retired: Vec<String>,
    /// No bound, but settled in the same place: how the body spells what it may spell in two ways.
    pub form: WireForm,
}

impl Default for Limits {
    fn default() -> Self {
        let words = |keep: fn(&Tag) -> bool| {
            let kept = Tag::ALL.iter().filter(|tag| keep(tag));
            kept.map(|tag| tag.as_str().to_owned()).collect()
        };
        Self {
            text_max: 640,
            button_title_max: 20,
            element_title_max: 80,
            element_subtitle_max: 80,
            buttons_max: 3,
            generic_elements_max: 10,
            list_elements_max: 4,
            receipt_elements_max: 100,
            payload_max: 1000,
            delay_max: 10,
            message_bytes_max: 64 * 1024,
            tags: words(|_| true),
            tags_retired: words(|tag| tag.is_retired()),
            form: WireForm::default(),
        }
    }
}

impl Limits {
    /// The bound of this name, for the list of rules and for the schema.
    pub(super) fn figure(&self, name: &str) -> Option<usize> {
        Some(match name {
            "text_max" => self.text_max,
            "button_title_max" => self.button_title_max,
            "element_title_max" => self.element_title_max,
            "element_subtitle_max" => self.element_subtitle_max,
            "buttons_max" => self.buttons_max,
            "generic_elements_max" => self.generic_elements_max,
            "list_elements_max" => self.list_elements_max,
            "receipt_elements_max" => self.receipt_elements_max,
            "payload_max" => self.payload_max,
            "delay_max" => usize::try_from(self.delay_max).ok()?,
            "message_bytes_max" => self.message_bytes_max,
            _ => return None,
        })
    }
}
