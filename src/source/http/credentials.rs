//! What a server is told so that it answers: a user's password, a token, or a DC/OS session.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Client;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::login::{self, ServiceAccount};
use super::secret::{self, Keeper, Secret};
use crate::source::settings::Access;

/// How a token is written in the header `Authorization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenScheme {
    /// `Bearer TOKEN`
    #[default]
    Bearer,
    /// `token=TOKEN`, as DC/OS has it.
    Token,
}

/// Why there are no credentials to send.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Secret(#[from] secret::Error),
    #[error("the secret in {0} is not USER:PASSWORD")]
    Basic(Keeper),
    #[error("the secret in {0} has characters that no header can carry")]
    Header(Keeper),
    #[error(transparent)]
    Login(#[from] login::Error),
}

/// Credentials by configuration.
#[derive(Debug)]
pub struct Credentials {
    kind: Kind,
    /// Token of a login, until a server refuses it.
    session: Mutex<Option<Secret>>,
}

#[derive(Debug)]
enum Kind {
    None,
    Basic(Keeper),
    Token(Keeper, TokenScheme),
    ServiceAccount(Keeper),
}

impl Credentials {
    pub fn new(access: &Access) -> Self {
        let kind = if let Some(keeper) = &access.basic {
            Kind::Basic(keeper.clone())
        } else if let Some(keeper) = &access.token {
            Kind::Token(keeper.clone(), access.token_scheme)
        } else if let Some(keeper) = &access.service_account {
            Kind::ServiceAccount(keeper.clone())
        } else {
            Kind::None
        };
        Self { kind, session: Mutex::new(None) }
    }

    /// The value of `Authorization`, if there is one. Secrets are read anew; a login happens only
    /// where there is no session.
    pub async fn header(&self, client: &Client) -> Result<Option<HeaderValue>, Error> {
        let (keeper, value) = match &self.kind {
            Kind::None => return Ok(None),
            Kind::Basic(keeper) => {
                let secret = keeper.read().await?;
                if !secret.expose().contains(':') {
                    return Err(Error::Basic(keeper.clone()));
                }
                (keeper, format!("Basic {}", BASE64_STANDARD.encode(secret.expose())))
            }
            Kind::Token(keeper, TokenScheme::Bearer) => {
                (keeper, format!("Bearer {}", keeper.read().await?.expose()))
            }
            Kind::Token(keeper, TokenScheme::Token) => {
                (keeper, format!("token={}", keeper.read().await?.expose()))
            }
            Kind::ServiceAccount(keeper) => {
                let mut session = self.session.lock().await;
                let token = match session.take() {
                    Some(token) => token,
                    None => ServiceAccount::read(keeper).await?.log_in(client).await?,
                };
                let value = format!("token={}", token.expose());
                *session = Some(token);
                (keeper, value)
            }
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| Error::Header(keeper.clone()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Forgets a session that a server refused. Returns whether there was one, so that a new login
    /// may help.
    pub async fn end_session(&self) -> bool {
        self.session.lock().await.take().is_some()
    }
}
