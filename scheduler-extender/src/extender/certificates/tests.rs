use std::fs;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tempfile::TempDir;

use super::*;

struct Files {
    directory: TempDir,
    files: CertificateFiles,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.signed_by(&key, &authority()).unwrap().pem(), key.serialize_pem())
}

impl Files {
    fn new() -> Files {
        let directory = TempDir::new().unwrap();
        let path = |name| directory.path().join(name);
        let files = CertificateFiles { certificate: path("tls.crt"), key: path("tls.key"), client_ca: Some(path("ca.crt")) };
        let files = Files { directory, files };
        files.put(&leaf());
        files.write("ca.crt", &authority().pem());
        files
    }

    fn put(&self, (certificate, key): &(String, String)) {
        self.write("tls.crt", certificate);
        self.write("tls.key", key);
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.directory.path().join(name), content).unwrap();
    }

    fn load(&self) -> Result<Certificates, CertificateError> {
        Certificates::load(self.files.clone())
    }
}

/// One round of following.
fn look(certificates: &mut Certificates) -> Option<CertificateEvent> {
    let contents = Contents::read(&certificates.files);
    certificates.take(contents)
}

#[test]
fn unchanged_files_are_no_event() {
    let files = Files::new();
    let mut certificates = files.load().unwrap();
    assert_eq!(look(&mut certificates), None);
}

#[test]
fn a_new_pair_is_taken_and_a_bad_one_is_not() {
    let files = Files::new();
    let mut certificates = files.load().unwrap();
    let first = certificates.config().get_inner();

    let new = leaf();
    files.write("tls.crt", &new.0);
    assert_eq!(look(&mut certificates), Some(CertificateEvent::Rejected), "the key is still the old one");
    assert_eq!(look(&mut certificates), None, "said once");
    assert!(Arc::ptr_eq(&first, &certificates.config().get_inner()), "the last good one stays");

    files.write("tls.key", &new.1);
    assert_eq!(look(&mut certificates), Some(CertificateEvent::Reloaded));
    assert!(!Arc::ptr_eq(&first, &certificates.config().get_inner()));

    fs::remove_file(&files.files.key).unwrap();
    assert_eq!(look(&mut certificates), Some(CertificateEvent::Rejected));
    files.write("tls.key", &new.1);
    assert_eq!(look(&mut certificates), Some(CertificateEvent::Reloaded), "back again");
}

#[test]
fn a_new_client_authority_is_taken() {
    let files = Files::new();
    let mut certificates = files.load().unwrap();
    files.write("ca.crt", &authority().pem());
    assert_eq!(look(&mut certificates), Some(CertificateEvent::Reloaded));
    files.write("ca.crt", "");
    assert_eq!(look(&mut certificates), Some(CertificateEvent::Rejected), "never fall back to no client authentication");
}

#[test]
fn errors_name_the_file() {
    let files = Files::new();
    let says = |name: &str, content: &str| {
        files.put(&leaf());
        files.write(name, content);
        files.load().unwrap_err().to_string()
    };
    assert!(says("tls.crt", "").contains("tls.crt: no certificate in PEM"));
    assert!(says("tls.key", "-----BEGIN").contains("tls.key: no private key in PEM"));
    assert!(says("tls.key", &leaf().1).contains("cannot be used"));
    fs::remove_file(&files.files.certificate).unwrap();
    let missing = files.load().unwrap_err().to_string();
    assert!(missing.contains("cannot read") && missing.contains("tls.crt"), "{missing}");
}
