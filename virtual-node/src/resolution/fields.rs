//! What a pod can say about itself: `fieldRef` and `resourceFieldRef`.

use k8s_openapi::api::core::v1::{Pod, PodSpec, ResourceFieldSelector};
use policy::Quantity;
use providers::Value;

use super::{Place, Unresolved, containers, invalid, quantity};

/// The value of `fieldPath`.
pub(super) fn field(pod: &Pod, path: &str, place: &Place, at: &str) -> Result<Value, Unresolved> {
    let plain = |text: Option<&str>| Ok(Value::Plain(text.unwrap_or_default().to_owned()));
    let spec = pod.spec.as_ref();
    match path {
        "metadata.name" => plain(pod.metadata.name.as_deref()),
        "metadata.namespace" => plain(pod.metadata.namespace.as_deref()),
        "metadata.uid" => plain(pod.metadata.uid.as_deref()),
        "metadata.labels" => Ok(Value::Plain(listed(pod.metadata.labels.as_ref()))),
        "metadata.annotations" => Ok(Value::Plain(listed(pod.metadata.annotations.as_ref()))),
        "spec.nodeName" => plain(Some(&place.node_name)),
        "spec.serviceAccountName" => plain(spec.and_then(|spec| spec.service_account_name.as_deref())),
        "status.podIP" | "status.podIPs" => Ok(Value::PodAddress),
        "status.hostIP" | "status.hostIPs" => Ok(Value::HostAddress),
        _ => {
            let entry = |list: &str| path.strip_prefix(list)?.strip_prefix("['")?.strip_suffix("']");
            let (map, key) = if let Some(key) = entry("metadata.labels") {
                (pod.metadata.labels.as_ref(), key)
            } else if let Some(key) = entry("metadata.annotations") {
                (pod.metadata.annotations.as_ref(), key)
            } else {
                return Err(invalid(at, format!("{path:?} is not a field that a pod can be told")));
            };
            plain(map.and_then(|map| map.get(key)).map(String::as_str))
        }
    }
}

/// As a kubelet writes labels and annotations into a file: one `key="value"` per line.
fn listed(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The value of `resourceFieldRef`, in units of its divisor, rounded up. A limit that is not set is all that the pod has.
pub(super) fn resource(
    spec: &PodSpec,
    selector: &ResourceFieldSelector,
    own: &str,
    place: &Place,
    at: &str,
) -> Result<String, Unresolved> {
    let name = selector.container_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(own);
    let container = containers(spec).find(|(_, _, container, _)| container.name == name).map(|(_, _, container, _)| container);
    let container = container.ok_or_else(|| invalid(at, format!("there is no container {name:?}")))?;
    let (list, resource) = selector.resource.split_once('.').unwrap_or_default();
    let resources = container.resources.as_ref();
    let (requests, limits) = (
        resources.and_then(|resources| resources.requests.as_ref()).and_then(|requests| requests.get(resource)),
        resources.and_then(|resources| resources.limits.as_ref()).and_then(|limits| limits.get(resource)),
    );
    let bought = match resource {
        "cpu" => Quantity::from_millis(place.shape.cpu_millis),
        "memory" => Quantity::from_units(place.shape.memory_bytes),
        "ephemeral-storage" => Quantity::from_units(place.shape.ephemeral_bytes),
        _ => return Err(invalid(at, format!("{:?}: limits or requests of cpu, memory or ephemeral-storage", selector.resource))),
    };
    let read = |wire| quantity(wire, || at.to_owned());
    let amount = match list {
        "limits" => limits.map(read).transpose()?.unwrap_or(bought),
        "requests" => requests.or(limits).map(read).transpose()?.unwrap_or(Quantity::ZERO),
        _ => return Err(invalid(at, format!("{:?}: limits or requests of cpu, memory or ephemeral-storage", selector.resource))),
    };
    let divisor = selector.divisor.as_ref().map(read).transpose()?.filter(|divisor| *divisor > Quantity::ZERO);
    let divisor = divisor.unwrap_or(Quantity::from_units(1)).nanos();
    Ok(((amount.nanos() + divisor - 1) / divisor).to_string())
}
