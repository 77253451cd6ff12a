//! What commands ask a running consumer, over its admin address.

use super::{ConfigArgs, UsageError};
use crate::config::Config;
use crate::config::checked::Secret;
use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// A consumer answers at once, or after a change that may take seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Which consumer.
#[derive(clap::Args, Clone, Debug)]
pub struct AdminArgs {
    /// The running consumer's admin address, if it is not the configuration's admin.listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl AdminArgs {
    /// For asking it.
    pub fn client(&self) -> Result<AdminClient, UsageError> {
        Ok(self.client_within(TIMEOUT)?.0)
    }

    /// For asking it with so much patience, and the configuration.
    pub fn client_within(&self, timeout: Duration) -> Result<(AdminClient, Config), UsageError> {
        let config = self.config.load()?.config;
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .build();
        let client = AdminClient {
            agent: agent.into(),
            address: reachable(self.admin.unwrap_or(config.admin.listen)),
            token: config.admin.token.clone(),
        };
        Ok((client, config))
    }
}

/// Asks one consumer.
pub struct AdminClient {
    agent: ureq::Agent,
    address: SocketAddr,
    token: Option<Secret>,
}

impl AdminClient {
    /// What is at the path.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.read(self.agent.get(self.url(path)).call())
    }

    /// The text at the path, and whether it is one of success.
    pub fn get_text(&self, path: &str) -> anyhow::Result<(bool, String)> {
        self.read_text(self.agent.get(self.url(path)).call())
    }

    /// Whom it asks.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends something new.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.read(self.send(self.agent.post(self.url(path)), body))
    }

    /// Replaces what is there.
    pub fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.read(self.send(self.agent.put(self.url(path)), body))
    }

    /// Takes something away.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.read(self.authorized(self.agent.delete(self.url(path))).call())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn send(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithBody>,
        body: &impl Serialize,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let json = serde_json::to_string(body).expect("plain values are JSON");
        let request = self.authorized(request);
        request.content_type("application/json").send(json)
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(Secret(token)) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<T> {
        let address = self.address;
        let (is_success, text) = self.read_text(answer)?;
        if !is_success {
            bail!("{address}: {}", text.trim_end());
        }
        serde_json::from_str(&text).with_context(|| {
            format!("{address} answered something else than millpond would: {text}")
        })
    }

    fn read_text(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<(bool, String)> {
        let address = self.address;
        let mut answer = answer.with_context(|| {
            format!(
                "no consumer answers at {address}; is `millpond run` there, with that admin.listen?"
            )
        })?;
        let text = answer
            .body_mut()
            .read_to_string()
            .with_context(|| format!("{address} answered only in part"))?;
        Ok((answer.status().is_success(), text))
    }
}

/// An address that is listened on everywhere is reached here.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
