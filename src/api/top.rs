//! Requests for the VIPs that lead by a figure.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::Access;
use super::client::path_of;
use crate::status::top::{MOST_ROWS, TopQuery, service_key};

/// Path of such a request.
pub const PATH: &str = "/top";

const SORT: &str = "sort";
const REVERSE: &str = "reverse";
const FILTER: &str = "filter";
const ROWS: &str = "rows";
/// The VIP whose backends are wanted, as a service is displayed.
const CHOSEN: &str = "chosen";

/// Returns the path of a request.
pub fn top_path(query: &TopQuery) -> String {
    let TopQuery { sort, is_reversed, filter, rows, chosen } = query;
    let chosen = chosen.map(|key| key.to_string());
    path_of(
        PATH,
        [
            (SORT, Some(sort.to_string().as_str())),
            (ROWS, Some(rows.to_string().as_str())),
            (FILTER, (!filter.is_empty()).then_some(filter.as_str())),
            (REVERSE, is_reversed.then_some("")),
            (CHOSEN, chosen.as_deref()),
        ],
    )
}

pub(super) async fn top(State(access): State<Access>, uri: Uri) -> Response {
    let query = match wanted(uri.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(error) => return (StatusCode::BAD_REQUEST, error).into_response(),
    };
    match access.parts.sampler.top(query).await {
        Some(answer) => super::json(&answer),
        None => super::busy(),
    }
}

fn wanted(text: &str) -> Result<TopQuery, String> {
    let mut query = TopQuery { rows: MOST_ROWS, ..TopQuery::default() };
    for (key, value) in form_urlencoded::parse(text.as_bytes()) {
        match &*key {
            SORT => query.sort = value.parse()?,
            REVERSE => query.is_reversed = true,
            FILTER => query.filter = value.into_owned(),
            ROWS => query.rows = value.parse().map_err(|_| format!("{value:?} is no number of rows"))?,
            CHOSEN => {
                let key = service_key(&value);
                query.chosen = Some(key.ok_or_else(|| format!("{value:?} is no service"))?);
            }
            _ => {
                return Err(format!(
                    "unknown parameter {key:?}: there are {SORT}, {REVERSE}, {FILTER}, {ROWS} and {CHOSEN}"
                ));
            }
        }
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::top::SortKey;

    #[test]
    fn a_query_arrives_as_it_was_sent() {
        let chosen = service_key("udp [fd01::1]:53");
        for query in [
            TopQuery { rows: MOST_ROWS, ..TopQuery::default() },
            TopQuery { sort: SortKey::Bytes, is_reversed: true, filter: "a&b *".into(), rows: 7, chosen },
        ] {
            let path = top_path(&query);
            assert_eq!(wanted(path.split_once('?').unwrap().1), Ok(query), "{path}");
        }
        assert!(wanted("sort=size").unwrap_err().contains("cannot sort"));
        assert!(wanted("rows=x").is_err() && wanted("chosen=x").is_err());
        assert!(wanted("what=x").unwrap_err().contains("unknown parameter \"what\""));
    }
}
