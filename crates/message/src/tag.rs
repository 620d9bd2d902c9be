//! Message tags: why a message may be sent outside the conversation window.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! tags {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $retired:literal;)+) => {
        /// Why a message may be sent outside the conversation window.
        ///
        /// The first 17 are those of the vendor's page; Meta has since replaced nearly all of
        /// them, and whether JoinChat maps them is not known. A tag that a user has added to
        /// `message.tags` is none of these: it goes into the column `tag` as text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
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
    /// A match between the user and another person.
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
    fn every_tag_is_written_as_its_word() {
        for tag in Tag::ALL {
            assert_eq!(serde_json::to_string(tag).unwrap(), format!("\"{tag}\""));
        }
        assert_eq!(Tag::ALL.len(), 20);
    }
}
