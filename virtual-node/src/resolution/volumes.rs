//! Volumes become files, shares and empty directories; mounts say where they are seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    AzureFileVolumeSource, CSIVolumeSource, ConfigMap, Container as Wire, DownwardAPIVolumeFile, KeyToPath, Pod, PodSpec,
    Volume as WireVolume, VolumeProjection,
};
use providers::{File, Mount, Secret, Value, Volume, VolumeSource};

use super::environment::Environment;
use super::{FILES_BYTES_MAX, Notice, Place, Unresolved, fields, invalid, quantity};
use crate::Objects;

/// Permission bits of files whose volume says nothing.
const MODE: i32 = 0o644;
/// The volume that the API server adds for the pod's own account.
const DEFAULT_TOKEN_VOLUME: &str = "kube-api-access-";
/// Driver name of Azure Files.
const AZURE_FILE_DRIVER: &str = "file.csi.azure.com";

/// Everything that the volumes of one pod are made from.
struct Sources<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    place: &'a Place,
    objects: &'a Objects,
}

/// The volumes, and the names of those left out: the default token, where nobody has asked for one.
pub(super) fn volumes<'a>(
    pod: &'a Pod,
    spec: &'a PodSpec,
    place: &'a Place,
    objects: &'a Objects,
    notices: &mut Vec<Notice>,
) -> Result<(Vec<Volume>, Vec<&'a str>), Unresolved> {
    let sources = Sources { pod, spec, place, objects };
    let (mut volumes, mut dropped, mut bytes) = (Vec::new(), Vec::new(), 0usize);
    for (index, wire) in spec.volumes.iter().flatten().enumerate() {
        let has_token = objects.tokens.keys().any(|(volume, _)| *volume == wire.name);
        if wire.name.starts_with(DEFAULT_TOKEN_VOLUME) && wire.projected.is_some() && !has_token {
            dropped.push(wire.name.as_str());
            continue;
        }
        let at = format!("spec.volumes[{index}]");
        let source = sources.source(wire, &at, notices)?;
        if let VolumeSource::Files(files) = &source {
            bytes = files.iter().fold(bytes, |bytes, file| bytes.saturating_add(file.content.len()));
            if bytes > FILES_BYTES_MAX {
                return Err(invalid(at, format!("the files of the pod's volumes are larger than {FILES_BYTES_MAX} bytes")));
            }
        }
        volumes.push(Volume { name: Arc::from(wire.name.as_str()), source });
    }
    Ok((volumes, dropped))
}

/// Where a container sees its volumes.
pub(super) fn mounts(wire: &Wire, environment: &Environment, dropped: &[&str], field: &str) -> Result<Vec<Mount>, Unresolved> {
    let mut mounts = Vec::new();
    for (index, mount) in wire.volume_mounts.iter().flatten().enumerate() {
        if dropped.contains(&mount.name.as_str()) {
            continue;
        }
        let expanded = mount.sub_path_expr.as_ref().filter(|path| !path.is_empty());
        let expanded = expanded.map(|path| environment.expand_plain(path, &format!("{field}.volumeMounts[{index}].subPathExpr")));
        let sub_path = match expanded {
            Some(path) => Some(path?),
            None => mount.sub_path.clone().filter(|path| !path.is_empty()),
        };
        mounts.push(Mount {
            volume: Arc::from(mount.name.as_str()),
            path: mount.mount_path.clone(),
            sub_path,
            read_only: mount.read_only == Some(true),
        });
    }
    Ok(mounts)
}

// === impl Sources ===

impl Sources<'_> {
    fn source(&self, wire: &WireVolume, at: &str, notices: &mut Vec<Notice>) -> Result<VolumeSource, Unresolved> {
        if let Some(directory) = &wire.empty_dir {
            let limit = directory.size_limit.as_ref().map(|limit| quantity(limit, || format!("{at}.emptyDir.sizeLimit")));
            return Ok(VolumeSource::Empty {
                memory: directory.medium.as_deref() == Some("Memory"),
                size_limit: limit.transpose()?.map(policy::Quantity::units_up),
            });
        }
        if let Some(map) = &wire.config_map {
            let wanted = Wanted { name: &map.name, items: map.items.as_deref(), optional: map.optional, mode: map.default_mode };
            return self.config_map(&wanted, &format!("{at}.configMap"), notices).map(VolumeSource::Files);
        }
        if let Some(secret) = &wire.secret {
            let name = secret.secret_name.as_deref().unwrap_or_default();
            let wanted = Wanted { name, items: secret.items.as_deref(), optional: secret.optional, mode: secret.default_mode };
            return self.secret(&wanted, &format!("{at}.secret"), notices).map(VolumeSource::Files);
        }
        if let Some(downward) = &wire.downward_api {
            let files = downward.items.as_deref().unwrap_or_default();
            return self.downward(files, downward.default_mode, &format!("{at}.downwardAPI")).map(VolumeSource::Files);
        }
        if let Some(projected) = &wire.projected {
            let mut files = Vec::new();
            for (index, source) in projected.sources.iter().flatten().enumerate() {
                let at = format!("{at}.projected.sources[{index}]");
                files.extend(self.projection(&wire.name, source, projected.default_mode, &at, notices)?);
            }
            return Ok(VolumeSource::Files(files));
        }
        if let Some(share) = &wire.azure_file {
            return self.azure_file(share, &format!("{at}.azureFile"));
        }
        if let Some(csi) = wire.csi.as_ref().filter(|csi| csi.driver == AZURE_FILE_DRIVER) {
            return self.azure_file_by_csi(csi, &format!("{at}.csi"));
        }
        if let Some(nfs) = &wire.nfs {
            let read_only = nfs.read_only == Some(true);
            return Ok(VolumeSource::Nfs { server: nfs.server.clone(), path: nfs.path.clone(), read_only });
        }
        Err(invalid(at, "emptyDir, configMap, secret, downwardAPI, projected, azureFile or nfs"))
    }

    fn projection(
        &self,
        volume: &str,
        source: &VolumeProjection,
        mode: Option<i32>,
        at: &str,
        notices: &mut Vec<Notice>,
    ) -> Result<Vec<File>, Unresolved> {
        if let Some(map) = &source.config_map {
            let wanted = Wanted { name: &map.name, items: map.items.as_deref(), optional: map.optional, mode };
            return self.config_map(&wanted, &format!("{at}.configMap"), notices);
        }
        if let Some(secret) = &source.secret {
            let wanted = Wanted { name: &secret.name, items: secret.items.as_deref(), optional: secret.optional, mode };
            return self.secret(&wanted, &format!("{at}.secret"), notices);
        }
        if let Some(downward) = &source.downward_api {
            return self.downward(downward.items.as_deref().unwrap_or_default(), mode, &format!("{at}.downwardAPI"));
        }
        if let Some(token) = &source.service_account_token {
            let key = (volume.to_owned(), token.path.clone());
            let found = self.objects.tokens.get(&key);
            let found = found.ok_or_else(|| invalid(format!("{at}.serviceAccountToken"), "the API server gave no token"))?;
            let content = found.expose().as_bytes().to_vec();
            return Ok(vec![File { path: token.path.clone(), content, secret: true, mode: bits(None, mode) }]);
        }
        Err(invalid(at, "configMap, secret, downwardAPI or serviceAccountToken"))
    }

    fn config_map(&self, wanted: &Wanted<'_>, at: &str, notices: &mut Vec<Notice>) -> Result<Vec<File>, Unresolved> {
        match self.objects.config_maps.get(wanted.name) {
            Some(map) => wanted.files(&entries(map), false, |key| Unresolved::no_config_map_key(at, wanted.name, key), at),
            None if wanted.optional == Some(true) => {
                notices.push(Notice::optional_config_map(wanted.name));
                Ok(Vec::new())
            }
            None => Err(Unresolved::no_config_map(at, wanted.name)),
        }
    }

    fn secret(&self, wanted: &Wanted<'_>, at: &str, notices: &mut Vec<Notice>) -> Result<Vec<File>, Unresolved> {
        match self.objects.secrets.get(wanted.name) {
            Some(secret) => {
                let data = secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())).collect();
                wanted.files(&data, true, |key| Unresolved::no_secret_key(at, wanted.name, key), at)
            }
            None if wanted.optional == Some(true) => {
                notices.push(Notice::optional_secret(wanted.name));
                Ok(Vec::new())
            }
            None => Err(Unresolved::no_secret(at, wanted.name)),
        }
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], mode: Option<i32>, at: &str) -> Result<Vec<File>, Unresolved> {
        let mut files = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let at = format!("{at}.items[{index}]");
            let value = if let Some(field) = &item.field_ref {
                fields::field(self.pod, &field.field_path, self.place, &at)?
            } else if let Some(resource) = &item.resource_field_ref {
                Value::Plain(fields::resource(self.spec, resource, "", self.place, &at)?)
            } else {
                return Err(invalid(at, "fieldRef or resourceFieldRef"));
            };
            let Value::Plain(text) = value else {
                return Err(invalid(at, "an address cannot be written into a file: the cloud decides on it later"));
            };
            let path = inside(&item.path, &at)?;
            files.push(File { path, content: text.into_bytes(), secret: false, mode: bits(item.mode, mode) });
        }
        Ok(files)
    }

    fn azure_file(&self, share: &AzureFileVolumeSource, at: &str) -> Result<VolumeSource, Unresolved> {
        let (account, key) = self.storage_account(&share.secret_name, at)?;
        Ok(VolumeSource::AzureFile { share: share.share_name.clone(), account, key, read_only: share.read_only == Some(true) })
    }

    fn azure_file_by_csi(&self, csi: &CSIVolumeSource, at: &str) -> Result<VolumeSource, Unresolved> {
        let attribute = |name: &str| {
            let found = csi.volume_attributes.as_ref().and_then(|attributes| attributes.get(name));
            found.cloned().ok_or_else(|| invalid(format!("{at}.volumeAttributes.{name}"), "must be there"))
        };
        let (account, key) = self.storage_account(&attribute("secretName")?, at)?;
        Ok(VolumeSource::AzureFile { share: attribute("shareName")?, account, key, read_only: csi.read_only == Some(true) })
    }

    fn storage_account(&self, name: &str, at: &str) -> Result<(String, Secret), Unresolved> {
        let secret = self.objects.secrets.get(name).ok_or_else(|| Unresolved::no_secret(at, name))?;
        let entry = |key: &str| {
            let value: Option<&ByteString> = secret.data.as_ref().and_then(|data| data.get(key));
            let text = value.and_then(|value| String::from_utf8(value.0.clone()).ok());
            text.map(|text| text.trim().to_owned()).ok_or_else(|| Unresolved::no_secret_key(at, name, key))
        };
        Ok((entry("azurestorageaccountname")?, Secret::new(entry("azurestorageaccountkey")?)))
    }
}

/// Some or all entries of an object, as files.
struct Wanted<'a> {
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    optional: Option<bool>,
    mode: Option<i32>,
}

// === impl Wanted ===

impl Wanted<'_> {
    fn files(
        &self,
        data: &BTreeMap<&str, &[u8]>,
        secret: bool,
        missing: impl Fn(&str) -> Unresolved,
        at: &str,
    ) -> Result<Vec<File>, Unresolved> {
        let file =
            |path: String, content: &[u8], mode| File { path, content: content.to_vec(), secret, mode: bits(mode, self.mode) };
        let Some(items) = self.items.filter(|items| !items.is_empty()) else {
            return Ok(data.iter().map(|(key, content)| file((*key).to_owned(), content, None)).collect());
        };
        let mut files = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match data.get(item.key.as_str()) {
                Some(content) => files.push(file(inside(&item.path, &format!("{at}.items[{index}].path"))?, content, item.mode)),
                None if self.optional == Some(true) => {}
                None => return Err(missing(&item.key)),
            }
        }
        Ok(files)
    }
}

/// Texts and bytes of a ConfigMap.
fn entries(map: &ConfigMap) -> BTreeMap<&str, &[u8]> {
    let texts = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let bytes = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    texts.chain(bytes).collect()
}

/// A path that stays in its volume.
fn inside(path: &str, at: &str) -> Result<String, Unresolved> {
    let leaves = path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..");
    if leaves { Err(invalid(at, format!("{path:?}: a relative path without .."))) } else { Ok(path.to_owned()) }
}

fn bits(own: Option<i32>, volume: Option<i32>) -> u16 {
    u16::try_from(own.or(volume).unwrap_or(MODE) & 0o777).unwrap_or_default()
}
