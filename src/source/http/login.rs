//! The login of a DC/OS service account: a JSON Web Token, signed with the account's key, for a
//! session token.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use reqwest::{Client, Url};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::error::cause;
use super::secret::{self, SecretRef};
use crate::cluster::shortened;
use crate::source::location::{hide_credentials, without_credentials};

/// Seconds for which a signed request for a login is valid.
const VALID_SECONDS: i64 = 300;

/// Longest answer in bytes; tokens have some hundred.
const MAX_ANSWER: usize = 64 * 1024;

/// A service account's secret, in the shape in which DC/OS hands it out.
#[derive(Debug, Deserialize)]
pub struct ServiceAccount {
    uid: String,
    private_key: SecretString,
    #[serde(deserialize_with = "url")]
    login_endpoint: Url,
    #[serde(default)]
    scheme: Option<String>,
}

/// Reason why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Secret(#[from] secret::Error),
    #[error(
        "the service account in {0} is not a JSON object with uid, private_key and login_endpoint (line {1})"
    )]
    Account(SecretRef, usize),
    #[error("the service account in {0} has the scheme {1:?}; only RS256 is supported")]
    Scheme(SecretRef, String),
    #[error("the private key of service account {0:?} is not an RSA key in PEM of 2048 bits or more")]
    Key(String),
    #[error("cannot sign the login of service account {0:?} with its private key")]
    Sign(String),
    #[error("login of service account {uid:?} at {endpoint} failed: {reason}")]
    Refused { uid: String, endpoint: String, reason: String },
}

#[derive(Serialize)]
struct LoginClaims<'a> {
    uid: &'a str,
    exp: i64,
}

#[derive(Serialize)]
struct LoginRequest<'a> {
    uid: &'a str,
    token: &'a str,
}

#[derive(Deserialize)]
struct LoginSession {
    token: SecretString,
}

impl ServiceAccount {
    /// Reads the secret that describes an account.
    pub async fn read(place: &SecretRef) -> Result<Self, Error> {
        let secret = place.read().await?;
        // The parser's own text may quote a part of the secret.
        let account: Self = serde_json::from_str(secret.expose_secret())
            .map_err(|error| Error::Account(place.clone(), error.line()))?;
        match account.scheme.as_deref() {
            None | Some("RS256") => Ok(account),
            Some(other) => Err(Error::Scheme(place.clone(), other.to_owned())),
        }
    }

    /// Logs in. Returns the token of the session.
    pub async fn log_in(&self, client: &Client) -> Result<SecretString, Error> {
        let refused = |reason: String| Error::Refused {
            uid: self.uid.clone(),
            endpoint: without_credentials(&self.login_endpoint),
            reason,
        };
        let token = self.sign(Timestamp::now())?;
        let body = serde_json::to_vec(&LoginRequest { uid: &self.uid, token: &token })
            .map_err(|_| Error::Sign(self.uid.clone()))?;
        let request = client
            .post(self.login_endpoint.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(body);
        let mut response = request.send().await.map_err(|error| refused(cause(&error)))?;
        let status = response.status();
        // Never followed: it would hand the signed request to a server that the secret does not name.
        if status.is_redirection() {
            let location = response.headers().get(LOCATION).map(|value| value.to_str().unwrap_or_default());
            let location = shortened(hide_credentials(location.unwrap_or_default()));
            return Err(refused(format!(
                "a redirect to {location:?} is not followed; if it is right, make it the login_endpoint"
            )));
        }
        if !status.is_success() {
            return Err(refused(format!("{status} (is the account's public key the one that DC/OS knows?)")));
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| refused(cause(&error)))? {
            // A server that never stops must not fill the memory.
            if answer.len() + chunk.len() > MAX_ANSWER {
                return Err(refused(format!(
                    "the answer has more than {MAX_ANSWER} bytes; is it the login of DC/OS?"
                )));
            }
            answer.extend_from_slice(&chunk);
        }
        // The parser's own text may quote a part of the token.
        let session: LoginSession =
            serde_json::from_slice(&answer).map_err(|_| refused("the answer has no token".to_owned()))?;
        tracing::info!(uid = self.uid, endpoint = without_credentials(&self.login_endpoint), "logged in");
        Ok(session.token)
    }

    /// Returns a JSON Web Token (RFC 7519) that names the account, signed with its key.
    fn sign(&self, now: Timestamp) -> Result<String, Error> {
        let key = || Error::Key(self.uid.clone());
        // PKCS #8 is what openssl writes today, PKCS #1 what it wrote before its version 3.
        let pair = match PrivateKeyDer::from_pem_slice(self.private_key.expose_secret().as_bytes()) {
            Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(key()),
        };
        let pair = pair.map_err(|_| key())?;
        let claims = LoginClaims { uid: &self.uid, exp: now.as_second() + VALID_SECONDS };
        let claims = serde_json::to_vec(&claims).map_err(|_| Error::Sign(self.uid.clone()))?;
        // RFC 7515: header, claims and signature, each in base64 without padding, with dots in between.
        let mut token = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
        token.push('.');
        token.push_str(&BASE64_URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
            .map_err(|_| Error::Sign(self.uid.clone()))?;
        token.push('.');
        token.push_str(&BASE64_URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }
}

fn url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    Url::parse(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    /// Made for these tests by `openssl genpkey -algorithm RSA`.
    const KEY: &str = include_str!("../../../tests/fixtures/keys/service-account.pem");

    fn account(key: &str) -> ServiceAccount {
        ServiceAccount {
            uid: "l4lbd".to_owned(),
            private_key: SecretString::from(key),
            login_endpoint: Url::parse("https://master.mesos/acs/api/v1/auth/login").unwrap(),
            scheme: None,
        }
    }

    #[test]
    fn tokens_are_signed_with_the_accounts_key() {
        let token = account(KEY).sign(Timestamp::from_second(1_000).unwrap()).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap() else {
            panic!()
        };
        let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key())
            .verify(signed.as_bytes(), &signature)
            .unwrap();
        let claims = BASE64_URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1).unwrap();
        assert_eq!(String::from_utf8(claims).unwrap(), r#"{"uid":"l4lbd","exp":1300}"#);
    }

    #[test]
    fn a_bad_key_is_named_by_its_account_and_not_shown() {
        let text = account("-----BEGIN hunter2").sign(Timestamp::now()).unwrap_err().to_string();
        assert!(text.contains("l4lbd") && !text.contains("hunter2"), "{text}");
    }

    #[tokio::test]
    async fn what_is_no_account_is_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("account");
        for (text, part) in [
            (r#"{"uid":"a","private_key":"hunter2"}"#, "login_endpoint"),
            (r#"{"uid":"hunter2","private_key":"k","login_endpoint":"hunter2"}"#, "login_endpoint"),
            (r#"{"uid":"a","private_key":"hunter2","login_endpoint":"http://m","scheme":"HS256"}"#, "RS256"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = ServiceAccount::read(&SecretRef::File(path.clone())).await.unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
        }
    }
}
