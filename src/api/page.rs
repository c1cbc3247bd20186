//! The web page, its description of the interface for programs, and the state that the page shows on top.
//!
//! The page is one file, so that it needs nothing from elsewhere. Browsers run what is in it and nothing else: the
//! policy that goes with it names its script and its style by their hashes, which are worked out from the same file.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use super::Access;

const PAGE: &str = include_str!("page/index.html");

/// Description by OpenAPI, which a test compares with the answers.
pub(super) const DESCRIPTION: &str = include_str!("page/openapi.json");

static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash("script"),
        hash("style")
    )
});

/// Returns the source of a policy that allows the text of the page's only element of that name.
fn hash(element: &str) -> String {
    let (start, end) = (format!("<{element}>"), format!("</{element}>"));
    let text = PAGE.split_once(&start).and_then(|(_, rest)| rest.split_once(&end)).map(|(text, _)| text);
    // Without the element nothing is allowed.
    text.map_or("'none'".to_owned(), |text| {
        format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())))
    })
}

/// Returns what every client gets, also one that has no token yet.
pub(super) fn open() -> Router {
    Router::new().route("/", get(page)).route("/api/openapi.json", get(description))
}

async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        // Names of VIPs are in the page's own address.
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE).into_response()
}

async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION).into_response()
}

/// Answers with the last status, without its VIPs: they are asked for by pages.
pub(super) async fn status(State(access): State<Access>) -> Response {
    let status = access.parts.statuses.borrow().clone();
    let numbers = status.numbers();
    let mut text = serde_json::to_value(&*status).unwrap_or_default();
    if let Some(fields) = text.as_object_mut() {
        fields.remove("vips");
        fields.insert("counts".to_owned(), serde_json::json!(numbers));
    }
    super::json(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_script_and_the_style_that_are_there() {
        assert_eq!(PAGE.matches("<script").count(), 1);
        assert_eq!(PAGE.matches("<style").count(), 1);
        assert!(!POLICY.contains("script-src 'none'") && !POLICY.contains("style-src 'none'"), "{}", *POLICY);
        // What the policy forbids would be missing without a word.
        for forbidden in
            ["src=", "href=\"http", " style=\"", " onclick", "innerHTML", "insertAdjacent", "outerHTML"]
        {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
    }
}
