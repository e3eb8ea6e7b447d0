//! What the final answer to a SUBSCRIBE of ours means (interworking specification §2.4, RFC 6665 §4.1.2).

use crate::status::StatusCode;

/// A final answer to a SUBSCRIBE, by what it tells the subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeAnswer {
    /// 200, or the historic 202, which means the same (RFC 6665 §8.3.1).
    Accepted,
    /// 403, 489, 603: the peer will never allow it.
    Denied,
    /// 404, 410, 416, 484, 485, 604: there is no such presentity.
    NoSuchPresentity,
    /// 405, 501: the peer does not know the method.
    Unsupported,
    /// 406: the peer has no document that we read.
    NotAcceptable,
    /// 401, 407: the peer wants credentials, and we have none.
    Unauthorized,
    /// 423: the lifetime asked for is too short.
    TooBrief,
    /// 480: the presentity cannot be reached at present.
    Unavailable,
    /// 481: the peer does not know the dialog.
    NoDialog,
    /// 482, 483: the request went in a circle.
    Loop,
    /// 3xx: the presentity is elsewhere.
    Redirected,
    /// 503, 408, no answer at all, or no connection.
    Unreachable,
    /// Everything else.
    Other,
}

/// What follows the answer to the SUBSCRIBE that opens a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialStep {
    /// The answer is good; the dialog begins with the NOTIFY.
    AwaitNotify,
    /// The authorization is denied: tell the user, do not try again.
    Deny,
    /// Tell the user about the error (mapped from the status) and try again once a day.
    FailAndRetryDaily,
    /// Tell the user that the peer has no presence and try again once a day.
    UnsupportedAndRetryDaily,
    /// Try again later by the back-off steps, not before Retry-After.
    BackOff {
        /// An administrator should know.
        alarm: bool,
    },
    /// Try again at once with the `Min-Expires` of the answer, see [`usable_min_expires`].
    RetryWithMinExpires,
    /// Try again in an hour.
    BackOffHour {
        /// An administrator should know: requests go in a circle.
        alarm: bool,
    },
    /// Follow one Contact of the answer inside the same domain, at most three times.
    FollowRedirect,
    /// Try the next target of the lookup, then back off.
    NextTarget,
}

/// What follows the answer to a SUBSCRIBE that refreshes a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshStep {
    /// The subscription has a new expiry.
    Refreshed,
    /// The subscription is over, and the authorization denied.
    Deny,
    /// The subscription is over; subscribe anew at once, and treat the answer as to a first request.
    SubscribeAnew,
    /// The subscription is over; the peer has no presence (any more): try again once a day.
    EndAndRetryDaily,
    /// The subscription is over; back off.
    EndAndBackOff,
    /// The subscription is over; requests go in a circle: try again in an hour.
    EndAndBackOffHour,
    /// The dialog is gone; subscribe anew at once with new Call-ID and tag, at most once a minute.
    NewDialogAtOnce,
    /// Try again at once with the `Min-Expires` of the answer.
    RetryWithMinExpires,
    /// The subscription stays valid until its known expiry; try the next target, then later again
    /// ([`super::Subscriber::retry_refresh`]).
    RetryLater,
    /// The subscription stays valid until its known expiry; do not refresh it again.
    KeepUntilExpiry {
        /// An administrator should know: the peer wants credentials.
        alarm: bool,
    },
}

impl SubscribeAnswer {
    /// Classifies a final status; `None` stands for no answer and for a transport error.
    pub fn of(status: Option<StatusCode>) -> Self {
        let Some(status) = status else {
            return Self::Unreachable;
        };
        match status.code() {
            200..=299 => Self::Accepted,
            300..=399 => Self::Redirected,
            403 | 489 | 603 => Self::Denied,
            404 | 410 | 416 | 484 | 485 | 604 => Self::NoSuchPresentity,
            405 | 501 => Self::Unsupported,
            406 => Self::NotAcceptable,
            401 | 407 => Self::Unauthorized,
            423 => Self::TooBrief,
            480 => Self::Unavailable,
            481 => Self::NoDialog,
            482 | 483 => Self::Loop,
            503 | 408 => Self::Unreachable,
            _ => Self::Other,
        }
    }

    /// The step after a first SUBSCRIBE.
    pub fn initial(self) -> InitialStep {
        match self {
            Self::Accepted => InitialStep::AwaitNotify,
            Self::Denied => InitialStep::Deny,
            Self::NoSuchPresentity => InitialStep::FailAndRetryDaily,
            Self::Unsupported | Self::NotAcceptable => InitialStep::UnsupportedAndRetryDaily,
            Self::Unauthorized => InitialStep::BackOff { alarm: true },
            Self::TooBrief => InitialStep::RetryWithMinExpires,
            Self::Unavailable | Self::NoDialog => InitialStep::BackOff { alarm: false },
            Self::Loop => InitialStep::BackOffHour { alarm: true },
            Self::Redirected => InitialStep::FollowRedirect,
            Self::Unreachable => InitialStep::NextTarget,
            Self::Other => InitialStep::BackOffHour { alarm: false },
        }
    }

    /// The step after a refresh. Only the codes of RFC 6665 §4.1.2.2 end a subscription early.
    pub fn refresh(self) -> RefreshStep {
        match self {
            Self::Accepted => RefreshStep::Refreshed,
            Self::Denied => RefreshStep::Deny,
            Self::NoSuchPresentity => RefreshStep::SubscribeAnew,
            Self::Unsupported => RefreshStep::EndAndRetryDaily,
            Self::NotAcceptable | Self::Redirected | Self::Other => RefreshStep::KeepUntilExpiry { alarm: false },
            Self::Unauthorized => RefreshStep::KeepUntilExpiry { alarm: true },
            Self::TooBrief => RefreshStep::RetryWithMinExpires,
            Self::Unavailable => RefreshStep::EndAndBackOff,
            Self::NoDialog => RefreshStep::NewDialogAtOnce,
            Self::Loop => RefreshStep::EndAndBackOffHour,
            Self::Unreachable => RefreshStep::RetryLater,
        }
    }
}

/// The longest `Min-Expires` that is followed, in seconds: a day.
pub const LONGEST_MIN_EXPIRES_SECS: u32 = 86_400;

/// Returns the lifetime to ask for after a 423; `None` when the peer names none, or one that is too long or
/// was asked for already: back off then.
pub fn usable_min_expires(min_expires: Option<u32>, requested_secs: u32) -> Option<u32> {
    min_expires.filter(|&min| min > requested_secs && min <= LONGEST_MIN_EXPIRES_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16) -> SubscribeAnswer {
        SubscribeAnswer::of(Some(StatusCode::new(code).unwrap()))
    }

    // P-07
    #[test]
    fn the_table_of_first_answers_holds_row_by_row() {
        use InitialStep as I;
        for (codes, step) in [
            (&[200, 202][..], I::AwaitNotify),
            (&[403, 489, 603], I::Deny),
            (&[404, 410, 416, 484, 485, 604], I::FailAndRetryDaily),
            (&[405, 501, 406], I::UnsupportedAndRetryDaily),
            (&[401, 407], I::BackOff { alarm: true }),
            (&[423], I::RetryWithMinExpires),
            (&[480, 481], I::BackOff { alarm: false }),
            (&[482, 483], I::BackOffHour { alarm: true }),
            (&[300, 301, 302, 305], I::FollowRedirect),
            (&[503, 408], I::NextTarget),
            (&[600, 606, 400, 420, 488, 500, 502, 504], I::BackOffHour { alarm: false }),
        ] {
            for &code in codes {
                assert_eq!(of(code).initial(), step, "{code}");
            }
        }
        assert_eq!(SubscribeAnswer::of(None).initial(), I::NextTarget);
    }

    // P-07
    #[test]
    fn the_table_of_refresh_answers_holds_row_by_row() {
        use RefreshStep as R;
        for (codes, step) in [
            (&[200, 202][..], R::Refreshed),
            (&[403, 489, 603], R::Deny),
            (&[404, 410, 416, 484, 485, 604], R::SubscribeAnew),
            (&[405, 501], R::EndAndRetryDaily),
            (&[406, 302, 600, 606, 500, 400], R::KeepUntilExpiry { alarm: false }),
            (&[401, 407], R::KeepUntilExpiry { alarm: true }),
            (&[423], R::RetryWithMinExpires),
            (&[480], R::EndAndBackOff),
            (&[481], R::NewDialogAtOnce),
            (&[482, 483], R::EndAndBackOffHour),
            (&[503, 408], R::RetryLater),
        ] {
            for &code in codes {
                assert_eq!(of(code).refresh(), step, "{code}");
            }
        }
        assert_eq!(SubscribeAnswer::of(None).refresh(), R::RetryLater);
    }

    #[test]
    fn only_the_listed_codes_end_a_subscription_before_its_expiry() {
        let ending = [404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604, 403, 603];
        for code in 300..700 {
            let ends = !matches!(
                of(code).refresh(),
                RefreshStep::KeepUntilExpiry { .. } | RefreshStep::RetryLater | RefreshStep::RetryWithMinExpires
            );
            assert_eq!(ends, ending.contains(&code), "{code}");
        }
    }

    #[test]
    fn min_expires_is_followed_once_and_up_to_a_day() {
        assert_eq!(usable_min_expires(Some(7200), 3600), Some(7200));
        assert_eq!(usable_min_expires(Some(86_401), 3600), None);
        assert_eq!(usable_min_expires(Some(7200), 7200), None);
        assert_eq!(usable_min_expires(None, 3600), None);
    }
}
