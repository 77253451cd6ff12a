//! The exporter's HTTP: one blocking request after the other, on the exporter's thread.

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// An answer says little; a larger one is no collector's.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// A client, and why its last request failed: the exporter tells only that one did.
#[derive(Clone, Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
    failure: Arc<Mutex<Option<String>>>,
}

impl Client {
    /// Whose requests take no longer than that, bodies included. Certificates are checked against the system's.
    pub(super) fn new(timeout: Duration) -> Self {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::NativeTls)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .tls_config(tls)
            .build();
        Self {
            agent: config.into(),
            failure: Arc::default(),
        }
    }

    /// Why the last request failed.
    pub(super) fn take_failure(&self) -> Option<String> {
        self.failure.lock().take()
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let request = request.map(|body| body.to_vec());
        let (head, mut body) = self.agent.run(request)?.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        if !head.status.is_success() {
            let text = String::from_utf8_lossy(&body);
            let text: String = text.chars().take(200).collect();
            *self.failure.lock() = Some(format!("{}: {}", head.status, text.trim_end()));
        }
        Ok(Response::from_parts(head, Bytes::from(body)))
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.send(request).map_err(|error| {
            *self.failure.lock() = Some(error.to_string());
            error.into()
        })
    }
}
