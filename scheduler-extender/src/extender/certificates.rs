//! TLS from files that are replaced while the server runs.
//!
//! cert-manager and mounted Secrets replace certificates without a word, so the files are read again every few
//! seconds and compared. A pair that does not work (half written, key of another certificate, no PEM at all) changes
//! nothing: the last good one stays in use and the failure is said once.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tracing::{info, warn};

use super::observer::{CertificateEvent, Observer};

/// Largest file that is read; a chain has a few kilobytes, a bundle of authorities some hundred.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where the server's identity lies.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The server's certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authorities of client certificates, PEM. With it every client must show a certificate of one of them: the only
    /// way in which kube-scheduler can prove who it is.
    pub client_ca: Option<PathBuf>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Each file can be read, but together they make no TLS server.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// A certificate in use, and the files to follow.
#[derive(Debug)]
pub struct Certificates {
    files: CertificateFiles,
    config: RustlsConfig,
    /// What was last read, good or bad, so that each change is looked at once.
    seen: Contents,
}

/// The files as last read; `None` for one that could not be read.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Contents {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contents")
    }
}

impl Certificates {
    /// Reads the files for the first time. At start a bad certificate is an error, later it is only a warning.
    pub fn load(files: CertificateFiles) -> Result<Certificates, CertificateError> {
        let seen = Contents::read(&files);
        let config = RustlsConfig::from_config(seen.server_config(&files)?);
        Ok(Certificates { files, config, seen })
    }

    /// The configuration that follows reloads.
    pub(super) fn config(&self) -> RustlsConfig {
        self.config.clone()
    }

    /// Follows the files for ever.
    pub(super) async fn follow(mut self, every: Duration, observer: &dyn Observer) -> Infallible {
        loop {
            tokio::time::sleep(every).await;
            let files = self.files.clone();
            // A file read can hang on a dead mount, so it happens off the threads that answer.
            let Ok(contents) = tokio::task::spawn_blocking(move || Contents::read(&files)).await else { continue };
            if let Some(event) = self.take(contents) {
                observer.certificate(event);
            }
        }
    }

    fn take(&mut self, contents: Contents) -> Option<CertificateEvent> {
        if contents == self.seen {
            return None;
        }
        self.seen = contents;
        match self.seen.server_config(&self.files) {
            Ok(config) => {
                self.config.reload_from_config(config);
                info!(certificate = %self.files.certificate.display(), "certificate reloaded");
                Some(CertificateEvent::Reloaded)
            }
            Err(error) => {
                warn!(%error, "new certificate is unusable, the last good one stays in use");
                Some(CertificateEvent::Rejected)
            }
        }
    }
}

impl Contents {
    fn read(files: &CertificateFiles) -> Contents {
        let CertificateFiles { certificate, key, client_ca } = files;
        Contents {
            certificate: read(certificate).ok(),
            key: read(key).ok(),
            client_ca: client_ca.as_ref().and_then(|path| read(path).ok()),
        }
    }

    fn server_config(&self, files: &CertificateFiles) -> Result<Arc<ServerConfig>, CertificateError> {
        let chain = certificates(&files.certificate, self.certificate.as_deref())?;
        let key = loaded(&files.key, self.key.as_deref())?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| content(&files.key, "no private key in PEM"))?;
        // Named here rather than taken from the process, so that no other part of the program decides it.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path, self.client_ca.as_deref())? {
                    roots.add(authority)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| content(path, &error.to_string()))?)
            }
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path, pem: Option<&[u8]>) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = loaded(path, pem)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| content(path, &format!("not PEM: {error}")))?;
    if found.is_empty() { Err(content(path, "no certificate in PEM")) } else { Ok(found) }
}

/// What was read from `path`, or why it could not be: the reason is asked for again, as it is needed for people only.
fn loaded<'a>(path: &Path, bytes: Option<&'a [u8]>) -> Result<&'a [u8], CertificateError> {
    bytes.ok_or_else(|| match read(path) {
        Err(source) => CertificateError::Read { path: path.to_owned(), source },
        Ok(_) => content(path, "could not be read a moment ago"),
    })
}

fn content(path: &Path, what: &str) -> CertificateError {
    CertificateError::Content { path: path.to_owned(), what: what.to_owned() }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
