//! Credentials for servers: a user's password, a token, or a DC/OS session.

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Client;
use reqwest::header::HeaderValue;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::login::{self, ServiceAccount};
use super::secret::{self, SecretRef};

/// Form of a token in the header `Authorization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenScheme {
    /// `Bearer TOKEN`
    #[default]
    Bearer,
    /// `token=TOKEN`, as DC/OS expects it.
    Token,
}

/// Credentials of a client and the authorities that it trusts. At most one of the three ways is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    pub basic: Option<SecretRef>,
    pub token: Option<SecretRef>,
    pub token_scheme: TokenScheme,
    pub service_account: Option<SecretRef>,
    /// PEM file with the authorities of servers; `None` for those of the system.
    pub tls_ca: Option<PathBuf>,
    /// PEM files with the client's own certificate and its key.
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
}

/// Reason why there are no credentials to send.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Secret(#[from] secret::Error),
    #[error("the secret in {0} must be USER:PASSWORD, but has no colon")]
    Basic(SecretRef),
    #[error("the secret in {0} has characters that no HTTP header can carry, such as a line break")]
    Header(SecretRef),
    #[error(transparent)]
    Login(#[from] login::Error),
}

/// Credentials by configuration.
#[derive(Debug)]
pub struct Credentials {
    method: AuthMethod,
    /// Token of a login, kept until a server refuses it.
    session: Mutex<Option<SecretString>>,
}

#[derive(Debug)]
enum AuthMethod {
    None,
    Basic(SecretRef),
    Token(SecretRef, TokenScheme),
    ServiceAccount(SecretRef),
}

impl Credentials {
    pub fn new(access: &Access) -> Self {
        let method = if let Some(secret) = &access.basic {
            AuthMethod::Basic(secret.clone())
        } else if let Some(secret) = &access.token {
            AuthMethod::Token(secret.clone(), access.token_scheme)
        } else if let Some(secret) = &access.service_account {
            AuthMethod::ServiceAccount(secret.clone())
        } else {
            AuthMethod::None
        };
        Self { method, session: Mutex::new(None) }
    }

    /// Returns the value of the header `Authorization`; `None` without credentials.
    ///
    /// Secrets are read anew; a login happens only without a session.
    pub async fn header(&self, client: &Client) -> Result<Option<HeaderValue>, Error> {
        let (place, value) = match &self.method {
            AuthMethod::None => return Ok(None),
            AuthMethod::Basic(place) => {
                let secret = place.read().await?;
                let secret = secret.expose_secret();
                // Often a file with the password alone, which the server would refuse without a reason.
                if !secret.contains(':') {
                    return Err(Error::Basic(place.clone()));
                }
                let encoded = Zeroizing::new(BASE64_STANDARD.encode(secret));
                (place, format!("Basic {}", *encoded))
            }
            AuthMethod::Token(place, scheme) => {
                let token = place.read().await?;
                let token = token.expose_secret();
                match scheme {
                    TokenScheme::Bearer => (place, format!("Bearer {token}")),
                    TokenScheme::Token => (place, format!("token={token}")),
                }
            }
            AuthMethod::ServiceAccount(place) => {
                // Held during the login: requests at the same time wait for its session instead of
                // logging in as well.
                let mut session = self.session.lock().await;
                let token = match session.take() {
                    Some(token) => token,
                    None => ServiceAccount::read(place).await?.log_in(client).await?,
                };
                let value = format!("token={}", token.expose_secret());
                *session = Some(token);
                (place, value)
            }
        };
        let value = Zeroizing::new(value);
        let mut value = HeaderValue::from_str(&value).map_err(|_| Error::Header(place.clone()))?;
        // Keeps it out of the `Debug` of requests.
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Forgets a session that a server refused. Returns true if there was one, so that a new login may
    /// help.
    pub async fn end_session(&self) -> bool {
        self.session.lock().await.take().is_some()
    }
}
