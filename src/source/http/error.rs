//! Texts about failed requests: what happened, and what to check.

use reqwest::StatusCode;

/// Returns the innermost cause of an error, because reqwest's own text repeats the URL with the
/// credentials in it, and a hint where there is one.
pub fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return match error.is_connect() {
            true => {
                "no connection in time; is the host up, and does no firewall drop the packets?".to_owned()
            }
            false => "no answer in time; is the server overloaded?".to_owned(),
        };
    }
    // The causes in between say less: "error sending request", "client error (Connect)".
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = cause.to_string();
    let hint = hint(&cause);
    format!("{cause}{hint}")
}

/// Returns the likely reason for a cause, as the operating system and rustls word it.
fn hint(cause: &str) -> &'static str {
    let hints = [
        ("invalid peer certificate", " (is the authority of its certificate in source.tls_ca?)"),
        ("received corrupt message", " (does the server speak TLS on this port?)"),
        (
            "invalid HTTP version parsed",
            " (does the server speak TLS on this port? Then its URL needs https)",
        ),
        ("onnection refused", " (is the server running, and is this its address and port?)"),
        ("failed to lookup address", " (can this node resolve the name?)"),
        ("unreachable", " (is the address right, and does this node have a route to it?)"),
    ];
    hints.iter().find(|(text, _)| cause.contains(text)).map_or("", |(_, hint)| hint)
}

/// Returns the likely reason for the status of an answer.
pub fn status_hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => {
            " (credentials are missing, wrong or expired: check basic, token and service_account in the section \
             source, or marathon, of the configuration)"
        }
        StatusCode::FORBIDDEN => {
            " (the credentials are valid, but may not read this: check the server's ACLs)"
        }
        StatusCode::NOT_FOUND => " (is it the right server, and has it started?)",
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => {
            " (it knows no leader: is an election under way?)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_names_what_to_check() {
        assert!(hint("Connection refused (os error 111)").contains("running"));
        assert!(hint("invalid peer certificate: UnknownIssuer").contains("tls_ca"));
        assert!(hint("failed to lookup address information: Name or service not known").contains("resolve"));
        assert!(hint("No route to host (os error 113)").is_empty());
        assert!(status_hint(StatusCode::FORBIDDEN).contains("ACLs"));
        assert!(status_hint(StatusCode::IM_A_TEAPOT).is_empty());
    }
}
