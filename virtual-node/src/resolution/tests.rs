#![expect(clippy::needless_pass_by_value, reason = "`json!` makes values, and each is used once")]

use k8s_openapi::api::core::v1::{ConfigMap, Secret as WireSecret};
use providers::{ProbeAction, Value, VolumeSource};
use serde_json::{Value as Json, json};

use super::*;
use crate::{Reference, ReferenceKind, references};

const PASSWORD: &str = "hunter2-and-more";

fn place() -> Place {
    let shape = Shape { cpu_millis: 500, memory_bytes: 1 << 30, ephemeral_bytes: 0 };
    Place { node_name: Arc::from("virtual-0"), shape, platform: Platform::default() }
}

fn pod(spec: Json) -> Pod {
    let metadata = json!({"name": "thumbnails-x7k2p", "namespace": "media", "uid": "bcf1ea26",
        "labels": {"app": "thumbnailer"}, "annotations": {"spillway.dev/expected-duration": "90s"}});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod")
}

fn main_container(more: Json) -> Json {
    let mut container = json!({"name": "main", "image": "thumbnailer:1"});
    container.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json!({"restartPolicy": "Never", "containers": [container]})
}

fn objects() -> Objects {
    let map: ConfigMap = serde_json::from_value(json!({"data": {"BUCKET": "media", "sizes.txt": "64\n128\n"},
        "binaryData": {"logo.png": "iVBORw=="}}))
    .expect("a ConfigMap");
    // base64 of PASSWORD, of a storage account and its key, of a docker configuration
    let secret: WireSecret = serde_json::from_value(json!({"data": {"password": "aHVudGVyMi1hbmQtbW9yZQ==",
        "azurestorageaccountname": "YWNjb3VudA==", "azurestorageaccountkey": "a2V5", "bytes": "/w=="}}))
    .expect("a Secret");
    let config = json!({"auths": {"https://registry.example/v2/": {"auth": "dXNlcjpodW50ZXIyLWFuZC1tb3Jl"},
        "ghcr.io": {"username": "bot", "password": "token"}, "broken.example": {}}});
    let login = WireSecret {
        data: Some([(".dockerconfigjson".to_owned(), k8s_openapi::ByteString(config.to_string().into_bytes()))].into()),
        ..WireSecret::default()
    };
    Objects {
        config_maps: [("settings".to_owned(), map)].into(),
        secrets: [("credentials".to_owned(), secret), ("login".to_owned(), login)].into(),
        tokens: [(("token".to_owned(), "token".to_owned()), providers::Secret::new("eyJ"))].into(),
    }
}

fn resolved(spec: Json) -> Resolved {
    resolve(&pod(spec), &place(), &objects()).expect("resolved")
}

fn refused(spec: Json) -> Unresolved {
    resolve(&pod(spec), &place(), &objects()).expect_err("refused")
}

fn variables(more: Json) -> Vec<(String, Value)> {
    let resolved = resolved(main_container(more)).request;
    resolved.containers[0].environment.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect()
}

fn plain(name: &str, value: &str) -> (String, Value) {
    (name.to_owned(), Value::Plain(value.to_owned()))
}

#[test]
fn variables_come_from_everywhere_and_the_later_one_wins() {
    let found = variables(json!({
        "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "300Mi"}},
        "envFrom": [{"prefix": "CONFIG_", "configMapRef": {"name": "settings"}}],
        "env": [
            {"name": "PLAIN", "value": "one"},
            {"name": "EMPTY", "value": ""},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
            {"name": "CORES", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "BUCKET", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "BUCKET"}}},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "credentials", "key": "password"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "nobody", "key": "k", "optional": true}}},
            {"name": "PLAIN", "value": "two"},
            {"name": "URL", "value": "s3://$(BUCKET)/$(PLAIN)?$$(X)$(UNKNOWN)"},
            {"name": "DSN", "value": "postgres://user:$(PASSWORD)@db"},
        ],
    }));
    let secret = |name: &str, value: &str| (name.to_owned(), Value::Secret(providers::Secret::new(value)));
    let wanted = vec![
        plain("CONFIG_BUCKET", "media"),
        plain("CONFIG_sizes.txt", "64\n128\n"),
        plain("PLAIN", "two"),
        plain("EMPTY", ""),
        plain("NAME", "thumbnails-x7k2p"),
        plain("APP", "thumbnailer"),
        plain("NODE", "virtual-0"),
        ("IP".to_owned(), Value::PodAddress),
        plain("CPU", "250"),
        // No limit: all that was bought, half a core, rounded up.
        plain("CORES", "1"),
        plain("MEMORY", "300"),
        plain("BUCKET", "media"),
        secret("PASSWORD", PASSWORD),
        plain("URL", "s3://media/two?$(X)$(UNKNOWN)"),
        secret("DSN", &format!("postgres://user:{PASSWORD}@db")),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn secrets_stay_out_of_commands_and_out_of_sight() {
    let env = json!([{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "credentials", "key": "password"}}}]);
    let error = refused(main_container(json!({"args": ["--password=$(PASSWORD)"], "env": env})));
    assert_eq!((error.field.as_str(), error.reason), ("spec.containers[0].args[0]", INVALID));
    let resolved = resolved(main_container(json!({"env": env, "command": ["sh", "-c", "echo $$(PASSWORD)"]})));
    assert_eq!(resolved.request.containers[0].command[2], "echo $(PASSWORD)");
    for shown in [format!("{error:?} {error}"), format!("{resolved:?}")] {
        assert!(!shown.contains(PASSWORD), "{shown}");
    }
}

#[test]
fn what_must_exist_is_missed_by_name_and_what_may_be_missing_is_noticed() {
    let reference = |kind: &str, name: &str, key: &str| {
        main_container(json!({"env": [{"name": "X", "valueFrom": {kind: {"name": name, "key": key}}}]}))
    };
    let cases = [
        (reference("configMapKeyRef", "nobody", "k"), "MandatoryConfigMapNotFound"),
        (reference("configMapKeyRef", "settings", "k"), "MandatoryConfigMapKeyNotFound"),
        (reference("secretKeyRef", "nobody", "k"), "MandatorySecretNotFound"),
        (reference("secretKeyRef", "credentials", "k"), "MandatorySecretKeyNotFound"),
        (reference("secretKeyRef", "credentials", "bytes"), INVALID),
        (main_container(json!({"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]})), INVALID),
        (main_container(json!({"resources": {"requests": {"cpu": "-1"}}})), INVALID),
        (main_container(json!({"livenessProbe": {"httpGet": {"port": "web"}}})), INVALID),
        (main_container(json!({"securityContext": {"runAsNonRoot": true}})), INVALID),
        (json!({"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Sometimes"}), INVALID),
        (json!({"containers": [{"name": "c", "image": ""}]}), INVALID),
    ];
    for (spec, reason) in cases {
        assert_eq!(refused(spec.clone()).reason, reason, "{spec}");
    }
    let found = resolved(main_container(json!({
        "envFrom": [{"configMapRef": {"name": "nobody", "optional": true}}, {"secretRef": {"name": "nobody", "optional": true}}],
        "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "k", "optional": true}}}],
    })));
    let reasons: Vec<_> = found.notices.iter().map(|notice| notice.reason).collect();
    assert_eq!(reasons, ["OptionalConfigMapNotFound", "OptionalSecretNotFound", "OptionalConfigMapKeyNotFound"]);
    assert!(found.request.containers[0].environment.is_empty());
}

#[test]
fn volumes_become_files_shares_and_directories() {
    let mut spec = main_container(json!({"volumeMounts": [
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "settings", "mountPath": "/etc/settings", "readOnly": true, "subPathExpr": "$(WHERE)"},
        {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
    ], "env": [{"name": "WHERE", "value": "sub"}]}));
    spec["volumes"] = json!([
        {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "chosen", "configMap": {"name": "settings", "defaultMode": 292, "items": [{"key": "sizes.txt", "path": "a/b", "mode": 256}]}},
        {"name": "credentials", "secret": {"secretName": "credentials", "items": [{"key": "password", "path": "password"}]}},
        {"name": "about", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "vault"}},
            {"configMap": {"name": "settings", "items": [{"key": "BUCKET", "path": "bucket"}]}}]}},
        {"name": "share", "azureFile": {"secretName": "credentials", "shareName": "media"}},
        {"name": "share-by-csi", "csi": {"driver": "file.csi.azure.com", "readOnly": true,
            "volumeAttributes": {"secretName": "credentials", "shareName": "media"}}},
        {"name": "efs", "nfs": {"server": "fs-1.efs.eu-central-1.amazonaws.com", "path": "/"}},
        {"name": "kube-api-access-x", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    ]);
    let request = resolved(spec).request;
    let files = |name: &str| {
        let volume = request.volumes.iter().find(|volume| *volume.name == *name).expect("the volume");
        let VolumeSource::Files(files) = &volume.source else { panic!("{volume:?}") };
        let line = |file: &providers::File| format!("{} {:o} {} {}", file.path, file.mode, file.secret, file.content.len());
        files.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(request.volumes.len(), 9, "the default token has no use outside of the cluster");
    assert_eq!(request.volumes[0].source, VolumeSource::Empty { memory: true, size_limit: Some(64 << 20) });
    assert_eq!(files("settings"), ["BUCKET 644 false 5", "logo.png 644 false 4", "sizes.txt 644 false 7"]);
    assert_eq!(files("chosen"), ["a/b 400 false 7"]);
    assert_eq!(files("credentials"), ["password 644 true 16"]);
    assert_eq!(files("about"), ["labels 644 false 17"]);
    assert_eq!(files("token"), ["token 644 true 3", "bucket 644 false 5"]);
    for (place, read_only) in [(6, false), (7, true)] {
        let share = VolumeSource::AzureFile {
            share: "media".to_owned(),
            account: "account".to_owned(),
            key: providers::Secret::new("key"),
            read_only,
        };
        assert_eq!(request.volumes[place].source, share);
    }
    let mounts: Vec<_> =
        request.containers[0].mounts.iter().map(|mount| (&*mount.volume, mount.sub_path.as_deref(), mount.read_only)).collect();
    assert_eq!(mounts, [("scratch", None, false), ("settings", Some("sub"), true)]);
}

#[test]
fn a_path_that_leaves_its_volume_is_refused() {
    for path in ["../x", "/etc/passwd", "a/../../b", ""] {
        let mut spec = main_container(json!({}));
        spec["volumes"] = json!([{"name": "v", "configMap": {"name": "settings", "items": [{"key": "BUCKET", "path": path}]}}]);
        assert_eq!(refused(spec).field, "spec.volumes[0].configMap.items[0].path", "{path}");
    }
}

#[test]
fn probes_security_and_containers() {
    let spec = json!({
        "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 90, "activeDeadlineSeconds": 600,
        "shareProcessNamespace": true, "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db"]}],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "runAsNonRoot": true, "sysctls": [{"name": "net.x", "value": "1"}]},
        "initContainers": [{"name": "fetch", "image": "fetch:1"}, {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}],
        "imagePullSecrets": [{"name": "login"}, {"name": "nobody"}],
        "containers": [{"name": "main", "image": "thumbnailer:1", "workingDir": "/work",
            "ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}],
            "resources": {"limits": {"cpu": "2", "memory": "1Gi", "nvidia.com/gpu": "1"}, "requests": {"cpu": "500m"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "web", "scheme": "HTTPS"}, "periodSeconds": 5},
            "readinessProbe": {"exec": {"command": ["true"]}, "failureThreshold": 7},
            "startupProbe": {"grpc": {"port": 9000, "service": "health"}},
            "securityContext": {"runAsUser": 3000, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}}}],
    });
    let Resolved { request, notices } = resolved(spec);
    assert_eq!((request.restart, request.grace_period), (RestartPolicy::OnFailure, Duration::from_secs(90)));
    assert_eq!(request.run_limit, Some(Duration::from_secs(600)));
    assert_eq!(request.sysctls, [("net.x".to_owned(), "1".to_owned())]);
    let sidecars: Vec<_> = request.init_containers.iter().map(|one| (&*one.name, one.sidecar)).collect();
    assert_eq!(sidecars, [("fetch", false), ("proxy", true)]);
    assert_eq!(request.init_containers[0].security.user, Some(1000));
    let main = &request.containers[0];
    assert_eq!((main.requests.cpu_millis, main.requests.memory_bytes, main.requests.gpus), (500, 1 << 30, 1));
    assert_eq!((main.security.user, main.security.group, main.security.read_only_root), (Some(3000), Some(2000), true));
    let liveness = main.liveness.as_ref().expect("a probe");
    let action = ProbeAction::Http { path: "/healthz".to_owned(), port: 8080, tls: true, headers: vec![] };
    assert_eq!((&liveness.action, liveness.period, liveness.failure_threshold), (&action, Duration::from_secs(5), 3));
    assert_eq!(main.readiness.as_ref().map(|probe| probe.failure_threshold), Some(7));
    assert_eq!(main.startup.as_ref().map(|probe| probe.timeout), Some(Duration::from_secs(1)));
    let logins: Vec<_> = request
        .registries
        .iter()
        .map(|login| (login.server.as_str(), login.username.as_str(), login.password.expose()))
        .collect();
    assert_eq!(logins, [("ghcr.io", "bot", "token"), ("registry.example", "user", PASSWORD)]);
    assert_eq!(notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), ["FailedToRetrieveImagePullSecret"]);
}

#[test]
fn references_name_all_that_must_be_read() {
    let mut spec = main_container(json!({
        "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
        "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}, {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}}],
    }));
    spec["imagePullSecrets"] = json!([{"name": "e"}]);
    spec["volumes"] = json!([
        {"name": "v1", "configMap": {"name": "f"}}, {"name": "v2", "secret": {"secretName": "g"}},
        {"name": "v3", "azureFile": {"secretName": "h", "shareName": "s"}},
        {"name": "v4", "csi": {"driver": "file.csi.azure.com", "volumeAttributes": {"secretName": "i"}}},
        {"name": "v5", "projected": {"sources": [{"configMap": {"name": "j"}}, {"secret": {"name": "k"}}, {"serviceAccountToken": {"path": "t"}}]}},
    ]);
    let (objects, tokens) = references(&pod(spec));
    let named = |kind| {
        let of_kind = objects.iter().filter(|reference| reference.kind == kind);
        of_kind.map(|Reference { name, .. }| name.as_str()).collect::<String>()
    };
    assert_eq!((named(ReferenceKind::ConfigMap), named(ReferenceKind::Secret)), ("acfj".to_owned(), "bdeghik".to_owned()));
    assert_eq!(tokens.iter().map(|token| (token.volume.as_str(), token.expiration_seconds)).collect::<Vec<_>>(), [("v5", 3600)]);
}
