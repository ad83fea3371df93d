//! kube-scheduler and the extender prove to each other who they are.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::tls::TlsInfo;
use reqwest::{Certificate, Client, Identity};
use serde_json::json;
use world::control_plane::{Component, ExtenderOptions, ExtenderTls, SchedulerOptions, wait_until};

use super::serverless_first;
use crate::scenario::{Extender, PATIENCE, Scenario, marked};

type Authority = CertifiedIssuer<'static, KeyPair>;

const ANSWERED: &str = r#"spillway_extender_requests_total{mode="cache",outcome="answered",verb="filter"}"#;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// Writes certificate and key of somebody at 127.0.0.1, and gives their paths.
fn issue(authority: &Authority, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let (certificate_path, key_path) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    std::fs::write(&certificate_path, params.signed_by(&key, authority).expect("a certificate").pem()).expect("a file");
    std::fs::write(&key_path, key.serialize_pem()).expect("a file");
    (certificate_path, key_path)
}

#[tokio::test]
async fn mutual_tls_goes_on_when_the_certificate_is_replaced() {
    let scenario = Scenario::new(Extender::Absent).await;
    let folder = scenario.plane.folder().to_path_buf();
    let (server, clients, strangers) = (authority(), authority(), authority());
    let (server_ca, client_ca) = (folder.join("extender-ca.crt"), folder.join("scheduler-ca.crt"));
    std::fs::write(&server_ca, server.pem()).expect("a file");
    std::fs::write(&client_ca, clients.pem()).expect("a file");
    let (certificate, key) = issue(&server, &folder, "extender");
    let identity = issue(&clients, &folder, "scheduler");

    scenario.dedicated(2, "8").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.policy("first", "first", serverless_first(&["virtual-0"]), json!({})).await;
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let flags = ["--tls-cert", &path(&certificate), "--tls-key", &path(&key), "--tls-client-ca", &path(&client_ca)];
    scenario.start_with(&flags).await;
    let tls = ExtenderTls { ca_file: server_ca, client: Some(identity.clone()), server_name: None };
    let options = ExtenderOptions { tls: Some(tls), ..ExtenderOptions::new(format!("https://{}/v1", scenario.extender)) };
    scenario.plane.start_scheduler(SchedulerOptions::new().extender(options)).await.expect("kube-scheduler");

    let mut pods = 0;
    let mut one_more = async |when: &str| {
        let before = scenario.metric(ANSWERED).await;
        scenario.pod(&format!("first-{pods}"), "first", "1", marked("1")).await;
        pods += 1;
        assert_eq!(scenario.all_bound("first", pods).await.counts(), (0, pods, 0), "{when}");
        assert!(scenario.metric(ANSWERED).await > before, "{when}");
    };
    one_more("as started").await;
    let first = shown(&scenario, &server, Some(&identity)).await.expect("a certificate");

    // A stranger, and somebody without any certificate, get nowhere.
    let stranger = issue(&strangers, &folder, "stranger");
    assert!(shown(&scenario, &server, Some(&stranger)).await.is_err());
    assert!(shown(&scenario, &server, None).await.is_err());
    assert!(scenario.metric(r#"spillway_extender_connections_refused_total{reason="handshake"}"#).await >= 2.0);

    issue(&server, &folder, "extender");
    wait_until("the new certificate in use", PATIENCE, async || {
        let now = shown(&scenario, &server, Some(&identity)).await?;
        anyhow::ensure!(now != first, "still the old one");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
    one_more("over the connection from before").await;
    scenario.plane.restart(Component::Scheduler).await.expect("kube-scheduler");
    one_more("over a new connection").await;
}

/// The certificate that the extender shows to somebody whom it answers.
async fn shown(scenario: &Scenario, trusted: &Authority, identity: Option<&(PathBuf, PathBuf)>) -> anyhow::Result<Vec<u8>> {
    let builder = Client::builder().no_proxy().tls_info(true).tls_certs_only([Certificate::from_pem(trusted.pem().as_bytes())?]);
    let builder = match identity {
        Some((certificate, key)) => {
            let both = [std::fs::read(certificate)?, std::fs::read(key)?].concat();
            builder.identity(Identity::from_pem(&both)?)
        }
        None => builder,
    };
    let answer = builder.build()?.post(format!("https://{}/v1/filter", scenario.extender)).body("{}").send().await?;
    let info = answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
    info.map(<[u8]>::to_vec).ok_or_else(|| anyhow::anyhow!("no certificate"))
}
