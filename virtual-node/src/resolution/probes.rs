//! Probes, with Kubernetes' defaults filled in.

use k8s_openapi::api::core::v1::Probe as Wire;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use providers::{Port, Probe, ProbeAction};

use super::{Unresolved, invalid, seconds};

pub(super) fn probe(wire: &Wire, ports: &[Port], at: &str) -> Result<Probe, Unresolved> {
    let count = |count: Option<i32>, default: u32| {
        count.and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0).unwrap_or(default)
    };
    let period = |value: Option<i32>, default: i64| seconds(value.map_or(default, i64::from).max(0));
    Ok(Probe {
        action: action(wire, ports, at)?,
        initial_delay: period(wire.initial_delay_seconds, 0),
        period: period(wire.period_seconds, 10),
        timeout: period(wire.timeout_seconds, 1),
        failure_threshold: count(wire.failure_threshold, 3),
        success_threshold: count(wire.success_threshold, 1),
    })
}

fn action(wire: &Wire, ports: &[Port], at: &str) -> Result<ProbeAction, Unresolved> {
    if let Some(exec) = &wire.exec {
        return Ok(ProbeAction::Exec(exec.command.clone().unwrap_or_default()));
    }
    if let Some(get) = &wire.http_get {
        let headers = get.http_headers.iter().flatten();
        return Ok(ProbeAction::Http {
            path: get.path.clone().unwrap_or_else(|| "/".to_owned()),
            port: port(&get.port, ports, &format!("{at}.httpGet.port"))?,
            tls: get.scheme.as_deref() == Some("HTTPS"),
            headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
        });
    }
    if let Some(socket) = &wire.tcp_socket {
        return Ok(ProbeAction::Tcp { port: port(&socket.port, ports, &format!("{at}.tcpSocket.port"))? });
    }
    if let Some(grpc) = &wire.grpc {
        let number = port(&IntOrString::Int(grpc.port), ports, &format!("{at}.grpc.port"))?;
        return Ok(ProbeAction::Grpc { port: number, service: grpc.service.clone().unwrap_or_default() });
    }
    Err(invalid(at, "exec, httpGet, tcpSocket or grpc"))
}

/// A number, or the name of a port of the same container.
fn port(wire: &IntOrString, ports: &[Port], at: &str) -> Result<u16, Unresolved> {
    match wire {
        IntOrString::Int(number) => match u16::try_from(*number) {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(invalid(at, format!("{number}: 1 to 65535"))),
        },
        IntOrString::String(name) => {
            let named = ports.iter().find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.number).ok_or_else(|| invalid(at, format!("the container has no port named {name:?}")))
        }
    }
}
