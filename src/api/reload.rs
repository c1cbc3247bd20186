//! Requests to read the configuration file again.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Access, PATIENCE};

/// Request to read the configuration file again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Told what came of it; dropped where nobody waits for that.
    pub done: oneshot::Sender<ReloadAnswer>,
}

/// Outcome of a request to read the configuration file again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// Everything that is wrong with the file, in lines; nothing has changed then.
    pub error: Option<String>,
    /// Keys whose new values count from now on.
    pub applied: Vec<String>,
    /// Keys whose new values need a restart.
    pub pending: Vec<String>,
    /// Remarks on the file, one sentence each.
    pub remarks: Vec<String>,
}

pub(super) async fn reload(State(access): State<Access>) -> Response {
    // The reload goes on where the client stops waiting.
    let (done, answered) = oneshot::channel();
    let asked = async {
        access.parts.reloads.send(ReloadRequest { done }).await.ok()?;
        answered.await.ok()
    };
    let Ok(Some(answer)) = tokio::time::timeout(PATIENCE, asked).await else {
        let busy = "the configuration is still being read; see the log for what comes of it";
        return (StatusCode::SERVICE_UNAVAILABLE, busy).into_response();
    };
    // The client is answered when the kernel has what follows of it.
    if !answer.applied.is_empty() {
        access.compare().await;
    }
    super::json(&answer)
}
