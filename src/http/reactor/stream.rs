//! A connection's socket that doesn't block, in plain text or TLS.

use mio::net::TcpStream;
use openssl::ssl::{Ssl, SslAcceptor, SslContext, SslFiletype, SslMethod, SslStream};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::Path;

/// A certificate and its key, for all connections of a server.
pub struct Tls(SslContext);

impl Tls {
    /// Reads both, in PEM: the certificate with those that vouch for it, the key without a password.
    ///
    /// # Errors
    /// A file can't be read or holds something else, or the two don't belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, String> {
        let of = |path: &Path| {
            let path = path.display().to_string();
            move |error: openssl::error::ErrorStack| format!("{path}: {error}")
        };
        // Mozilla's intermediate profile: TLS 1.2 and 1.3.
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())
            .map_err(|error| error.to_string())?;
        builder
            .set_certificate_chain_file(certificate)
            .map_err(of(certificate))?;
        builder
            .set_private_key_file(key, SslFiletype::PEM)
            .map_err(of(key))?;
        builder.check_private_key().map_err(of(key))?;
        Ok(Self(builder.build().into_context()))
    }
}

/// A client's socket.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(SslStream<TcpStream>),
}

impl Stream {
    /// The handshake goes along with the first reads and writes.
    pub(super) fn new(stream: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        let Some(Tls(context)) = tls else {
            return Ok(Self::Plain(stream));
        };
        let mut ssl = Ssl::new(context)?;
        ssl.set_accept_state();
        Ok(Self::Tls(SslStream::new(ssl, stream)?))
    }

    /// The socket.
    pub(super) fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_mut(),
        }
    }

    /// Whether clients can be heard; always so in plain text.
    pub(super) fn has_shaken_hands(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(stream) => stream.ssl().is_init_finished(),
        }
    }

    /// What has come; `WouldBlock` where nothing has.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        })
    }

    /// As much as there is room for; `WouldBlock` where there is none.
    pub(super) fn write(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        uninterrupted(|| match self {
            Self::Plain(stream) => stream.write_vectored(parts),
            Self::Tls(stream) => match parts.iter().find(|part| !part.is_empty()) {
                Some(part) => stream.write(part),
                None => Ok(0),
            },
        })
    }

    /// The client reads to the end of what was written, and then sees ours.
    pub(super) fn end_writing(&mut self) {
        if let Self::Tls(stream) = self {
            // Fails only where the connection has ended already.
            let _ = stream.shutdown();
        }
        let _ = self.socket().shutdown(Shutdown::Write);
    }
}

fn uninterrupted(mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
