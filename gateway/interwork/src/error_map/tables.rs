//! The two tables of errors (interworking specification §5.9).

use isthmus_sip::StatusCode;
use isthmus_xmpp::{ErrorCondition, ErrorType};

/// A row from SIP: first and last status, condition, type. The first row that has a status counts.
pub(super) type FromSip = (u16, u16, ErrorCondition, ErrorType);

pub(super) const FROM_SIP: [FromSip; 44] = [
    (301, 301, ErrorCondition::Gone, ErrorType::Cancel),
    (380, 380, ErrorCondition::NotAcceptable, ErrorType::Modify),
    (300, 399, ErrorCondition::Redirect, ErrorType::Modify),
    (401, 401, ErrorCondition::NotAuthorized, ErrorType::Auth),
    (403, 403, ErrorCondition::Forbidden, ErrorType::Auth),
    (404, 404, ErrorCondition::ItemNotFound, ErrorType::Cancel),
    (405, 405, ErrorCondition::FeatureNotImplemented, ErrorType::Cancel),
    (406, 406, ErrorCondition::NotAcceptable, ErrorType::Modify),
    (407, 407, ErrorCondition::RegistrationRequired, ErrorType::Auth),
    (408, 408, ErrorCondition::RemoteServerTimeout, ErrorType::Wait),
    (410, 410, ErrorCondition::Gone, ErrorType::Cancel),
    (413, 414, ErrorCondition::PolicyViolation, ErrorType::Modify),
    (415, 416, ErrorCondition::NotAcceptable, ErrorType::Modify),
    (420, 420, ErrorCondition::FeatureNotImplemented, ErrorType::Cancel),
    (421, 421, ErrorCondition::NotAcceptable, ErrorType::Modify),
    (423, 423, ErrorCondition::ResourceConstraint, ErrorType::Wait),
    (430, 430, ErrorCondition::RecipientUnavailable, ErrorType::Wait),
    (439, 439, ErrorCondition::FeatureNotImplemented, ErrorType::Cancel),
    (440, 440, ErrorCondition::PolicyViolation, ErrorType::Modify),
    (480, 480, ErrorCondition::RecipientUnavailable, ErrorType::Wait),
    (481, 481, ErrorCondition::ItemNotFound, ErrorType::Cancel),
    (482, 483, ErrorCondition::NotAcceptable, ErrorType::Modify),
    (484, 485, ErrorCondition::ItemNotFound, ErrorType::Cancel),
    (486, 487, ErrorCondition::RecipientUnavailable, ErrorType::Wait),
    (488, 488, ErrorCondition::NotAcceptable, ErrorType::Modify),
    (489, 489, ErrorCondition::PolicyViolation, ErrorType::Modify),
    (491, 491, ErrorCondition::UnexpectedRequest, ErrorType::Wait),
    (493, 493, ErrorCondition::BadRequest, ErrorType::Modify),
    (400, 499, ErrorCondition::BadRequest, ErrorType::Modify),
    (500, 500, ErrorCondition::InternalServerError, ErrorType::Cancel),
    (501, 501, ErrorCondition::FeatureNotImplemented, ErrorType::Cancel),
    (502, 502, ErrorCondition::RemoteServerNotFound, ErrorType::Cancel),
    (503, 503, ErrorCondition::InternalServerError, ErrorType::Cancel),
    (504, 504, ErrorCondition::RemoteServerTimeout, ErrorType::Wait),
    (505, 505, ErrorCondition::NotAcceptable, ErrorType::Modify),
    (513, 513, ErrorCondition::PolicyViolation, ErrorType::Modify),
    (500, 599, ErrorCondition::InternalServerError, ErrorType::Cancel),
    (600, 600, ErrorCondition::RecipientUnavailable, ErrorType::Wait),
    (603, 603, ErrorCondition::RecipientUnavailable, ErrorType::Wait),
    (604, 604, ErrorCondition::ItemNotFound, ErrorType::Cancel),
    (606, 606, ErrorCondition::NotAcceptable, ErrorType::Modify),
    (600, 699, ErrorCondition::RecipientUnavailable, ErrorType::Wait),
    // Not errors; they are here so that the table has an answer for every status.
    (100, 199, ErrorCondition::UndefinedCondition, ErrorType::Cancel),
    (200, 299, ErrorCondition::UndefinedCondition, ErrorType::Cancel),
];

/// The status for an error of a full and of a bare JID.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) full: StatusCode,
    pub(super) bare: StatusCode,
}

pub(super) const fn both(status: StatusCode) -> Pair {
    Pair { full: status, bare: status }
}

const fn pair(full: StatusCode, bare: StatusCode) -> Pair {
    Pair { full, bare }
}

/// A row to SIP: condition, status for INVITE, status for other requests. Where a row depends on more than
/// condition, request and JID, [`super::to_sip`] says so.
pub(super) type ToSip = (ErrorCondition, Pair, Pair);

pub(super) const TO_SIP: [ToSip; 22] = [
    (ErrorCondition::BadRequest, both(StatusCode::BAD_REQUEST), both(StatusCode::BAD_REQUEST)),
    (ErrorCondition::Conflict, both(StatusCode::BAD_REQUEST), both(StatusCode::BAD_REQUEST)),
    (ErrorCondition::JidMalformed, both(StatusCode::BAD_REQUEST), both(StatusCode::BAD_REQUEST)),
    (ErrorCondition::SubscriptionRequired, both(StatusCode::BAD_REQUEST), both(StatusCode::BAD_REQUEST)),
    (ErrorCondition::UndefinedCondition, both(StatusCode::BAD_REQUEST), both(StatusCode::BAD_REQUEST)),
    (
        ErrorCondition::FeatureNotImplemented,
        pair(StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED),
        pair(StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED),
    ),
    (
        ErrorCondition::Forbidden,
        pair(StatusCode::FORBIDDEN, StatusCode::DECLINE),
        pair(StatusCode::FORBIDDEN, StatusCode::DECLINE),
    ),
    (ErrorCondition::Gone, both(StatusCode::MOVED_PERMANENTLY), both(StatusCode::MOVED_PERMANENTLY)),
    (
        ErrorCondition::InternalServerError,
        both(StatusCode::SERVER_INTERNAL_ERROR),
        both(StatusCode::SERVER_INTERNAL_ERROR),
    ),
    (
        ErrorCondition::ResourceConstraint,
        both(StatusCode::SERVER_INTERNAL_ERROR),
        both(StatusCode::SERVER_INTERNAL_ERROR),
    ),
    (
        ErrorCondition::ItemNotFound,
        pair(StatusCode::NOT_FOUND, StatusCode::DOES_NOT_EXIST_ANYWHERE),
        pair(StatusCode::NOT_FOUND, StatusCode::DOES_NOT_EXIST_ANYWHERE),
    ),
    // For an INVITE 406 would be about its Accept.
    (
        ErrorCondition::NotAcceptable,
        pair(StatusCode::NOT_ACCEPTABLE_HERE, StatusCode::NOT_ACCEPTABLE_ANYWHERE),
        pair(StatusCode::NOT_ACCEPTABLE, StatusCode::NOT_ACCEPTABLE_ANYWHERE),
    ),
    (ErrorCondition::NotAllowed, both(StatusCode::FORBIDDEN), both(StatusCode::FORBIDDEN)),
    (ErrorCondition::PolicyViolation, both(StatusCode::FORBIDDEN), both(StatusCode::FORBIDDEN)),
    // 401 and 407 are of no use without a challenge, and there is none.
    (ErrorCondition::NotAuthorized, both(StatusCode::FORBIDDEN), both(StatusCode::FORBIDDEN)),
    (ErrorCondition::RegistrationRequired, both(StatusCode::FORBIDDEN), both(StatusCode::FORBIDDEN)),
    // One device that is away says nothing about the others, and neither does the account of a moment (600 would).
    (
        ErrorCondition::RecipientUnavailable,
        both(StatusCode::TEMPORARILY_UNAVAILABLE),
        both(StatusCode::TEMPORARILY_UNAVAILABLE),
    ),
    (ErrorCondition::Redirect, both(StatusCode::MOVED_TEMPORARILY), both(StatusCode::MOVED_TEMPORARILY)),
    (ErrorCondition::RemoteServerNotFound, both(StatusCode::NOT_FOUND), both(StatusCode::NOT_FOUND)),
    // 408 may only answer an INVITE (RFC 4320 §4.2).
    (ErrorCondition::RemoteServerTimeout, both(StatusCode::REQUEST_TIMEOUT), both(StatusCode::SERVER_TIMEOUT)),
    // Never 503, which would take the whole gateway out of service for the peer.
    (
        ErrorCondition::ServiceUnavailable,
        both(StatusCode::TEMPORARILY_UNAVAILABLE),
        both(StatusCode::TEMPORARILY_UNAVAILABLE),
    ),
    (ErrorCondition::UnexpectedRequest, both(StatusCode::BAD_REQUEST), both(StatusCode::BAD_REQUEST)),
];
