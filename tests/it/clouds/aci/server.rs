//! HTTP and WebSockets around the double. One server for all tests of the process: each has a subscription of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::cloud::{Answer, Cloud};

/// All subscriptions, by identifier.
#[derive(Clone, Default)]
pub(super) struct Clouds(Arc<Mutex<BTreeMap<String, Arc<Mutex<Cloud>>>>>);

/// What a request must carry.
pub(super) const TOKEN: &str = "token-of-the-test";

impl Clouds {
    pub(super) fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Mutex<Cloud>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn serve(listener: TcpListener, clouds: Clouds) {
    let app = Router::new().fallback(answer).with_state(clouds);
    axum::serve(listener, app).await.expect("the double serves");
}

async fn answer(
    State(clouds): State<Clouds>,
    method: Method,
    uri: Uri,
    Query(mut query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if uri.path() == "/api/retail/prices" {
        return prices(&query, uri.path()).into_response();
    }
    let rest = uri.path().trim_start_matches("/subscriptions/");
    let (subscription, path) = rest.split_once('/').unwrap_or((rest, ""));
    query.insert("subscription".to_owned(), subscription.to_owned());
    let known = headers.get("authorization").is_some_and(|value| value == &format!("Bearer {TOKEN}"));
    let cloud = clouds.all().get(subscription).cloned();
    let answer = match cloud {
        _ if !known => Answer::error(401, "InvalidAuthenticationToken", "The access token is invalid."),
        Some(cloud) => {
            let mut cloud = cloud.lock().unwrap_or_else(PoisonError::into_inner);
            cloud.answer(method.as_str(), path, &query, &body)
        }
        None => Answer::error(404, "SubscriptionNotFound", &format!("The subscription '{subscription}' could not be found.")),
    };
    let status = StatusCode::from_u16(answer.status).expect("a status");
    let mut response = match answer.body {
        Some(body) => (status, axum::Json(body)).into_response(),
        None => status.into_response(),
    };
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

/// The price list in two pages. Prices have no description to be checked against; they look as recorded by others.
fn prices(query: &BTreeMap<String, String>, path: &str) -> axum::Json<serde_json::Value> {
    let filter = query.get("$filter").map_or("", String::as_str);
    assert!(filter.contains("serviceName eq 'Container Instances'") && filter.contains("armRegionName eq 'eastus'"), "{filter}");
    let item = |sku: &str, resource: &str, unit: &str, price: f64| {
        json!({
            "currencyCode": "USD", "tierMinimumUnits": 0.0, "retailPrice": price, "armRegionName": "eastus", "type": "Consumption",
            "productName": "Container Instances", "skuName": sku, "serviceName": "Container Instances",
            "meterName": format!("{sku} {resource} Duration"), "unitOfMeasure": unit,
        })
    };
    let host = query.get("host").map_or("", String::as_str);
    let next =
        format!("http://{host}{path}?host={host}&%24skip=100&%24filter={}", filter.replace(' ', "%20").replace('\'', "%27"));
    axum::Json(match query.get("$skip") {
        None => json!({
            "Items": [item("Standard", "vCPU", "1 Hour", 0.0405), item("Standard Spot", "vCPU", "1 Hour", 0.01215)],
            "NextPageLink": next, "Count": 2,
        }),
        Some(_) => json!({
            "Items": [item("Standard", "Memory", "1 GB Hour", 0.00445), item("Standard Spot", "Memory", "1 GB Hour", 0.001335)],
            "NextPageLink": null, "Count": 2,
        }),
    })
}

pub(super) async fn serve_web_sockets(listener: TcpListener, clouds: Clouds) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(talk(stream, clouds.clone()));
    }
}

/// A command that says its name and then repeats what it is told, until the input ends. A wrong password ends it at once.
async fn talk(stream: TcpStream, clouds: Clouds) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let Some(Ok(Message::Text(password))) = socket.next().await else { return };
    let started =
        |cloud: &Arc<Mutex<Cloud>>| cloud.lock().unwrap_or_else(PoisonError::into_inner).commands.remove(password.as_str());
    let command = clouds.all().values().find_map(started);
    let Some(command) = command else { return };
    if socket.send(Message::binary(format!("running {command}\r\n").into_bytes())).await.is_err() {
        return;
    }
    while let Some(Ok(message)) = socket.next().await {
        let bytes = message.into_data();
        if bytes[..] == [4] {
            break;
        }
        if socket.send(Message::binary(bytes)).await.is_err() {
            return;
        }
    }
    let _ = socket.close(None).await;
}
