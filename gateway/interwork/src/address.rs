//! SIP addresses to model addresses, with the answers for those that cannot be mapped, and back.
//!
//! The mapping itself is [`isthmus_model::address`]; here are the rules about URIs around it (interworking
//! specification §1.1 to §1.3).

#[cfg(test)]
mod tests;

use isthmus_model::{Address, AddressError, BareAddress};
use isthmus_sip::{Host, NameAddr, Scheme, StatusCode, Uri};

use crate::Dialect;

/// Why a SIP address is refused, with the answer that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressRefusal {
    /// A `sips:` URI, which is a promise of TLS to the very end that nobody can keep here (RFC 7247 §8).
    #[error("sips addresses are not translated")]
    Sips,
    /// A scheme without a user at a domain, `tel:` for example.
    #[error("URI scheme is not supported")]
    Scheme,
    /// The URI cannot be read.
    #[error("URI is malformed")]
    Malformed,
    /// The host is an IP address, or the address has no user: no identity that can be federated.
    #[error("address is no identity that can be federated")]
    NotFederatable,
    /// The user part cannot be mapped to a localpart.
    #[error("no such user")]
    Unmappable(#[source] AddressError),
}

impl AddressRefusal {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Sips => StatusCode::TEMPORARILY_UNAVAILABLE,
            Self::Scheme => StatusCode::UNSUPPORTED_URI_SCHEME,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::NotFederatable => StatusCode::FORBIDDEN,
            Self::Unmappable(_) => StatusCode::NOT_FOUND,
        }
    }

    /// Code and text of the Warning that goes with it (RFC 5630 §5.1.2).
    pub fn warning(self) -> Option<(u16, &'static str)> {
        (self == Self::Sips).then_some((380, "SIPS Not Allowed"))
    }
}

/// Maps the text of a Request-URI.
///
/// # Errors
///
/// [`AddressRefusal`].
pub fn from_request_uri(text: &str) -> Result<Address, AddressRefusal> {
    from_uri(&Uri::parse(text).map_err(|_| AddressRefusal::Malformed)?)
}

/// Maps From, To or P-Asserted-Identity.
///
/// # Errors
///
/// [`AddressRefusal`].
pub fn from_name_addr(address: &NameAddr<'_>) -> Result<Address, AddressRefusal> {
    from_request_uri(address.uri_str())
}

/// Maps a URI. Password, port, headers and all parameters but `gr` with a value are left out.
///
/// # Errors
///
/// [`AddressRefusal`].
pub fn from_uri(uri: &Uri<'_>) -> Result<Address, AddressRefusal> {
    match uri.scheme() {
        Scheme::Sip | Scheme::Im | Scheme::Pres => {}
        Scheme::Sips => return Err(AddressRefusal::Sips),
        _ => return Err(AddressRefusal::Scheme),
    }
    let Some(Host::Name(host)) = uri.host() else {
        return Err(AddressRefusal::NotFederatable);
    };
    let user = uri.user().ok_or(AddressRefusal::Unmappable(AddressError::NoUser))?;
    let gr = uri.param("gr").flatten();
    Address::from_sip(user, host, gr).map_err(|error| match error {
        AddressError::IpLiteral => AddressRefusal::NotFederatable,
        // Nobody has that domain, ours or another.
        other => AddressRefusal::Unmappable(other),
    })
}

/// The spelling of a remote user part that outbound requests use (interworking specification §1.3).
///
/// SIP compares user parts with case and JIDs do not keep it, so the spelling last seen in an authenticated
/// From is remembered for the folded address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spelling(String);

impl Spelling {
    /// Takes the user part of an authenticated From as it is spelled; `None` when it is spelled as we would
    /// write it anyway, or when it is no spelling of `address`.
    pub fn observe(from: &Uri<'_>, address: &BareAddress) -> Option<Self> {
        let user = from.user()?;
        if user == address.local.to_sip_user() {
            return None;
        }
        Self::restore(user, address)
    }

    /// Takes a spelling that was stored; `None` when it does not belong to `address`.
    pub fn restore(user: &str, address: &BareAddress) -> Option<Self> {
        // Reading it back proves both: that it can be written, and whose it is.
        let text = format!("sip:{user}@{}", address.domain);
        let uri = Uri::parse(&text).ok()?;
        let whole =
            uri.user() == Some(user) && uri.host().and_then(|host| host.name()) == Some(address.domain.as_str());
        (whole && from_uri(&uri).ok()?.bare == *address).then(|| Self(user.to_owned()))
    }

    /// The user part, percent-encoded as it came.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Writes the address of record of a remote user, in the remembered spelling if there is one.
pub fn aor_uri(address: &BareAddress, spelling: Option<&Spelling>) -> String {
    match spelling {
        Some(spelling) => format!("sip:{}@{}", spelling.as_str(), address.domain),
        None => address.to_sip_uri(),
    }
}

/// Writes the URI of a local user for From and To of requests outside of dialogs. The resource becomes `gr`
/// in the standard dialect; the Microsoft dialect never has it there.
pub fn identity_uri(dialect: Dialect, address: &Address) -> String {
    match dialect {
        Dialect::Microsoft => address.bare.to_sip_uri(),
        Dialect::Standard => address.to_sip_uri(),
    }
}

/// Writes the `pres:` URI of a user. Of what a SIP user part may hold unescaped, the local part of a mail
/// address may not hold parentheses, comma and semicolon (RFC 3859, RFC 5322 §3.2.3).
pub fn pres_uri(address: &BareAddress) -> String {
    let mut uri = String::from("pres:");
    for c in address.local.to_sip_user().chars() {
        match c {
            '(' => uri.push_str("%28"),
            ')' => uri.push_str("%29"),
            ',' => uri.push_str("%2C"),
            ';' => uri.push_str("%3B"),
            _ => uri.push(c),
        }
    }
    uri.push('@');
    uri.push_str(address.domain.as_str());
    uri
}
