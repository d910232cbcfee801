//! The errors of handshakes in words, with their remedies.

use std::path::Path;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// Why a certificate is not accepted, where `ca` names the accepted authorities. For the own certificate before it is
/// used, and for that of the other end.
pub(crate) fn certificate_problem(error: &Error, ca: &Path) -> String {
    use CertificateError as E;
    let ca = ca.display();
    let Error::InvalidCertificate(problem) = error else { return error.to_string() };
    match problem {
        E::ExpiredContext { not_after, .. } => {
            format!("the certificate expired at {}; issue a new one", utc(not_after.as_secs()))
        }
        E::Expired => "the certificate has expired; issue a new one".into(),
        E::NotValidYetContext { not_before, .. } => format!(
            "the certificate is not valid before {}; check this machine's clock, or issue a new one",
            utc(not_before.as_secs())
        ),
        E::NotValidYet => "the certificate is not valid yet; check this machine's clock, or issue a new one".into(),
        E::UnknownIssuer | E::BadSignature => format!(
            "the certificate is not signed by an authority in ca-file = {ca}; use the authorities' file of the same \
             cluster, or a certificate of these authorities, with those of its issuers after it"
        ),
        E::NotValidForNameContext { expected, presented } => {
            let presented = if presented.is_empty() { "no name".into() } else { presented.join(", ") };
            format!(
                "the certificate is not valid for {}, only for {presented}; issue one that has it as a subject \
                 alternative name",
                expected.to_str()
            )
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "the certificate's extended key usage is not sufficient; \
            a node's certificate needs serverAuth and clientAuth, a client's clientAuth, or issue one without that \
            extension"
                .into()
        }
        problem => format!("the certificate cannot be used: {problem}"),
    }
}

/// Why a handshake failed at the node, for its log.
pub(crate) fn at_node(error: &Error, ca: &Path) -> String {
    match error {
        Error::NoCertificatesPresented => "the client has no certificate; it needs one of the cluster's authorities \
            (--cert-file and --key-file of the kontiki command)"
            .into(),
        Error::InvalidCertificate(_) => format!("the client's certificate: {}", certificate_problem(error, ca)),
        Error::AlertReceived(AlertDescription::UnknownCA | AlertDescription::BadCertificate) => {
            "the client does not accept this node's certificate; its file of authorities may be that of another cluster"
                .into()
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "for the client, this node's certificate has expired; compare the two machines' clocks".into()
        }
        error => error.to_string(),
    }
}

/// Why a handshake failed, or a connection ended, at the one that dialled `address`.
pub(crate) fn at_client(error: &Error, address: &str, ca: &Path, has_certificate: bool) -> String {
    use AlertDescription as A;
    match error {
        Error::InvalidCertificate(_) => format!("{address}: {}", certificate_problem(error, ca)),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => format!(
            "{address} does not use TLS; leave out --ca-file, --cert-file and --key-file, or start the node with them"
        ),
        Error::AlertReceived(A::CertificateRequired) => certificate_required(address),
        // The alert of TLS 1.2 for the same.
        Error::AlertReceived(A::HandshakeFailure | A::BadCertificate) if !has_certificate => {
            certificate_required(address)
        }
        Error::AlertReceived(A::UnknownCA | A::BadCertificate | A::DecryptError) => format!(
            "{address} does not accept the certificate in --cert-file: none of its authorities has signed it; use one \
             that was issued for the same cluster"
        ),
        Error::AlertReceived(A::CertificateExpired) => {
            format!("{address} does not accept the certificate in --cert-file: it has expired; issue a new one")
        }
        Error::AlertReceived(A::NoApplicationProtocol) => {
            format!("{address} is not the client address of a node; is it a node's status port?")
        }
        error => format!("TLS with {address} failed: {error}"),
    }
}

fn certificate_required(address: &str) -> String {
    format!("{address} requires a certificate; give one with --cert-file and --key-file")
}

/// A time in seconds of the Unix epoch, as text.
pub(crate) fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The civil calendar in years that begin on March 1, so that a leap day is the last one of its year.
    let shifted = days + 719_468; // days from 0000-03-01 to 1970-01-01
    let era = shifted / 146_097; // days of 400 years
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
#[path = "explain_test.rs"]
mod tests;
