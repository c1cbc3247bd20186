//! Compression of answers for clients that ask for it.
//!
//! Metrics of 10,000 VIPs are megabytes in which most text repeats. An answer is compressed as it is sent, so that one
//! that is made piece by piece arrives piece by piece, and on a thread that nobody waits for.

use std::io::{self, Write};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt, stream};

/// Answers below this size are not worth it.
const LEAST: u64 = 1_024;

/// Compresses the answer if the client asks for it and it is long.
pub(super) async fn compress(request: Request, next: Next) -> Response {
    let is_wanted = request.method() != Method::HEAD && accepts_gzip(request.headers());
    let mut response = next.run(request).await;
    let headers = response.headers();
    let is_stream = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    let is_short = response.body().size_hint().upper().is_some_and(|size| size < LEAST);
    // An event must not wait in the compressor for the next one.
    if is_stream || is_short || headers.contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    // Caches between the two must not give it to a client that cannot read it.
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    if !is_wanted {
        return response;
    }
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.map(compressed)
}

/// Returns true if a client takes gzip, by `Accept-Encoding: gzip, br;q=0.5`.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut codings = values.flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        is_gzip && weight.is_none_or(|weight| weight > 0.0)
    })
}

/// Returns the body, compressed piece by piece.
fn compressed(body: Body) -> Body {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let state = Some((body.into_data_stream(), encoder));
    Body::from_stream(stream::try_unfold(state, async |state| {
        let Some((mut pieces, mut encoder)) = state else { return Ok::<_, io::Error>(None) };
        loop {
            let Some(piece) = pieces.next().await else {
                return Ok(Some((Bytes::from(encoder.finish()?), None)));
            };
            let piece = piece.map_err(io::Error::other)?;
            // A piece may be the whole text of all metrics.
            let work = tokio::task::spawn_blocking(move || {
                encoder.write_all(&piece)?;
                Ok::<_, io::Error>(encoder)
            });
            encoder = work.await.map_err(io::Error::other)??;
            let ready = std::mem::take(encoder.get_mut());
            // The compressor may keep all of a short piece.
            if !ready.is_empty() {
                return Ok(Some((Bytes::from(ready), Some((pieces, encoder)))));
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn clients_get_gzip_if_they_take_it() {
        let accepts = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            accepts_gzip(&headers)
        };
        for value in ["gzip", "br, GZIP;q=0.5", "deflate,gzip ; q=1"] {
            assert!(accepts(value), "{value}");
        }
        for value in ["", "br", "gzip;q=0", "xgzip", "identity"] {
            assert!(!accepts(value), "{value}");
        }
    }

    #[tokio::test]
    async fn a_body_is_the_same_after_decompression() {
        let pieces: Vec<String> = (0..200).map(|number| format!("{number} ").repeat(100)).collect();
        let whole = pieces.concat();
        let stream = stream::iter(pieces.into_iter().map(|piece| Ok::<_, io::Error>(Bytes::from(piece))));
        let body = compressed(Body::from_stream(stream));
        let octets = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        assert!(octets.len() < whole.len() / 4, "{}", octets.len());
        let mut text = String::new();
        GzDecoder::new(&octets[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, whole);
    }
}
