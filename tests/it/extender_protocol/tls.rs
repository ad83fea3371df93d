//! TLS: who is let in, HTTP/2, and certificates that are replaced while the server runs.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Client, Identity, Version};
use scheduler_extender::extender::certificates::{CertificateFiles, Certificates};
use scheduler_extender::extender::observer::{CertificateEvent, ConnectionRefusal};
use scheduler_extender::extender::server::{Phase, Settings};
use scheduler_extender::extender::verbs::PassThrough;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{Connection, Extender, eventually, filter};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key of somebody at 127.0.0.1.
fn issue(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

struct Setup {
    server: Authority,
    clients: Authority,
    directory: TempDir,
    extender: Extender,
}

impl Setup {
    async fn new(mutual: bool) -> Setup {
        let (server, clients) = (authority(), authority());
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        write(&directory, &issue(&server));
        std::fs::write(path("ca.crt"), clients.pem()).unwrap();
        let client_ca = mutual.then(|| path("ca.crt"));
        let files = CertificateFiles { certificate: path("tls.crt"), key: path("tls.key"), client_ca };
        let certificates = Certificates::load(files).unwrap();
        let settings = Settings { certificate_poll: Duration::from_millis(50), ..Settings::default() };
        let extender = Extender::start(settings, Some(certificates), Arc::new(PassThrough)).await;
        Setup { server, clients, directory, extender }
    }

    async fn filter(&self, client: &Client) -> Result<reqwest::Response, reqwest::Error> {
        client.post(format!("https://{}/filter", self.extender.address)).body(filter(&["a"])).send().await
    }
}

/// A client that trusts `server` and shows a certificate of `identity`.
fn client(server: &Authority, identity: Option<&Authority>) -> Client {
    let trusted = Certificate::from_pem(server.pem().as_bytes()).unwrap();
    let builder = Client::builder().no_proxy().timeout(Duration::from_secs(30)).tls_certs_only([trusted]);
    let builder = match identity.map(issue) {
        Some((certificate, key)) => builder.identity(Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap()),
        None => builder,
    };
    builder.build().unwrap()
}

fn write(directory: &TempDir, (certificate, key): &(String, String)) {
    std::fs::write(directory.path().join("tls.crt"), certificate).unwrap();
    std::fs::write(directory.path().join("tls.key"), key).unwrap();
}

#[tokio::test]
async fn http2_is_negotiated_and_the_length_is_set() {
    let setup = Setup::new(true).await;
    let client = client(&setup.server, Some(&setup.clients));
    let response = setup.filter(&client).await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
    let length = response.headers()["content-length"].to_str().unwrap().parse::<usize>().unwrap();
    let body = response.bytes().await.unwrap();
    assert_eq!(length, body.len());
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["NodeNames"], json!(["a"]));
}

#[tokio::test]
async fn only_clients_of_the_configured_authority_are_let_in() {
    let setup = Setup::new(true).await;
    let stranger = authority();
    assert!(setup.filter(&client(&setup.server, None)).await.is_err(), "no certificate");
    assert!(setup.filter(&client(&setup.server, Some(&stranger))).await.is_err(), "a certificate of somebody else");
    assert!(setup.filter(&client(&setup.server, Some(&setup.server))).await.is_err(), "one of the server's own authority");
    let mut plain = Connection::open(&setup.extender).await;
    assert!(!plain.post_or_closed("/filter", &filter(&["a"])).await, "plain text");
    eventually(async || setup.extender.observer.refusals().len() >= 4).await;
    assert!(setup.extender.observer.refusals().iter().all(|why| *why == ConnectionRefusal::Handshake));
    assert!(setup.extender.observer.calls().is_empty(), "no call came through");
    assert!(setup.filter(&client(&setup.server, Some(&setup.clients))).await.is_ok());
}

#[tokio::test]
async fn without_a_client_authority_everybody_is_let_in() {
    let setup = Setup::new(false).await;
    assert_eq!(setup.filter(&client(&setup.server, None)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart() {
    let setup = Setup::new(true).await;
    let old = client(&setup.server, Some(&setup.clients));
    assert!(setup.filter(&old).await.is_ok());

    let renewed = authority();
    let trusts_renewed = client(&renewed, Some(&setup.clients));
    assert!(setup.filter(&trusts_renewed).await.is_err(), "not yet");
    write(&setup.directory, &issue(&renewed));
    eventually(async || setup.filter(&client(&renewed, Some(&setup.clients))).await.is_ok()).await;
    assert_eq!(setup.extender.observer.certificates().last(), Some(&CertificateEvent::Reloaded));
    assert!(setup.filter(&client(&setup.server, Some(&setup.clients))).await.is_err(), "the old one is gone");
    assert!(setup.filter(&old).await.is_ok(), "established connections go on");
}

#[tokio::test]
async fn a_bad_certificate_is_said_and_the_last_good_one_stays() {
    let setup = Setup::new(true).await;
    std::fs::write(setup.directory.path().join("tls.crt"), "garbage").unwrap();
    eventually(async || setup.extender.observer.certificates() == [CertificateEvent::Rejected]).await;
    assert!(setup.filter(&client(&setup.server, Some(&setup.clients))).await.is_ok());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(setup.extender.observer.certificates(), [CertificateEvent::Rejected], "said once, not at every look");
    write(&setup.directory, &issue(&setup.server));
    eventually(async || setup.extender.observer.certificates().last() == Some(&CertificateEvent::Reloaded)).await;
}

#[tokio::test]
async fn a_new_client_authority_is_used_without_a_restart() {
    let setup = Setup::new(true).await;
    let renewed = authority();
    std::fs::write(setup.directory.path().join("ca.crt"), renewed.pem()).unwrap();
    eventually(async || setup.filter(&client(&setup.server, Some(&renewed))).await.is_ok()).await;
    assert!(setup.filter(&client(&setup.server, Some(&setup.clients))).await.is_err());
}

#[tokio::test]
async fn draining_over_http2_answers_and_stopping_ends_the_connection() {
    let setup = Setup::new(true).await;
    let client = client(&setup.server, Some(&setup.clients));
    assert_eq!(setup.filter(&client).await.unwrap().status(), 200);
    setup.extender.tell(Phase::Draining);
    let response = setup.filter(&client).await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
    setup.extender.tell(Phase::Stopping);
    eventually(async || setup.filter(&client).await.is_err()).await;
    setup.extender.ended().await;
}
