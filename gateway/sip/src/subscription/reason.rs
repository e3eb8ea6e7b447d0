//! Why a subscription was ended by its notifier, and what follows (RFC 6665 §4.1.3, interworking
//! specification §2.6).

use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::header::SubscriptionState;

/// The `reason` of a terminated subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum TerminationReason {
    /// Subscribe again at once.
    #[n(0)]
    Deactivated,
    /// Subscribe again later.
    #[n(1)]
    Probation,
    /// The authorization was refused or withdrawn.
    #[n(2)]
    Rejected,
    /// It was not refreshed, or was a poll.
    #[n(3)]
    Timeout,
    /// Nobody decided in time.
    #[n(4)]
    Giveup,
    /// The presentity does not exist (any more).
    #[n(5)]
    Noresource,
    /// The state will never change.
    #[n(6)]
    Invariant,
    /// No reason, or one of an extension.
    #[n(7)]
    Other,
}

/// When to subscribe again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resubscribe {
    /// At once on a new dialog; a second time in a row by the back-off steps ([`super::Backoff::take_at_once`]).
    AtOnce,
    /// After exactly this time.
    After(Duration),
    /// By the next back-off step, not before this time.
    BackOff(Option<u32>),
    /// Never.
    Never,
}

/// What becomes of the user's authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// It stays as it is.
    Unchanged,
    /// The other side refused it.
    Denied,
    /// It is gone with the presentity.
    Gone,
    /// It stays granted, and the last presence is served for ever.
    Static,
}

/// What becomes of the presence that was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// It stays for [`KEEP_AFTER_END`]; if no new subscription has brought presence by then, it ends.
    KeepForNow,
    /// It ends now.
    End,
    /// It ends now, and the user is told `unsubscribed`.
    EndAndUnsubscribe,
    /// It stays.
    Keep,
}

/// How long announced presence outlives a subscription that is expected back.
pub const KEEP_AFTER_END: Duration = Duration::from_secs(40);

/// What follows the end of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Why it ended.
    pub reason: TerminationReason,
    /// When to subscribe again.
    pub resubscribe: Resubscribe,
    /// What becomes of the authorization.
    pub authorization: Authorization,
    /// What becomes of announced presence.
    pub announced: Announced,
}

impl TerminationReason {
    /// Reads the reason of a Subscription-State; what is unknown may be subscribed again.
    pub fn of(state: &SubscriptionState<'_>) -> Self {
        let reason = state.reason().unwrap_or_default();
        Self::NAMED.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(reason)).unwrap_or(Self::Other)
    }

    const NAMED: [Self; 7] = [
        Self::Deactivated,
        Self::Probation,
        Self::Rejected,
        Self::Timeout,
        Self::Giveup,
        Self::Noresource,
        Self::Invariant,
    ];

    /// The word on the wire; `probation` for [`Self::Other`], which asks to come back later and promises nothing.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deactivated => "deactivated",
            Self::Probation | Self::Other => "probation",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Giveup => "giveup",
            Self::Noresource => "noresource",
            Self::Invariant => "invariant",
        }
    }

    /// What follows for the subscriber. `retry_after` is in seconds; `closing` is true when we had asked for the
    /// end ourselves by `Expires: 0`, and then nothing follows whatever the reason.
    pub fn consequence(self, retry_after: Option<u32>, closing: bool) -> Ended {
        let after = |default| Resubscribe::After(Duration::from_secs(retry_after.unwrap_or(default).into()));
        let (resubscribe, authorization, announced) = if closing {
            (Resubscribe::Never, Authorization::Unchanged, Announced::Keep)
        } else {
            match self {
                Self::Deactivated => (Resubscribe::AtOnce, Authorization::Unchanged, Announced::KeepForNow),
                Self::Probation => (after(300), Authorization::Unchanged, Announced::End),
                Self::Rejected => (Resubscribe::Never, Authorization::Denied, Announced::EndAndUnsubscribe),
                Self::Timeout => (Resubscribe::AtOnce, Authorization::Unchanged, Announced::KeepForNow),
                Self::Giveup => (after(3600), Authorization::Unchanged, Announced::Keep),
                Self::Noresource => (Resubscribe::Never, Authorization::Gone, Announced::EndAndUnsubscribe),
                Self::Invariant => (Resubscribe::Never, Authorization::Static, Announced::Keep),
                Self::Other => (Resubscribe::BackOff(retry_after), Authorization::Unchanged, Announced::KeepForNow),
            }
        };
        Ended { reason: self, resubscribe, authorization, announced }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Tagged;

    fn ended(text: &str) -> Ended {
        let state = SubscriptionState(Tagged::parse(text).unwrap());
        TerminationReason::of(&state).consequence(state.retry_after(), false)
    }

    #[test]
    fn the_table_of_reasons_holds_row_by_row() {
        use Announced as P;
        use Authorization as A;
        use Resubscribe as R;
        let secs = Duration::from_secs;
        for (text, resubscribe, authorization, announced) in [
            ("terminated;reason=deactivated;retry-after=9", R::AtOnce, A::Unchanged, P::KeepForNow),
            ("terminated;reason=probation", R::After(secs(300)), A::Unchanged, P::End),
            ("terminated;reason=probation;retry-after=7", R::After(secs(7)), A::Unchanged, P::End),
            ("terminated;reason=rejected", R::Never, A::Denied, P::EndAndUnsubscribe),
            ("Terminated;Reason=Timeout", R::AtOnce, A::Unchanged, P::KeepForNow),
            ("terminated;reason=giveup", R::After(secs(3600)), A::Unchanged, P::Keep),
            ("terminated;reason=giveup;retry-after=60", R::After(secs(60)), A::Unchanged, P::Keep),
            ("terminated;reason=noresource;retry-after=60", R::Never, A::Gone, P::EndAndUnsubscribe),
            ("terminated;reason=invariant;retry-after=60", R::Never, A::Static, P::Keep),
            ("terminated", R::BackOff(None), A::Unchanged, P::KeepForNow),
            ("terminated;reason=badfilter;retry-after=5", R::BackOff(Some(5)), A::Unchanged, P::KeepForNow),
            ("terminated;reason=expired", R::BackOff(None), A::Unchanged, P::KeepForNow),
        ] {
            let ended = ended(text);
            assert_eq!(
                (ended.resubscribe, ended.authorization, ended.announced),
                (resubscribe, authorization, announced),
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_follows_an_end_that_we_asked_for() {
        let ended = TerminationReason::Timeout.consequence(None, true);
        assert_eq!(ended.resubscribe, Resubscribe::Never);
        assert_eq!(ended.authorization, Authorization::Unchanged);
    }
}
