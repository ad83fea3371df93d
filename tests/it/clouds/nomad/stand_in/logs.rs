//! Output of tasks, whole or as it comes, plain or framed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::stream;
use serde_json::json;

use super::http::{Query, refuse};
use super::world::World;

const LOOK: Duration = Duration::from_millis(20);
/// From one heartbeat of a followed stream to the next, whatever else is sent.
const HEARTBEAT: Duration = Duration::from_secs(1);

struct Reader {
    path: PathBuf,
    name: String,
    offset: usize,
    follow: bool,
    plain: bool,
    beat: Instant,
}

pub(super) fn logs(world: &Arc<World>, id: &str, query: &Query) -> Response {
    let Some(allocation) = world.state().allocations.get(id).cloned() else {
        return refuse(404, &format!("Unknown allocation {id:?}"));
    };
    let task = query.get("task");
    let known = allocation["Job"]["TaskGroups"][0]["Tasks"].as_array().into_iter().flatten().any(|it| it["Name"] == task);
    if !known {
        return refuse(400, &format!("unknown task name {task:?}"));
    }
    if allocation["TaskStates"][task]["StartedAt"].is_null() {
        return refuse(404, &format!("task {task:?} not started yet. No logs available"));
    }
    let name = format!("{task}.{}.0", query.get("type"));
    let path = world.logs(id).join(&name);
    let length = std::fs::metadata(&path).map_or(0, |file| usize::try_from(file.len()).unwrap_or(0));
    let offset: usize = query.get("offset").parse().unwrap_or(0);
    let offset = if query.get("origin") == "end" { length.saturating_sub(offset) } else { offset };
    let plain = query.get("plain") == "true";
    let reader = Reader {
        path,
        name: format!("alloc/logs/{name}"),
        offset,
        follow: query.get("follow") == "true",
        plain,
        beat: Instant::now(),
    };
    let kind = if plain { "text/plain" } else { "application/json" };
    let body = Body::from_stream(stream::unfold(reader, next));
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], body).into_response()
}

/// The next piece. Files are looked at again and again, as a client of Nomad does.
async fn next(mut reader: Reader) -> Option<(Result<Bytes, std::io::Error>, Reader)> {
    loop {
        if reader.follow && !reader.plain && reader.beat.elapsed() >= HEARTBEAT {
            reader.beat = Instant::now();
            return Some((Ok(Bytes::from_static(b"{}")), reader));
        }
        let file = tokio::fs::read(&reader.path).await.unwrap_or_default();
        if file.len() > reader.offset {
            let piece = file[reader.offset..].to_vec();
            reader.offset = file.len();
            let bytes = if reader.plain {
                piece
            } else {
                json!({"Data": BASE64.encode(&piece), "File": reader.name, "Offset": reader.offset}).to_string().into_bytes()
            };
            return Some((Ok(bytes.into()), reader));
        }
        if !reader.follow {
            return None;
        }
        tokio::time::sleep(LOOK).await;
    }
}
